package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// quietFlow reads a connection that has a password.
const quietFlow = `
flow: quiet
trigger: continuous
steps:
  - read: press
    with: {topic: plant/press/+/state, format: json}
    schema: {ts: timestamp, machine: string, n: int}
  - insight: quiet
    key: [machine]
`

// connectProxy is an HTTP proxy that wants a user and a password, until the test ends.
func connectProxy(t *testing.T, user, password string) (address string) {
	t.Helper()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: deadline, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != want {
			w.Header().Set("Proxy-Authenticate", "Basic realm=plant")
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		out, err := net.Dial("tcp", r.Host) //nolint:noctx,gosec // loopback answers at once
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer out.Close() //nolint:errcheck // the other side is gone
		// The client may speak as soon as it is told, so the connection is taken over first: the server would read some of it.
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer in.Close() //nolint:errcheck // as above
		if _, err = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			io.Copy(out, in) //nolint:errcheck // a cut connection is no error here
			out.Close()      //nolint:errcheck // as above
		}()
		io.Copy(in, out) //nolint:errcheck // as above
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l) //nolint:errcheck // it ends with the test
	}()
	t.Cleanup(func() {
		server.Close() //nolint:errcheck // it ends with the test
		<-done
	})
	return l.Addr().String()
}

// secrets are texts that may stand nowhere, by what they are.
type secrets map[string]string

// addFile adds what a file of a private key holds, line by line.
func (s secrets) addFile(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before := len(s)
	defer func() {
		if len(s) == before {
			t.Errorf("%s holds no line to look for", path)
		}
	}()
	for n, line := range strings.Split(string(raw), "\n") {
		// The head of a PEM block says what it is and is no secret; neither is the one that every key of a kind begins with.
		if line = strings.TrimSpace(line); len(line) > 24 && !strings.HasPrefix(line, "-----") {
			s[fmt.Sprintf("line %d of %s", n+1, path)] = line[24:]
		}
	}
}

// absent fails when one of the secrets stands in a text, plain or as HTTP writes passwords.
func (s secrets) absent(t *testing.T, where, text string) {
	t.Helper()
	if text == "" {
		t.Errorf("%s is empty, so nothing was looked at", where)
	}
	for what, secret := range s {
		if len(secret) < 8 {
			t.Fatalf("%s is too short to look for", what)
		}
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				t.Errorf("%s stands in %s", what, where)
			}
		}
	}
}

// ofProcess reads what the kernel shows of a process to others: its environment and its command line.
func ofProcess(t *testing.T, pid int) string {
	t.Helper()
	text := []byte(" ")
	for _, name := range []string{"environ", "cmdline"} {
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
		// Who may not read it learns nothing either.
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
		text = append(text, raw...)
	}
	return string(text)
}

func (s *site) fetch(url string) string {
	s.t.Helper()
	return s.fetchAs(url, s.apiKey)
}

// adminToken is what the control plane's operators show.
func (s *site) adminToken() string {
	s.t.Helper()
	found, err := filepath.Glob(s.path("cp", "admin*token*"))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("the operators' token: %v, %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (s *site) fetchAs(url, key string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}

// TestFaultNoSecretShows runs everything at the debug level with known secrets, through a proxy that wants a password and with
// wrong ones first, and looks for them wherever others can look.
func TestFaultNoSecretShows(t *testing.T) {
	t.Parallel()
	const proxyPassword, wrongPassword = "proxy-hunter2-secret", "wrong-hunter2-secret"
	s := newControlPlane(t)
	b := newBroker(t)
	listen := freeAddress(t)
	proxy := connectProxy(t, "plant", proxyPassword)
	config := s.path("agent.yaml")
	withProxy := func(address, password string) {
		t.Helper()
		text := fmt.Sprintf("proxy: http://plant:%s@%s\nlisten: %s\n", password, address, listen)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token := s.token()
	known := secrets{
		"the token": token, "the token's secret part": token[len(token)/2:], "the proxy's password": proxyPassword,
		"the proxy's wrong password": wrongPassword, "the broker's password": b.password, "the API key": s.apiKey,
		"the operators' token": s.adminToken(),
	}
	m := &member{s: s, dir: s.path("agent")}
	run := func() {
		m.process = start(t, m.logFile(), m.env(), bin(t, "outfeed-agent"), "run", "--config", config)
	}
	withProxy(proxy, wrongPassword)
	_, said, err := s.try(m.env(), strings.NewReader(token+"\n"), bin(t, "outfeed-agent"), "enroll", "--config", config, "--url", "https://"+s.link.address, "--token", "-")
	if err == nil || !strings.Contains(said, "does not accept this user and password") {
		t.Errorf("a wrong password: %v, %s", err, said)
	}
	known.absent(t, "what the failed enrolment said", said)
	withProxy(proxy, proxyPassword)
	out := s.command(m.env(), strings.NewReader(token+"\n"), bin(t, "outfeed-agent"), "enroll", "--config", config, "--url", "https://"+s.link.address, "--token", "-")
	known.absent(t, "what the enrolment said", string(out))
	m.id = strings.Fields(string(out))[4]
	for _, dead := range []func(){func() { withProxy(freeAddress(t), proxyPassword) }, func() { withProxy(proxy, wrongPassword) }} {
		dead()
		run()
		m.said("not connected: ")
		m.process.kill()
	}
	withProxy(proxy, proxyPassword)
	run()
	m.untilConnected()
	s.connections(b.connection())
	s.apply(quietFlow)
	m.until("the flow is there", func(agentView) bool {
		return strings.Contains(s.fetch("http://"+s.api+"/api/v1/agents/"+m.id), `"state":"running"`)
	})
	s.outfeed(nil, "agent", "rotate", m.id)
	m.until("the keys have changed", func(v agentView) bool { return v.Connected && !v.Rotated.IsZero() })

	known.addFile(t, filepath.Join(m.dir, "identity", "keys.pem"))
	for _, name := range []string{"bundle.key", "identity.key", "master.key"} {
		known.addFile(t, s.path("cp", name))
	}
	for name, path := range map[string]string{"the agent's log": m.logFile(), "the control plane's log": s.path("controlplane.log")} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		known.absent(t, name, string(text))
	}
	known.absent(t, "the agent's process", ofProcess(t, m.process.cmd.Process.Pid))
	known.absent(t, "the control plane's process", ofProcess(t, s.controlPlane.cmd.Process.Pid))
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		known.absent(t, "outfeed-agent status", string(s.command(m.env(), nil, bin(t, "outfeed-agent"), args...)))
	}
	known.absent(t, "the agent's metrics", s.fetch("http://"+listen+"/metrics"))
	known.absent(t, "the control plane's metrics", s.fetchAs("http://"+s.admin+"/metrics", s.adminToken()))
	for _, path := range []string{"agents", "agents/" + m.id, "agent-tokens", "api-keys", "connections", "connectors", "flows", "runs", "me", "openapi.json"} {
		known.absent(t, path, s.fetch("http://"+s.api+"/api/v1/"+path))
	}
	known.absent(t, "outfeed agent show", string(s.outfeed(nil, "agent", "show", m.id)))
	known.absent(t, "outfeed connection list", string(s.outfeed(nil, "connection", "list")))
}

// TestFaultTokenOnTheCommandLine holds that a token there is overwritten where others can see it, while the program works.
func TestFaultTokenOnTheCommandLine(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	token := s.token()
	// It accepts, and never says anything.
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() }) //nolint:errcheck // the test is over
	for n, args := range [][]string{{"--token", token}, {"--token=" + token}} {
		dir := s.path("machine-" + strconv.Itoa(n))
		p := start(t, dir+".log", []string{"OUTFEED_AGENT_DATA_DIR=" + dir}, bin(t, "outfeed-agent"),
			append([]string{"enroll", "--url", "https://" + silent.Addr().String()}, args...)...)
		conn, err := silent.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if shown := ofProcess(t, p.cmd.Process.Pid); strings.Contains(shown, token[8:]) || !strings.Contains(shown, "--token") {
			t.Errorf("others see %q", shown)
		}
		conn.Close() //nolint:errcheck // it has done its part
		p.ends()
		if said := tail(dir+".log", 4000); !strings.Contains(said, "--token-file") || strings.Contains(said, token[8:]) {
			t.Errorf("it said %s", said)
		}
	}
	// It still works for who has scripts with it.
	m := &member{s: s, dir: s.path("agent")}
	s.command(m.env(), nil, bin(t, "outfeed-agent"), "enroll", "--url", "https://"+s.link.address, "--token", token)
}

// ends waits until the process has ended by itself.
func (p *process) ends() {
	p.t.Helper()
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-p.gone:
	case <-timer.C:
		p.t.Fatal("it does not end")
	}
}
