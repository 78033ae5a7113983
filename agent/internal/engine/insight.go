package engine

import (
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// outbox collects the insights since the last checkpoint. Their JSON lies in one buffer.
type outbox struct {
	data  []byte
	items []pending
	list  []Insight
	// roomy counts the resets in a row at which there was far more memory than was used.
	roomy int
	// tooMuch is called in the middle of a batch that makes more insights than may wait in memory.
	tooMuch func() error
}

// size is about how much memory the insights take.
func (o *outbox) size() int64 { return int64(len(o.data)) + int64(len(o.items))*pendingBytes }

// pendingBytes is about what a pending insight and its Insight take beside their JSON.
const pendingBytes = 160

// maxBatchBytes is how much of insights one batch may add to memory before something is done about it.
const maxBatchBytes = 4 * maxPendingBytes

// pending is an insight whose key and values are data[key:values] and data[values:end].
type pending struct {
	name             string
	time             int64
	key, values, end int
}

// take gives the insights collected; they are valid until the next reset.
func (o *outbox) take() []Insight {
	o.list = slices.Grow(o.list[:0], len(o.items))
	for i := range o.items {
		p := &o.items[i]
		o.list = append(o.list, Insight{
			Name: p.name, Time: p.time,
			Key: o.data[p.key:p.values:p.values], Values: o.data[p.values:p.end:p.end],
		})
	}
	return o.list
}

// expect makes room for n more insights of about the size of the last one, so that the many that the end of a window makes
// do not leave as much again in buffers that were too small.
func (o *outbox) expect(n int) {
	last := &o.items[len(o.items)-1]
	o.items = slices.Grow(o.items, n)
	o.data = slices.Grow(o.data, n*(last.end-last.key+expectedMore))
}

// expectedMore is by how much insights of one step may be longer than the first of a batch to fit in the room made for them.
const expectedMore = 8

// reset empties the outbox. Memory of which little was used goes: most flows make many insights at a time at the end of a
// window, and then few or none for long.
func (o *outbox) reset() {
	if cap(o.data) <= keptOutbox || len(o.data) >= cap(o.data)/4 {
		o.roomy = 0
	} else if o.roomy++; o.roomy == roomyResets {
		*o = outbox{tooMuch: o.tooMuch}
		return
	}
	o.data, o.items = o.data[:0], o.items[:0]
	if cap(o.list) > keptItems {
		o.list = nil // it is made anew in one piece
	}
}

// An outbox has room for keptOutbox bytes of insights in any case, and for more until it was not used roomyResets times.
const (
	keptOutbox  = 1 << 10
	roomyResets = 2
	// keptItems is how many insights there is a list for in any case.
	keptItems = 16
)

// insightStep turns rows into insights and passes them on, without those that failed.
type insightStep struct {
	outputs
	counts *stepCounts
	name   string
	// box is nil where the rows are for a table: they pass, and neither insights nor failures are made of them.
	box   *outbox
	guard *testGuard
	// started is the time of insights that have no column for it. Where a run has no end it is when they are made, by clock.
	started     int64
	clock       connector.Clock
	timeCol     int
	key, values []member
	// live are the columns that something behind the step reads; sel and out serve batches with rows that failed.
	live []int
	sel  []int32
	out  *column.Batch
}

// member is a member of an insight's JSON: its name with quotes and colon, and its column.
type member struct {
	label []byte
	col   int
}

func newInsightStep(step *flowdef.PlanStep, input expr.Schema, started int64) *insightStep {
	s := &insightStep{name: step.Insight.Name, started: started, timeCol: step.InsightTime, out: column.NewBatch(step.Output)}
	s.key, s.values = members(input, step.InsightKey), members(input, step.InsightValues)
	return s
}

// InsightStep is the id of the step that makes the insights of that name, or an empty text.
func (p *Program) InsightStep(name string) string {
	for i := range p.plan.Steps {
		if s := &p.plan.Steps[i]; s.Insight != nil && s.Insight.Name == name {
			return s.ID
		}
	}
	return ""
}

func members(schema expr.Schema, cols []int) []member {
	list := make([]member, len(cols))
	for i, pos := range cols {
		label := append(column.AppendJSONString(nil, []byte(schema[pos].Name)), ':')
		if i > 0 {
			label = append([]byte{','}, label...)
		}
		list[i] = member{label: label, col: pos}
	}
	return list
}

func (s *insightStep) push(b *column.Batch) error {
	s.sel = s.sel[:0]
	for row := range b.Len {
		if s.timeCol < 0 || !b.Cols[s.timeCol].Null(row) {
			s.sel = append(s.sel, i32(row))
		} else if err := s.fail(b, row); err != nil {
			return err
		}
	}
	if s.box != nil {
		if err := s.collect(b); err != nil {
			return err
		}
	}
	if len(s.next) == 0 {
		return nil
	}
	if len(s.sel) == b.Len {
		return s.emit(b)
	}
	for _, pos := range s.live {
		s.out.Cols[pos].Gather(&b.Cols[pos], s.sel)
	}
	s.out.Len = len(s.sel)
	return s.emit(s.out)
}

// collect makes insights of the selected rows.
func (s *insightStep) collect(b *column.Batch) error {
	s.counts.in += int64(b.Len)
	s.counts.out += int64(len(s.sel))
	if s.clock != nil {
		s.started = s.clock().UnixMicro()
	}
	for i, row := range s.sel {
		s.add(b, int(row))
		if i == 0 {
			s.box.expect(len(s.sel) - 1)
		}
		last := &s.box.items[len(s.box.items)-1]
		if err := s.guard.collected(last.end - last.key); err != nil {
			return err
		}
	}
	if s.box.tooMuch != nil && s.box.size() > maxBatchBytes {
		return s.box.tooMuch()
	}
	return nil
}

// add makes an insight of a row.
func (s *insightStep) add(b *column.Batch, row int) {
	p := pending{name: s.name, time: s.started, key: len(s.box.data)}
	if s.timeCol >= 0 {
		p.time = b.Cols[s.timeCol].Ints[row]
	}
	s.box.data = appendObject(s.box.data, s.key, b, row)
	p.values = len(s.box.data)
	s.box.data = appendObject(s.box.data, s.values, b, row)
	p.end = len(s.box.data)
	s.box.items = append(s.box.items, p)
}

func (s *insightStep) fail(b *column.Batch, row int) error {
	if s.box == nil {
		return nil
	}
	return s.counts.fail(connector.FailedRecord{
		Where:  "step " + s.counts.step,
		Reason: fmt.Sprintf("the time column %s is null", b.Schema[s.timeCol].Name),
		Record: describeRow(b, row),
	})
}

func appendObject(dst []byte, list []member, b *column.Batch, row int) []byte {
	dst = append(dst, '{')
	for i := range list {
		dst = append(dst, list[i].label...)
		dst = column.AppendJSON(dst, &b.Cols[list[i].col], row)
	}
	return append(dst, '}')
}
