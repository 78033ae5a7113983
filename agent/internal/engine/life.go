package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// What ends the operators of a run in the middle of a batch, and shows whether they come along.

// errEnded is what operators give to a run that nobody waits for any more.
var errEnded = errors.New("the run was ended")

// OverrunError ends a run by the flow's own doing: it makes no progress, or needs more memory than there is for it.
type OverrunError struct {
	// Kind is OverrunMemory or OverrunTime.
	Kind string
	Err  error
}

// The kinds of OverrunError.
const (
	OverrunMemory = "memory"
	OverrunTime   = "time"
)

func (e *OverrunError) Error() string { return e.Err.Error() }
func (e *OverrunError) Unwrap() error { return e.Err }

// Overrun gives the kind of overrun that an error of a run is of, "" for another error.
func Overrun(err error) string {
	if e, ok := errors.AsType[*OverrunError](err); ok {
		return e.Kind
	}
	if errors.Is(err, errTooManyGroups) || errors.Is(err, errTableTooLarge) {
		return OverrunMemory
	}
	return ""
}

// Progress is how far a goroutine that runs operators has come.
type Progress struct {
	// Busy is what it works at: a batch, the end of an input, a tick. It is 0 while it waits for something: for rows, for a
	// system of the plant, for a commit. It rises with every piece of work.
	Busy uint64
	// Beats rises with every batch that a step passes on, and with every piece of what was spilled.
	Beats uint64
	// Ending says that the work is the end of an input, which may take as long as there is much of it.
	Ending bool
}

// patience is how long a run that is told to stop may go on with the batch that it is at.
const patience = 3 * time.Second

// life is that of one run. It is used by all its goroutines.
type life struct {
	ended atomic.Bool
	mu    sync.Mutex
	cause error
	// cancel ends what the run waits for.
	cancel  context.CancelCauseFunc
	workers []*worker
	memory  *Memory
	// texts is the memory that the batches and the expressions of the run hold for texts; over says that it was too much
	// once, since which expressions give nulls and nothing may be committed.
	texts atomic.Int64
	over  atomic.Bool
}

// end ends the run with a cause, at the latest when its operators pass on the next batch. The first cause counts.
func (l *life) end(cause error) {
	l.mu.Lock()
	if l.cause == nil {
		l.cause = cause
	}
	cause, cancel := l.cause, l.cancel
	l.mu.Unlock()
	l.ended.Store(true)
	if cancel != nil {
		cancel(cause)
	}
}

// begin gives the context under which the run waits. It ends with ctx too, and then, after some patience, so do the
// operators.
func (l *life) begin(ctx context.Context) (inner context.Context, release func()) {
	inner, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	l.cancel = cancel
	if l.cause != nil {
		cancel(l.cause)
	}
	l.mu.Unlock()
	var late *time.Timer
	var once sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		once.Lock()
		defer once.Unlock()
		late = time.AfterFunc(patience, func() { l.end(context.Cause(ctx)) })
	})
	return inner, func() {
		stop()
		once.Lock()
		defer once.Unlock()
		if late != nil {
			late.Stop()
		}
		cancel(nil)
	}
}

func (l *life) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		return errEnded
	}
	return l.cause
}

// worker makes the place where a goroutine shows its progress.
func (l *life) worker() *worker {
	w := &worker{life: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.workers = append(l.workers, w)
	return w
}

// worker is a goroutine that runs operators. The others only read it.
type worker struct {
	life        *life
	busy, beats atomic.Uint64
	ending      atomic.Bool
	works       uint64
	// texts is its part of the run's.
	texts int64
	// counted are the texts of the batches that the steps are working on, each by its first byte.
	counted []*byte
}

// work says that a piece of work begins.
func (w *worker) work() {
	w.works++
	w.counted = w.counted[:0]
	w.ending.Store(false)
	w.busy.Store(w.works)
}

// workEnd is work for a part of the end of an input.
func (w *worker) workEnd() {
	w.work()
	w.ending.Store(true)
}

// beat is called while a step works through what it has spilled. A nil worker lets it go on.
func (w *worker) beat() error {
	if w == nil {
		return nil
	}
	w.beats.Add(1)
	return w.check()
}

// done says that the work is over. What came of it is worth nothing when the run was ended meanwhile.
func (w *worker) done(err error) error {
	w.rest()
	if err == nil {
		err = w.check()
	}
	return err
}

// check says that the run was ended.
func (w *worker) check() error {
	if w.life.ended.Load() {
		return w.life.err()
	}
	if w.life.over.Load() {
		return w.life.overText()
	}
	return nil
}

// rest says that it is over, or that it waits; back takes it up again.
func (w *worker) rest() (back func()) {
	at := w.busy.Swap(0)
	return func() { w.busy.Store(at) }
}

// pass is called for every batch that a step passes on, before it does, and left with what it gives, afterwards. A nil
// worker lets everything pass.
//
// Many steps pass on the texts that they were given, and the columns of a source share its buffer. So memory that a step
// before this one has counted, or another column, is not counted again.
func (w *worker) pass(b *column.Batch, held *int64) (before int, err error) {
	if w == nil {
		return 0, nil
	}
	w.beats.Add(1)
	before = len(w.counted)
	if err := w.check(); err != nil || w.life.memory == nil {
		return before, err
	}
	size := int64(0)
	for i := range b.Cols {
		data := b.Cols[i].Data
		if len(data) == 0 || slices.Contains(w.counted, &data[0]) {
			continue
		}
		w.counted = append(w.counted, &data[0])
		size += int64(len(data))
	}
	b.Texts = w
	if more := size - *held; more != 0 {
		*held = size
		w.Grow(int(more))
	}
	return before, w.check()
}

// left says that the steps behind have worked on the batch.
func (w *worker) left(before int) {
	if w != nil {
		w.counted = w.counted[:before]
	}
}

// Grow counts what the expressions of the run keep for their texts; see column.TextMeter.
func (w *worker) Grow(bytes int) bool {
	if bytes != 0 {
		w.texts += int64(bytes)
		if w.life.texts.Add(int64(bytes)) > w.life.textLimit() {
			w.life.over.Store(true)
		}
	}
	return !w.life.over.Load() && !w.life.ended.Load()
}

// forget gives back what the worker has counted since it had so much.
func (w *worker) forget(since int64) {
	w.life.texts.Add(since - w.texts)
	w.texts = since
}

// minText is how much of texts a run may hold in any case.
const minText = 32 << 20

// textLimit is what the texts of a run may take: as much as its operators may hold.
func (l *life) textLimit() int64 {
	if l.memory == nil {
		return 1 << 62
	}
	return max(l.memory.most(), minText)
}

// tight says that the run holds more than half of the texts that it may.
func (w *worker) tight() bool { return w.life.texts.Load() > w.life.textLimit()/2 }

func (l *life) overText() error {
	return &OverrunError{Kind: OverrunMemory, Err: fmt.Errorf("the texts of its rows take %s of memory, and there are %s for them; make them shorter, or raise memory_limit",
		describeBytes(l.texts.Load()), describeBytes(l.textLimit()))}
}

// End ends the run with a cause, in the middle of a batch if need be: of that batch nothing is committed. It does not
// wait, and may be called at any time from any goroutine.
func (r *Runner) End(cause error) { r.life.end(cause) }

// Progress appends how far the goroutines that run the operators have come. It may be called at any time from any
// goroutine; the same place is always the same goroutine.
func (r *Runner) Progress(dst []Progress) []Progress {
	r.life.mu.Lock()
	defer r.life.mu.Unlock()
	for _, w := range r.life.workers {
		dst = append(dst, Progress{Busy: w.busy.Load(), Beats: w.beats.Load(), Ending: w.ending.Load()})
	}
	return dst
}

// Held is how much memory the run is known to hold, in bytes.
func (r *Runner) Held() int64 {
	held := r.life.texts.Load()
	if r.set.Memory != nil {
		held += r.set.Memory.held()
	}
	return held
}

// guard keeps a panic in the operators, or in what they call, to the run.
func guard(fn func() error) (err error) {
	var caught error
	defer func() {
		if caught != nil {
			err = &partialError{err: caught}
		}
	}()
	defer connector.Catch(&caught)
	return fn()
}
