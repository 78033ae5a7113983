package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/agent"
)

// labPrograms is set in the process that runs in a network of its own; it holds the folder of the programs.
const labPrograms = "OUTFEED_TEST_LAB"

// inLab says whether this process has a network of its own; when not, it runs the test in one that has.
func inLab(t *testing.T) bool {
	t.Helper()
	if os.Getenv(labPrograms) != "" {
		return true
	}
	namespaces := []string{"--net", "--mount"}
	if os.Getuid() != 0 {
		namespaces = append(namespaces, "--user", "--map-current-user", "--keep-caps")
	}
	bin(t, "outfeed-agent")
	pattern := flag.Lookup("test.run").Value.String()
	if !strings.HasPrefix(strings.TrimPrefix(pattern, "^"), t.Name()) {
		pattern = "^" + t.Name() + "$"
	}
	args := append(namespaces, os.Args[0], "-test.run", pattern, fmt.Sprintf("-test.v=%v", testing.Verbose()), "-test.parallel", "100", fmt.Sprintf("-long=%v", *long), "-links="+badLinksFor.String()) //nolint:gocritic // a new list
	if at, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", (time.Until(at) - 10*time.Second).String())
	}
	c := exec.CommandContext(t.Context(), "unshare", args...) //nolint:gosec // this test itself
	c.Env = append(os.Environ(), labPrograms+"="+programs.dir)
	c.WaitDelay = deadline
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a network of its own: %v (it takes root, or user namespaces: sysctl kernel.unprivileged_userns_clone=1; and the Debian packages iproute2 nginx haproxy squid)", err)
	}
	return false
}

// lab is a control plane in a network of its own, the machines around it, and what stands in between.
type lab struct {
	*site
	dir string
	ca  *authority
	// flow is the folder whose files the flow reads.
	flow string

	mu    sync.Mutex
	count int
}

// names are the hosts that the control plane's own network knows, all of them itself.
var names = []string{"cp.outfeed.test", "nginx.outfeed.test", "haproxy.outfeed.test", "forbidden.outfeed.test", "unknown.outfeed.test"}

// numbered is an address of the control plane that is not loopback, to which no proxy would apply.
const numbered = "10.97.0.1"

const (
	portTLS   = "8443"
	portPlain = "8480"
)

func newLab(t *testing.T) *lab {
	t.Helper()
	programs.once.Do(func() { programs.error = takePrograms(os.Getenv(labPrograms), programs.dir) })
	dir := enterable(t)
	l := &lab{dir: dir, ca: newAuthority(t, "Plant Test CA"), flow: filepath.Join(dir, "flow")}
	hosts := filepath.Join(dir, "hosts")
	writeFile(t, hosts, "127.0.0.1 localhost "+strings.Join(names, " ")+"\n")
	if err := errors.Join(ip("link set lo up"), os.Mkdir(l.flow, 0o755), unix.Mount(hosts, "/etc/hosts", "", unix.MS_BIND, "")); err != nil { //nolint:gosec // for every account
		t.Fatal(err)
	}
	l.site = &site{t: t, dir: enterable(t), api: "127.0.0.1:" + portPlain, admin: "127.0.0.1:8481", tls: "127.0.0.1:" + portTLS, link: &link{address: "cp.outfeed.test:" + portTLS}}
	l.ca.issue(t, l.path("server"), names...)
	if err := os.Chmod(l.path("server.key"), 0o600); err != nil { // or the control plane refuses it
		t.Fatal(err)
	}
	l.startControlPlane()
	l.createTenant()
	// What kinds of connection there are, the control plane learns from its first agent.
	first := l.enrol(t, nil, names[0]+":"+portTLS)
	first.start()
	first.untilSeen(deadline, true)
	l.deploy()
	return l
}

// What the flow of every machine is called, and what the rows have that it makes an insight each of.
const (
	flowName    = "press-secrets"
	insightName = "press_recipe"
	flowMark    = "recipe-7391"
	flowRows    = 200
)

// deploy gives every machine a flow.
func (l *lab) deploy() {
	l.t.Helper()
	var rows strings.Builder
	rows.WriteString("ts,machine,recipe,n\n")
	for n := range flowRows {
		fmt.Fprintf(&rows, "2026-01-01T00:00:00Z,press-17,%s,%d\n", flowMark, n)
	}
	writeFile(l.t, filepath.Join(l.flow, "rows.csv"), rows.String())
	l.connections(fmt.Sprintf("files: {kind: file, root: %q}\n", l.flow))
	l.apply("flow: " + flowName + `
trigger: continuous
steps:
  - read: files
    with: {path: "*.csv", format: csv, follow: true}
    schema: {ts: timestamp, machine: string, recipe: string, n: int}
  - insight: ` + insightName + `
    key: [machine]
`)
}

func takePrograms(from, to string) error {
	for _, name := range []string{"outfeed-agent", "outfeed-controlplane", "outfeed"} {
		if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return fmt.Errorf("take over the programs: %w", err)
		}
	}
	return nil
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil { //nolint:gosec // for every account
		t.Fatal(err)
	}
}

// startControlPlane starts it on every address of its network.
func (l *lab) startControlPlane() {
	l.t.Helper()
	env := append(l.controlPlaneEnv(), "OUTFEED_TLS_LISTEN=:"+portTLS, "OUTFEED_TLS_CERT_FILE="+l.path("server.crt"), "OUTFEED_TLS_KEY_FILE="+l.path("server.key"))
	l.controlPlane = start(l.t, l.path("controlplane.log"), env, bin(l.t, "outfeed-controlplane"), "serve")
	l.waitReady()
}

// number gives each plant its own.
func (l *lab) number() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	return l.count
}

// machine is an agent.
type machine struct {
	*lab
	t *testing.T
	// at is its data directory.
	at    string
	plant *plant
	env   []string
	*process
}

// enrol makes an agent that reaches the control plane at the address. Its plant is nil when it lives in the control
// plane's own network.
func (l *lab) enrol(t *testing.T, p *plant, address string) *machine {
	t.Helper()
	m := &machine{lab: l, t: t, plant: p, at: filepath.Join(l.dir, strings.ReplaceAll(t.Name(), "/", "-"))}
	m.env = []string{"OUTFEED_AGENT_DATA_DIR=" + m.at, "OUTFEED_AGENT_CA_FILE=" + l.ca.file, "OUTFEED_AGENT_LOG_LEVEL=debug", "GOMAXPROCS=1"}
	// The token is made under this test, so that a failure is its own.
	s := *l.site
	s.t = t
	s.command(append(m.env, "OUTFEED_AGENT_PROXY=none"), nil, bin(t, "outfeed-agent"), "enroll", "--url", "https://"+address, "--token", s.token())
	return m
}

func (m *machine) log() string { return m.at + ".log" }

// start starts the agent, with more of an environment.
func (m *machine) start(env ...string) {
	m.t.Helper()
	run := func() error {
		m.process = start(m.t, m.log(), append(m.env, env...), bin(m.t, "outfeed-agent"), "run")
		return nil
	}
	if m.plant == nil {
		_ = run()
		return
	}
	if err := m.plant.do(run); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) restart(env ...string) {
	m.t.Helper()
	m.stop()
	m.start(env...)
}

// status is what outfeed-agent status shows.
func (m *machine) status() (agent.LocalStatus, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
	defer cancel()
	return agent.ReadStatus(ctx, agent.Config{DataDir: m.at})
}

// until waits for a state of the agent's tunnel and gives it.
func (m *machine) until(what string, limit time.Duration, ok func(agent.LocalStatus) bool) agent.LocalStatus {
	m.t.Helper()
	began := time.Now()
	var last agent.LocalStatus
	m.within(what, limit, func() error {
		s, err := m.status()
		if err != nil {
			return err
		}
		last = s
		if !ok(s) {
			return fmt.Errorf("after %s the agent says %+v", time.Since(began).Round(time.Second), s.Tunnel)
		}
		return nil
	})
	return last
}

func (m *machine) within(what string, limit time.Duration, ask func() error) {
	m.t.Helper()
	defer func() {
		if m.t.Failed() {
			m.t.Logf("the agent's log:\n%s", tail(m.log(), 3000))
		}
	}()
	within(m.t, limit, what, ask)
}

// untilConnected waits for a session and gives when it began.
func (m *machine) untilConnected(limit time.Duration) time.Time {
	m.t.Helper()
	return m.until("the agent is connected", limit, func(s agent.LocalStatus) bool { return s.Tunnel.Connected }).Tunnel.Since
}

// untilConnectedAfter waits for a session that began after a time: one that has ended may be followed by the next before
// anyone has asked.
func (m *machine) untilConnectedAfter(at time.Time, limit time.Duration) {
	m.t.Helper()
	m.until("there is a new session", limit, func(s agent.LocalStatus) bool { return s.Tunnel.Connected && s.Tunnel.Since.After(at) })
}

// untilError waits until the agent says why it is not connected, and that it says so in these words.
func (m *machine) untilError(limit time.Duration, words ...string) string {
	m.t.Helper()
	return m.until("the agent says "+strings.Join(words, ", "), limit, func(s agent.LocalStatus) bool {
		for _, w := range words {
			if !strings.Contains(s.Tunnel.Error, w) {
				return false
			}
		}
		return !s.Tunnel.Connected && s.Tunnel.Error != ""
	}).Tunnel.Error
}

// seen says whether the control plane has the agent as connected.
func (m *machine) seen() (bool, error) {
	s, err := m.status()
	if err != nil {
		return false, err
	}
	var known struct {
		Connected bool `json:"connected"`
	}
	err = m.get("/agents/"+s.AgentID, &known)
	return known.Connected, err
}

func (m *machine) untilSeen(limit time.Duration, want bool) {
	m.t.Helper()
	m.within(fmt.Sprintf("the control plane has the agent as connected=%v", want), limit, func() error {
		got, err := m.seen()
		if err == nil && got != want {
			err = fmt.Errorf("it has connected=%v", got)
		}
		return err
	})
}

// wait lets time pass.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// authority is a certificate authority.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{file: filepath.Join(enterable(t), "ca.pem"), key: key}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writeFile(t, a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// issue writes a certificate and its key for hosts into FILE.crt, FILE.key and FILE.pem, which has both.
func (a *authority) issue(t *testing.T, file string, hosts ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(numbered)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	crt := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	writeFile(t, file+".crt", crt)
	writeFile(t, file+".key", private)
	writeFile(t, file+".pem", crt+private)
}
