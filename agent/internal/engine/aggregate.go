package engine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// aggregate groups rows by columns and, where there is a window, by the window's start.
//
// Groups are numbered by the key table; every accumulator is an array over those numbers. A closed window's groups are
// marked dead and stay until they outnumber the living: no row can find them, since their window is past.
type aggregate struct {
	outputs
	plan   *flowdef.PlanStep
	counts *stepCounts

	by      []int
	byCols  []*column.Column
	args    []kernel
	argCols []*column.Column
	texts   *textParts
	accs    []accumulator
	table   *keyTable
	win     *window
	timeCol int
	// frames is set with win; keys where something is kept for a key over windows; sessions for windows of that kind.
	frames   frames
	keys     *keyring
	sessions *sessions

	seg    segment
	times  []int64
	groups []int32
	out    *column.Batch

	dead   []bool
	deaths int
	// closing is what a bounded input's end has still to emit; ended says that it was collected.
	closing []int32
	ended   bool
	// visible is the rows of out that are of shifts.
	visible []int32
	merged  [1]int32
	// everyGroup is scratch of tidy, keep of compact.
	everyGroup, keep []int32

	state aggregateState
}

// compactFloor is how many dead groups are left alone however few are alive. It is small, because there are agents with
// hundreds of flows over a few tags each.
const compactFloor = 16

func newAggregate(step *flowdef.PlanStep, input expr.Schema, s span) (*aggregate, error) {
	a := &aggregate{
		plan: step, by: step.By, byCols: make([]*column.Column, len(step.By)),
		out: column.NewBatch(step.Output), timeCol: -1,
	}
	types := make([]expr.Type, len(step.By))
	for i, pos := range step.By {
		types[i] = input[pos].Type
	}
	a.table = newKeyTable(types)
	if err := a.cutTime(step, types, s); err != nil {
		return nil, err
	}
	a.argCols = make([]*column.Column, len(step.Aggregates))
	var nodes []*expr.Node
	for i := range step.Aggregates {
		call := &step.Aggregates[i]
		nodes = append(nodes, call.Arg)
		acc, err := newAccumulator(call, &a.frames)
		if err != nil {
			return nil, err
		}
		var arg kernel
		if call.Arg != nil {
			if arg, err = compileExpr(call.Arg, call.Arg.Type); err != nil {
				return nil, err
			}
		}
		a.accs, a.args = append(a.accs, acc), append(a.args, arg)
		if c, ok := acc.(carrier); ok {
			if a.win == nil {
				return nil, fmt.Errorf("%s needs a window", call.Func)
			}
			a.ring(types).carriers = append(a.keys.carriers, c)
			a.win.keepOutside = true
		}
	}
	a.texts = newTextParts(nodes...)
	a.state.init(a, types)
	return a, nil
}

// cutTime makes what the step's window needs.
func (a *aggregate) cutTime(step *flowdef.PlanStep, types []expr.Type, s span) error {
	w := step.Aggregate.Window
	if w == nil {
		return nil
	}
	win, err := newWindow(w, s)
	if err != nil {
		return err
	}
	a.win, a.timeCol = win, step.WindowTime
	if w.Session > 0 {
		a.sessions = &sessions{gap: w.Session.Microseconds()}
		a.ring(types)
	}
	return nil
}

// ring makes the keyring when it is not there.
func (a *aggregate) ring(types []expr.Type) *keyring {
	if a.keys == nil {
		a.keys = &keyring{table: newKeyTable(types), blocks: newGroupBlocks(a.perEntry(), 0), limit: maxCarries}
	}
	return a.keys
}

// perEntry is how many groups or keys share an entry.
func (a *aggregate) perEntry() int {
	if a.sessions != nil {
		return 1
	}
	return groupsPerEntry
}

func (a *aggregate) push(b *column.Batch) error { return a.texts.push(b, a, a.counts) }

func (a *aggregate) evaluate(b *column.Batch) {
	for i, arg := range a.args {
		if arg != nil {
			a.argCols[i] = arg.eval(b)
		}
	}
}

func (a *aggregate) use(b *column.Batch) error {
	a.counts.in += int64(b.Len)
	for i, pos := range a.by {
		a.byCols[i] = &b.Cols[pos]
	}
	if a.win == nil {
		a.seg.reset()
		for i := range b.Len {
			a.seg.rows, a.seg.starts = append(a.seg.rows, i32(i)), append(a.seg.starts, 0)
		}
		return a.update(nil)
	}
	times := &b.Cols[a.timeCol]
	a.times = times.Ints
	var keys []int32
	if a.sessions != nil {
		var err error
		if keys, err = a.sessionKeys(times, b.Len); err != nil {
			return err
		}
	}
	for from := 0; from < b.Len; {
		next, closes, err := a.advance(times, keys, from, b.Len)
		if err == nil {
			err = a.countUnused(b)
		}
		if err == nil && closes {
			err = a.closeWindows()
		}
		if err != nil {
			return err
		}
		from = next
	}
	a.tidy()
	return nil
}

// advance works on the rows from row `from` on, up to and with the row that closes a window, and gives the row after it
// and whether there are windows to close.
func (a *aggregate) advance(times *column.Column, keys []int32, from, n int) (next int, closes bool, err error) {
	if a.sessions != nil {
		return a.scanSessions(times, keys, from, n)
	}
	next, closes = a.win.scan(times, from, n, &a.seg)
	return next, closes, a.update(times.Ints)
}

// countUnused counts the rows of the segment that are in no window.
func (a *aggregate) countUnused(b *column.Batch) error {
	late := int64(len(a.seg.late))
	a.counts.late += late
	a.counts.lateTotal += late
	a.counts.outside += a.seg.outside
	if len(a.seg.failed) > 0 {
		return a.fail(b)
	}
	return nil
}

// fail reports the rows of the segment whose time cannot be used.
func (a *aggregate) fail(b *column.Batch) error {
	for _, row := range a.seg.failed {
		reason := fmt.Sprintf("the time column %s is null", b.Schema[a.timeCol].Name)
		if !b.Cols[a.timeCol].Null(int(row)) {
			reason = fmt.Sprintf("the time in column %s has no window within the years 1 to 9999", b.Schema[a.timeCol].Name)
		}
		err := a.counts.fail(connector.FailedRecord{Where: "step " + a.plan.ID, Reason: reason, Record: describeRow(b, int(row))})
		if err != nil {
			return err
		}
	}
	return nil
}

// update adds the segment's rows to their groups.
func (a *aggregate) update(times []int64) error {
	if len(a.seg.rows) == 0 {
		return nil
	}
	keys := keyRows{cols: a.byCols, rows: a.seg.rows, prefix: a.seg.starts}
	var err error
	if a.groups, err = a.table.assign(keys, a.groups); err != nil {
		return err
	}
	known := len(a.dead)
	a.growGroups(a.table.len())
	if a.win != nil && len(a.dead) > known {
		if err = a.frameGroups(known, len(a.dead)); err != nil {
			return err
		}
	}
	return a.apply(times)
}

// apply adds the segment's rows to the accumulators.
func (a *aggregate) apply(times []int64) error {
	u := updates{rows: a.seg.rows, groups: a.groups, times: times}
	for i, acc := range a.accs {
		if err := acc.update(a.argCols[i], u); err != nil {
			return err
		}
	}
	for _, g := range a.groups {
		a.state.changed[g] = true
	}
	return nil
}

func (a *aggregate) growGroups(n int) {
	a.dead = growTo(a.dead, n)
	a.state.grow(n)
	for _, acc := range a.accs {
		acc.grow(n)
	}
	if a.win == nil {
		return
	}
	f := &a.frames
	f.starts, f.ends = growTo(f.starts, n), growTo(f.ends, n)
	if a.win.hops > 1 {
		f.nexts = growTo(f.nexts, n)
	}
	if a.keys != nil {
		f.keys = growTo(f.keys, n)
	}
	if a.sessions != nil {
		a.sessions.grow(n, a.keys.table.len())
	}
}

// frameGroups sets the bounds and keys of the groups from `from` to before `to`.
func (a *aggregate) frameGroups(from, to int) error {
	f := &a.frames
	for g := from; g < to; g++ {
		start := a.table.prefix[g]
		f.starts[g] = start
		if g > from && start == f.starts[g-1] {
			f.ends[g] = f.ends[g-1]
			if f.nexts != nil {
				f.nexts[g] = f.nexts[g-1]
			}
			continue
		}
		_, paneEnd, end, ok := a.win.bounds(start)
		if !ok {
			return errors.New("a window was found and is no more")
		}
		f.ends[g] = end
		if f.nexts != nil {
			f.nexts[g] = paneEnd
		}
	}
	if a.keys == nil {
		return nil
	}
	keys, err := a.keys.ofGroups(a.table, from, to)
	copy(f.keys[from:], keys)
	return err
}

// closeWindows emits the groups of the windows that the watermark has passed, and forgets them.
func (a *aggregate) closeWindows() error {
	mark := a.win.watermark()
	if a.sessions != nil {
		a.closing, a.win.minEnd = a.closeUpTo(a.closing[:0], mark)
	} else {
		a.closing, a.win.minEnd = a.scanEnds(a.closing[:0], mark)
	}
	a.order(a.closing)
	for len(a.closing) > 0 {
		if err := a.emitNext(); err != nil {
			return err
		}
	}
	if a.keys != nil {
		a.state.forgetCarries(a.keys.evict())
	}
	return nil
}

// scanEnds appends the open groups that end by the mark, and gives the earliest end of the others.
func (a *aggregate) scanEnds(dst []int32, mark int64) (closing []int32, minEnd int64) {
	minEnd = math.MaxInt64
	for g, end := range a.frames.ends {
		if a.dead[g] {
			continue
		}
		if end <= mark {
			dst = append(dst, i32(g))
		} else {
			minEnd = min(minEnd, end)
		}
	}
	return dst, minEnd
}

// order sorts groups by the start of their window, then by key.
func (a *aggregate) order(groups []int32) {
	if a.sessions == nil {
		a.table.sort(groups)
		return
	}
	starts := a.frames.starts
	slices.SortFunc(groups, func(x, y int32) int {
		if c := cmp.Compare(starts[x], starts[y]); c != 0 {
			return c
		}
		return compareKeys(a.table, x, y)
	})
}

// tidy compacts where what is gone outweighs what is there.
func (a *aggregate) tidy() {
	live := len(a.dead) - a.deaths
	waste := a.deaths > live/2+compactFloor
	for _, acc := range a.accs {
		if s, ok := acc.(sampler); ok {
			if s.wasteful() {
				a.everyGroup = sequence(a.everyGroup, len(a.dead))
				s.compact(a.everyGroup)
			}
		}
	}
	if waste || a.keys.wasteful(live) {
		a.compact()
	}
}

// emitNext emits and forgets the next of the closing groups, at most a batch of them.
func (a *aggregate) emitNext() error {
	n := a.fitGroups(a.closing)
	part := a.closing[:n]
	a.state.forget(part)
	emptyColumns(a.out.Cols)
	if err := a.fill(part); err != nil {
		return err
	}
	for _, g := range part {
		a.bury(g)
	}
	if a.keys != nil {
		a.keys.note(a.frames.keys, part)
	}
	if a.win != nil && a.win.shifts != nil {
		a.hideOutside(part)
	}
	a.closing = a.closing[n:]
	a.counts.out += int64(a.out.Len)
	return a.emit(a.out)
}

// bury forgets a group, whose number stays taken until the next compact.
func (a *aggregate) bury(g int32) {
	a.dead[g] = true
	a.deaths++
	for _, acc := range a.accs {
		if s, ok := acc.(sampler); ok {
			s.drop(g)
		}
	}
	if a.sessions != nil {
		a.sessions.leave(a.frames.keys[g], g)
	}
}

// hideOutside takes the stretches between shifts, which are there for what they carry over, out of the output.
func (a *aggregate) hideOutside(groups []int32) {
	a.visible = a.visible[:0]
	for i, g := range groups {
		if !a.win.shifts.outside(a.frames.starts[g]) {
			a.visible = append(a.visible, i32(i))
		}
	}
	if len(a.visible) < len(groups) {
		a.out.Compact(a.visible)
	}
}

// fill writes the rows of the groups in the order of the step's output.
func (a *aggregate) fill(groups []int32) error {
	a.out.Len = len(groups)
	col := 0
	for i := range a.table.cols {
		if err := a.out.Cols[col].AppendRows(&a.table.cols[i], groups); err != nil {
			return fmt.Errorf("step %s: %w", a.plan.ID, err)
		}
		col++
	}
	if a.win != nil {
		for _, g := range groups {
			a.out.Cols[col].AppendInt(a.frames.starts[g])
			a.out.Cols[col+1].AppendInt(a.frames.ends[g])
		}
		col += 2
		if a.win.shifts != nil {
			a.fillShift(&a.out.Cols[col], groups)
			col++
		}
	}
	for _, acc := range a.accs {
		acc.result(&a.out.Cols[col], groups)
		col++
	}
	return nil
}

func (a *aggregate) fillShift(dst *column.Column, groups []int32) {
	for _, g := range groups {
		if start := a.frames.starts[g]; a.win.shifts.outside(start) {
			dst.AppendNull()
		} else {
			dst.AppendStr([]byte(a.win.shifts.name(start)))
		}
	}
}

// compact drops the dead groups, and the keys that nothing knows any more.
func (a *aggregate) compact() {
	keep := a.keep[:0]
	for g, dead := range a.dead {
		if !dead {
			keep = append(keep, i32(g))
		}
	}
	a.keep = keep
	a.table.compact(keep, nil)
	for _, acc := range a.accs {
		acc.compact(keep)
	}
	a.state.compact(keep)
	a.dead, a.deaths = a.dead[:len(keep)], 0
	clear(a.dead)
	if a.win == nil {
		return
	}
	f := &a.frames
	f.starts, f.ends = compactSlice(f.starts, keep), compactSlice(f.ends, keep)
	if f.nexts != nil {
		f.nexts = compactSlice(f.nexts, keep)
	}
	if a.sessions != nil {
		a.sessions.compact(keep)
		a.sessions.requeue(keep, f.ends)
	}
	if a.keys != nil {
		f.keys = compactSlice(f.keys, keep)
		if a.keys.wasteful(len(keep)) {
			a.compactKeys()
		}
	}
}

func (a *aggregate) compactKeys() {
	if a.sessions != nil {
		a.sessions.grow(len(a.dead), a.keys.table.len())
	}
	used := slices.Clone(a.keys.carries)
	for _, key := range a.frames.keys {
		used[key] = true
	}
	var keep []int32
	to := make([]int32, len(used))
	for key, is := range used {
		if is {
			to[key] = i32(len(keep))
			keep = append(keep, i32(key))
		}
	}
	for g, key := range a.frames.keys {
		a.frames.keys[g] = to[key]
	}
	a.keys.compact(keep)
	if a.sessions != nil {
		a.sessions.compactKeys(keep)
	}
}

// finish emits the next part of what a bounded input leaves at its end; more says that there is another.
func (a *aggregate) finish() (more bool, err error) {
	if !a.ended {
		a.ended = true
		a.closing = a.closing[:0]
		for g := range a.table.prefix {
			if !a.dead[g] {
				a.closing = append(a.closing, i32(g))
			}
		}
		a.order(a.closing)
	}
	if len(a.closing) > 0 {
		err = a.emitNext()
	}
	if len(a.closing) == 0 {
		a.state.end()
	}
	return len(a.closing) > 0, err
}

func (a *aggregate) stepID() string                          { return a.plan.ID }
func (a *aggregate) restore(entries map[string][]byte) error { return a.state.restore(entries) }
func (a *aggregate) discard(entries map[string][]byte)       { a.state.discard(entries) }
func (a *aggregate) changes(dst []StateChange) []StateChange { return a.state.changes(dst) }
