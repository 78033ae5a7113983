package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// deadline is how long anything here may take to come about. It is generous: nothing fails because a machine is slow.
const deadline = 2 * time.Minute

// site is a control plane and an agent that reaches it over a link that a test can cut.
type site struct {
	t   *testing.T
	dir string
	// api is the control plane's plain HTTP address, link the address that the agent knows.
	api, admin, tls string
	link            *link
	apiKey          string
	controlPlane    *process
	agent           *process
	// agentDir is the agent's data directory; another gives a second one. agentExtra is environment beyond agentEnv, such
	// as limits; agentConfig is the text of a configuration file of its own, none when empty.
	agentDir    string
	agentExtra  []string
	agentConfig string
	// controlPlaneExtra is environment beyond controlPlaneEnv, such as the address of a PostgreSQL of the test's own.
	controlPlaneExtra []string
	// programs finds the project's programs; bin when nil.
	programs func(t *testing.T, name string) string
}

// bin is the path of one of the project's programs, such as outfeed-agent.
func bin(t *testing.T, name string) string {
	t.Helper()
	if err := programs.build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(programs.dir, name)
}

// bin is the path of a program as this site runs it.
func (s *site) bin(name string) string {
	s.t.Helper()
	if s.programs != nil {
		return s.programs(s.t, name)
	}
	return bin(s.t, name)
}

// enterable is a folder that the account that PostgreSQL runs as may enter, which t.TempDir is not for root.
func enterable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "outfeed-e2e") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept for a look: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // that is its purpose
		t.Fatal(err)
	}
	return dir
}

// The ports of freeAddress are below those that Linux gives to connections that go out, so that none of them takes one while
// a program that is killed and started again does not listen.
const lowestPort, ports = 15000, 16000

// nextPort is counted on from a random place, so that no two programs of these tests are given the same port.
var nextPort atomic.Uint64 //nolint:gochecknoglobals // all tests of the process share the machine's ports

// freeAddress is an address that nothing listens on, and that is given to nobody else.
func freeAddress(t *testing.T) string {
	t.Helper()
	nextPort.CompareAndSwap(0, mathrand.Uint64N(ports)+1) //nolint:gosec // nothing secret
	const tries = 100
	for range tries {
		address := fmt.Sprintf("127.0.0.1:%d", lowestPort+nextPort.Add(1)%ports)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			continue
		}
		l.Close() //nolint:errcheck // the address is all that is wanted
		return address
	}
	t.Fatal("no port is free")
	return ""
}

// newSite starts a control plane with a tenant, and enrols and starts an agent.
func newSite(t *testing.T) *site {
	t.Helper()
	s := newControlPlane(t)
	s.enrol(s.link.address)
	s.startAgent()
	s.waitConnected()
	return s
}

// newControlPlane starts a control plane with a tenant.
func newControlPlane(t *testing.T) *site {
	t.Helper()
	s := prepareSite(t)
	s.startControlPlane()
	s.createTenant()
	return s
}

// prepareSite starts nothing yet.
func prepareSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: enterable(t), api: freeAddress(t), admin: freeAddress(t), tls: freeAddress(t)}
	s.agentDir = s.path("agent")
	s.link = newLink(t, s.tls)
	return s
}

// another is the same site with a second agent, whose data directory has that name. It is neither enrolled nor started.
// The first site looks after the control plane.
func (s *site) another(name string) *site {
	second := *s
	second.agent, second.agentDir = nil, s.path(name)
	return &second
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *site) controlPlaneEnv() []string {
	return append([]string{
		"OUTFEED_DATA_DIR=" + s.path("cp"), "OUTFEED_LISTEN=" + s.api, "OUTFEED_TLS_LISTEN=" + s.tls, "OUTFEED_ADMIN_LISTEN=" + s.admin,
		"OUTFEED_PUBLIC_URL=https://" + s.link.address,
	}, s.controlPlaneExtra...)
}

// startControlPlane starts it and waits until it serves.
func (s *site) startControlPlane() {
	s.t.Helper()
	s.launchControlPlane()
	s.waitReady()
}

// launchControlPlane starts it and waits for nothing.
func (s *site) launchControlPlane() {
	s.t.Helper()
	s.controlPlane = start(s.t, s.path("controlplane.log"), s.controlPlaneEnv(), s.bin("outfeed-controlplane"), "serve")
}

func (s *site) waitReady() {
	s.t.Helper()
	s.eventually("the control plane serves", func() error {
		s.controlPlane.mustLive()
		resp, err := http.Get("http://" + s.api + "/readyz") //nolint:noctx // eventually bounds it
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // nothing of it is read
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func (s *site) createTenant() {
	s.t.Helper()
	var made struct {
		APIKey string `json:"api_key"`
	}
	out := s.command(s.controlPlaneEnv(), nil, s.bin("outfeed-controlplane"), "admin", "tenant", "create", "Plant "+rand.Text()[:6], "--owner", "owner@example.com", "--json")
	if err := json.Unmarshal(out, &made); err != nil || made.APIKey == "" {
		s.t.Fatalf("admin tenant create printed %s (%v)", out, err)
	}
	s.apiKey = made.APIKey
	s.outfeed(strings.NewReader(made.APIKey), "login", "http://"+s.api, "--api-key-stdin")
}

// token makes an enrolment token.
func (s *site) token() string {
	s.t.Helper()
	var token struct {
		Token string `json:"token"`
	}
	out := s.outfeed(nil, "agent", "token", "--label", "site=test", "--json")
	if err := json.Unmarshal(out, &token); err != nil || token.Token == "" {
		s.t.Fatalf("agent token printed %s (%v)", out, err)
	}
	return token.Token
}

func (s *site) agentEnv() []string {
	return append([]string{"OUTFEED_AGENT_DATA_DIR=" + s.agentDir, "OUTFEED_AGENT_CA_FILE=" + s.path("cp", "tls", "cert.pem"), "OUTFEED_AGENT_LOG_LEVEL=debug"}, s.agentExtra...)
}

func (s *site) enrol(address string) {
	s.t.Helper()
	file := s.path("token")
	if err := os.WriteFile(file, []byte(s.token()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.command(s.agentEnv(), nil, s.bin("outfeed-agent"), "enroll", "--url", "https://"+address, "--token-file", file)
}

func (s *site) startAgent() {
	s.t.Helper()
	args := []string{"run"}
	if s.agentConfig != "" {
		file := s.agentDir + ".yaml"
		if err := os.WriteFile(file, []byte(s.agentConfig), 0o600); err != nil {
			s.t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	s.agent = start(s.t, s.agentLog(), s.agentEnv(), s.bin("outfeed-agent"), args...)
}

func (s *site) agentLog() string { return s.agentDir + ".log" }

func (s *site) waitConnected() {
	s.t.Helper()
	s.eventually("the agent is connected", func() error {
		s.agent.mustLive()
		var list struct {
			Items []struct {
				Connected bool `json:"connected"`
			} `json:"items"`
		}
		if err := s.get("/agents", &list); err != nil {
			return err
		}
		if len(list.Items) == 0 || !list.Items[0].Connected {
			return fmt.Errorf("agents: %+v", list.Items)
		}
		return nil
	})
}

// outfeed runs the client, signed in.
func (s *site) outfeed(stdin *strings.Reader, args ...string) []byte {
	s.t.Helper()
	return s.command([]string{"OUTFEED_CONFIG=" + s.path("client.json")}, stdin, s.bin("outfeed"), args...)
}

// command runs a program that must succeed and gives its standard output.
func (s *site) command(env []string, stdin *strings.Reader, name string, args ...string) []byte {
	s.t.Helper()
	out, said, err := s.try(env, stdin, name, args...)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, said)
	}
	return out
}

// try runs a program that may fail.
func (s *site) try(env []string, stdin *strings.Reader, name string, args ...string) (out []byte, said string, err error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), deadline)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // the project's own binaries
	c.Env = append(cleanEnv(), env...)
	if stdin != nil {
		c.Stdin = stdin
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	return stdout.Bytes(), stderr.String(), err
}

// cleanEnv is this process's environment without Outfeed's own variables.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "OUTFEED_") })
}

// apply writes a definition to a file and publishes and deploys it on the agent.
func (s *site) apply(definition string) {
	s.t.Helper()
	file := s.path("flow-" + rand.Text()[:8] + ".yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.outfeed(nil, "flow", "apply", file, "--publish", "--deploy", "site=test")
}

func (s *site) connections(text string) {
	s.t.Helper()
	file := s.path("connections.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.outfeed(nil, "connection", "apply", "-f", file)
}

// get asks the API.
func (s *site) get(path string, into any) error {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.api+"/api/v1"+path, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.apiKey)
	client := http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// insight is one insight as the API shows it.
type insight struct {
	Seq    int64           `json:"seq"`
	Time   time.Time       `json:"time"`
	Name   string          `json:"name"`
	Key    json.RawMessage `json:"key"`
	Values json.RawMessage `json:"values"`
}

// insights reads all the insights of a name, oldest first by sequence.
// whole reads all that the only agent has told; a list has it in brief.
func (s *site) whole(into any) error {
	var list struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	if err := s.get("/agents", &list); err != nil || len(list.Items) != 1 {
		return fmt.Errorf("%d agents: %w", len(list.Items), err)
	}
	return s.get("/agents/"+list.Items[0].ID, into)
}

func (s *site) insights(name string) ([]insight, error) {
	var all []insight
	for after := ""; ; {
		var page struct {
			Items []insight `json:"items"`
			Next  string    `json:"next"`
		}
		q := url.Values{"name": {name}, "limit": {"10000"}}
		if after != "" {
			q.Set("after", after)
		}
		if err := s.get("/insights?"+q.Encode(), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			break
		}
	}
	slices.SortFunc(all, func(a, b insight) int { return int(a.Seq - b.Seq) })
	return all, nil
}

// eventually asks until the answer is good.
func (s *site) eventually(what string, ask func() error) {
	s.t.Helper()
	eventually(s.t, what, ask)
}

func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	within(t, deadline, what, ask)
}

// within asks until the answer is good, for as long as is said.
func within(t *testing.T, limit time.Duration, what string, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v until %s: %v", limit, what, err)
		case <-tick.C:
		}
	}
}

// postmaster is the process id of the control plane's private PostgreSQL.
func (s *site) postmaster() int {
	s.t.Helper()
	text, err := os.ReadFile(s.path("cp", "postgres", "pgdata", "postmaster.pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// process is a program that runs beside the test.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	began time.Time
	gone  chan struct{}
	// killed says that a test has ended it, so that its log is another one's by now.
	killed bool
}

// start runs a program with its output appended to a file, and stops it when the test ends.
func start(t *testing.T, logFile string, env []string, name string, args ...string) *process {
	t.Helper()
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()                //nolint:errcheck // the child has its own handle
	c := exec.Command(name, args...) //nolint:gosec,noctx // stop ends it, with the right signal
	c.Env = append(cleanEnv(), env...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: c, began: time.Now(), gone: make(chan struct{})}
	go func() {
		defer close(p.gone)
		c.Wait() //nolint:errcheck // a killed process is no error here
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() && !p.killed {
			t.Logf("the end of %s:\n%s", logFile, tail(logFile, 4000))
		}
	})
	return p
}

// mustLive ends the test when the process has ended by itself.
func (p *process) mustLive() {
	p.t.Helper()
	select {
	case <-p.gone:
		p.t.Fatalf("%s ended by itself", filepath.Base(p.cmd.Path))
	default:
	}
}

// kill ends it at once, as a power cut would.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.gone
	p.killed = true
}

// end kills it unless it has ended.
func (p *process) end() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	<-p.gone
	p.killed = true
}

// stopAll asks the process and its children to end, as a service manager does, and waits.
func (p *process) stopAll() {
	p.t.Helper()
	kill(p.t, -p.cmd.Process.Pid, syscall.SIGTERM)
	<-p.gone
	p.killed = true
}

// stop asks it to end and waits.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return
	}
	t := time.NewTimer(deadline)
	defer t.Stop()
	select {
	case <-p.gone:
	case <-t.C:
		p.t.Errorf("%s did not stop within %v", filepath.Base(p.cmd.Path), deadline)
		p.kill()
	}
}

func tail(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}
