package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// disconnectTimeout bounds the record of a session's end.
	disconnectTimeout = 5 * time.Second
)

// peer is one connection.
type peer struct {
	gateway *Gateway
	log     *slog.Logger
	cancel  context.CancelCauseFunc

	// remote is where the connection comes from.
	remote  string
	key     ed25519.PublicKey
	inner   tls.ConnectionState
	streams *mux.Session
	control *mux.Stream
	// sending keeps the writers of the control stream apart.
	sending sync.Mutex

	// id is zero until the hello was accepted.
	id fleet.AgentIdentity
	// complaints are about what receive takes; only that uses it.
	complaints complaints
	// second and turn are the agent's turn; noTurn and 0 until it is welcomed.
	second int
	turn   time.Duration
	// asked is whether this session was asked for new keys. Only watch uses it.
	asked bool
}

// serve takes one connection through its handshake, with which early ends. It gives the session that is left to run, or nil
// when all is over.
func (p *peer) serve(ctx, early context.Context, conn net.Conn) (rest func() error, err error) {
	inner, key, err := p.gateway.secure(early, conn)
	if err != nil {
		return nil, err
	}
	p.key, p.inner = key, inner.ConnectionState()
	if p.streams, err = mux.ServerForStranger(inner, p.log); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	rest, err = p.greet(ctx, early)
	if rest == nil {
		p.finish(err)
		err = errors.Join(err, p.streams.Close())
	}
	return rest, err
}

// greet takes the first message. early ends with the handshake, ctx with the session.
func (p *peer) greet(ctx, early context.Context) (rest func() error, err error) {
	first, err := p.first(early)
	if err != nil {
		return nil, err
	}
	switch m := first.GetMessage().(type) {
	case *wire.ControlUp_Enroll:
		return nil, p.enroll(early, m.Enroll)
	case *wire.ControlUp_Hello:
		return p.welcome(ctx, m.Hello)
	default:
		return nil, breach("the first message must be an enrolment or a hello")
	}
}

// first waits for the control stream and its first message.
func (p *peer) first(ctx context.Context) (*wire.ControlUp, error) {
	// Ending the early context ends the wait for a message that does not come.
	stop := context.AfterFunc(ctx, func() { _ = p.streams.Close() })
	defer stop()
	stream, kind, err := p.accept(ctx)
	if err != nil {
		return nil, err
	}
	p.control = stream
	if kind != wire.KindControl {
		return nil, breach(fmt.Sprintf("the first stream must be %q", wire.KindControl))
	}
	first := &wire.ControlUp{}
	if err = wire.ReadFirst(stream, first); err != nil {
		return nil, oversized(err)
	}
	return first, nil
}

// accept takes the next stream and reads its header.
func (p *peer) accept(ctx context.Context) (*mux.Stream, wire.Kind, error) {
	stream, err := p.streams.Accept(ctx)
	if err != nil {
		return nil, "", err
	}
	if p.control == nil {
		// Whatever it will turn out to be, it is where a refusal goes.
		p.control = stream
	}
	if err = stream.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, "", err
	}
	header := &wire.StreamHeader{}
	if err = wire.ReadFirst(stream, header); err != nil {
		return nil, "", oversized(err)
	}
	kind, err := wire.CheckHeader(header)
	if err != nil {
		return nil, "", breach(err.Error())
	}
	return stream, kind, stream.SetReadDeadline(time.Time{})
}

// oversized tells a peer whose message was too big; other errors of reading mean that nobody is there to be told.
func oversized(err error) error {
	if errors.Is(err, wire.ErrTooBig) {
		return &refusal{code: wire.RefusalProtocol, message: err.Error()}
	}
	return err
}

func (p *peer) enroll(ctx context.Context, e *wire.Enroll) error {
	if len(e.GetX25519PublicKey()) != 32 {
		return breach("the enrolment's X25519 key must have 32 bytes")
	}
	enrolled, err := p.gateway.fleet.Enroll(ctx, e, p.key)
	if err != nil {
		return refuse(err)
	}
	p.log.InfoContext(ctx, "an agent enrolled", slog.String("agent_id", enrolled.GetAgentId()), slog.String("tenant_id", enrolled.GetTenantId()))
	return p.send(&wire.ControlDown{Message: &wire.ControlDown_Enrolled{Enrolled: enrolled}})
}

// welcome takes the hello, and gives what is left to run.
func (p *peer) welcome(ctx context.Context, hello *wire.Hello) (rest func() error, err error) {
	begun, changes, err := p.hello(ctx, hello)
	if err != nil {
		return nil, err
	}
	p.streams.Trust()
	counter := hello.GetCounter()
	return func() error {
		defer p.disconnect(ctx, counter)
		return p.converse(ctx, begun, changes)
	}, nil
}

// session is what runs for a peer that is known. A conversation in which nothing happens has no goroutine: a gateway has
// thousands of them.
type session struct {
	// end ends the session and says why; the first call counts.
	end context.CancelCauseFunc
	// work counts what runs or waits.
	work sync.WaitGroup
	// insights says that the insights stream is open. Only acceptInsights uses it.
	insights bool
	// out is what the agent is still to be told.
	out outbox
	// kept closes once the agent is known to have kept the session's value; keeping guards that.
	keeping sync.Mutex
	kept    chan struct{}
	// over closes once the peer was told why the session ends.
	over chan struct{}
}

// each has a conversation go on whenever there is something for it, until it gives an error. await calls back once there
// is, and also when the session has ended.
func (s *session) each(await func(func()), converse func() error) {
	s.work.Add(1)
	var again func()
	again = func() {
		if err := converse(); err != nil {
			s.end(err)
			s.work.Done()
			return
		}
		await(again)
	}
	await(again)
}

// converse runs the session's conversations; the first that ends takes the others with it.
func (p *peer) converse(ctx context.Context, begun fleet.Session, changes <-chan struct{}) error {
	ctx, end := context.WithCancelCause(ctx)
	s := &session{end: end, kept: make(chan struct{}), over: make(chan struct{})}
	mux.Aside(func() { p.begin(ctx, s, begun.Stored) })
	defer p.gateway.disconnected(p)
	end(p.watch(ctx, s, changes, begun.Rotate))
	<-s.over
	s.work.Wait()
	return context.Cause(ctx)
}

// begin begins the conversations.
func (p *peer) begin(ctx context.Context, s *session, stored uint64) {
	p.gateway.metrics.sessions.Inc()
	p.gateway.connected(p)
	var reports uint64
	s.each(p.control.Await, func() error { return p.receive(ctx, s, &reports) })
	s.each(p.streams.AwaitStream, func() error { return p.acceptInsights(ctx, s, stored) })
	context.AfterFunc(ctx, func() {
		defer close(s.over)
		p.part(context.Cause(ctx))
	})
}

// part tells the peer why, and closes the streams, which unblocks those who still read or write.
func (p *peer) part(why error) {
	// Behind a message that the peer does not take, nothing can be told. Closing may take another 5 s, in which TLS tries to
	// say good-bye; a revoked agent is cut within 10 s.
	cut := time.AfterFunc(lingerTimeout+time.Second, func() { _ = p.streams.Close() })
	defer cut.Stop()
	p.finish(why)
	_ = p.streams.Close()
}

// hello authenticates the agent and welcomes it.
func (p *peer) hello(ctx context.Context, hello *wire.Hello) (begun fleet.Session, changes <-chan struct{}, err error) {
	message, err := seal.HelloMessage(&p.inner, hello.GetCounter())
	if err != nil {
		return begun, nil, err
	}
	if !ed25519.Verify(p.key, message, hello.GetSignature()) {
		return begun, nil, breach("the hello's signature is not valid for this session")
	}
	id, err := p.gateway.fleet.AgentByKey(ctx, p.key)
	if err != nil {
		return begun, nil, refuse(err)
	}
	p.log = p.log.With(slog.String("agent_id", string(id.Agent)))
	if wait := p.gateway.budget.early(id.Agent); wait > 0 {
		return begun, nil, crowdedOut(wait, errEarly)
	}
	// Before the first bundle is read, so that no change falls in between.
	if changes, err = p.gateway.fleet.Changes(ctx, id); err != nil {
		return begun, nil, refuse(err)
	}
	begun, err = p.gateway.fleet.Connect(ctx, id, fleet.Caller{Key: p.key, Address: p.remote, Alive: p.alive}, hello)
	if errors.Is(err, fleet.ErrCloneNoticed) {
		p.gateway.metrics.locked.Inc()
		p.log.ErrorContext(ctx, "an agent was locked: a copy of its data directory, or an old one, has connected", slog.String("error", err.Error()))
	}
	if err != nil {
		return begun, nil, refuse(err)
	}
	p.id = id
	p.id.Session = int64(hello.GetCounter()) //nolint:gosec // Connect has checked it
	p.second = p.gateway.turns.take()
	p.turn = at(p.second)
	welcome := &wire.Welcome{
		InsightsStored: begun.Stored, Clock: time.Now().UnixMicro(), Session: begun.Value, TurnMs: uint32(p.turn.Milliseconds()), //nolint:gosec // a minute at most
		InsightsLost: &begun.Lost,
	}
	if err = p.send(&wire.ControlDown{Message: &wire.ControlDown_Welcome{Welcome: welcome}}); err != nil {
		p.disconnect(ctx, hello.GetCounter())
		return begun, nil, err
	}
	p.log.InfoContext(ctx, "an agent connected", slog.Uint64("insights_stored", begun.Stored))
	return begun, changes, nil
}

// alive says whether the agent still waits for the answer to its hello.
func (p *peer) alive() bool {
	err := p.streams.Alive()
	if err != nil {
		p.log.Warn("a hello was read that was given up by its sender; it looks like a copy's, and was refused", slog.String("error", err.Error()))
	}
	return err == nil
}

// disconnect records the end, also when the reason is that everything is ending.
func (p *peer) disconnect(ctx context.Context, counter uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
	defer cancel()
	if err := p.gateway.fleet.Disconnect(ctx, p.id, counter); err != nil {
		p.log.WarnContext(ctx, "the end of a session was not recorded", slog.String("error", err.Error()))
	}
}

func (p *peer) send(m *wire.ControlDown) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	return wire.WriteMessage(p.control, m)
}

// finish tells the peer why its session ends, where there is something to tell, and gives it a moment to read it.
func (p *peer) finish(cause error) {
	if r := p.goodbye(cause); r != nil {
		p.gateway.metrics.refusals.WithLabelValues(r.GetCode()).Inc()
		if p.control == nil || p.send(&wire.ControlDown{Message: &wire.ControlDown_Refusal{Refusal: r}}) != nil {
			return
		}
	} else if cause != nil {
		return
	}
	moment := time.NewTimer(lingerTimeout)
	defer moment.Stop()
	select {
	case <-p.streams.Done():
	case <-moment.C:
	}
}

// goodbye is the refusal that an error is worth; nil when the peer is gone, or when all went well.
func (p *peer) goodbye(cause error) *wire.Refusal {
	if errors.Is(cause, errDraining) {
		return &wire.Refusal{
			Code: wire.RefusalUnavailable, Message: "the control plane is restarting",
			RetryAfterMs: p.gateway.spread(p.turn).Milliseconds(),
		}
	}
	r, ok := errors.AsType[*refusal](cause)
	if !ok {
		return nil
	}
	return &wire.Refusal{Code: r.code, Message: r.message, RetryAfterMs: r.after.Milliseconds()}
}
