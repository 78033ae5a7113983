package gatewaytest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outfeed/outfeed/internal/lifecycle"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/internal/socket"
	"github.com/outfeed/outfeed/protocol/seal"
)

const (
	// askEcho wants every message back, askTake wants so many bytes to be taken, and askMemory what the process holds.
	askEcho   = 'e'
	askTake   = 't'
	askMemory = 'm'
	// echoSize is the size of a message that goes to and fro: that of an acknowledgement or a short status.
	echoSize = 100
)

// Links is where the layers of the tunnel, and plain TLS beside them, can be measured.
type Links struct {
	Tunnel      string `json:"tunnel"`
	Plain       string `json:"plain"`
	Fingerprint string `json:"fingerprint"`
}

// ServeLinks serves both until ctx ends. dir keeps the keys, as a Host's does.
func ServeLinks(ctx context.Context, dir string, ready func(Links) error) error {
	key, err := identity(filepath.Join(dir, identityFile))
	if err != nil {
		return err
	}
	certificate, err := outer(dir)
	if err != nil {
		return err
	}
	inner, err := seal.ServerConfig(key)
	if err != nil {
		return err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the key is no Ed25519 key")
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	plainly, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	tunnel := tls.NewListener(listener{plainly}, config)
	plain, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), tunnel.Close())
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, upgradeErr := mux.Upgrade(w, r)
		if upgradeErr != nil {
			return
		}
		secure := tls.Server(conn, inner)
		if secure.HandshakeContext(r.Context()) == nil {
			_ = serveStreams(r.Context(), secure) // the client says what went wrong
		}
	})}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lifecycle.UnlessDone(ctx, server.Serve(tunnel)) })
	g.Go(func() error { return lifecycle.UnlessDone(ctx, servePlain(plain)) })
	g.Go(func() error {
		<-ctx.Done()
		return errors.Join(server.Close(), plain.Close())
	})
	g.Go(func() error {
		return ready(Links{Tunnel: tunnel.Addr().String(), Plain: plain.Addr().String(), Fingerprint: seal.Fingerprint(public)})
	})
	return g.Wait() //nolint:wrapcheck // each part says what it is
}

// listener gives connections whose reads need not wait, as the control plane's does.
type listener struct{ net.Listener }

// Accept accepts one.
func (l listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server looks at it
	}
	return &conn{Conn: raw}, nil
}

// conn is such a connection.
type conn struct {
	net.Conn
	try socket.Try
}

// Read reads.
func (c *conn) Read(p []byte) (int, error) { return c.try.Read(c.Conn, p) }

// AtOnce is socket.Impatient's.
func (c *conn) AtOnce(on bool) bool { return c.try.AtOnce(c.Conn, on) }

// NetConn is the connection itself.
func (c *conn) NetConn() net.Conn { return c.Conn }

func servePlain(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		// It ends with its peer, or with the process.
		go func() {
			_ = answer(conn)
			_ = conn.Close()
		}()
	}
}

func serveStreams(ctx context.Context, conn net.Conn) error {
	streams, err := mux.ServerForStranger(conn, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer streams.Close() //nolint:errcheck // it is over
	streams.Trust()
	for {
		stream, err := streams.Accept(ctx)
		if err != nil {
			return err
		}
		if err = errors.Join(answer(stream), stream.Close()); err != nil {
			return err
		}
	}
}

// answer does what the peer asks for.
func answer(conn io.ReadWriter) error {
	var ask [9]byte
	if _, err := io.ReadFull(conn, ask[:]); err != nil {
		return fmt.Errorf("read what is asked: %w", err)
	}
	switch ask[0] {
	case askEcho:
		message := make([]byte, echoSize)
		for {
			if _, err := io.ReadFull(conn, message); err != nil {
				return nil //nolint:nilerr // the peer has had enough
			}
			if _, err := conn.Write(message); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
	case askMemory:
		return tellMemory(conn)
	default:
		return take(conn, int64(binary.BigEndian.Uint64(ask[1:]))) //nolint:gosec // a count of bytes
	}
}

// tellMemory says how much memory is resident, as it is and after a collection.
func tellMemory(conn io.Writer) error {
	now, err := resident()
	if err != nil {
		return err
	}
	// A stack shrinks by half in each collection, of which an idle program has one every two minutes.
	for range 3 {
		debug.FreeOSMemory()
	}
	after, err := resident()
	if err != nil {
		return err
	}
	if err = binary.Write(conn, binary.BigEndian, []int64{now, after}); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// take takes so many bytes, and says how much processor time that was.
func take(conn io.ReadWriter, left int64) error {
	before, err := cpuTime()
	if err != nil {
		return err
	}
	if _, err = io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(conn, left)}, make([]byte, 64<<10)); err != nil {
		return fmt.Errorf("take: %w", err)
	}
	after, err := cpuTime()
	if err != nil {
		return err
	}
	if _, err = conn.Write(binary.BigEndian.AppendUint64(nil, uint64(after-before))); err != nil { //nolint:gosec // time goes on
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// onlyReader hides what else a reader can do, so that copying uses the buffer that is given.
type onlyReader struct{ io.Reader }

// LinkFigures is what one link does.
type LinkFigures struct {
	// P50 and P99 are of the time in which a message of 100 bytes comes back.
	P50 time.Duration `json:"echo_p50_ns"`
	P99 time.Duration `json:"echo_p99_ns"`
	// BytesPerSecond is of one stream up, CPUPerGB the processor time of both ends for 10^9 bytes.
	BytesPerSecond float64       `json:"bytes_per_second"`
	CPUPerGB       time.Duration `json:"cpu_per_gb_ns"`
}

// MeasureTunnel measures the layers of the tunnel.
func MeasureTunnel(ctx context.Context, dir string, l Links, echoes int, bytes int64) (LinkFigures, error) {
	client, err := trusting(dir)
	if err != nil {
		return LinkFigures{}, err
	}
	conn, answer, err := mux.Dial(ctx, "wss://"+l.Tunnel, &http.Client{Transport: &http.Transport{TLSClientConfig: client}}) //nolint:bodyclose // it is the connection
	if err != nil {
		return LinkFigures{}, fmt.Errorf("dial (%v): %w", answer, err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return LinkFigures{}, fmt.Errorf("make a key: %w", err)
	}
	config, err := seal.ClientConfig(key, l.Fingerprint)
	if err != nil {
		return LinkFigures{}, err
	}
	streams, err := mux.Client(tls.Client(conn, config), slog.New(slog.DiscardHandler))
	if err != nil {
		return LinkFigures{}, err
	}
	defer streams.Close() //nolint:errcheck // it is over
	return figures(func() (io.ReadWriteCloser, error) { return streams.Open() }, echoes, bytes)
}

// MeasurePlain measures TLS alone.
func MeasurePlain(ctx context.Context, dir string, l Links, echoes int, bytes int64) (LinkFigures, error) {
	config, err := trusting(dir)
	if err != nil {
		return LinkFigures{}, err
	}
	return figures(func() (io.ReadWriteCloser, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", l.Plain)
	}, echoes, bytes)
}

// IdlePlain holds so many connections of plain TLS open, and gives what each costs the serving process in bytes: of its
// resident memory as it is, and after a collection.
func IdlePlain(ctx context.Context, dir string, l Links, connections int) (resident, collected int64, err error) {
	config, err := trusting(dir)
	if err != nil {
		return 0, 0, err
	}
	dialer := &tls.Dialer{Config: config}
	memory := func() (pair [2]int64, err error) {
		conn, err := dialer.DialContext(ctx, "tcp", l.Plain)
		if err != nil {
			return pair, fmt.Errorf("dial: %w", err)
		}
		defer conn.Close() //nolint:errcheck // all is read
		if _, err = conn.Write(append([]byte{askMemory}, make([]byte, 8)...)); err == nil {
			err = binary.Read(conn, binary.BigEndian, &pair)
		}
		return pair, err //nolint:wrapcheck // it says what is wrong
	}
	before, err := memory()
	if err != nil {
		return 0, 0, err
	}
	all := make([]net.Conn, 0, connections)
	defer func() {
		for _, conn := range all {
			err = errors.Join(err, conn.Close())
		}
	}()
	for range connections {
		conn, err := dialer.DialContext(ctx, "tcp", l.Plain)
		if err != nil {
			return 0, 0, fmt.Errorf("dial: %w", err)
		}
		all = append(all, conn)
	}
	after, err := memory()
	return (after[0] - before[1]) / int64(connections), (after[1] - before[1]) / int64(connections), err
}

func trusting(dir string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Join(dir, CAFile)) //nolint:gosec // the caller names it
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the certificate is not in PEM form")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}

func figures(open func() (io.ReadWriteCloser, error), echoes int, bytes int64) (f LinkFigures, err error) {
	conn, err := open()
	if err != nil {
		return f, fmt.Errorf("open: %w", err)
	}
	f.P50, f.P99, err = echo(conn, echoes)
	if err = errors.Join(err, conn.Close()); err != nil {
		return f, err
	}
	if conn, err = open(); err != nil {
		return f, fmt.Errorf("open: %w", err)
	}
	err = f.send(conn, bytes)
	return f, errors.Join(err, conn.Close())
}

func echo(conn io.ReadWriter, n int) (p50, p99 time.Duration, err error) {
	if _, err = conn.Write(append([]byte{askEcho}, make([]byte, 8)...)); err != nil {
		return 0, 0, fmt.Errorf("ask for echoes: %w", err)
	}
	message, took := make([]byte, echoSize), make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		if _, err = conn.Write(message); err != nil {
			return 0, 0, fmt.Errorf("send: %w", err)
		}
		if _, err = io.ReadFull(conn, message); err != nil {
			return 0, 0, fmt.Errorf("receive: %w", err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[n/2], took[n*99/100], nil
}

// send measures how fast so many bytes go up.
func (f *LinkFigures) send(conn io.ReadWriter, bytes int64) error {
	before, err := cpuTime()
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err = conn.Write(binary.BigEndian.AppendUint64([]byte{askTake}, uint64(bytes))); err != nil { //nolint:gosec // a count of bytes
		return fmt.Errorf("ask to take: %w", err)
	}
	block := make([]byte, 1<<20)
	for left := bytes; left > 0; {
		n, writeErr := conn.Write(block[:min(left, int64(len(block)))])
		if writeErr != nil {
			return fmt.Errorf("send: %w", writeErr)
		}
		left -= int64(n)
	}
	var used [8]byte
	if _, err = io.ReadFull(conn, used[:]); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	took := time.Since(began)
	after, err := cpuTime()
	if err != nil {
		return err
	}
	f.BytesPerSecond = float64(bytes) / took.Seconds()
	both := after - before + time.Duration(binary.BigEndian.Uint64(used[:])) //nolint:gosec // a duration
	f.CPUPerGB = time.Duration(float64(both) * 1e9 / float64(bytes))
	return nil
}

// cpuTime is the processor time of this process.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
