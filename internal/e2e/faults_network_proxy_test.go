package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// oddProxy takes connections and does with each what a test wants, until the test ends. It gives its address.
func oddProxy(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	conns := make(chan net.Conn, 1000)
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			serving.Go(func() { answer(c) })
		}
	})
	t.Cleanup(func() {
		l.Close() //nolint:errcheck // ends the accepting
		for len(conns) > 0 {
			(<-conns).Close() //nolint:errcheck // ends its serving
		}
		serving.Wait()
	})
	return l.Addr().String()
}

// says reads a request, answers with a text, and hangs up.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close() //nolint:errcheck // it is over
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, text) //nolint:errcheck // the agent may have gone
		}
	}
}

// oddProxies enrols through proxies that do not work, as a person at the machine would, and holds what is said.
func oddProxies(x trial) {
	const answer = "\r\nContent-Length: 0\r\n\r\n"
	for name, c := range map[string]struct {
		scheme string
		answer func(net.Conn)
		words  []string
	}{
		"Forbids":     {"http", says("HTTP/1.1 403 Forbidden" + answer), []string{"does not allow connections to the control plane", "allow CONNECT"}},
		"BadGateway":  {"http", says("HTTP/1.1 502 Bad Gateway" + answer), []string{"answered 502 Bad Gateway", "what the proxy may reach"}},
		"Portal":      {"http", says("HTTP/1.1 302 Found\r\nLocation: http://sign-in.plant.test/?from=me" + answer), []string{"sends on to sign-in.plant.test", "ask its administrator"}},
		"NoMethod":    {"http", says("HTTP/1.1 501 Not Implemented" + answer), []string{"answered 501", "whether it allows CONNECT"}},
		"NTLM":        {"http", says("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM" + answer), []string{"asks for NTLM", "Basic authentication"}},
		"Garbage":     {"http", says("SSH-2.0-OpenSSH_9.9 what is this\r\n\r\n"), []string{"does not answer as an HTTP proxy does", "check its port"}},
		"HangsUp":     {"http", says(""), []string{"closed the connection without an answer", "https://"}},
		"WithoutTLS":  {"https", says("HTTP/1.1 400 Bad Request" + answer), []string{"cannot be reached"}},
		"NotEncoded":  {"hash", nil, []string{"HTTPS_PROXY: ", "has the character #, which must be written as %23"}},
		"NotEncoded2": {"setting", nil, []string{"OUTFEED_AGENT_PROXY", "has the character #, which must be written as %23"}},
		"PlainTLS":    {"https", func(c net.Conn) { io.WriteString(c, "220 plain text here\r\n"); c.Close() }, []string{"does not speak TLS there", "http:// instead of https://"}}, //nolint:errcheck // the agent may have gone
		"URLPassword": {"url", nil, []string{"holds a user or a password"}},
	} {
		x.t.Run(name, func(t *testing.T) {
			t.Parallel()
			x.lab.oddProxy(t, c.scheme, c.answer, c.words)
		})
	}
	if *long {
		x.t.Run("Silent", func(t *testing.T) {
			t.Parallel()
			x.lab.oddProxy(t, "http", func(c net.Conn) { io.Copy(io.Discard, c) }, []string{"has said nothing for 1m0s", "check whether it is an HTTP proxy"}) //nolint:errcheck // it ends with the connection
		})
	}
}

func (l *lab) oddProxy(t *testing.T, scheme string, answer func(net.Conn), words []string) {
	t.Helper()
	address, via := "https://cp.outfeed.test:"+portTLS, ""
	switch scheme {
	case "hash":
		via = "HTTPS_PROXY=http://plant:hunter2#x@127.0.0.1:1"
	case "setting":
		via = "OUTFEED_AGENT_PROXY=http://plant:hunter2#x@127.0.0.1:1"
	case "url":
		address = "https://plant:hunter2@cp.outfeed.test:" + portTLS
	default:
		via = "HTTPS_PROXY=" + scheme + "://plant:hunter2@" + oddProxy(t, answer)
	}
	s := *l.site
	s.t = t
	_, said, err := s.try([]string{"OUTFEED_AGENT_DATA_DIR=" + filepath.Join(enterable(t), "agent"), "OUTFEED_AGENT_CA_FILE=" + l.ca.file, via}, nil,
		bin(t, "outfeed-agent"), "enroll", "--url", address, "--token", s.token())
	t.Log(strings.TrimSpace(said))
	if err == nil {
		t.Error("it enrolled")
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("it does not say %q", w)
		}
	}
	if strings.Contains(said, "hunter2") {
		t.Error("the password is in what the agent says")
	}
}

// noProxies connects past a proxy that is down, as each form of NO_PROXY has it, and not past it where none fits.
func noProxies(x trial) {
	cp, numbers := "cp.outfeed.test:"+portTLS, numbered+":"+portTLS
	if err := ip("addr add " + numbered + "/32 dev lo"); err != nil {
		x.t.Fatal(err)
	}
	for name, c := range map[string]struct {
		address, value string
		past           bool
	}{
		"Host":        {cp, "example.com,cp.outfeed.test", true},
		"Domain":      {cp, ".outfeed.test", true},
		"BareDomain":  {cp, "outfeed.test", true},
		"HostAndPort": {cp, "cp.outfeed.test:" + portTLS, true},
		"Everything":  {cp, "*", true},
		"Address":     {numbers, numbered, true},
		"CIDR":        {numbers, "10.96.0.0/14", true},
		"OtherCIDR":   {numbers, "10.0.0.0/16", false},
		"OtherPort":   {cp, "cp.outfeed.test:1", false},
		"OtherHost":   {cp, "outfeed.example,.feed.test", false},
	} {
		x.t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := *x.lab.site
			s.t = t
			_, said, err := s.try([]string{
				"OUTFEED_AGENT_DATA_DIR=" + filepath.Join(enterable(t), "agent"), "OUTFEED_AGENT_CA_FILE=" + x.lab.ca.file,
				"HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=" + c.value,
			}, nil, bin(t, "outfeed-agent"), "enroll", "--url", "https://"+c.address, "--token", s.token())
			if past := err == nil; past != c.past {
				t.Errorf("past the proxy: %v, want %v: %s", past, c.past, said)
			}
			if !c.past && !strings.Contains(said, "the proxy 127.0.0.1:1 cannot be reached") {
				t.Errorf("it says %s", said)
			}
		})
	}
}

// halfDead is an HTTP proxy through which connections die without a word: they go on to be open, and nothing comes any more.
type halfDead struct {
	address string
	// doomed has a signal once a connection has died.
	doomed chan struct{}

	mu sync.Mutex
	// dies says that connections that begin now will, after so many bytes of the other side; fewer than none is even before
	// the proxy's answer.
	dies  bool
	after int64
	// passed is how many bytes have come of the other side.
	passed int64
}

func newHalfDead(t *testing.T) *halfDead {
	t.Helper()
	h := &halfDead{doomed: make(chan struct{}, 1)}
	h.address = oddProxy(t, h.serve)
	return h
}

// kill has the connections that begin from now on die once that share of the bytes has come that have come so far.
func (h *halfDead) kill(share float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dies, h.after = true, int64(share*float64(h.passed))
}

// heal lets new connections live; those that have died stay dead.
func (h *halfDead) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dies = false
}

func (h *halfDead) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // it is over
	h.mu.Lock()
	dies, after := h.dies, h.after
	h.mu.Unlock()
	reader := bufio.NewReader(c)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	if dies && after < 0 {
		h.swallow(reader)
		return
	}
	server, err := net.Dial("tcp", request.Host) //nolint:noctx // this machine answers at once
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // as above
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var down sync.WaitGroup
	defer down.Wait()
	down.Go(func() {
		if dies {
			io.CopyN(c, server, after) //nolint:errcheck // the agent may have gone
			h.swallow(server)
			return
		}
		io.Copy(io.MultiWriter(c, h), server) //nolint:errcheck // as above
		c.Close()                             //nolint:errcheck // as above
	})
	io.Copy(server, reader) //nolint:errcheck // as above
	server.Close()          //nolint:errcheck // as above
}

// Write counts what passes.
func (h *halfDead) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed += int64(len(p))
	return len(p), nil
}

// swallow takes what comes, until the other side hangs up.
func (h *halfDead) swallow(from io.Reader) {
	select {
	case h.doomed <- struct{}{}:
	default:
	}
	io.Copy(io.Discard, from) //nolint:errcheck // it ends with the connection
}

// halfDeadPath has connections die at each step of connecting, of which the control plane has heard all, and heals the path
// for new ones.
func halfDeadPath(x trial) {
	for name, share := range map[string]float64{
		"Accepts": -1, "Connects": 0, "Bytes15": 0.15, "Bytes30": 0.3, "Bytes45": 0.45, "Bytes60": 0.6, "Bytes75": 0.75, "Bytes90": 0.9,
	} {
		x.t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHalfDead(t)
			m := x.lab.enrol(t, nil, "cp.outfeed.test:"+portTLS)
			m.start(via("http://" + h.address))
			m.untilConnected(deadline)
			m.stop()
			h.kill(share)
			m.start(via("http://" + h.address))
			select {
			case <-h.doomed:
			case <-t.Context().Done():
			}
			// At length until no more tries are made beside those that wait.
			sick := 5 * time.Second
			if *long {
				sick = 47 * time.Second
			}
			wait(t, sick)
			at := time.Now()
			h.heal()
			m.untilConnectedAfter(at, back())
			t.Logf("connected again %s after the path has healed, which had been half dead for %s", time.Since(at).Round(100*time.Millisecond), sick)
			m.untilSeen(back()-time.Since(at), true)
			m.notLocked()
		})
	}
}

// notLocked holds that nothing that the agent did looks like a copy of it.
func (m *machine) notLocked() {
	m.t.Helper()
	s, err := m.status()
	if err != nil {
		m.t.Fatal(err)
	}
	var v agentView
	if err := m.get("/agents/"+s.AgentID, &v); err != nil || v.Lock != nil {
		m.t.Errorf("the agent is %+v, %v", v, err)
	}
}
