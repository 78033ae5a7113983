package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
)

// resources are those of a pipeline of this run. Where s is endless, nothing can be spilled: rows in scratch files hold
// back the commits, and an endless run cannot wait for them.
func (r *Runner) resources(s span, w *worker) *resources {
	res := &resources{memory: r.set.Memory, guard: r.set.guard, worker: w, clock: r.set.Clock, texts: r.set.texts}
	if s == bounded {
		res.scratch = r.set.Scratch
	}
	return res
}

// endless says whether the run has a source that never ends.
func (r *Runner) endless() bool {
	return slices.Contains(r.spans, endless)
}

// mayHold says whether a commit can wait: when every source ends and can be read again.
func (r *Runner) mayHold() bool {
	for _, p := range r.pumps {
		if !p.traits.Bounded || !p.traits.Replayable || p.traits.AckGated {
			return false
		}
	}
	return r.set.Scratch != nil
}

// holds says whether nothing may or need be committed now.
func (r *Runner) holds() bool {
	return r.pipe.res.held || r.set.HoldFor > 0 && !r.stops() && r.mayHold() && time.Since(r.began) < r.set.HoldFor
}

// asideBytes is how much of insights is laid aside at a time.
const asideBytes = 1 << 20

// commitDue commits, or lays the insights aside while the run holds its commit.
func (r *Runner) commitDue(ctx context.Context) error {
	if !r.holds() {
		return r.commit(ctx)
	}
	r.rows = 0
	if r.set.Scratch == nil || len(r.pipe.box.data) < asideBytes {
		if r.dirty {
			r.commitTimer.Reset(r.set.CommitEvery)
		}
		return nil
	}
	if err := r.layAside(); err != nil {
		return &partialError{err: err}
	}
	return nil
}

// layAside writes the insights that wait in memory to where the next commit finds them.
func (r *Runner) layAside() error {
	if err := r.aside.add(r.pipe.box.take()); err != nil {
		return err
	}
	r.pipe.box.reset()
	return nil
}

// tooManyInsights makes room in the middle of a batch. Where nothing can be laid aside, the insights of a batch must fit in
// the memory that the flow has.
func (r *Runner) tooManyInsights() error {
	if err := r.worker.check(); err != nil {
		return err
	}
	if r.pipe.res.scratch != nil {
		return r.layAside()
	}
	size := r.pipe.box.size()
	if r.set.Memory == nil || size <= max(r.set.Memory.most(), minText) {
		return nil
	}
	return &OverrunError{Kind: OverrunMemory, Err: fmt.Errorf("a batch of rows makes %s of insights, more than the %s of memory that there is for them; make fewer with filter, join or limit, or raise memory_limit",
		describeBytes(size), describeBytes(max(r.set.Memory.most(), minText)))}
}

// asideInsights are insights in a scratch file that wait for a commit that the run holds.
type asideInsights struct {
	res  *resources
	file *spillFile
	n    int
	size int64
	buf  []byte
}

func (a *asideInsights) add(list []Insight) (err error) {
	if a.file == nil {
		if a.file, err = a.res.create(); err != nil {
			return err
		}
	}
	for i := range list {
		in := &list[i]
		a.buf = binary.AppendUvarint(a.buf, uint64(len(in.Name)))
		a.buf = binary.AppendUvarint(a.buf, uint64(len(in.Key)))
		a.buf = binary.AppendUvarint(a.buf, uint64(len(in.Values)))
		a.buf = binary.NativeEndian.AppendUint64(a.buf, uint64Of(in.Time))
		a.buf = append(append(append(a.buf, in.Name...), in.Key...), in.Values...)
		if len(a.buf) >= spillBuffer || i == len(list)-1 {
			n, err := a.file.Write(a.buf)
			if a.size += int64(n); err != nil {
				return fmt.Errorf("lay insights aside: %w", err)
			}
			a.buf = a.buf[:0]
		}
	}
	a.n += len(list)
	return nil
}

// all gives the insights in their order, as often as it is called.
func (a *asideInsights) all() iter.Seq2[Insight, error] {
	if a.n == 0 {
		return nil
	}
	file, size, n := a.file, a.size, a.n
	return func(yield func(Insight, error) bool) {
		r := newAsideReader(file.ScratchFile, size) // a commit goes on when the run was ended
		for range n {
			in, err := r.next()
			if !yield(in, err) || err != nil {
				return
			}
		}
	}
}

func (a *asideInsights) reset() error {
	a.n, a.size, a.buf = 0, 0, nil
	f := a.file
	if a.file = nil; f == nil {
		return nil
	}
	return f.Close()
}

type asideReader struct {
	in   io.Reader
	buf  []byte
	data []byte
}

func newAsideReader(file io.ReaderAt, size int64) *asideReader {
	return &asideReader{in: io.NewSectionReader(file, 0, size)}
}

// next reads one insight. Its parts are valid until the next call.
func (r *asideReader) next() (Insight, error) {
	for {
		in, n := parseAside(r.data)
		if n > 0 {
			r.data = r.data[n:]
			return in, nil
		}
		// What is left moves to the front, and the buffer grows when it is full of one insight.
		left := copy(r.buf, r.data)
		if left == len(r.buf) {
			grown := make([]byte, max(spillBuffer, 2*len(r.buf)))
			copy(grown, r.buf)
			r.buf = grown
		}
		got, err := r.in.Read(r.buf[left:])
		if r.data = r.buf[:left+got]; got == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = errSpillDamaged
			}
			return Insight{}, fmt.Errorf("read the insights laid aside: %w", err)
		}
	}
}

// parseAside gives the insight at the beginning of data and its length there, 0 when it is not whole.
func parseAside(data []byte) (in Insight, n int) {
	var sizes [3]int
	for i := range sizes {
		v, w := binary.Uvarint(data[n:])
		if w <= 0 || v > uint64(1<<31-1) {
			return Insight{}, 0
		}
		sizes[i] = int(v)
		n += w
	}
	if len(data) < n+8+sizes[0]+sizes[1]+sizes[2] {
		return Insight{}, 0
	}
	in.Time = int64(binary.NativeEndian.Uint64(data[n:])) //nolint:gosec // the same bits
	n += 8
	for i, part := range []func([]byte){
		func(b []byte) { in.Name = string(b) }, func(b []byte) { in.Key = b }, func(b []byte) { in.Values = b },
	} {
		part(data[n : n+sizes[i] : n+sizes[i]])
		n += sizes[i]
	}
	return in, n
}
