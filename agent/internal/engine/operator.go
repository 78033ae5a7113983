package engine

import (
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// operator is a step that takes batches. It must not change the batch or keep it: several operators may get the same
// one, and its memory is used again after push returns. Batches have all columns of the plan's schema, but only those
// that something downstream reads have values.
type operator interface {
	push(b *column.Batch) error
}

// finisher is an operator that holds rows until its input has ended. finish emits the next part of them; more says that
// there is another.
type finisher interface {
	finish() (more bool, err error)
}

// keeper is an operator whose state outlives the run. A run of a flow gives it back what the last commit stored.
type keeper interface {
	// stepID is the step that the entries are stored under.
	stepID() string
	// restore reads the entries of the last commit into an operator that has seen nothing. errOtherDefinition means that
	// they are of another definition of the step, and then nothing was read.
	restore(entries map[string][]byte) error
	// discard notes that all these entries are to be removed.
	discard(entries map[string][]byte)
	// changes appends the entries that changed since the last call.
	changes(dst []StateChange) []StateChange
}

// ticker is an operator of an endless flow that must also act when no row comes. tick is called about once a second,
// between two batches, with the time of the clock in UTC microseconds.
type ticker interface {
	tick(now int64) error
}

// outputs are the operators behind a step.
type outputs struct {
	next []operator
	// worker is the goroutine that runs them, and text how much of texts the last batch had of its own.
	worker *worker
	text   int64
}

func (o *outputs) emit(b *column.Batch) error {
	if b.Len == 0 {
		return nil
	}
	before, err := o.worker.pass(b, &o.text)
	for i := 0; i < len(o.next) && err == nil; i++ {
		err = o.next[i].push(b)
	}
	o.worker.left(before)
	return err
}

// giveBack is for a source that has ended: its texts are no longer there.
func (o *outputs) giveBack() {
	if o.worker != nil {
		o.worker.Grow(-int(o.text))
		o.text = 0
	}
}

// finishing is a finisher and the reads that feed it, as places in graph.reads. left is how many of them have not ended.
type finishing struct {
	finisher
	reads []int
	left  int
}

// ended gives the operators whose last source has ended with that read.
func (p *pipeline) ended(read int) []finisher {
	p.sources[read].giveBack()
	var list []finisher
	for _, f := range p.finishers {
		if slices.Contains(f.reads, read) {
			if f.left--; f.left == 0 {
				list = append(list, f.finisher)
			}
		}
	}
	return list
}

// maxSamples is how many failing records a report keeps.
const maxSamples = 20

// stepCounts is what a step counts. It belongs to the goroutine that runs the operators.
type stepCounts struct {
	step                  string
	in, out, late, failed int64
	// outside counts the rows outside of every shift.
	outside int64
	// lateTotal is late since the step's state began, over restarts.
	lateTotal int64
	sample    *[]FailedRecord
	// noted are the reasons of the notes that are in the sample, or would be if there were room.
	noted []string
	stop  bool
	// bounds are those of the texts that the step's expressions make.
	bounds textBounds
}

// fail counts a failing record. It gives an error when the flow says on_error: stop.
func (c *stepCounts) fail(r connector.FailedRecord) error {
	return c.failAll(connector.Failures{Count: 1, Sample: []connector.FailedRecord{r}})
}

func (c *stepCounts) failAll(f connector.Failures) error {
	c.failed += f.Count
	c.note(f.Notes)
	for _, r := range f.Sample {
		if len(*c.sample) < maxSamples {
			r.Record = excerpt.Bytes(r.Record, connector.MaxSampled)
			*c.sample = append(*c.sample, FailedRecord{Step: c.step, FailedRecord: r})
		}
	}
	if !c.stop || f.Count == 0 {
		return nil
	}
	reason := "a record failed"
	if len(f.Sample) > 0 {
		reason = fmt.Sprintf("a record failed (%s: %s)", f.Sample[0].Where, f.Sample[0].Reason)
	}
	return &StoppedError{Step: c.step, Reason: reason}
}

// StoppedError ends the run of a flow with `on_error: stop` at its first failing record. Nothing of the batch that holds
// the record was committed; the batches before it were.
type StoppedError struct {
	// Step is where the record failed, Reason what is wrong with it.
	Step, Reason string
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("step %s: %s, and the flow says on_error: stop; correct the record, or say on_error: skip", e.Step, e.Reason)
}

// describeRow is the row as JSON, as far as its columns are read.
func describeRow(b *column.Batch, row int) string {
	text := []byte{'{'}
	for i := range b.Cols {
		c := &b.Cols[i]
		if c.Rows() <= row {
			continue
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(column.AppendJSONString(text, []byte(b.Schema[i].Name)), ':')
		text = column.AppendJSON(text, c, row)
	}
	return string(append(text, '}'))
}

// readStep is where the batches of a source enter: it spreads the columns that the source delivers over those of the
// plan.
type readStep struct {
	outputs
	counts *stepCounts
	cols   []int
	out    column.Batch
}

func newReadStep(schema expr.Schema, cols []int) *readStep {
	return &readStep{cols: cols, out: *column.NewBatch(schema)}
}

func (r *readStep) push(b *column.Batch) error {
	r.out.Len = b.Len
	for i, pos := range r.cols {
		r.out.Cols[pos] = b.Cols[i]
	}
	r.counts.out += int64(b.Len)
	return r.emit(&r.out)
}
