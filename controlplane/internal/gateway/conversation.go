package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// storeTries is how often something is tried that may work the next time; with storeWaitMin and storeWaitMax about
	// half a minute, in which a database can restart.
	storeTries   = 12
	storeWaitMin = 200 * time.Millisecond
	storeWaitMax = 5 * time.Second
)

// errChangesEnded is when the domain stops telling of changes, without which a revocation would go unnoticed.
var errChangesEnded = errors.New("changes of the desired state can no longer be followed")

// insist tries something until it works, until its error cannot pass, or until it was tried often enough.
func insist(ctx context.Context, try func() error) error {
	wait := backoff.Backoff{Min: storeWaitMin, Max: storeWaitMax}
	for n := 1; ; n++ {
		err := try()
		if err == nil || !passing(err) || n == storeTries {
			return err
		}
		if wait.Wait(ctx) != nil {
			return err
		}
	}
}

// outbox is what an agent is still to be told of its desired state: the newest counts. What takes it from there is another
// goroutine, so that an agent that takes nothing, or takes it slowly, does not keep its revocation from being noticed.
type outbox struct {
	mu      sync.Mutex
	desired *wire.Desired
	rotate  *wire.ControlDown
	// sending says that a goroutine takes what there is.
	sending bool
}

// next is what comes next; nil when there is nothing, after which nobody takes anything.
func (o *outbox) next() *wire.ControlDown {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := o.rotate; m != nil {
		o.rotate = nil
		return m
	}
	desired := o.desired
	o.desired, o.sending = nil, desired != nil
	if desired == nil {
		return nil
	}
	desired.Clock = time.Now().UnixMicro()
	return &wire.ControlDown{Message: &wire.ControlDown_Desired{Desired: desired}}
}

// tell has the agent told, without waiting for it.
func (p *peer) tell(s *session, put func(o *outbox)) {
	s.out.mu.Lock()
	put(&s.out)
	begin := !s.out.sending
	s.out.sending = true
	s.out.mu.Unlock()
	if !begin {
		return
	}
	s.work.Go(func() {
		for m := s.out.next(); m != nil; m = s.out.next() {
			if err := p.send(m); err != nil {
				s.end(err)
				return
			}
		}
	})
}

// keep records that the agent has kept the session's value, which is before it says anything: from then on the value that its
// hello has shown is worth nothing, so that a copy that has taken the agent's place is noticed by the next hello of either.
// Until then nothing is taken of whoever is there, nor given.
func (p *peer) keep(ctx context.Context, s *session) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	select {
	case <-s.kept:
		return nil
	default:
	}
	if err := insist(ctx, func() error { return p.gateway.fleet.Keep(ctx, p.id) }); err != nil {
		return refuse(err)
	}
	close(s.kept)
	return nil
}

// awaitKept waits until the value is kept, and notices a revocation meanwhile.
func (p *peer) awaitKept(ctx context.Context, s *session, changes <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.kept:
			return nil
		case _, ok := <-changes:
			if !ok {
				return lostTouch()
			}
		}
		if err := p.stillWelcome(ctx); err != nil {
			return err
		}
	}
}

// stillWelcome is why an agent is to be cut, or nil.
func (p *peer) stillWelcome(ctx context.Context) (err error) {
	mux.Aside(func() { _, _, err = p.desired(ctx) })
	if err != nil && (fatal(err) || ctx.Err() != nil) {
		return refuse(err)
	}
	return nil
}

// lostTouch is the end of a session whose changes cannot be followed.
func lostTouch() error {
	return &refusal{code: wire.RefusalUnavailable, message: "the control plane lost touch with its database", err: errChangesEnded}
}

// watch has the desired state sent, now and after every change, and notices a revocation, also while the agent takes nothing. It
// waits on a small stack: what it does meanwhile is done in goroutines of their own.
func (p *peer) watch(ctx context.Context, s *session, changes <-chan struct{}, rotate bool) (err error) {
	w := &watcher{peer: p, session: s, rotate: rotate, first: true}
	err = p.awaitKept(ctx, s, changes)
	for err == nil {
		mux.Aside(func() { err = w.look(ctx) })
		if err == nil {
			err = change(ctx, changes)
		}
	}
	return err
}

// change waits for the next change.
func change(ctx context.Context, changes <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case _, ok := <-changes:
		if !ok {
			return lostTouch()
		}
		return nil
	}
}

// watcher is what watch knows.
type watcher struct {
	*peer
	session *session
	// rotate says that next keys are wanted, as the hello's answer had it; first that nothing was sent yet, sent what was.
	rotate, first bool
	sent          uint64
}

// look reads what an agent is to do, and has it told what is new of it.
func (w *watcher) look(ctx context.Context) error {
	if err := w.askRotation(ctx, w.session, w.first, w.rotate); err != nil {
		return err
	}
	envelope, serial, err := w.desired(ctx)
	switch {
	case err != nil && (fatal(err) || ctx.Err() != nil):
		return refuse(err)
	case err != nil:
		w.log.ErrorContext(ctx, "the desired state of an agent could not be read", slog.String("error", err.Error()))
	case !w.first && serial == w.sent:
	case len(envelope) > wire.MaxBundle:
		// The agent goes on with what it has. Sending would end the session, each time, and undeploying would reach nobody.
		w.log.ErrorContext(ctx, "what an agent is to run is too large to be sent; undeploy flows from it, or deploy smaller ones",
			slog.Int("bytes", len(envelope)), slog.Int("most_bytes", wire.MaxBundle), slog.Uint64("serial", serial))
		w.sent = serial
	default:
		w.tell(w.session, func(o *outbox) { o.desired = &wire.Desired{Envelope: envelope} })
		w.sent = serial
	}
	w.first = false
	return nil
}

// desired reads the signed desired state of an agent that is still allowed to have one.
func (p *peer) desired(ctx context.Context) (envelope []byte, serial uint64, err error) {
	err = insist(ctx, func() error {
		id, tryErr := p.gateway.fleet.AgentByKey(ctx, p.key)
		if tryErr != nil {
			return tryErr
		}
		envelope, serial, tryErr = p.gateway.fleet.Bundle(ctx, id)
		return tryErr
	})
	return envelope, serial, err
}

// receive reads what waits on the control stream. reports counts the run reports of the session.
func (p *peer) receive(ctx context.Context, s *session, reports *uint64) error {
	for p.control.Readable() {
		up := &wire.ControlUp{}
		if err := p.message(ctx, s, p.control, up, func() error { return p.take(ctx, s, up, reports) }); err != nil {
			return err
		}
	}
	return nil
}

// take takes one message of the control stream.
func (p *peer) take(ctx context.Context, s *session, up *wire.ControlUp, reports *uint64) error {
	if err := p.keep(ctx, s); err != nil {
		return err
	}
	switch m := up.GetMessage().(type) {
	case *wire.ControlUp_Status:
		return p.storeStatus(ctx, m.Status)
	case *wire.ControlUp_RunReport:
		if err := p.storeRun(ctx, m.RunReport); err != nil {
			return err
		}
		*reports++
		return p.send(&wire.ControlDown{Message: &wire.ControlDown_RunReportsStored{RunReportsStored: *reports}})
	case *wire.ControlUp_Rotate:
		return p.rotate(ctx, m.Rotate)
	case nil:
		// A newer agent says something that this version does not know.
		return nil
	default:
		return breach("an enrolment or a hello is only allowed as the first message")
	}
}

// storeStatus stores a status. One that could not be stored is not tried again: the next comes within 15 s.
func (p *peer) storeStatus(ctx context.Context, s *wire.Status) error {
	err := p.gateway.fleet.StoreStatus(ctx, p.id, s)
	if err == nil {
		return nil
	}
	if fatal(err) {
		return refuse(err)
	}
	p.gateway.metrics.statusesRefused.Inc()
	if left, due := p.complaints.due(complaint{"status", string(fleet.CodeOf(err))}, time.Now()); due {
		p.log.WarnContext(ctx, "an agent's status was not stored", slog.String("error", err.Error()), slog.Uint64("left_out_before", left))
	}
	return nil
}

// storeRun stores a run report. One that can never be stored is dropped, counted and logged, so that it does not hold up
// those behind it.
func (p *peer) storeRun(ctx context.Context, r *wire.RunReport) error {
	err := insist(ctx, func() error {
		return p.gateway.fleet.StoreRun(ctx, p.id, r)
	})
	switch {
	case err == nil:
		p.gateway.metrics.reports.Inc()
		return nil
	case ctx.Err() != nil || passing(err) || fatal(err):
		return refuse(err)
	default:
		p.gateway.metrics.reportsRefused.Inc()
		if left, due := p.complaints.due(complaint{"run report", string(fleet.CodeOf(err))}, time.Now()); due {
			p.log.ErrorContext(ctx, "a run report cannot be stored and is dropped", slog.String("run_id", r.GetRunId()), slog.String("error", err.Error()), slog.Uint64("left_out_before", left))
		}
		return nil
	}
}

// acceptInsights accepts the insights stream, and refuses any other. It stops when another conversation ends the session.
func (p *peer) acceptInsights(ctx context.Context, session *session, stored uint64) error {
	stream, kind, err := p.accept(ctx)
	if err != nil {
		return err
	}
	if kind != wire.KindInsights || session.insights {
		return breach(fmt.Sprintf("a session has one %q stream and one %q stream", wire.KindControl, wire.KindInsights))
	}
	session.insights = true
	session.each(stream.Await, func() error { return p.storeInsights(ctx, session, stream, &stored) })
	return nil
}

// storeInsights stores batch after batch while some wait, and acknowledges each when it is committed.
func (p *peer) storeInsights(ctx context.Context, session *session, stream *mux.Stream, before *uint64) error {
	for stream.Readable() {
		up := &wire.InsightsUp{}
		err := p.message(ctx, session, stream, up, func() error { return p.storeBatch(ctx, session, stream, up, before) })
		if err != nil {
			return err
		}
	}
	return nil
}

// storeBatch stores one.
func (p *peer) storeBatch(ctx context.Context, session *session, stream *mux.Stream, up *wire.InsightsUp, before *uint64) error {
	if err := p.keep(ctx, session); err != nil {
		return err
	}
	count := uint64(len(up.GetInsights()))
	if up.GetFirstSeq() == 0 || count == 0 && len(up.GetReceipts()) == 0 || up.GetFirstSeq()+count < count {
		return breach("a batch of insights must have a sequence from 1 and at least one insight or receipt")
	}
	last := up.GetFirstSeq() + count - 1
	var stored uint64
	err := insist(ctx, func() (tryErr error) {
		stored, tryErr = p.gateway.fleet.StoreInsights(ctx, p.id, up)
		return tryErr
	})
	if err != nil {
		return refuse(err)
	}
	if stored < last {
		return &refusal{code: wire.RefusalInternal, message: fmt.Sprintf("insights up to %d were sent and up to %d are stored", last, stored)}
	}
	if stored > *before {
		// What receipts stand for is in the sequence too, and was not stored.
		p.gateway.metrics.insights.Add(float64(min(stored-*before, count)))
		*before = stored
	}
	// More may be stored, by a session that was cut off; the agent knows only of what it sent in this one.
	return wire.WriteMessage(stream, &wire.InsightsDown{Stored: last})
}
