package gatewaytest_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// maxGrowth holds under every attack.
const maxGrowth = 64 << 20

// maxP99 holds at length, on a machine that does little else. In short no time is held, as others use the machine too.
const maxP99 = 500 * time.Millisecond

// attack does its worst, and returns nil once the gateway has ended it.
type attack struct {
	name string
	do   func(ctx context.Context, h *host) error
	// slow says that it lasts for one of the gateway's time-outs, so that it runs at length only.
	slow bool
}

func attacks() []attack {
	return []attack{
		{name: "ping flood", do: pingFlood},
		{name: "100,000 streams", do: streamFlood},
		{name: "reused stream ids", do: reusedIDs},
		{name: "empty frames", do: frames(0, 0)},
		{name: "window updates", do: frames(1, 0)},
		{name: "a frame of 1 GiB", do: frames(0, 1<<30)},
		{name: "a message of 1 GiB", do: hugeMessage},
		{name: "a WebSocket frame of 1 GiB", do: socket(func(w io.Writer) error {
			if err := frameHeader(w, 0x82, 1<<30); err != nil {
				return err
			}
			return endlessly(w, make([]byte, 1<<16))
		})},
		{name: "WebSocket pings", do: socket(func(w io.Writer) error { return endlessly(w, maskedFrames(0x89, nil, 1000)) })},
		{name: "empty WebSocket messages", do: socket(func(w io.Writer) error { return endlessly(w, maskedFrames(0x82, nil, 1000)) })},
		{name: "empty WebSocket fragments", do: socket(func(w io.Writer) error {
			return errors.Join(begin(w), endlessly(w, maskedFrames(0x00, nil, 1000)))
		})},
		{name: "WebSocket text", do: socket(func(w io.Writer) error { return endlessly(w, maskedFrames(0x81, []byte("hello"), 1)) })},
		{name: "compression bomb", do: socket(bomb)},
		{name: "slow headers", do: slowHeaders},
		{name: "unfinished handshakes", do: halfOpen, slow: true},
		{name: "never reading", do: neverReading, slow: true},
		{name: "strangers that hold their first message", do: hoggingStrangers},
		{name: "agents that hold large messages", do: hoggingAgents(unfinished)},
		{name: "agents that flood with small messages", do: hoggingAgents(flooding(wire.FreeBody))},
		{name: "agents that flood with large messages", do: hoggingAgents(flooding(largeInsight))},
	}
}

// begin sends the first fragment of a message.
func begin(w io.Writer) error {
	_, err := w.Write(maskedFrames(0x02, []byte("x"), 1))
	return err
}

// TestHostilePeers has hostile peers at a gateway in a process of its own. Each loses its session, the memory of the
// gateway stays within bounds, another agent's insights go on, and the API answers.
func TestHostilePeers(t *testing.T) {
	h := startHost(t, t.TempDir(), "-admit", "2000")
	for _, a := range attacks() {
		if a.slow && !*long {
			continue
		}
		t.Run(a.name, func(t *testing.T) { h.attacked(t, a) })
	}
}

func (h *host) attacked(t *testing.T, a attack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	before := h.stats("?collect").RSS
	w := h.watch(ctx, t)
	lasts := 200 * time.Millisecond
	if *long {
		lasts = 10 * time.Second
	}
	rounds := 0
	for began := time.Now(); rounds == 0 || time.Since(began) < lasts && !t.Failed(); rounds++ {
		if err := a.do(ctx, h); err != nil {
			t.Error(err)
		}
	}
	peak, p99, insights := w.end()
	t.Logf("%d times: memory grew by %.1f MiB from %.1f, %d API requests with a p99 of %v, %d batches of another agent", rounds, float64(peak-before)/(1<<20), mib(before), len(w.took), p99, insights)
	if peak-before > maxGrowth {
		t.Errorf("memory grew by %d bytes", peak-before)
	}
	if *long && p99 > maxP99 {
		t.Errorf("the API's p99 is %v", p99)
	}
	if insights == 0 {
		t.Error("another agent got nothing through")
	}
}

// watcher looks at a host while it is attacked.
type watcher struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	// Each is for one of the goroutines until they have ended.
	peak     int64
	took     []time.Duration
	insights int
}

// watch begins: another agent sends batches, two clients use the API, one with a new connection for each request.
func (h *host) watch(ctx context.Context, t *testing.T) *watcher {
	t.Helper()
	w := &watcher{}
	bystander, err := h.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ctx, w.stop = context.WithCancel(ctx)
	w.running.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			w.peak = max(w.peak, h.rss())
			<-tick.C
		}
	})
	var mu sync.Mutex
	for _, c := range []*http.Client{h.client(false), h.client(true)} {
		if _, err := h.get(ctx, c, "/api/v1/agents"); err != nil {
			t.Fatal(err)
		}
		w.running.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				began := time.Now()
				_, err := h.get(context.WithoutCancel(ctx), c, "/api/v1/agents")
				took := time.Since(began)
				if err != nil {
					// One that fails counts as the slowest of all.
					t.Logf("the API: %v", err)
					took = deadline
				}
				mu.Lock()
				w.took = append(w.took, took)
				mu.Unlock()
				<-tick.C
			}
		})
	}
	w.running.Go(func() {
		var err error
		if w.insights, err = bystander.report(ctx); err != nil {
			t.Errorf("another agent: %v", err)
		}
		if err = bystander.streams.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// end ends it, and gives the peak of the memory, the API's p99 and how many batches were stored.
func (w *watcher) end() (peak int64, p99 time.Duration, insights int) {
	w.stop()
	w.running.Wait()
	slices.Sort(w.took)
	return w.peak, w.took[len(w.took)*99/100], w.insights
}

// report sends batch after batch, each after the acknowledgement of the one before.
func (a *agent) report(ctx context.Context) (batches int, err error) {
	stream, err := a.open(wire.KindInsights)
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	down := &wire.InsightsDown{}
	for ; ctx.Err() == nil || batches == 0; batches++ {
		up := &wire.InsightsUp{FirstSeq: uint64(batches) + 1, Insights: []*wire.InsightRecord{{Name: "n"}}} //nolint:gosec // small
		if err = wire.WriteMessage(stream, up); err != nil {
			return batches, err
		}
		if err = wire.ReadMessage(stream, down); err != nil {
			return batches, err
		}
		if down.GetStored() != up.GetFirstSeq() {
			return batches, fmt.Errorf("%d was sent and %d acknowledged", up.GetFirstSeq(), down.GetStored())
		}
		<-tick.C
	}
	return batches, nil
}

// endlessly writes until the peer has had enough, which is what is wanted.
func endlessly(w io.Writer, block []byte) error {
	for {
		if _, err := w.Write(block); err != nil {
			return nil //nolint:nilerr // see above
		}
	}
}

// raw runs an attack inside the inner TLS session, as a stranger and as an agent that is known, and takes whatever comes
// back.
func raw(do func(w io.Writer) error) func(context.Context, *host) error {
	return func(ctx context.Context, h *host) error {
		return errors.Join(
			h.raw(ctx, do, func(*tls.Conn, ed25519.PrivateKey) error { return nil }),
			h.raw(ctx, do, rawHello),
		)
	}
}

func (h *host) raw(ctx context.Context, do func(w io.Writer) error, first func(*tls.Conn, ed25519.PrivateKey) error) error {
	inner, key, err := h.inside(ctx)
	if err != nil {
		return err
	}
	if err = first(inner, key); err != nil {
		return errors.Join(err, inner.Close())
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, inner) })
	err = do(inner)
	// The gateway has to close it.
	reading.Wait()
	_ = inner.Close()
	return err
}

// rawHello says hello on the stream 1, and waits for the first answer on it.
func rawHello(inner *tls.Conn, key ed25519.PrivateKey) error {
	state := inner.ConnectionState()
	message, err := seal.HelloMessage(&state, 1)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	hello := &wire.Hello{Counter: 1, Signature: ed25519.Sign(key, message)}
	if err = errors.Join(
		wire.WriteMessage(&said, wire.NewHeader(wire.KindControl)),
		wire.WriteMessage(&said, &wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: hello}}),
	); err != nil {
		return err
	}
	if _, err = inner.Write(append(yamuxFrame(0, 1, 1, uint32(said.Len())), said.Bytes()...)); err != nil { //nolint:gosec // short
		return err
	}
	for {
		var header [12]byte
		if _, err = io.ReadFull(inner, header[:]); err != nil {
			return err
		}
		if header[1] == 0 {
			_, err = io.CopyN(io.Discard, inner, int64(binary.BigEndian.Uint32(header[8:])))
			return err
		}
	}
}

func yamuxFrame(kind byte, flags uint16, id, length uint32) []byte {
	out := binary.BigEndian.AppendUint16([]byte{0, kind}, flags)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(out, id), length)
}

func pingFlood(ctx context.Context, h *host) error {
	return raw(func(w io.Writer) error { return endlessly(w, bytes.Repeat(yamuxFrame(2, 1, 0, 1), 1000)) })(ctx, h)
}

func streamFlood(ctx context.Context, h *host) error {
	return raw(func(w io.Writer) error {
		for n := range uint32(100) {
			var many []byte
			for i := range uint32(1000) {
				many = append(many, yamuxFrame(1, 1, 2*(1000*n+i)+3, 0)...)
			}
			if _, err := w.Write(many); err != nil {
				return nil //nolint:nilerr // the gateway has had enough
			}
		}
		return nil
	})(ctx, h)
}

func reusedIDs(ctx context.Context, h *host) error {
	return raw(func(w io.Writer) error {
		again := append(yamuxFrame(1, 1, 3, 0), yamuxFrame(1, 8, 3, 0)...)
		return endlessly(w, bytes.Repeat(again, 500))
	})(ctx, h)
}

// frames opens a stream and then sends headers of that kind and length for it, and nothing else.
func frames(kind byte, length uint32) func(context.Context, *host) error {
	return raw(func(w io.Writer) error {
		if _, err := w.Write(yamuxFrame(1, 1, 3, 0)); err != nil {
			return err
		}
		return endlessly(w, bytes.Repeat(yamuxFrame(kind, 0, 3, length), 1000))
	})
}

// hugeMessage announces a gigabyte on a stream of an agent that is known.
func hugeMessage(ctx context.Context, h *host) error {
	a, err := h.connect(ctx)
	if err != nil {
		return err
	}
	stream, err := a.open(wire.KindInsights)
	if err != nil {
		return err
	}
	if _, err = stream.Write(binary.BigEndian.AppendUint32(nil, 1<<30)); err != nil {
		return err
	}
	_ = endlessly(stream, make([]byte, 1<<16))
	<-a.streams.Done()
	return a.streams.Close()
}

// socket runs an attack on the WebSocket itself.
func socket(do func(w io.Writer) error) func(context.Context, *host) error {
	return func(ctx context.Context, h *host) error {
		conn, err := h.upgrade(ctx)
		if err != nil {
			return err
		}
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
		err = do(conn)
		reading.Wait()
		_ = conn.Close()
		return err
	}
}

// upgrade opens a WebSocket by hand, and offers compression.
func (h *host) upgrade(ctx context.Context) (*tls.Conn, error) {
	conn, err := (&tls.Dialer{Config: h.tls()}).DialContext(ctx, "tcp", strings.TrimPrefix(h.URL, "https://"))
	if err != nil {
		return nil, err
	}
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return nil, errors.New("no TLS")
	}
	if _, err = fmt.Fprintf(conn, "GET /tunnel/v1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // there is none
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.New(answer.Status)
	}
	if extensions := answer.Header.Get("Sec-WebSocket-Extensions"); extensions != "" {
		return nil, fmt.Errorf("the gateway agreed to %s", extensions)
	}
	return secure, nil
}

// frameHeader writes the header of a masked frame (RFC 6455, 5.2) with a mask of zeros.
func frameHeader(w io.Writer, first byte, length uint64) error {
	out := []byte{first}
	switch {
	case length < 126:
		out = append(out, 0x80|byte(length))
	case length < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(length))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), length)
	}
	_, err := w.Write(append(out, 0, 0, 0, 0))
	return err
}

// maskedFrames is a frame, so many times.
func maskedFrames(first byte, payload []byte, n int) []byte {
	var one bytes.Buffer
	_ = frameHeader(&one, first, uint64(len(payload)))
	one.Write(payload)
	return bytes.Repeat(one.Bytes(), n)
}

// bomb sends what would unpack to a gigabyte.
func bomb(w io.Writer) error {
	var packed bytes.Buffer
	deflate, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err = deflate.Write(zeros); err != nil {
			return err
		}
	}
	if err = deflate.Close(); err != nil {
		return err
	}
	for range 16 {
		if _, err = w.Write(maskedFrames(0xc2, packed.Bytes(), 1)); err != nil {
			return nil //nolint:nilerr // the gateway has had enough
		}
	}
	return nil
}

// slowHeaders opens many connections that never finish a request. In short it gives up before the gateway does.
func slowHeaders(ctx context.Context, h *host) error {
	n, patience := 300, 2*time.Second
	if *long {
		n, patience = 5000, deadline
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return crowd(n, func() error {
		conn, err := (&tls.Dialer{Config: h.tls()}).DialContext(ctx, "tcp", strings.TrimPrefix(h.URL, "https://"))
		if err != nil {
			return nil // it was turned away
		}
		var reading sync.WaitGroup
		defer reading.Wait()
		defer conn.Close() //nolint:errcheck // it is over
		ended := make(chan struct{})
		reading.Go(func() {
			_, _ = io.Copy(io.Discard, conn)
			close(ended)
		})
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for text := "GET / HTTP/1.1\r\nHost: h\r\nX: "; ; text = "x" {
			if _, err = conn.Write([]byte(text)); err != nil {
				return nil // as above
			}
			select {
			case <-tick.C:
			case <-ended:
				return nil
			case <-limit.Done():
				if !*long {
					return nil
				}
				return errors.New("the gateway waits for ever for a request")
			}
		}
	})
}

// halfOpen stops in the middle of many handshakes.
func halfOpen(ctx context.Context, h *host) error {
	return crowd(200, func() error {
		conn, err := h.upgrade(ctx)
		if err != nil {
			return nil //nolint:nilerr // it was turned away
		}
		_, _ = io.Copy(io.Discard, conn)
		return conn.Close()
	})
}

// crowd does the same so many times at once.
func crowd(n int, do func() error) error {
	errs := make(chan error, n)
	var all sync.WaitGroup
	for range n {
		all.Go(func() { errs <- do() })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// neverReading is an agent that is known, sends reports, and takes no answer.
func neverReading(ctx context.Context, h *host) error {
	a, err := h.connect(ctx)
	if err != nil {
		return err
	}
	report := &wire.ControlUp{Message: &wire.ControlUp_RunReport{RunReport: &wire.RunReport{RunId: "run"}}}
	for err == nil {
		err = wire.WriteMessage(a.control, report)
	}
	<-a.streams.Done()
	return a.streams.Close()
}
