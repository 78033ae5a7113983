package gateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/gateway"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

// site is a gateway that serves over TLS on loopback.
type site struct {
	t           *testing.T
	domain      *domain
	fingerprint string
	server      *httptest.Server
	registry    *prometheus.Registry
	// stop ends Run and waits for it.
	stop func()
}

func newSite(t *testing.T, change func(*gateway.Settings)) *site {
	t.Helper()
	public, key := newKey(t)
	s := &site{t: t, domain: newDomain(t), fingerprint: seal.Fingerprint(public), registry: prometheus.NewRegistry()}
	settings := gateway.Settings{Fleet: s.domain, Key: key, Log: slog.New(slog.DiscardHandler), Registerer: s.registry, AdmitPerSecond: 10_000}
	if change != nil {
		change(&settings)
	}
	g, err := gateway.New(settings)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	waitServing(t, g)
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	}
	s.server = httptest.NewUnstartedServer(g)
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.StartTLS()
	t.Cleanup(func() {
		s.stop()
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

func waitServing(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !g.Serving() {
		<-tick.C
	}
}

// visitor is a peer of the gateway that does what a test tells it, right or wrong.
type visitor struct {
	t       *testing.T
	key     ed25519.PrivateKey
	inner   tls.ConnectionState
	streams *mux.Session
	control *mux.Stream
}

// outer opens the WebSocket.
func (s *site) outer() (*websocket.Conn, error) {
	ws, answer, err := websocket.Dial(s.t.Context(), s.server.URL, &websocket.DialOptions{HTTPClient: s.server.Client()})
	if answer != nil && answer.Body != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	return ws, err
}

// innerTLS opens the layers up to the inner TLS session.
func (s *site) innerTLS(key ed25519.PrivateKey) *tls.Conn {
	s.t.Helper()
	conn, _, err := mux.Dial(s.t.Context(), s.server.URL, s.server.Client()) //nolint:bodyclose // it needs no closing
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	config, err := seal.ClientConfig(key, s.fingerprint)
	if err != nil {
		s.t.Fatal(err)
	}
	inner := tls.Client(conn, config)
	if err = inner.HandshakeContext(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return inner
}

func (s *site) visit(key ed25519.PrivateKey) *visitor {
	s.t.Helper()
	inner := s.innerTLS(key)
	streams, err := mux.Client(inner, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = streams.Close() })
	return &visitor{t: s.t, key: key, inner: inner.ConnectionState(), streams: streams}
}

func (v *visitor) open(header *wire.StreamHeader) *mux.Stream {
	v.t.Helper()
	stream, err := v.streams.Open()
	if err != nil {
		v.t.Fatal(err)
	}
	if err = wire.WriteMessage(stream, header); err != nil {
		v.t.Fatal(err)
	}
	return stream
}

func (v *visitor) say(stream *mux.Stream, m proto.Message) {
	v.t.Helper()
	if err := wire.WriteMessage(stream, m); err != nil {
		v.t.Fatal(err)
	}
}

// hello opens the control stream and says hello with that counter.
func (v *visitor) hello(counter uint64) {
	v.t.Helper()
	message, err := seal.HelloMessage(&v.inner, counter)
	if err != nil {
		v.t.Fatal(err)
	}
	v.control = v.open(wire.NewHeader(wire.KindControl))
	v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: &wire.Hello{Counter: counter, Signature: ed25519.Sign(v.key, message)}}})
}

// hear reads the next message of the control stream.
func (v *visitor) hear() *wire.ControlDown {
	v.t.Helper()
	down := &wire.ControlDown{}
	if err := wire.ReadMessage(v.control, down); err != nil {
		v.t.Fatal(err)
	}
	return down
}

// keeps says something, which proves that the value of the session was kept.
func (v *visitor) keeps() {
	v.t.Helper()
	v.say(v.control, &wire.ControlUp{})
}

// connect says hello, and checks that welcome and the desired state follow.
func (v *visitor) connect(counter uint64) *wire.Welcome {
	v.t.Helper()
	v.hello(counter)
	welcome := v.hear().GetWelcome()
	if welcome == nil {
		v.t.Fatal("no welcome came")
	}
	v.keeps()
	if desired := v.hear().GetDesired(); desired == nil {
		v.t.Fatal("no desired state came after the welcome")
	}
	return welcome
}

// refused reads on until the refusal, and checks its code and that the session ends.
func (v *visitor) refused(code string) *wire.Refusal {
	v.t.Helper()
	for {
		down := v.hear()
		r := down.GetRefusal()
		if r == nil {
			continue
		}
		if r.GetCode() != code {
			v.t.Errorf("refused with %q (%s), want %q", r.GetCode(), r.GetMessage(), code)
		}
		_ = v.streams.Close()
		return r
	}
}

func (s *site) metric(name string) float64 {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}
