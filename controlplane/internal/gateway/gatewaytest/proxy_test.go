package gatewaytest_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const nginxConfig = `
daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen 127.0.0.1:%[2]s ssl;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate %[1]s/ca.pem; ssl_certificate_key %[1]s/key.pem;
    location / {
      proxy_pass https://%[3]s; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`

const haproxyConfig = `
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen v1
  bind 127.0.0.1:%[1]s
  server one %[3]s send-proxy
listen v2
  bind 127.0.0.1:%[2]s
  server one %[3]s send-proxy-v2
`

// run starts a program of a Debian package until the test ends.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Fatalf("this test needs %s: apt-get install %s", name, name)
		}
	}
	c := &child{t: t, cmd: exec.Command(path, args...)} //nolint:gosec,noctx // the test's own, and kill ends it
	c.cmd.Stdout, c.cmd.Stderr = t.Output(), t.Output()
	// It ends with this process, however that ends.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err = c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
}

// freePort is one that nothing listens on, open waits until something does.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

func open(t *testing.T, port string) {
	t.Helper()
	eventually(t, "port "+port+" is open", func() error {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// from has an agent connect from an address to a port, with a header of its own, and gives the address that the control
// plane has of it.
func (h *host) from(t *testing.T, address, port, forwarded string) string {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	there := *h
	there.URL = "https://127.0.0.1:" + port
	transport := &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true, DialContext: dialer.DialContext}
	a, err := there.connectBy(t.Context(), &http.Client{Transport: forwarding{transport, forwarded}})
	if err != nil {
		t.Fatal(err)
	}
	got := h.stats("").Address
	if err = a.streams.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

// forwarding adds what a client invents.
type forwarding struct {
	http.RoundTripper
	address string
}

// RoundTrip adds the header.
func (f forwarding) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", f.address)
	return f.RoundTripper.RoundTrip(r)
}

// TestBehindProxies has agents come through a real nginx and a real haproxy, and strangers who claim to be such.
func TestBehindProxies(t *testing.T) {
	inTurn(t)
	for _, trusted := range []string{"127.0.0.1", ""} {
		t.Run("trusted:"+trusted, func(t *testing.T) {
			dir := t.TempDir()
			h := startHost(t, dir, "-trusted-proxies", trusted)
			address := strings.TrimPrefix(h.URL, "https://")
			_, direct, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			nginx, v1, v2 := freePort(t), freePort(t), freePort(t)
			write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConfig, dir, nginx, address))
			run(t, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
			open(t, nginx)
			want := "127.0.0.1"
			if trusted != "" {
				want = "127.0.0.77"
			}
			if got := h.from(t, "127.0.0.77", nginx, "6.6.6.6"); got != want {
				t.Errorf("through nginx the agent's address is %s, want %s", got, want)
			}
			// Who is no proxy is not believed.
			if got := h.from(t, "127.0.0.78", direct, "6.6.6.6"); got != "127.0.0.78" {
				t.Errorf("a stranger's header was believed: %s", got)
			}
			if trusted == "" {
				h.noProxy(t, address, "127.0.0.1")
				return
			}
			h.noProxy(t, address, "127.0.0.78")
			write(t, filepath.Join(dir, "haproxy.cfg"), fmt.Sprintf(haproxyConfig, v1, v2, address))
			run(t, "haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
			for _, port := range []string{v1, v2} {
				open(t, port)
				if got := h.from(t, "127.0.0.79", port, "6.6.6.6"); got != "127.0.0.79" {
					t.Errorf("through haproxy the agent's address is %s, want 127.0.0.79", got)
				}
			}
		})
	}
}

// noProxy sends a header of the PROXY protocol that is not to be believed: it is no TLS.
func (h *host) noProxy(t *testing.T, address, from string) {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is over
	if _, err = conn.Write([]byte("PROXY TCP4 6.6.6.6 127.0.0.1 1 443\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 100)
	if n, err := conn.Read(answer); err == nil && !strings.Contains(string(answer[:n]), "\x15\x03") {
		t.Errorf("the answer is %q", answer[:n])
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
