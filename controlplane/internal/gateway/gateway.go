// Package gateway terminates the agents' tunnels: it admits connections at a bounded rate, authenticates agents by their
// keys, and passes their typed conversations to the domain.
//
// It holds no rule of the domain and no SQL; all of that is behind fleet.Gateway. What an agent may cost is bounded. A
// Gateway is an http.Handler for one path, safe for concurrent use; it serves only while Run runs.
package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/internal/source"
	"github.com/outfeed/outfeed/protocol/seal"
)

// Path is where the handler belongs.
const Path = "/tunnel/v1"

const (
	// With these, 10,000 agents are back within a minute and a half after a restart, and never more than 5 % of them come in
	// within one second: 200 that are let in, 50 at once after a quiet moment, and 192 whose handshakes took longer.
	defaultHandshakes = 192
	defaultPerSecond  = 200
	// placesPerHandshake is how many may be let in, and not have begun their handshakes, for each one that has.
	placesPerHandshake = 3
	// handshakeTimeout bounds everything between the WebSocket upgrade and the answer to the first message. A link of 2 s
	// delay that loses every fifth packet takes 40 s for it now and then.
	handshakeTimeout = 60 * time.Second
	// lingerTimeout is how long a peer that was told to go has to read why.
	lingerTimeout = 3 * time.Second
)

// errDraining is why sessions end when Run does, and errBusy why some do not begin.
var (
	errDraining = errors.New("the control plane is stopping")
	errBusy     = errors.New("the control plane is busy")
)

// Settings is what code sets of a Gateway.
type Settings struct {
	Fleet fleet.Gateway
	// Key is the control plane's Ed25519 key, whose fingerprint the enrolment tokens carry.
	Key        ed25519.PrivateKey
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// HandshakesAtOnce is how many connections may be on their way in; 0 for 192.
	HandshakesAtOnce int
	// AdmitPerSecond is how many connections are let in per second, a quarter of them at once after a quiet moment; 0 for
	// 200.
	AdmitPerSecond int
	// RushLasts is how long after the start, and after many sessions have ended, many agents may come at once; 0 for 3 min.
	RushLasts time.Duration
}

// Gateway accepts tunnels.
type Gateway struct {
	fleet     fleet.Gateway
	tls       *tls.Config
	log       *slog.Logger
	metrics   *metrics
	admission *admission
	turns     *turns
	rush      *rush
	budget    *budget
	perSecond int

	// sessions counts every connection that is being served.
	sessions sync.WaitGroup
	mu       sync.Mutex
	open     bool
	peers    map[*peer]struct{}
	// byAgent has the newest session of each agent.
	byAgent map[fleet.ID]*peer
	// parting is how many agents there were when Run's ctx ended.
	parting int
}

// New makes a Gateway that does not serve yet.
func New(s Settings) (*Gateway, error) {
	config, err := seal.ServerConfig(s.Key)
	if err != nil {
		return nil, fmt.Errorf("prepare the gateway: %w", err)
	}
	config.GetConfigForClient = heard
	m, err := newMetrics(s.Registerer)
	if err != nil {
		return nil, err
	}
	if s.HandshakesAtOnce <= 0 {
		s.HandshakesAtOnce = defaultHandshakes
	}
	if s.AdmitPerSecond <= 0 {
		s.AdmitPerSecond = defaultPerSecond
	}
	if s.RushLasts <= 0 {
		s.RushLasts = defaultRush
	}
	return &Gateway{
		fleet: s.Fleet, tls: config, log: s.Log, metrics: m, perSecond: s.AdmitPerSecond,
		admission: newAdmission(s.HandshakesAtOnce*placesPerHandshake, s.HandshakesAtOnce, s.AdmitPerSecond),
		turns:     newTurns(s.AdmitPerSecond), rush: newRush(s.RushLasts),
		budget: newBudget(),
		peers:  map[*peer]struct{}{}, byAgent: map[fleet.ID]*peer{},
	}, nil
}

// placeKey is the key of a peer's place in the context of its handshake.
type placeKey struct{}

// heard is when a peer has begun the inner handshake. Before anything is computed for it, it waits for its turn.
func heard(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if place, ok := hello.Context().Value(placeKey{}).(*entrant); ok {
		if err := place.begin(hello.Context()); err != nil {
			return nil, err
		}
	}
	return nil, nil //nolint:nilnil // that means the configuration as it is
}

// Run serves until ctx ends, then tells the connected agents to reconnect elsewhere and waits for their sessions. That
// is no error.
func (g *Gateway) Run(ctx context.Context) error {
	g.rush.start()
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	<-ctx.Done()
	g.mu.Lock()
	g.open = false
	g.parting = len(g.byAgent)
	for p := range g.peers {
		p.cancel(errDraining)
	}
	g.mu.Unlock()
	g.sessions.Wait()
	return nil
}

// Serving says whether connections are let in: while Run runs and its ctx has not ended.
func (g *Gateway) Serving() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Rush says whether many agents may come at once now: shortly after Run has begun, and while many have lost their sessions lately
// and are not back. It is for who has to decide whether those who can come later are served beside many others.
func (g *Gateway) Rush() bool { return g.rush.on() }

// ServeHTTP takes one tunnel. It returns once the tunnel is open and before the agent is known: what the HTTP server keeps for
// a request would be a large part of what an idle session costs, and most of what one costs that says nothing. Run waits for
// the session.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	p := &peer{gateway: g, second: noTurn, remote: source.Host(r.RemoteAddr), log: g.log.With(slog.String("remote", r.RemoteAddr)), cancel: cancel}
	from := source.Site(r.RemoteAddr)
	if !g.enter(p) {
		cancel(nil)
		g.busy(w, g.admission.turn(from))
		return
	}
	place, ok := g.admission.admit(from, cancel)
	if !ok {
		g.busy(w, g.admission.turn(from))
		g.leave(ctx, p, errBusy)
		return
	}
	conn, err := mux.Upgrade(w, r)
	if err != nil {
		place.leave()
		g.leave(ctx, p, err)
		return
	}
	go g.receive(ctx, p, conn, place)
}

// receive waits until the peer says something, in a goroutine with a small stack. The handshake needs a large one, and what
// comes after it a small one again.
func (g *Gateway) receive(ctx context.Context, p *peer, conn net.Conn, place *entrant) {
	early, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errors.New("the handshake took longer than "+handshakeTimeout.String()))
	early = context.WithValue(early, placeKey{}, place)
	heard := context.AfterFunc(early, func() { _ = conn.Close() })
	mux.AwaitFirst(conn)
	heard()
	go func() {
		defer cancel()
		rest, err := p.serve(ctx, early, g.metrics.count(conn))
		place.leave()
		if rest == nil {
			g.leave(ctx, p, errors.Join(err, closed(conn)))
			return
		}
		go func() { g.leave(ctx, p, rest()) }()
	}()
}

// closed closes what may be closed already.
func closed(conn net.Conn) error {
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

func reason(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}

// busy answers a connection that is not let in now.
func (g *Gateway) busy(w http.ResponseWriter, after time.Duration) {
	g.metrics.turnedAway.Inc()
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	http.Error(w, "the control plane is busy or restarting; try again later", http.StatusServiceUnavailable)
}

func (g *Gateway) enter(p *peer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open {
		return false
	}
	g.peers[p] = struct{}{}
	g.sessions.Add(1)
	return true
}

func (g *Gateway) leave(ctx context.Context, p *peer, err error) {
	defer g.sessions.Done()
	p.cancel(nil)
	if !errors.Is(err, errBusy) {
		p.log.InfoContext(ctx, "a tunnel ended", slog.String("reason", reason(err)))
	}
	g.turns.give(p.second)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.peers, p)
}

// connected makes p the session of its agent and ends the one before, which is dead or a copy.
func (g *Gateway) connected(p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if before := g.byAgent[p.id.Agent]; before != nil {
		before.cancel(errReplaced)
	}
	g.byAgent[p.id.Agent] = p
	g.rush.back(p.id.Agent)
	g.metrics.connected.Set(float64(len(g.byAgent)))
}

func (g *Gateway) disconnected(p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byAgent[p.id.Agent] == p {
		delete(g.byAgent, p.id.Agent)
		g.rush.left(p.id.Agent)
	}
	g.metrics.connected.Set(float64(len(g.byAgent)))
}

// spread is how long an agent with a turn should wait after a restart, so that not all come back at once, nor faster than they
// are let in. Where there are more agents than turns, it takes longer until all are back.
func (g *Gateway) spread(turn time.Duration) time.Duration {
	g.mu.Lock()
	// Not how many are left: those that are told last would all come first.
	agents := g.parting
	g.mu.Unlock()
	if agents <= turnsWithin*g.turns.perSecond {
		return turn
	}
	return rand.N(time.Duration(agents)*time.Second*5/4/time.Duration(g.perSecond) + time.Second) //nolint:gosec // jitter needs no cryptographic randomness
}

// secure runs the inner TLS session.
func (g *Gateway) secure(ctx context.Context, conn net.Conn) (*tls.Conn, ed25519.PublicKey, error) {
	inner := tls.Server(conn, g.tls)
	if err := inner.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, fmt.Errorf("the inner TLS handshake failed: %w", err)
	}
	key, err := seal.PeerKey(inner.ConnectionState())
	if err != nil {
		return nil, nil, err
	}
	return inner, key, nil
}
