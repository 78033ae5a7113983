package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent"
)

// tool is the path of a program of a Debian package.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Fatalf("this test needs %s: apt-get install %s", name, debian)
	return ""
}

// open waits until something listens on a port of this machine.
func (l *lab) open(t *testing.T, port string) {
	t.Helper()
	eventually(t, "port "+port+" is open", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port) //nolint:noctx // eventually bounds it
		if err == nil {
			c.Close() //nolint:errcheck // it was only to see
		}
		return err
	})
}

// freePort is one that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

const nginxConfig = `
daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  ssl_certificate %[2]s.crt; ssl_certificate_key %[2]s.key;
  server {
    listen 127.0.0.1:%[3]s ssl http2;
    location / {
      proxy_pass http://127.0.0.1:8480; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host $host;
      proxy_read_timeout 20s; proxy_send_timeout 20s;
    }
  }
  server {
    listen 127.0.0.1:%[4]s ssl;
    location / { proxy_pass http://127.0.0.1:8480; }
  }
}
`

// startNginx ends TLS at the first port with proxy_read_timeout 20s; at the second one it forgets the upgrade.
func (l *lab) startNginx(t *testing.T) (good, bad string) {
	t.Helper()
	program := tool(t, "nginx", "nginx")
	dir := enterable(t)
	good, bad = freePort(t), freePort(t)
	l.ca.issue(t, filepath.Join(dir, "nginx"), "nginx.outfeed.test")
	writeFile(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConfig, dir, filepath.Join(dir, "nginx"), good, bad))
	start(t, filepath.Join(dir, "nginx.log"), nil, program, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	l.open(t, good)
	return good, bad
}

const haproxyConfig = `
defaults
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout tunnel 30s
frontend ends_tls
  mode http
  bind 127.0.0.1:%[2]s ssl crt %[1]s.pem alpn h2,http/1.1
  default_backend plain
backend plain
  mode http
  server one 127.0.0.1:8480
frontend passes_tls
  mode tcp
  bind 127.0.0.1:%[3]s
  default_backend encrypted
backend encrypted
  mode tcp
  server one 127.0.0.1:8443
`

// startHAProxy ends TLS at the first port and passes it at the second, with timeout tunnel 30s.
func (l *lab) startHAProxy(t *testing.T) (ends, passes string) {
	t.Helper()
	dir := enterable(t)
	ends, passes = freePort(t), freePort(t)
	l.ca.issue(t, filepath.Join(dir, "haproxy"), "haproxy.outfeed.test")
	writeFile(t, filepath.Join(dir, "haproxy.cfg"), fmt.Sprintf(haproxyConfig, filepath.Join(dir, "haproxy"), ends, passes))
	start(t, filepath.Join(dir, "haproxy.log"), nil, tool(t, "haproxy", "haproxy"), "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
	l.open(t, ends)
	return ends, passes
}

// idle holds a session over a time without an insight.
func idle(x trial, address string) {
	t, l := x.t, x.lab
	m := l.enrol(t, nil, address)
	m.start()
	since := m.untilConnected(deadline)
	d := 38 * time.Second
	if *long {
		d = 5 * time.Minute
	}
	wait(t, d)
	s, err := m.status()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Tunnel.Connected || !s.Tunnel.Since.Equal(since) {
		t.Errorf("after %s the tunnel is %+v, want the session of %s\n%s", d, s.Tunnel, since, tail(m.log(), 2000))
	}
	t.Logf("idle for %s, one session", d)
}

func behindNginx(x trial) {
	t, l := x.t, x.lab
	good, bad := l.startNginx(t)
	t.Run("Idle20s", func(t *testing.T) {
		t.Parallel()
		idle(trial{t, l}, "nginx.outfeed.test:"+good)
	})
	t.Run("WithoutUpgrade", func(t *testing.T) {
		t.Parallel()
		_, said, err := l.try([]string{"OUTFEED_AGENT_DATA_DIR=" + filepath.Join(l.dir, "unused"), "OUTFEED_AGENT_CA_FILE=" + l.ca.file}, nil,
			bin(t, "outfeed-agent"), "enroll", "--url", "https://nginx.outfeed.test:"+bad, "--token", l.token())
		if err == nil || !strings.Contains(said, "whether a proxy in between lets WebSockets through") {
			t.Errorf("an nginx that forgets the upgrade gave %v: %s", err, said)
		}
	})
}

func behindHAProxy(x trial) {
	t, l := x.t, x.lab
	ends, passes := l.startHAProxy(t)
	t.Run("EndsTLS30s", func(t *testing.T) {
		t.Parallel()
		idle(trial{t, l}, "haproxy.outfeed.test:"+ends)
	})
	t.Run("PassesTLS30s", func(t *testing.T) {
		t.Parallel()
		idle(trial{t, l}, "cp.outfeed.test:"+passes)
	})
}

// squid is a running squid.
type squid struct {
	*process
	t         *testing.T
	dir, port string
}

// The helper compares what squid was told with a line of a file, and writes down how often it was asked.
const squidHelper = `#!/bin/sh
while read -r line; do
  echo asked >> %[1]s/asked
  if [ "$line" = "$(cat %[1]s/password)" ]; then echo OK; else echo ERR; fi
done
`

const squidConfig = `
http_port 127.0.0.1:%[2]s
visible_hostname plant-proxy
pid_filename %[1]s/squid.pid
cache_log %[1]s/cache.log
access_log stdio:%[1]s/access.log
coredump_dir %[1]s
cache deny all
memory_cache_shared off
shutdown_lifetime 0 seconds
hosts_file %[1]s/hosts
dns_nameservers 127.0.0.1
dns_timeout 1 second
auth_param basic program /bin/sh %[1]s/helper.sh
auth_param basic children 1
auth_param basic credentialsttl 1 second
acl forbidden dstdomain forbidden.outfeed.test
acl known proxy_auth REQUIRED
http_access deny forbidden
http_access allow CONNECT known
http_access deny all
`

// The user and the password that the squid of these tests accepts, with characters that are special in a URL, and the
// line that squid gives its helper for them.
const (
	proxyUser     = "plant"
	proxyPassword = "p@ss:w#rd%/!hunter2" //nolint:gosec // made up for this test
	helperLine    = "plant p@ss:w%23rd%25/!hunter2"
)

func newSquid(t *testing.T) *squid {
	t.Helper()
	s := &squid{t: t, dir: enterable(t), port: freePort(t)}
	if err := os.Chmod(s.dir, 0o777); err != nil { //nolint:gosec // squid has an account of its own
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.dir, "helper.sh"), fmt.Sprintf(squidHelper, s.dir))
	writeFile(t, filepath.Join(s.dir, "squid.conf"), fmt.Sprintf(squidConfig, s.dir, s.port))
	writeFile(t, filepath.Join(s.dir, "hosts"), "127.0.0.1 cp.outfeed.test forbidden.outfeed.test\n")
	s.password(helperLine)
	s.run()
	return s
}

func (s *squid) password(line string) {
	s.t.Helper()
	writeFile(s.t, filepath.Join(s.dir, "password"), line+"\n")
}

func (s *squid) run() {
	s.t.Helper()
	s.process = start(s.t, filepath.Join(s.dir, "squid.log"), nil, tool(s.t, "squid", "squid"), "-n", "s"+s.port, "-N", "-f", filepath.Join(s.dir, "squid.conf"))
	(*lab)(nil).open(s.t, s.port)
}

func (s *squid) url(password string) string {
	u := url.URL{Scheme: "http", Host: "127.0.0.1:" + s.port}
	if password != "" {
		u.User = url.UserPassword(proxyUser, password)
	}
	return u.String()
}

func via(proxy string) string { return "OUTFEED_AGENT_PROXY=" + proxy }

// asked is how often a password was tried.
func (s *squid) asked() int {
	text, err := os.ReadFile(filepath.Join(s.dir, "asked"))
	if err != nil {
		return 0
	}
	return bytes.Count(text, []byte("\n"))
}

// noSecret looks for a password, in every form it has on its way, in all that the agent says.
func (m *machine) noSecret(password string) {
	m.t.Helper()
	log, err := os.ReadFile(m.log())
	if err != nil {
		m.t.Fatal(err)
	}
	out, said, _ := m.try(m.env, nil, bin(m.t, "outfeed-agent"), "status", "--json")
	text, plain, _ := m.try(m.env, nil, bin(m.t, "outfeed-agent"), "status")
	everything := string(log) + string(out) + said + string(text) + plain
	if len(out) == 0 || len(text) == 0 {
		m.t.Errorf("outfeed-agent status said nothing: %s%s", said, plain)
	}
	for _, form := range []string{
		password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword(proxyUser, password).String(),
		base64.StdEncoding.EncodeToString([]byte(proxyUser + ":" + password)), base64.StdEncoding.EncodeToString([]byte(password)),
		"hunter2",
	} {
		if strings.Contains(everything, form) {
			m.t.Errorf("the password is in what the agent says, as %s", form)
		}
	}
}

func behindSquid(x trial) {
	t, l := x.t, x.lab
	s := newSquid(t)
	cp := "cp.outfeed.test:" + portTLS
	// works starts an agent and holds that it is connected through the proxy.
	works := func(name string, env func(m *machine) []string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := l.enrol(t, nil, cp)
			m.start(env(m)...)
			m.untilConnected(deadline)
			m.noSecret(proxyPassword)
		})
	}
	works("RightPassword", func(*machine) []string { return []string{via(s.url(proxyPassword))} })
	works("FromTheEnvironment", func(*machine) []string {
		return []string{"HTTPS_PROXY=" + s.url(proxyPassword), "NO_PROXY=example.com,10.0.0.0/8"}
	})
	works("NoProxy", func(*machine) []string {
		return []string{"HTTPS_PROXY=http://plant:hunter2@127.0.0.1:1", "NO_PROXY=.outfeed.test"}
	})
	works("OverTLS", func(m *machine) []string {
		dir, port := enterable(m.t), freePort(m.t)
		l.ca.issue(m.t, filepath.Join(dir, "proxy"), "haproxy.outfeed.test")
		writeFile(m.t, filepath.Join(dir, "haproxy.cfg"), fmt.Sprintf("defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\nlisten proxy\n  mode tcp\n  bind 127.0.0.1:%s ssl crt %s/proxy.pem\n  server one 127.0.0.1:%s\n", port, dir, s.port))
		start(m.t, filepath.Join(dir, "haproxy.log"), nil, tool(m.t, "haproxy", "haproxy"), "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
		l.open(m.t, port)
		return []string{via("https://" + url.UserPassword(proxyUser, proxyPassword).String() + "@haproxy.outfeed.test:" + port)}
	})
	// says starts an agent that cannot connect and holds what it says.
	says := func(name, address, proxy string, words ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := l.enrol(t, nil, address)
			m.start(via(proxy))
			said := m.untilError(deadline, words...)
			t.Log(said)
			m.noSecret(proxyPassword)
			m.noSecret("hunter2-wrong")
		})
	}
	says("WrongPassword", cp, s.url("hunter2-wrong"), "the proxy 127.0.0.1:"+s.port, "does not accept this user and password")
	says("NoPassword", cp, s.url(""), "wants a user and a password")
	says("ProxyDown", cp, "http://plant:hunter2@127.0.0.1:1", "the proxy 127.0.0.1:1 cannot be reached", "connection refused")
	says("Forbidden", "forbidden.outfeed.test:"+portTLS, s.url(proxyPassword), "does not allow connections", "CONNECT")
	says("ProxyName", cp, "http://plant:hunter2@proxy.nowhere.test:3128", "the proxy proxy.nowhere.test:3128 cannot be reached", "cannot be resolved")
	says("NameAtProxy", "unknown.outfeed.test:"+portTLS, s.url(proxyPassword), "cannot resolve the control plane's name")
}

// squidLife changes the password and kills the proxy while a session lives.
func squidLife(x trial) {
	t, l := x.t, x.lab
	s := newSquid(t)
	m := l.enrol(t, nil, "cp.outfeed.test:"+portTLS)
	m.start(via(s.url(proxyPassword)))
	m.untilConnected(deadline)

	s.stop()
	m.untilError(noticed(), "the proxy 127.0.0.1:"+s.port+" cannot be reached")
	s.run()
	at := time.Now()
	m.untilConnected(back())
	t.Logf("connected %s after the proxy was up again", time.Since(at).Round(100*time.Millisecond))

	// The password expires: the session goes on, and the next one is refused.
	s.password("plant another-one")
	since := m.untilConnected(back())
	wait(t, 3*time.Second)
	if st, err := m.status(); err != nil || !st.Tunnel.Since.Equal(since) {
		t.Errorf("a new password ended the session: %+v, %v", st.Tunnel, err)
	}
	before := s.asked()
	s.stop()
	s.run()
	m.untilError(deadline, "does not accept this user and password", "expired")
	st, err := m.status()
	if err != nil {
		t.Fatal(err)
	}
	if pause := time.Until(st.Tunnel.NextTry); pause < 4*time.Minute {
		t.Errorf("the next try with a wrong password is in %s: a few of them lock an account", pause)
	}
	if n := s.asked() - before; n > 2 {
		t.Errorf("the wrong password was tried %d times", n)
	}
	m.restart(via(s.url("another-one")))
	m.untilConnected(deadline)
	m.noSecret(proxyPassword)
	m.noSecret("another-one")
}

// inspector is a CONNECT proxy that decrypts TLS with certificates of its own, as many companies have.
type inspector struct {
	*authority
	port  string
	roots *x509.CertPool
	key   *ecdsa.PrivateKey

	mu       sync.Mutex
	up, down bytes.Buffer
}

func newInspector(t *testing.T, l *lab) *inspector {
	t.Helper()
	i := &inspector{authority: newAuthority(t, "Plant Inspection CA"), roots: x509.NewCertPool()}
	i.roots.AddCert(l.ca.cert)
	var err error
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, i.port, _ = net.SplitHostPort(listener.Addr().String())
	var serving sync.WaitGroup
	conns := make(chan net.Conn, 1000)
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			conns <- c
			serving.Go(func() {
				defer c.Close() //nolint:errcheck // it has ended
				if err := i.serve(c); err != nil {
					return
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close() //nolint:errcheck // ends the accepting
		for len(conns) > 0 {
			(<-conns).Close() //nolint:errcheck // ends its serving
		}
		serving.Wait()
	})
	return i
}

func (i *inspector) serve(c net.Conn) error {
	reader := bufio.NewReader(c)
	request, err := http.ReadRequest(reader)
	if err != nil || request.Method != http.MethodConnect || reader.Buffered() > 0 {
		return errors.Join(err, errors.New("no CONNECT"))
	}
	if _, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	client := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: i.imitate})
	if err = client.Handshake(); err != nil { //nolint:noctx // closing c ends it
		return err
	}
	host, _, _ := net.SplitHostPort(request.Host)
	server, err := (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: i.roots, ServerName: host}}).Dial("tcp", request.Host)
	if err != nil {
		return err
	}
	defer server.Close() //nolint:errcheck // it has ended
	var backward sync.WaitGroup
	backward.Go(func() {
		io.Copy(client, io.TeeReader(server, i.seen(&i.down))) //nolint:errcheck // it ends with the connection
		c.Close()                                              //nolint:errcheck // ends the other direction
	})
	_, err = io.Copy(server, io.TeeReader(client, i.seen(&i.up)))
	server.Close() //nolint:errcheck // ends the other direction
	backward.Wait()
	return err
}

func (i *inspector) imitate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hello.ServerName}, DNSNames: []string{hello.ServerName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, i.cert, i.key.Public(), i.authority.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key}, err
}

// seen keeps what the proxy can read.
func (i *inspector) seen(b *bytes.Buffer) io.Writer { return seeing{i, b} }

type seeing struct {
	*inspector
	buffer *bytes.Buffer
}

func (s seeing) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.Write(p)
}

// read is everything that the proxy has read in both directions: the heads of the upgrade, and the payloads of the
// WebSocket messages with their masks undone.
func (i *inspector) read(t *testing.T) (heads, payload string) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	up, upFrames, _ := bytes.Cut(i.up.Bytes(), []byte("\r\n\r\n"))
	down, downFrames, _ := bytes.Cut(i.down.Bytes(), []byte("\r\n\r\n"))
	return string(up) + string(down), string(unframed(upFrames)) + string(unframed(downFrames))
}

// unframed joins the payloads of WebSocket frames. https://www.rfc-editor.org/rfc/rfc6455#section-5.2
func unframed(b []byte) []byte {
	var out []byte
	for len(b) >= 2 {
		n, at := int(b[1]&0x7f), 2
		switch {
		case n == 126 && len(b) >= 4:
			n, at = int(binary.BigEndian.Uint16(b[2:])), 4
		case n == 127 && len(b) >= 10:
			n, at = int(binary.BigEndian.Uint64(b[2:])), 10 //nolint:gosec // a test's own data
		}
		var mask [4]byte
		if b[1]&0x80 != 0 && len(b) >= at+4 {
			at += copy(mask[:], b[at:at+4])
		}
		if len(b) < at+n {
			return out
		}
		for k, c := range b[at : at+n] {
			out = append(out, c^mask[k%4])
		}
		b = b[at+n:]
	}
	return out
}

// inspected refuses the proxy until its CA is configured, and shows it nothing then.
func inspected(x trial) {
	t, l := x.t, x.lab
	i := newInspector(t, l)
	m := l.enrol(t, nil, "cp.outfeed.test:"+portTLS)
	m.start(via("http://127.0.0.1:" + i.port))
	t.Log(m.untilError(deadline, "Plant Inspection CA", "CA file"))
	m.restart(via("http://127.0.0.1:"+i.port), "OUTFEED_AGENT_CA_FILE="+i.file)
	m.untilConnected(deadline)
	m.deploy()
	s := m.untilAcknowledged(deadline)
	heads, payload := i.read(t)
	if !strings.Contains(heads, "GET /tunnel/v1") || len(payload) < 10_000 {
		t.Fatalf("the proxy saw %d bytes behind %q, so this test shows nothing", len(payload), heads)
	}
	for _, private := range []string{s.AgentID, flowName, insightName, "press-17", flowMark, "control", "insights"} {
		if strings.Contains(heads+payload, private) {
			t.Errorf("the proxy in between can read %q", private)
		}
	}
	t.Logf("the proxy in between saw %d bytes and none of what it looked for", len(payload))
}

// deploy gives the machine the flow.
func (m *machine) deploy() {
	m.t.Helper()
	s, err := m.status()
	if err != nil {
		m.t.Fatal(err)
	}
	m.outfeed(nil, "flow", "deploy", flowName, s.AgentID)
}

// untilAcknowledged waits until the control plane has stored every insight of the flow, which are rows or more.
func (m *machine) untilAcknowledged(limit time.Duration) agent.LocalStatus {
	m.t.Helper()
	return m.until("the insights are stored", limit, func(s agent.LocalStatus) bool {
		return s.Outbox.Acknowledged >= flowRows && s.Outbox.WaitingRecords == 0
	})
}
