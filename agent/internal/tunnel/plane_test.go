package tunnel_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

// plane is a control plane that speaks the real protocol over the real layers and keeps what it is told in memory.
type plane struct {
	t           *testing.T
	key         ed25519.PrivateKey
	fingerprint string
	server      *httptest.Server
	// caFile holds the certificate of the outer TLS.
	caFile string

	// answer replaces the answer to the first message, when set.
	answer func(first *wire.ControlUp) *wire.ControlDown
	// acknowledge replaces what is said to be stored, when set.
	acknowledge func(stored uint64) uint64
	// onSession is called after each welcome, when set.
	onSession func(ctx context.Context, s *mux.Session)
	// cut says, after each message of insights was stored, whether the session ends without an acknowledgement, when set.
	cut func() bool
	// rotated is the answer to a Rotate, when set.
	rotated func(*wire.Rotate) *wire.Rotated
	// clock is how far the control plane's clock is before this machine's.
	clock time.Duration
	// busy makes every request be answered with 503.
	busy bool

	statuses chan *wire.Status
	rotate   chan *wire.Rotate
	down     chan *wire.ControlDown
	ended    chan struct{}

	mu       sync.Mutex
	counter  uint64
	stored   []string
	repeated int
	messages int
	reports  []string
	heard    []string
	hellos   []*wire.Hello
	keys     []ed25519.PublicKey
	rotates  []*wire.Rotate
	enrolled []*wire.Enroll
}

func newPlane(t *testing.T, change func(*plane)) *plane {
	t.Helper()
	public, key := newKey(t)
	p := &plane{
		t: t, key: key, fingerprint: seal.Fingerprint(public),
		statuses: make(chan *wire.Status, 100), rotate: make(chan *wire.Rotate, 100), down: make(chan *wire.ControlDown), ended: make(chan struct{}, 1000),
	}
	if change != nil {
		change(p)
	}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p.server.StartTLS()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	p.caFile = writeCA(t, p.server.Certificate().Raw)
	return p
}

func writeCA(t *testing.T, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *plane) serve(w http.ResponseWriter, r *http.Request) {
	if p.busy {
		w.Header().Set("Retry-After", "77")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	outer, err := mux.Upgrade(w, r)
	if err != nil {
		return
	}
	defer func() { _ = outer.Close() }()
	config, err := seal.ServerConfig(p.key)
	if err != nil {
		p.t.Error(err)
		return
	}
	inner := tls.Server(outer, config)
	if inner.HandshakeContext(r.Context()) != nil {
		return
	}
	streams, err := mux.Server(inner, quiet())
	if err != nil {
		p.t.Error(err)
		return
	}
	defer func() { _ = streams.Close() }()
	state := inner.ConnectionState()
	// Errors here are cut connections, which the tests make on purpose; a breach of the protocol fails the test where it
	// is seen.
	_ = p.converse(r.Context(), streams, &state)
	p.ended <- struct{}{}
}

func (p *plane) accept(ctx context.Context, streams *mux.Session, want wire.Kind) (*mux.Stream, error) {
	stream, err := streams.Accept(ctx)
	if err != nil {
		return nil, err
	}
	header := &wire.StreamHeader{}
	if err = wire.ReadMessage(stream, header); err != nil {
		return nil, err
	}
	if kind, err := wire.CheckHeader(header); err != nil || kind != want {
		p.t.Errorf("a stream is %q, %v, want %q", kind, err, want)
	}
	return stream, nil
}

func (p *plane) converse(ctx context.Context, streams *mux.Session, state *tls.ConnectionState) error {
	control, err := p.accept(ctx, streams, wire.KindControl)
	if err != nil {
		return err
	}
	first := &wire.ControlUp{}
	if err = wire.ReadMessage(control, first); err != nil {
		return err
	}
	if p.answer != nil {
		if err = wire.WriteMessage(control, p.answer(first)); err != nil {
			return err
		}
		<-streams.Done()
		return nil
	}
	if e := first.GetEnroll(); e != nil {
		p.mu.Lock()
		p.enrolled = append(p.enrolled, e)
		p.mu.Unlock()
		answer := &wire.Enrolled{AgentId: "agent-1", TenantId: tenant, WorkspaceId: "workspace-1", BundleKeys: [][]byte{p.key[32:]}}
		if err = wire.WriteMessage(control, &wire.ControlDown{Message: &wire.ControlDown_Enrolled{Enrolled: answer}}); err != nil {
			return err
		}
		<-streams.Done()
		return nil
	}
	return p.session(ctx, streams, control, first.GetHello(), state)
}

func (p *plane) session(ctx context.Context, streams *mux.Session, control *mux.Stream, hello *wire.Hello, state *tls.ConnectionState) error {
	welcome := p.welcome(hello, state)
	if err := wire.WriteMessage(control, &wire.ControlDown{Message: &wire.ControlDown_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	if p.onSession != nil {
		p.onSession(ctx, streams)
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	defer func() { _ = streams.Close() }()
	var sending sync.Mutex
	send := func(m *wire.ControlDown) error {
		sending.Lock()
		defer sending.Unlock()
		return wire.WriteMessage(control, m)
	}
	workers.Go(func() {
		for {
			select {
			case m := <-p.down:
				_ = send(m)
			case <-streams.Done():
				return
			}
		}
	})
	workers.Go(func() {
		stream, err := p.accept(ctx, streams, wire.KindInsights)
		for err == nil {
			err = p.store(stream)
		}
		_ = streams.Close()
	})
	return p.receive(control, state, send)
}

func (p *plane) receive(control *mux.Stream, state *tls.ConnectionState, send func(*wire.ControlDown) error) error {
	var reports uint64
	for {
		up := &wire.ControlUp{}
		if err := wire.ReadMessage(control, up); err != nil {
			return err
		}
		switch m := up.GetMessage().(type) {
		case *wire.ControlUp_Status:
			p.hear(fmt.Sprintf("status %d", m.Status.GetDesiredSerial()))
			select {
			case p.statuses <- m.Status:
			default:
			}
		case *wire.ControlUp_Rotate:
			p.takeRotate(m.Rotate, state)
			if p.rotated == nil {
				continue
			}
			if err := send(&wire.ControlDown{Message: &wire.ControlDown_Rotated{Rotated: p.rotated(m.Rotate)}}); err != nil {
				return err
			}
		case *wire.ControlUp_RunReport:
			p.hear("report " + m.RunReport.GetRunId())
			p.mu.Lock()
			p.reports = append(p.reports, m.RunReport.GetRunId())
			p.mu.Unlock()
			reports++
			if err := send(&wire.ControlDown{Message: &wire.ControlDown_RunReportsStored{RunReportsStored: reports}}); err != nil {
				return err
			}
		default:
			p.t.Errorf("a %T in the middle of a session", m)
		}
	}
}

func (p *plane) hear(said string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, said)
}

// welcome checks the hello as a control plane must.
func (p *plane) welcome(hello *wire.Hello, state *tls.ConnectionState) *wire.Welcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	message, err := seal.HelloMessage(state, hello.GetCounter())
	if err != nil {
		p.t.Error(err)
	}
	key, err := seal.PeerKey(*state)
	if err != nil || !ed25519.Verify(key, message, hello.GetSignature()) {
		p.t.Errorf("the hello's signature is not valid: %v", err)
	}
	if hello.GetCounter() <= p.counter {
		p.t.Errorf("the counter went from %d to %d", p.counter, hello.GetCounter())
	}
	p.counter = hello.GetCounter()
	p.hellos = append(p.hellos, hello)
	p.keys = append(p.keys, key)
	value := sha256.Sum256([]byte(strconv.FormatUint(p.counter, 10)))
	return &wire.Welcome{InsightsStored: uint64(len(p.stored)), Clock: time.Now().Add(p.clock).UnixMicro(), Session: value[:]}
}

// takeRotate checks a rotation as a control plane must.
func (p *plane) takeRotate(r *wire.Rotate, state *tls.ConnectionState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	message, err := seal.RotateMessage(state, agentID, r.GetEd25519PublicKey(), r.GetX25519PublicKey())
	if err != nil || !ed25519.Verify(r.GetEd25519PublicKey(), message, r.GetSignature()) {
		p.t.Errorf("the rotation's signature is not valid: %v", err)
	}
	p.rotates = append(p.rotates, r)
	select {
	case p.rotate <- r:
	default:
	}
}

// store commits one batch as a control plane must: what is there already is dropped, a gap is an error.
func (p *plane) store(stream *mux.Stream) error {
	up := &wire.InsightsUp{}
	if err := wire.ReadMessage(stream, up); err != nil {
		return err
	}
	// A receipt stands as its reason in the place of each insight that does not come.
	var came []string
	for _, r := range up.GetReceipts() {
		came = append(came, slices.Repeat([]string{r.GetReason()}, int(r.GetCount()))...) //nolint:gosec // the tests' own
	}
	first := up.GetFirstSeq() - uint64(len(came))
	for _, insight := range up.GetInsights() {
		came = append(came, insight.GetName())
	}
	p.mu.Lock()
	p.messages++
	for i, name := range came {
		seq := first + uint64(i)
		switch stored := uint64(len(p.stored)); {
		case seq <= stored:
			p.repeated++
			if p.stored[seq-1] != name {
				p.t.Errorf("insight %d came first as %s and then as %s", seq, p.stored[seq-1], name)
			}
		case seq == stored+1:
			p.stored = append(p.stored, name)
		default:
			p.t.Errorf("insight %d came after %d", seq, stored)
		}
	}
	stored := uint64(len(p.stored))
	p.mu.Unlock()
	if p.cut != nil && p.cut() {
		return errCut
	}
	if p.acknowledge != nil {
		stored = p.acknowledge(stored)
	}
	return wire.WriteMessage(stream, &wire.InsightsDown{Stored: stored})
}

// checkStored fails unless exactly the insights 1 to n are stored, in order.
func (p *plane) checkStored(n int) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.stored) != n {
		p.t.Errorf("%d insights are stored, want %d", len(p.stored), n)
	}
	for i, name := range p.stored {
		if name != insightName(i+1) {
			p.t.Fatalf("insight %d is %s", i+1, name)
		}
	}
}

func insightName(n int) string { return fmt.Sprintf("insight-%d", n) }

var errCut = errors.New("cut on purpose") //nolint:gochecknoglobals // a sentinel

var errNoCounter = errors.New("the disk is full") //nolint:gochecknoglobals // a sentinel
