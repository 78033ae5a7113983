package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
)

// A file is read in chunks. Where a chunk's last whole record ends is found without decoding it, at the speed of
// memory, so that several can be decoded at once; they are handed over in their order. What the batches hold does not
// depend on how many workers there are, because the cuts are the same.

// work is a chunk's records and what became of them.
type work struct {
	// text[:end] is records, the first one on the line, and at base in the file.
	text []byte
	end  int
	base int64
	line int64
	// rows is how many rows a batch may have, final whether nothing follows the text.
	rows    int
	final   bool
	results []decode.Result
	// broken is the panic in which decoding ended.
	broken error
	// done gets a value when the worker is done.
	done chan struct{}
}

// run decodes the records into the buffer's batches.
func (b *buffer) run(d decode.Decoder, name string) {
	b.work.broken = connector.Guard(func() { b.decode(d, name) })
	b.work.done <- struct{}{}
}

func (b *buffer) decode(d decode.Decoder, name string) {
	w := &b.work
	w.results = w.results[:0]
	for off, line := 0, w.line; off < w.end; {
		res := d.Decode(b.batch(len(w.results)), decode.Input{
			Text: w.text[:w.end], Off: off, Final: w.final, MaxRows: w.rows, Name: name, Line: line,
		})
		if res.Next > off {
			w.results = append(w.results, res)
		}
		off, line = res.Next, res.Line
		if res.Incomplete {
			return
		}
	}
}

// next is where the first record starts that was not decoded, and its line.
func (w *work) next() (off int, line int64) {
	if n := len(w.results); n > 0 {
		return w.results[n-1].Next, w.results[n-1].Line
	}
	return 0, w.line
}

// batchRows shares a chunk's lines out to batches of about the same size.
func batchRows(lines int64) int {
	batches := max((lines+column.TargetRows-1)/column.TargetRows, 1)
	return max(int((lines+batches-1)/batches), 1)
}

// team decodes chunks in goroutines of their own, while a file is large enough to share.
type team struct {
	chunks  chan *piece
	members sync.WaitGroup
}

// start lets workers decode for as long as the chunks come.
func (o *open) start(left int64) *team {
	n := int(min(int64(o.workers), left/chunkBytes))
	if n < 2 {
		return nil
	}
	t := &team{chunks: make(chan *piece, n)}
	for i := range n {
		d := o.decoders.at(i)
		t.members.Go(func() {
			for p := range t.chunks {
				p.Buffer.run(d, o.path)
			}
		})
	}
	return t
}

// stop waits for the workers.
func (t *team) stop() {
	if t != nil {
		close(t.chunks)
		t.members.Wait()
	}
}

// read delivers everything from the entry on. size is what the file had when it was listed.
func (o *open) read(size int64) error {
	if ready, err := o.begin(); err != nil || !ready {
		return err
	}
	o.carry, o.pending = o.carry[:0], o.pending[:0]
	o.at, o.line = o.entry.offset, o.entry.line
	o.team = o.start(size - o.at)
	defer o.team.stop()
	for {
		ended, err := o.readChunk(size)
		if err == nil && !ended {
			continue
		}
		if errors.Is(err, connector.ErrClosed) || !o.finish(0) {
			return connector.ErrClosed
		}
		return err
	}
}

// readChunk reads the next chunk and gives it to be decoded. It says true at the end of the file.
func (o *open) readChunk(size int64) (ended bool, err error) {
	p, going := o.ahead.Take()
	if !going {
		return false, connector.ErrClosed
	}
	from := o.at + int64(len(o.carry))
	want := min(max(size-from+1, 4<<10), chunkBytes)
	text := p.Buffer.room(len(o.carry) + int(want))
	n, err := o.f.ReadAt(text[copy(text, o.carry):], from)
	ended = errors.Is(err, io.EOF)
	skipping := o.long != nil
	if err != nil && !ended {
		err = o.refused(o.path, err)
		going = o.ahead.Send(p)
	} else {
		err = nil
		going = o.chunk(p, text[:len(o.carry)+n], ended && !o.follow)
	}
	if !going {
		return false, connector.ErrClosed
	}
	// What follows a record that was skipped has not been looked at.
	return ended && (!skipping || o.long != nil), err
}

// chunk has the records of the next text decoded, which begins with what was carried over, and hands over what is done.
// It says false when the source is closed.
func (o *open) chunk(p *piece, text []byte, final bool) bool {
	if o.long != nil {
		return o.finish(0) && o.skipLong(p, text, final)
	}
	cut, sure := o.cut(text, final)
	if !sure {
		return o.finish(0) && o.inOrder(p, text, final)
	}
	if cut == 0 {
		o.carryOver(text)
		return o.ahead.Send(p)
	}
	o.assign(p, text, cut, final)
	o.carryOver(text[cut:])
	o.at += int64(cut)
	o.line += int64(bytes.Count(text[:cut], []byte{'\n'}))
	o.pending = append(o.pending, p)
	if o.team == nil {
		p.Buffer.run(o.decoders.at(0), o.path)
		return o.finish(0)
	}
	o.team.chunks <- p
	return o.finish(o.workers)
}

// cut finds the end of the text's last whole record, as far as that can be told.
func (o *open) cut(text []byte, final bool) (int, bool) {
	if o.format == formatCSV {
		return decode.CutCSV(text, 0, o.delimiter, final)
	}
	return decode.CutLines(text, 0, final), true
}

// assign writes down what is to be decoded.
func (o *open) assign(p *piece, text []byte, end int, final bool) {
	w := &p.Buffer.work
	if w.done == nil {
		w.done = make(chan struct{}, 1)
	}
	w.text, w.end, w.base, w.line, w.final = text, end, o.at, o.line, final
	w.rows = batchRows(int64(bytes.Count(text[:end], []byte{'\n'})) + 1)
}

// inOrder decodes text whose last record can only be found by decoding it.
func (o *open) inOrder(p *piece, text []byte, final bool) bool {
	o.assign(p, text, len(text), final)
	p.Buffer.run(o.decoders.at(0), o.path)
	next, line := p.Buffer.work.next()
	o.carryOver(text[next:])
	o.at, o.line = o.at+int64(next), line
	o.pending = append(o.pending, p)
	return o.finish(0)
}

// carryOver keeps an incomplete record for the next chunk, or the beginning of it when it is too long.
func (o *open) carryOver(text []byte) {
	o.carry = append(o.carry[:0], text...)
	if len(text) > decode.MaxRecord {
		o.long, o.carry = bytes.Clone(text[:connector.MaxSampled+1]), o.carry[:0]
		o.at += int64(len(text)) // not delivered: the cursor moves when its end is found
	}
}

// finish hands the oldest pieces over until only so many are left. It says false when the source is closed.
func (o *open) finish(left int) bool {
	for len(o.pending) > left {
		p := o.pending[0]
		o.pending = append(o.pending[:0], o.pending[1:]...)
		w := &p.Buffer.work
		<-w.done
		if panicked, ok := errors.AsType[*connector.PanicError](w.broken); ok {
			panic(panicked) // it goes on in the goroutine that reads, and ends the source
		}
		off := 0
		for i, res := range w.results {
			o.entry.offset, o.entry.line = w.base+int64(res.Next), res.Line
			o.deliver(p, connector.Delivery{
				Batch: p.Buffer.batches[i], Failed: res.Failed, Read: res.Read, Bytes: int64(res.Next - off),
			})
			off = res.Next
		}
		if !o.ahead.Send(p) {
			return false
		}
	}
	return true
}

// skipLong looks for the end of a record that is too long.
func (o *open) skipLong(p *piece, text []byte, final bool) bool {
	n := bytes.IndexByte(text, '\n') + 1
	if n == 0 && final {
		n = len(text)
	} else if n == 0 {
		o.at += int64(len(text))
		return o.ahead.Send(p)
	}
	o.at += int64(n)
	d := connector.Delivery{Read: 1, Bytes: o.at - o.entry.offset}
	d.Failed.Add(connector.FailedRecord{
		Where: fmt.Sprintf("%s:%d", o.path, o.line), Record: string(o.long),
		Reason: fmt.Sprintf("longer than %d MiB", decode.MaxRecord>>20),
	})
	o.line++
	o.long = nil
	o.carry = append(o.carry[:0], text[n:]...)
	o.entry.offset, o.entry.line = o.at, o.line
	d.Batch = p.Buffer.batch(0)
	*d.Batch = *column.NewBatch(o.Schema)
	o.deliver(p, d)
	return o.ahead.Send(p)
}
