package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// broker is a Mosquitto of this test.
type broker struct {
	t       *testing.T
	address string
	config  string
	process *exec.Cmd
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer drop(l)
	return l.Addr().String()
}

// drop closes what may be closed already.
func drop(c io.Closer) { _ = c.Close() }

// startBroker starts Mosquitto with extra lines of configuration.
func startBroker(t *testing.T, extra string) *broker {
	t.Helper()
	dir := t.TempDir()
	b := &broker{t: t, address: freeAddress(t), config: filepath.Join(dir, "mosquitto.conf")}
	host, port, _ := net.SplitHostPort(b.address)
	// As root Mosquitto gives itself up to another account, which then could not write here.
	text := fmt.Sprintf("listener %s %s\nuser root\npersistence true\npersistence_location %s/\n%s\n", port, host, dir, extra)
	if extra == "" {
		text += "allow_anonymous true\n"
	}
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			b.t.Fatal("these tests need Mosquitto: apt-get install mosquitto")
		}
	}
	b.process = exec.Command(path, "-c", b.config) //nolint:noctx,gosec // stop ends it by its signal, so that it can save its state; the path is the system's
	b.process.Stderr = os.Stderr
	if err := b.process.Start(); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.address)
		if err == nil {
			drop(conn)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatal("Mosquitto does not start")
		}
	}
}

func (b *broker) stop() {
	if b.process == nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.process.Wait() // it ends by a signal
	}()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for try := 0; ; try++ {
		signal := syscall.SIGTERM // one that comes while it starts is lost
		if try > 50 {
			signal = syscall.SIGKILL
		}
		_ = b.process.Process.Signal(signal) // it may have ended already
		select {
		case <-ended:
			b.process = nil
			return
		case <-again.C:
		}
	}
}

// publisher is a client that publishes with an independent library.
func (b *broker) publisher() paho.Client {
	b.t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + b.address).SetClientID("publisher").SetUsername("press").SetPassword("right"))
	if token := c.Connect(); token.WaitTimeout(10*time.Second) && token.Error() != nil {
		b.t.Fatal(token.Error())
	}
	b.t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func publish(t *testing.T, c paho.Client, topic, payload string) {
	t.Helper()
	publishAs(t, c, topic, payload, false)
}

func publishAs(t *testing.T, c paho.Client, topic, payload string, retained bool) {
	t.Helper()
	if token := c.Publish(topic, 1, retained, payload); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatalf("publish: %v", token.Error())
	}
}

// proxy stands between source and broker, and can fail.
type proxy struct {
	address string
	target  string
	// deaf makes what the source sends vanish.
	deaf atomic.Bool
	// away makes it end every connection at once.
	away  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String(), target: target}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if p.away.Load() {
				drop(in)
				continue
			}
			out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
			if err != nil {
				drop(in)
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			done.Go(func() { _, _ = io.Copy(in, out); drop(in) })
			done.Go(func() { _, _ = io.Copy(deafWriter{p, out}, in); drop(out) })
		}
	})
	t.Cleanup(func() { drop(l); p.cut(); done.Wait() })
	return p
}

type deafWriter struct {
	p   *proxy
	out net.Conn
}

func (w deafWriter) Write(b []byte) (int, error) {
	if w.p.deaf.Load() {
		return len(b), nil
	}
	return w.out.Write(b)
}

// cut ends every connection, as a pulled cable does for both sides in the end.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		drop(c)
	}
	p.conns = nil
}
