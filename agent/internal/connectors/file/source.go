package file

import (
	"context"
	"io"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// slots is how many pieces of files are in memory: one being used, one ready, one being read.
const slots = 3

// slot is a piece of a file and what was decoded from it. The batches refer to the buffer, so all of it is handed over
// and comes back as a whole.
type slot struct {
	buf        []byte
	batches    []*column.Batch
	deliveries []connector.Delivery
	err        error
}

// room gives the buffer at least n bytes and lets go of one that a very long record made large.
func (s *slot) room(n int) []byte {
	if cap(s.buf) < n || cap(s.buf) > max(n, 4*chunkBytes) {
		s.buf = make([]byte, n)
	}
	return s.buf[:n]
}

// batch is the i-th batch of the slot.
func (s *slot) batch(i int) *column.Batch {
	if i == len(s.batches) {
		s.batches = append(s.batches, &column.Batch{})
	}
	return s.batches[i]
}

// source is the caller's side; reader is the other.
type source struct {
	follow bool
	reader *reader
	free   chan *slot
	full   chan *slot
	// retry lets the reader go on after an error.
	retry chan struct{}
	stop  chan struct{}
	close sync.Once
	done  sync.WaitGroup

	// These belong to the goroutine that calls Next.
	started bool
	failed  bool
	ended   bool
	current *slot
	next    int
}

func newSource(s settings, known entries) *source {
	src := &source{
		follow: s.follow, free: make(chan *slot, slots), full: make(chan *slot, slots),
		retry: make(chan struct{}), stop: make(chan struct{}),
	}
	for range slots {
		src.free <- &slot{}
	}
	src.reader = newReader(s, known, src)
	return src
}

// Traits says that files can always be read again.
func (s *source) Traits() connector.Traits {
	return connector.Traits{Bounded: !s.follow, Replayable: true}
}

// Next gives the next batch.
func (s *source) Next(ctx context.Context) (connector.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return connector.Delivery{}, context.Cause(ctx)
	}
	if !s.started {
		s.started = true
		s.done.Go(s.reader.run)
	}
	for {
		if s.current != nil && s.next < len(s.current.deliveries) {
			s.next++
			return s.current.deliveries[s.next-1], nil
		}
		s.release()
		if s.ended {
			return connector.Delivery{}, io.EOF
		}
		if err := s.receive(ctx); err != nil {
			return connector.Delivery{}, err
		}
	}
}

// release gives the used slot back to the reader.
func (s *source) release() {
	if s.current != nil {
		s.free <- s.current
		s.current = nil
	}
}

// receive waits for the reader's next slot or error.
func (s *source) receive(ctx context.Context) error {
	if s.failed {
		select {
		case s.retry <- struct{}{}:
			s.failed = false
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.stop:
			return errClosed
		}
	}
	select {
	case got := <-s.full:
		s.current, s.next = got, 0
		err := got.err
		if err == nil {
			return nil
		}
		got.err, got.deliveries = nil, got.deliveries[:0]
		if err == io.EOF { //nolint:errorlint // the reader's own mark, never wrapped
			s.ended = true
			return nil
		}
		s.failed = true
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.stop:
		return errClosed
	}
}

// Committed has nothing to do: files stay.
func (s *source) Committed(context.Context, connector.Cursor) error { return nil }

// Close ends the reader.
func (s *source) Close() error {
	s.close.Do(func() { close(s.stop) })
	s.done.Wait()
	return nil
}
