package engine

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/backoff"
)

// closeTimeout bounds what a source may take to forget what was committed when a run ends.
const closeTimeout = 5 * time.Second

// sourceBackoff is how long a source that fails is left alone.
func sourceBackoff() backoff.Backoff { return backoff.Backoff{Min: time.Second, Max: time.Minute} }

// event is the error that ended a source, io.EOF for its end.
type event struct {
	pump *pump
	err  error
}

// pump owns a source: all calls of it come from its goroutine. So does the work on what it delivers, one batch after the
// other.
type pump struct {
	read   int
	source connector.Source
	traits connector.Traits
	runner *Runner
	report func(state, problem string)

	mu sync.Mutex
	// ack is the newest committed cursor that the source was not told yet.
	ack connector.Cursor
	// interrupt ends the call of Next that is under way, so that an ack-gated source hears of a commit at once.
	interrupt context.CancelFunc

	// started and ended belong to the goroutine that runs the operators.
	started, ended bool
}

func newPump(read int, source connector.Source, r *Runner) *pump {
	return &pump{read: read, source: source, traits: source.Traits(), runner: r, report: r.reporter(read)}
}

// run delivers until the source ends or ctx does, then waits for stop, tells the source what was committed and closes
// it. stop is always closed at last.
func (p *pump) run(ctx context.Context, stop <-chan struct{}) {
	if err := connector.Guard(func() { p.deliver(ctx) }); err != nil {
		p.end(ctx, err)
	}
	<-stop
	ackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	p.acknowledge(ackCtx)
}

func (p *pump) deliver(ctx context.Context) {
	wait := sourceBackoff()
	// good is when the source last gave something. One that connects and fails again at once is not well because it
	// connected; one that was quiet for long is.
	good, failing := time.Now(), false
	for ctx.Err() == nil {
		d, err := p.next(ctx)
		var permanent *connector.PermanentError
		switch {
		case err == nil:
			if d.Read > 0 {
				wait.Reset()
			}
			p.report(sourceReading, "")
			good, failing = time.Now(), false
			if !p.runner.take(ctx, p, &d) {
				return
			}
		case ctx.Err() != nil:
			return
		case errors.Is(err, io.EOF):
			p.report(sourceEnded, "")
			p.end(ctx, io.EOF)
			return
		case errors.As(err, &permanent):
			p.report(sourceGivenUp, err.Error())
			p.end(ctx, err)
			return
		default:
			p.report(sourceFailing, err.Error())
			if !failing && time.Since(good) >= wait.Max {
				wait.Reset()
			}
			failing = true
			if wait.Wait(ctx) != nil {
				return
			}
		}
	}
}

// end says how the source has ended.
func (p *pump) end(ctx context.Context, err error) {
	select {
	case p.runner.events <- event{pump: p, err: err}:
	case <-ctx.Done():
	}
}

// next calls Next, and between two calls tells the source what was committed. Only an ack-gated one is interrupted for it.
func (p *pump) next(ctx context.Context) (connector.Delivery, error) {
	for {
		p.acknowledge(ctx)
		if !p.traits.AckGated {
			return p.source.Next(ctx)
		}
		call, cancel := context.WithCancel(ctx)
		if !p.arm(cancel) {
			cancel()
			continue
		}
		d, err := p.source.Next(call)
		interrupted := call.Err() != nil && ctx.Err() == nil
		p.disarm()
		cancel()
		if err != nil && interrupted && errors.Is(err, context.Canceled) {
			continue
		}
		return d, err
	}
}

// arm notes how to interrupt the coming call; false says that there is something to acknowledge first.
func (p *pump) arm(cancel context.CancelFunc) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ack != nil {
		return false
	}
	p.interrupt = cancel
	return true
}

func (p *pump) disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interrupt = nil
}

// committed notes that everything up to the cursor is durable. The source hears of it before its next call of Next, an
// ack-gated one at once.
func (p *pump) committed(upTo connector.Cursor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ack = upTo
	if p.interrupt != nil {
		p.interrupt()
	}
}

// acknowledge tells the source what was committed. An acknowledgement that fails is not repeated: the source delivers
// those records again after it has connected anew, and the next one covers them.
func (p *pump) acknowledge(ctx context.Context) {
	p.mu.Lock()
	upTo := p.ack
	p.ack = nil
	p.mu.Unlock()
	if upTo == nil {
		return
	}
	if err := p.source.Committed(ctx, upTo); err != nil && ctx.Err() == nil {
		p.report(sourceFailing, err.Error())
	}
}
