package connector

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// ErrClosed is what a source's Next gives after Close.
var ErrClosed = errors.New("the source is closed")

// Piece is a part of what a source reads: a buffer of the source's own and the deliveries that refer to it. So all of
// it is handed over, and comes back to be used again, as a whole.
type Piece[B any] struct {
	Buffer     B
	Deliveries []Delivery
	err        error
}

// Ahead lets a source read ahead in a goroutine of its own. Next and Close belong to the goroutine that owns the
// source; the other methods to the producer, which starts with the first Next and must return when one of them says false.
type Ahead[B any] struct {
	produce func(ctx context.Context, a *Ahead[B])
	free    chan *Piece[B]
	full    chan *Piece[B]
	// retry lets the producer go on after an error.
	retry chan struct{}
	// broken has the panic with which the producer ended.
	broken chan error
	stop   chan struct{}
	close  sync.Once
	done   sync.WaitGroup

	started, failed, ended bool
	current                *Piece[B]
	next                   int
}

// NewAhead makes a source's two sides with that many pieces between them. The producer's context ends with Close.
func NewAhead[B any](pieces int, produce func(ctx context.Context, a *Ahead[B])) *Ahead[B] {
	a := &Ahead[B]{
		produce: produce, free: make(chan *Piece[B], pieces), full: make(chan *Piece[B], pieces),
		retry: make(chan struct{}), broken: make(chan error, 1), stop: make(chan struct{}),
	}
	for range pieces {
		a.free <- &Piece[B]{}
	}
	return a
}

// Next is Source.Next.
func (a *Ahead[B]) Next(ctx context.Context) (Delivery, error) {
	if ctx.Err() != nil {
		return Delivery{}, context.Cause(ctx)
	}
	select {
	case <-a.stop:
		return Delivery{}, ErrClosed
	default:
	}
	if !a.started {
		a.started = true
		own := context.WithoutCancel(ctx) // a caller that gives up a wait does not end the reading
		a.done.Go(func() { a.run(own) })
	}
	for {
		if a.current != nil && a.next < len(a.current.Deliveries) {
			a.next++
			return a.current.Deliveries[a.next-1], nil
		}
		if a.current != nil {
			a.free <- a.current
			a.current = nil
		}
		if a.ended {
			// The runs of a flow may read hundreds of sources, one after the other, and close all of them at the end.
			a.Release()
			a.produce = nil
			return Delivery{}, io.EOF
		}
		if err := a.receive(ctx); err != nil {
			return Delivery{}, err
		}
	}
}

func (a *Ahead[B]) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.done.Go(func() {
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	if err := Guard(func() { a.produce(ctx, a) }); err != nil {
		a.broken <- err
	}
}

// receive waits for the producer's next piece or error.
func (a *Ahead[B]) receive(ctx context.Context) error {
	if a.failed {
		select {
		case a.retry <- struct{}{}:
			a.failed = false
		case err := <-a.broken:
			a.broken <- err
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case p := <-a.full:
		a.current, a.next = p, 0
		err := p.err
		p.err = nil
		if err == io.EOF { //nolint:errorlint // the mark that End sends, never wrapped
			a.ended = true
			return nil
		}
		a.failed = err != nil
		return err
	case err := <-a.broken:
		a.broken <- err // there is nothing else any more
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close is Source.Close.
func (a *Ahead[B]) Close() error {
	a.close.Do(func() { close(a.stop) })
	a.done.Wait()
	return nil
}

// Take waits for a piece to fill. It has no deliveries.
func (a *Ahead[B]) Take() (*Piece[B], bool) {
	select {
	case p := <-a.free:
		p.Deliveries = p.Deliveries[:0]
		return p, true
	case <-a.stop:
		return nil, false
	}
}

// Send hands a piece over. One without deliveries is ready to be taken again.
func (a *Ahead[B]) Send(p *Piece[B]) bool {
	to := a.full
	if len(p.Deliveries) == 0 && p.err == nil {
		to = a.free
	}
	select {
	case to <- p:
		return true
	case <-a.stop:
		return false
	}
}

// Quiet hands an empty delivery over, which says that the source is connected and has nothing.
func (a *Ahead[B]) Quiet() bool {
	p, open := a.Take()
	if !open {
		return false
	}
	p.Deliveries = append(p.Deliveries, Delivery{})
	return a.Send(p)
}

// Fail hands an error over and waits until the caller wants to go on.
func (a *Ahead[B]) Fail(err error) bool {
	p, open := a.Take()
	if !open {
		return false
	}
	p.err = NotEnd(err)
	if !a.Send(p) {
		return false
	}
	select {
	case <-a.retry:
		return true
	case <-a.stop:
		return false
	}
}

// NotEnd keeps an error that has io.EOF as its cause, as that of a connection that was cut does, from being taken for the
// end of the source.
func NotEnd(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	plain := errors.New(err.Error())
	if p := (*PermanentError)(nil); errors.As(err, &p) {
		return &PermanentError{Err: plain}
	}
	return plain
}

// Release lets go of the memory of all pieces that wait to be filled, so that a producer that has nothing to do holds none.
func (a *Ahead[B]) Release() {
	for range cap(a.free) {
		select {
		case p := <-a.free:
			*p = Piece[B]{}
			a.free <- p
		default:
			return
		}
	}
}

// End says that there is no more.
func (a *Ahead[B]) End() {
	if p, open := a.Take(); open {
		p.err = io.EOF
		a.Send(p)
	}
}

// Wait lets time pass.
func (a *Ahead[B]) Wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.stop:
		return false
	}
}
