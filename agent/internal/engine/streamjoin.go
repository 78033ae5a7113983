package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

const (
	// maxStreamRows and maxStreamBytes bound what a join of two streams holds of both sides together.
	maxStreamRows  = 1_000_000
	maxStreamBytes = 256 << 20
)

// The sides of a join.
const (
	leftSide = iota
	rightSide
)

// streamJoin joins two streams: rows match that have the same key and whose times are at most within apart.
//
// A pair goes out when its second row comes. Each side has a watermark, the greatest time seen on it less late; a row
// older than its side's watermark is late and counted. A row is let go once the other side's watermark says that none of
// that side's rows can match it any more; one of the left side that has found nothing then goes out with nulls. All of
// that is decided row by row, so that it does not depend on how the input was cut into batches.
type streamJoin struct {
	outputs
	plan         *flowdef.PlanStep
	counts       *stepCounts
	outer        bool
	within, late int64
	span         span
	table        *keyTable
	sides        [2]*streamSide
	// live is how many rows are held and bytes about their text; the limits are constants but in tests.
	live, bytes         int
	maxLive, maxBytes   int
	leftRows, rightRows []int32
	out                 *column.Batch
	// closing is what a bounded input's end has still to emit; ended says that it was collected.
	closing []int32
	ended   bool
	state   streamState
}

// streamEntrance is where one side's rows come in.
type streamEntrance struct {
	join *streamJoin
	side int
}

func (e streamEntrance) push(b *column.Batch) error { return e.join.pushSide(b, e.side) }

func (j *streamJoin) entrance(n int) operator { return streamEntrance{j, n} }

// push is never called: rows come in through the entrances.
func (*streamJoin) push(*column.Batch) error {
	return errors.New("a join of two streams has no input of its own")
}

func (g *graph) requireStreamJoin(step *flowdef.PlanStep, live []bool) error {
	if step.StreamJoin == nil {
		return errors.New("the plan of the join of two streams is missing")
	}
	left, right := g.live[step.Inputs[0]], g.live[step.Inputs[1]]
	mark(left, live[:len(left)])
	markAll(left, step.JoinLeft)
	left[step.StreamJoin.LeftTime] = true
	for k, pos := range step.RightKeep {
		right[pos] = right[pos] || live[len(left)+k]
	}
	markAll(right, step.JoinRight)
	right[step.StreamJoin.RightTime] = true
	return nil
}

func (m *maker) streamJoin(i int) (operator, *outputs, error) {
	step, left, counts, live := m.step(i)
	right := m.graph.plan.Steps[step.Inputs[1]].Output
	types, err := keyTypes(step, left, right)
	if err != nil {
		return nil, nil, err
	}
	if step.StreamJoin == nil || step.Join.Stream == nil {
		return nil, nil, errors.New("the plan of the join of two streams is missing")
	}
	j := &streamJoin{
		plan: step, counts: counts, outer: step.Join.Kind == "left", span: m.span, table: newKeyTable(types),
		within: step.Join.Within.Microseconds(), late: step.Join.Stream.Late.Microseconds(),
		sides: [2]*streamSide{
			newStreamSide(step.JoinLeft, step.StreamJoin.LeftTime), newStreamSide(step.JoinRight, step.StreamJoin.RightTime),
		},
		maxLive: maxStreamRows, maxBytes: maxStreamBytes, out: column.NewBatch(step.Output),
	}
	for pos := range left {
		if live[pos] {
			j.sides[leftSide].hold(pos, pos, left[pos].Type)
		}
	}
	for k, pos := range step.RightKeep {
		if live[len(left)+k] {
			j.sides[rightSide].hold(pos, len(left)+k, right[pos].Type)
		}
	}
	j.state.init(j, left, right)
	return j, &j.outputs, nil
}

// pushSide takes a batch of one side.
func (j *streamJoin) pushSide(b *column.Batch, side int) error {
	j.counts.in += int64(b.Len)
	j.compact()
	s := j.sides[side]
	keys := s.keys.load(b)
	var err error
	if s.entries, err = j.table.assign(keys, s.entries); err != nil {
		return fmt.Errorf("step %s: the keys of the rows that the join holds need more than 2 GiB of text; join by shorter columns", j.plan.ID)
	}
	for _, other := range j.sides {
		other.head, other.tail = growTo(other.head, j.table.len()), growTo(other.tail, j.table.len())
	}
	times := &b.Cols[s.time]
	at := 0
	for row := range b.Len {
		entry := int32(noEntry)
		if at < len(keys.rows) && int(keys.rows[at]) == row {
			entry = s.entries[at]
			at++
		}
		if times.Null(row) {
			reason := fmt.Sprintf("the time column %s is null", b.Schema[s.time].Name)
			if err = j.counts.fail(connector.FailedRecord{Where: "step " + j.plan.ID, Reason: reason, Record: describeRow(b, row)}); err != nil {
				return err
			}
			continue
		}
		if err = j.take(b, arrival{row: row, entry: entry, side: side, time: times.Ints[row]}); err != nil {
			return err
		}
	}
	return j.send()
}

// arrival is a row that comes in. Its entry is noEntry when its key has a null, which matches nothing.
type arrival struct {
	row   int
	entry int32
	side  int
	time  int64
}

func (j *streamJoin) take(b *column.Batch, a arrival) error {
	s, other := j.sides[a.side], j.sides[1-a.side]
	if j.span == endless {
		if s.watermark(j.late) > a.time {
			j.counts.late++
			j.counts.lateTotal++
			return nil
		}
		if !s.seen || a.time > s.newest {
			s.seen, s.newest = true, a.time
			if err := j.release(1-a.side, s.watermark(j.late)); err != nil {
				return err
			}
		}
	}
	if a.entry == noEntry && (a.side == rightSide || !j.outer) {
		return nil
	}
	row := s.add(b, a)
	j.live++
	j.bytes += s.textOf(row)
	if a.entry != noEntry {
		if err := j.probe(a, row); err != nil {
			return err
		}
	}
	// Nothing can match it any more when the other side is far ahead, or when its key has a null.
	if a.entry == noEntry || j.span == endless && other.watermark(j.late) > addTimes(a.time, j.within) {
		return j.settle(a.side, row)
	}
	s.link(row)
	if j.span == endless {
		s.due.push(due{a.time, row})
	}
	return j.bound(b, a)
}

// probe pairs a new row with the rows of the other side, in the order in which those came.
func (j *streamJoin) probe(a arrival, row int32) error {
	s, other := j.sides[a.side], j.sides[1-a.side]
	before := int32(noEntry)
	for o := other.head[a.entry] - 1; o != noEntry; o = other.next[o] {
		if other.dead[o] {
			other.unlink(a.entry, before, o)
			continue
		}
		before = o
		if t := other.times[o]; addTimes(t, j.within) < a.time || addTimes(a.time, j.within) < t {
			continue
		}
		s.match(row)
		other.match(o)
		l, r := row, o
		if a.side == rightSide {
			l, r = o, row
		}
		if err := j.pair(l, r); err != nil {
			return err
		}
	}
	return nil
}

// pair notes a row to emit: row l of the left side with row r of the right one, which is noEntry for nulls.
func (j *streamJoin) pair(l, r int32) error {
	j.leftRows, j.rightRows = append(j.leftRows, l), append(j.rightRows, r)
	if len(j.leftRows) < column.TargetRows {
		return nil
	}
	return j.send()
}

// release lets go of the rows of a side that none of the other side's rows can match, whose watermark that is.
func (j *streamJoin) release(side int, watermark int64) error {
	s := j.sides[side]
	for len(s.due) > 0 && addTimes(s.due[0].time, j.within) < watermark {
		if err := j.settle(side, s.due.pop().row); err != nil {
			return err
		}
	}
	return nil
}

// settle lets go of a row that nothing can match any more.
func (j *streamJoin) settle(side int, row int32) error {
	s := j.sides[side]
	lonely := side == leftSide && j.outer && !s.matched[row]
	j.drop(side, row)
	if lonely {
		return j.pair(row, noEntry)
	}
	return nil
}

// drop forgets a row. Its values stay until the next batch.
func (j *streamJoin) drop(side int, row int32) {
	s := j.sides[side]
	j.live--
	j.bytes -= s.textOf(row)
	s.dead[row], s.changed[row] = true, false
	s.deaths++
	if s.saved[row] {
		j.state.remove(side, s.seq[row])
	}
}

// bound keeps what is held within the limits. A run that ends fails, because its result would be wrong. An endless one
// lets go of the oldest quarter of the side that holds more, which waits for the other one to go on; since rows may still
// come that match these, they have failed.
func (j *streamJoin) bound(b *column.Batch, a arrival) error {
	if j.live <= j.maxLive && j.bytes <= j.maxBytes {
		return nil
	}
	if j.span == bounded {
		return fmt.Errorf("step %s: the two inputs have more rows than a join of two streams can hold (%d rows, or %d MiB of text); join a table instead, without within", j.plan.ID, j.maxLive, j.maxBytes>>20)
	}
	side := leftSide
	if len(j.sides[rightSide].due) > len(j.sides[leftSide].due) {
		side = rightSide
	}
	s := j.sides[side]
	n := max(len(s.due)/4, 1)
	for range n {
		j.drop(side, s.due.pop().row)
	}
	return j.counts.failAll(connector.Failures{Count: int64(n), Sample: []connector.FailedRecord{{
		Where:  "step " + j.plan.ID,
		Reason: fmt.Sprintf("the join holds %d rows of both sides, and input %s does not go on, so the oldest %d rows of input %s were let go", j.live+n, j.plan.From[1-side].Name, n, j.plan.From[side].Name),
		Record: describeRow(b, a.row),
	}}})
}

// send emits the pairs found so far.
func (j *streamJoin) send() error {
	if len(j.leftRows) == 0 {
		return nil
	}
	left, right := j.sides[leftSide], j.sides[rightSide]
	for i, pos := range left.outs {
		j.out.Cols[pos].Gather(&left.rows[i], j.leftRows)
	}
	for i, pos := range right.outs {
		gatherOptional(&j.out.Cols[pos], &right.rows[i], j.rightRows)
	}
	j.out.Len = len(j.leftRows)
	j.counts.out += int64(j.out.Len)
	j.leftRows, j.rightRows = j.leftRows[:0], j.rightRows[:0]
	return j.emit(j.out)
}

// finish emits the rows of the left side that found nothing, by time and then as they came.
func (j *streamJoin) finish() (more bool, err error) {
	left := j.sides[leftSide]
	if !j.ended {
		j.ended = true
		for row, dead := range left.dead {
			if !dead && j.outer && !left.matched[row] {
				j.closing = append(j.closing, i32(row))
			}
		}
		slices.SortStableFunc(j.closing, func(a, b int32) int {
			switch ta, tb := left.times[a], left.times[b]; {
			case ta < tb:
				return -1
			case ta > tb:
				return 1
			}
			return 0
		})
	}
	n := min(len(j.closing), column.TargetRows)
	for _, row := range j.closing[:n] {
		if err = j.settle(leftSide, row); err != nil {
			return false, err
		}
	}
	if j.closing = j.closing[n:]; len(j.closing) > 0 {
		return true, j.send()
	}
	for side, s := range j.sides {
		for row, dead := range s.dead {
			if !dead {
				j.drop(side, i32(row))
			}
		}
	}
	j.state.ended = true
	return false, j.send()
}

// compact drops the rows that were let go once they outnumber the others, and the keys that no row has.
func (j *streamJoin) compact() {
	deaths := j.sides[leftSide].deaths + j.sides[rightSide].deaths
	if deaths <= j.live+compactFloor && j.table.len() <= 2*j.live+4*compactFloor {
		return
	}
	used := make([]bool, j.table.len())
	for _, s := range j.sides {
		for row, dead := range s.dead {
			if !dead {
				used[s.entry[row]] = true
			}
		}
	}
	var keep []int32
	place := make([]int32, len(used))
	for e, u := range used {
		if u {
			place[e] = i32(len(keep))
			keep = append(keep, i32(e))
		}
	}
	j.table.compact(keep, nil)
	for _, s := range j.sides {
		s.compact(place, len(keep))
	}
}

// addTimes adds a length of time to a time and stops at the ends.
func addTimes(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

func (j *streamJoin) stepID() string                          { return j.plan.ID }
func (j *streamJoin) restore(entries map[string][]byte) error { return j.state.restore(entries) }
func (j *streamJoin) discard(entries map[string][]byte)       { j.state.discard(entries) }
func (j *streamJoin) changes(dst []StateChange) []StateChange { return j.state.changes(dst) }

// columnsOf describes columns for a fingerprint.
func columnsOf(schema expr.Schema, positions []int) string {
	var text strings.Builder
	for _, pos := range positions {
		fmt.Fprintf(&text, "%d %s %q,", pos, schema[pos].Type, schema[pos].Name)
	}
	return text.String()
}
