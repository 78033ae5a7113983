package engine

import (
	"fmt"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// requireDetect marks the value, the groups and the time; a deadband passes its rows on as well.
func requireDetect(step *flowdef.PlanStep, live, from []bool) {
	p := step.DetectPlan
	markAll(from, p.By)
	markColumns(from, p.Value)
	from[p.Time] = true
	if step.Detect.Method == flowdef.DetectDeadband {
		mark(from, live)
	}
}

func (m *maker) detect(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	d, err := newDetector(step, input, m.span)
	if err != nil {
		return nil, nil, err
	}
	d.counts = counts
	switch method := d.method.(type) {
	case *deadband:
		method.live = positions(live)
	case *silence:
		return &silenceDetector{detector: d, silence: method}, &d.outputs, nil
	}
	return d, &d.outputs, nil
}

// noTime stands where there is no time yet. No timestamp of a definition or a source is that early.
const noTime = math.MinInt64

// detectBudget is how much memory the groups of one step may take; their number follows from it.
const detectBudget = 64 << 20

// detector brings the rows of a detect step into the form that its method works on: in the order in which they came,
// with the number of their group, without those that are late, that fail or that hold no value. The method keeps what
// it knows of a group in arrays over these numbers.
type detector struct {
	outputs
	plan   *flowdef.PlanStep
	counts *stepCounts
	span   span
	value  kernel
	texts  *textParts
	// values is what value gave last.
	values  *column.Column
	by      []int
	byCols  []*column.Column
	timeCol int
	table   *keyTable
	method  detectMethod

	// maxGroups is how many groups there may be; a record of another one fails.
	maxGroups int
	// last is the time of the last reading of each group, noTime for none, and newest the greatest of these.
	last   []int64
	newest int64
	rows   []int32
	groups []int32
	zeros  []int64
	// open is the groups that finish has still to look at; ended says that it was collected.
	open  []int32
	ended bool

	state detectState
	// out collects the events of a push.
	out *column.Batch
}

// readings are rows of a batch with their groups. floats is the value by row, nil where any value counts.
type readings struct {
	batch        *column.Batch
	rows, groups []int32
	times        []int64
	floats       []float64
}

// detectMethod decides over the readings of the groups.
type detectMethod interface {
	// grow makes n groups in all; new ones have seen nothing.
	grow(n int)
	// run handles readings, which are in time order within each group.
	run(r readings) error
	// finish reports the events of these groups that are open and that no row has told of.
	finish(groups []int32) error
	// encode appends the state of a group; decode reads it back and sets the reader's error when it cannot be right.
	encode(dst []byte, g int32) []byte
	decode(r *reader, g int32)
	// reset makes a group one that has seen nothing.
	reset(g int32)
	// groupSize is about how many bytes a group takes.
	groupSize() int
	// describe is the definition as far as the meaning of the state goes.
	describe() string
}

func newDetector(step *flowdef.PlanStep, input expr.Schema, s span) (*detector, error) {
	p := step.DetectPlan
	d := &detector{
		plan: step, span: s, by: p.By, byCols: make([]*column.Column, len(p.By)), timeCol: p.Time, newest: noTime,
		out: column.NewBatch(step.Output),
	}
	types := make([]expr.Type, len(p.By))
	keySize := 0
	for i, pos := range p.By {
		types[i] = input[pos].Type
		keySize += 32
	}
	d.table = newKeyTable(types)
	if p.Value != nil {
		want := expr.Float
		if step.Detect.Method == flowdef.DetectSilence {
			want = p.Value.Type
		}
		var err error
		if d.value, err = compileExpr(p.Value, want); err != nil {
			return nil, err
		}
		d.texts = newTextParts(p.Value)
	}
	var err error
	if d.method, err = newDetectMethod(d); err != nil {
		return nil, err
	}
	const always = 8 + 8 + 2 + 4*16 // last, prefix, flags and slots of the key table
	d.maxGroups = detectBudget / (always + keySize + d.method.groupSize())
	d.state.init(d, types)
	return d, nil
}

func newDetectMethod(d *detector) (detectMethod, error) {
	switch m := d.plan.Detect.Method; m {
	case flowdef.DetectDeadband:
		return newDeadband(d), nil
	case flowdef.DetectSilence:
		return newSilence(d), nil
	case flowdef.DetectThreshold, flowdef.DetectRate, flowdef.DetectZScore, flowdef.DetectEWMA, flowdef.DetectCUSUM:
		return newEvents(d), nil
	default:
		return nil, fmt.Errorf("the agent does not know the detection method %s; a newer agent may", m)
	}
}

func (d *detector) push(b *column.Batch) error { return d.texts.push(b, d, d.counts) }

func (d *detector) evaluate(b *column.Batch) {
	if d.value != nil {
		d.values = d.value.eval(b)
	}
}

func (d *detector) use(b *column.Batch) error {
	d.counts.in += int64(b.Len)
	r := readings{batch: b, times: b.Cols[d.timeCol].Ints}
	value := d.values
	if value != nil {
		if d.plan.Detect.Method != flowdef.DetectSilence {
			r.floats = value.Floats
		}
	}
	if err := d.selectRows(b, value, r.floats); err != nil {
		return err
	}
	if err := d.assign(b); err != nil {
		return err
	}
	d.dropLate(r.times)
	r.rows, r.groups = d.rows, d.groups
	if err := d.method.run(r); err != nil {
		return err
	}
	return d.flush()
}

// selectRows lists the rows that have a time and a value.
func (d *detector) selectRows(b *column.Batch, value *column.Column, floats []float64) error {
	d.rows = d.rows[:0]
	times := &b.Cols[d.timeCol]
	timeNulls, valueNulls := times.HasNulls(), value != nil && value.HasNulls()
	for i := range b.Len {
		switch {
		case timeNulls && times.Null(i):
			if err := d.fail(b, i, fmt.Sprintf("the time column %s is null", b.Schema[d.timeCol].Name)); err != nil {
				return err
			}
		case valueNulls && value.Null(i):
		case floats != nil && floats[i]-floats[i] != 0: // NaN or infinite
		default:
			d.rows = append(d.rows, i32(i))
		}
	}
	return nil
}

func (d *detector) fail(b *column.Batch, row int, reason string) error {
	return d.counts.fail(connector.FailedRecord{Where: "step " + d.plan.ID, Reason: reason, Record: describeRow(b, row)})
}

// assign numbers the groups of the rows; rows of a group beyond the bound fail and are dropped.
func (d *detector) assign(b *column.Batch) error {
	for i, pos := range d.by {
		d.byCols[i] = &b.Cols[pos]
	}
	d.zeros = growTo(d.zeros, len(d.rows))
	keys := keyRows{cols: d.byCols, rows: d.rows, prefix: d.zeros[:len(d.rows)]}
	if d.table.len() >= d.maxGroups {
		d.groups = d.table.lookup(keys, d.groups)
	} else {
		var err error
		if d.groups, err = d.table.assign(keys, d.groups); err != nil {
			return fmt.Errorf("step %s: %w", d.plan.ID, err)
		}
	}
	known := d.table.len()
	if known >= d.maxGroups {
		if err := d.refuse(b); err != nil {
			return err
		}
		known = d.maxGroups
	}
	d.grow(known)
	return nil
}

// refuse drops the rows whose group is not among the first maxGroups.
func (d *detector) refuse(b *column.Batch) error {
	kept := 0
	for i, g := range d.groups {
		if g != noEntry && int(g) < d.maxGroups {
			d.rows[kept], d.groups[kept] = d.rows[i], g
			kept++
			continue
		}
		reason := fmt.Sprintf("it is of a new group, and the step watches %d already; group by fewer values, or divide them among several steps with filter", d.maxGroups)
		if err := d.fail(b, int(d.rows[i]), reason); err != nil {
			return err
		}
	}
	d.rows, d.groups = d.rows[:kept], d.groups[:kept]
	if d.table.len() > d.maxGroups {
		keep := make([]int32, d.maxGroups)
		for i := range keep {
			keep[i] = i32(i)
		}
		d.table.compact(keep, nil)
	}
	return nil
}

func (d *detector) grow(n int) {
	old := len(d.last)
	if n <= old {
		return
	}
	d.last = growTo(d.last, n)
	for g := old; g < n; g++ {
		d.last[g] = noTime
	}
	d.method.grow(n)
	d.state.grow(n)
}

// dropLate counts and drops the rows whose time is not after the last one of their group.
func (d *detector) dropLate(times []int64) {
	kept := 0
	for i, g := range d.groups {
		row := d.rows[i]
		d.rows[kept], d.groups[kept] = row, g
		if t := times[row]; t > d.last[g] {
			d.last[g], d.newest = t, max(d.newest, t)
			d.state.changed[g] = true
			kept++
		}
	}
	late := int64(len(d.groups) - kept)
	d.counts.late += late
	d.counts.lateTotal += late
	d.rows, d.groups = d.rows[:kept], d.groups[:kept]
}

// detected is a row of the output.
type detected struct {
	start, end int64
	severity   string
	// numbers are the columns behind the severity, as many as the method has.
	numbers [3]float64
}

// report adds a row of a group to the output; an end of noTime is null, and then the event is open.
func (d *detector) report(g int32, e *detected) error {
	o := d.out
	col := len(d.table.cols)
	for i := range d.table.cols {
		o.Cols[i].AppendFrom(&d.table.cols[i], int(g))
	}
	o.Cols[col].AppendInt(e.start)
	state := flowdef.EventClosed
	if e.end == noTime {
		state = flowdef.EventOpen
		o.Cols[col+1].AppendNull()
	} else {
		o.Cols[col+1].AppendInt(e.end)
	}
	o.Cols[col+2].AppendStr([]byte(state))
	o.Cols[col+3].AppendStr([]byte(e.severity))
	for i := col + 4; i < len(o.Cols); i++ {
		o.Cols[i].AppendFloat(e.numbers[i-col-4])
	}
	if o.Len++; o.Len >= column.TargetRows {
		return d.flush()
	}
	return nil
}

// flush emits the events collected.
func (d *detector) flush() error {
	if d.out.Len == 0 {
		return nil
	}
	d.counts.out += int64(d.out.Len)
	err := d.emit(d.out)
	d.out.Reset()
	return err
}

// reports says whether an event gives a row when it opens and when it closes.
func (d *detector) reports() (opened, closed bool) {
	r := d.plan.Detect.Report
	return r != flowdef.EventClosed, r != flowdef.EventOpen
}

// finish emits the next part of the events that a bounded input leaves open, where they were not reported yet. Unlike a
// window, an event does not end with the input: the next run of the flow goes on with it.
func (d *detector) finish() (more bool, err error) {
	if !d.ended {
		d.ended = true
		d.open = make([]int32, len(d.last))
		for g := range d.open {
			d.open[g] = i32(g)
		}
		d.table.sort(d.open)
	}
	part := d.open[:min(len(d.open), column.TargetRows)]
	d.open = d.open[len(part):]
	if err = d.method.finish(part); err != nil {
		return false, err
	}
	return len(d.open) > 0, d.flush()
}

func (d *detector) stepID() string                          { return d.plan.ID }
func (d *detector) restore(entries map[string][]byte) error { return d.state.restore(entries) }
func (d *detector) discard(entries map[string][]byte)       { d.state.discard(entries) }
func (d *detector) changes(dst []StateChange) []StateChange { return d.state.changes(dst) }
