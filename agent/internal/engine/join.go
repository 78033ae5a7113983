package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// keySide gathers the key columns of one input.
type keySide struct {
	positions []int
	cols      []*column.Column
	rows      []int32
	prefix    []int64
	all       []int32
}

func newKeySide(positions []int) *keySide {
	return &keySide{positions: positions, cols: make([]*column.Column, len(positions))}
}

// load lists the rows of the batch whose key has no null: a null matches nothing.
func (s *keySide) load(b *column.Batch) keyRows {
	for i, pos := range s.positions {
		s.cols[i] = &b.Cols[pos]
	}
	s.all = sequence(s.all, b.Len)
	return s.choose(s.all)
}

// among is load for some rows of columns.
func (s *keySide) among(cols []*column.Column, rows []int32) keyRows {
	for i, pos := range s.positions {
		s.cols[i] = cols[pos]
	}
	return s.choose(rows)
}

func (s *keySide) choose(rows []int32) keyRows {
	if len(s.prefix) < len(rows) {
		s.prefix = make([]int64, len(rows))
	}
	if !slices.ContainsFunc(s.cols, (*column.Column).HasNulls) {
		return keyRows{cols: s.cols, rows: rows, prefix: s.prefix[:len(rows)]}
	}
	s.rows = s.rows[:0]
	for _, row := range rows {
		if !slices.ContainsFunc(s.cols, func(c *column.Column) bool { return c.Null(int(row)) }) {
			s.rows = append(s.rows, row)
		}
	}
	return keyRows{cols: s.cols, rows: s.rows, prefix: s.prefix[:len(s.rows)]}
}

// keyTypes are the types of the keys, which are the same on both sides.
func keyTypes(step *flowdef.PlanStep, left, right expr.Schema) ([]expr.Type, error) {
	types := make([]expr.Type, len(step.JoinLeft))
	for i := range types {
		l, r := left[step.JoinLeft[i]], right[step.JoinRight[i]]
		if l.Type != r.Type {
			return nil, fmt.Errorf("the join compares %s (%s) with %s (%s); convert one of them in a map before the join", l.Name, l.Type, r.Name, r.Type)
		}
		types[i] = l.Type
	}
	return types, nil
}

// newTableBuilder makes the end of a join's right side. live are the columns of that side which something reads.
func newTableBuilder(step *flowdef.PlanStep, left, right expr.Schema, live []bool, res *resources) (*tableBuilder, error) {
	types, err := keyTypes(step, left, right)
	if err != nil {
		return nil, err
	}
	b := &tableBuilder{step: step.ID, side: newKeySide(step.JoinRight), full: step.Join.Kind == flowdef.JoinFull, cols: slices.Clone(step.JoinRight)}
	t := &joinTable{hasher: newHasher(types), keys: len(types), keep: make([]int, len(step.RightKeep))}
	for i, pos := range step.RightKeep {
		t.keep[i] = -1
		if live[pos] {
			t.keep[i] = len(types)
			types, b.cols = append(types, right[pos].Type), append(b.cols, pos)
		}
	}
	// The table outlives the pipeline that fills it.
	t.res = &resources{memory: res.memory, scratch: res.scratch, worker: res.worker}
	t.budget, t.types, t.rows = t.res.budget(), types, newRowStore(types)
	b.refs, b.table = make([]*column.Column, len(b.cols)), t
	return b, nil
}

// join adds the columns of a table to the rows of its left input: for each left row the matches in the table's order, and
// at the end of a full join the rows of the table that nothing matched, in their order. What is spilled changes nothing in
// that.
type join struct {
	outputs
	counts *stepCounts
	kind   flowdef.JoinKind
	keys   *keySide
	// leftKeys are the positions of the key in the output, which for a row without a left one come from the right.
	leftKeys []int
	live     []int
	left     int
	table    *joinTable
	res      *resources
	// span is that of the left input.
	span span

	heads               []int32
	leftRows, rightRows []int32
	// leftTexts and rightTexts are the live columns with text: of the batch, and their numbers in the table.
	leftTexts  []*column.Column
	rightTexts []int
	out        *column.Batch
	// matched has a bit for each row of the table that a full join has matched; at is where its end goes on.
	matched []uint64
	at      int
	spilled *spilledJoin
}

func newJoin(step *flowdef.PlanStep, left, right expr.Schema, live []int, s span) (*join, error) {
	types, err := keyTypes(step, left, right)
	if err != nil {
		return nil, err
	}
	if step.Join.Kind == flowdef.JoinFull && s == endless {
		return nil, errors.New("a full join gives the rows that nothing matched when its input has ended, and this one never ends; use type: left")
	}
	return &join{
		kind: step.Join.Kind, keys: newKeySide(step.JoinLeft), leftKeys: step.JoinLeft, span: s,
		live: live, left: len(left), out: column.NewBatch(step.Output), table: emptyTable(types, len(step.RightKeep)),
	}, nil
}

func (j *join) push(b *column.Batch) error {
	j.counts.in += int64(b.Len)
	if j.table.parts != nil {
		return j.spill(b)
	}
	keys := j.keys.load(b)
	x := j.table.index
	j.heads = x.find(&keys, j.table.hasher.hash(keys), j.heads)
	if j.kind == flowdef.JoinFull && j.matched == nil {
		j.matched = make([]uint64, (j.table.rows.n+63)/64)
	}
	if x.next == nil && (j.kind == flowdef.JoinInner || j.kind == flowdef.JoinSemi) {
		for i, match := range j.heads {
			if match != noEntry {
				j.leftRows, j.rightRows = append(j.leftRows, keys.rows[i]), append(j.rightRows, match)
			}
		}
		return j.send(b)
	}
	at := 0
	for row := range b.Len {
		match := int32(noEntry)
		if at < len(keys.rows) && int(keys.rows[at]) == row {
			match = j.heads[at]
			at++
		}
		if err := j.pair(b, &keys, at-1, row, match); err != nil {
			return err
		}
	}
	return j.send(b)
}

// pair adds the pairs of one row, whose key is the i-th, beginning with its first match.
func (j *join) pair(b *column.Batch, keys *keyRows, i, row int, match int32) error {
	if match == noEntry {
		if j.kind == flowdef.JoinLeft || j.kind == flowdef.JoinFull || j.kind == flowdef.JoinAnti {
			j.leftRows, j.rightRows = append(j.leftRows, i32(row)), append(j.rightRows, noEntry)
		}
		return nil
	}
	if j.kind == flowdef.JoinAnti {
		return nil
	}
	x := j.table.index
	for match != noEntry {
		j.leftRows, j.rightRows = append(j.leftRows, i32(row)), append(j.rightRows, match)
		if j.matched != nil {
			j.matched[match>>6] |= 1 << (match & 63)
		}
		if len(j.leftRows) >= column.TargetRows {
			if err := j.send(b); err != nil {
				return err
			}
		}
		if j.kind == flowdef.JoinSemi {
			return nil
		}
		match = x.match(keys, i, x.after(match))
	}
	return nil
}

// send emits the pairs of rows found so far, as many at once as batchText lets.
func (j *join) send(b *column.Batch) error {
	left, right := j.leftRows, j.rightRows
	for from := 0; ; {
		n := j.fitPairs(b, left[from:], right[from:])
		j.leftRows, j.rightRows = left[from:from+n], right[from:from+n]
		for _, pos := range j.live {
			out := &j.out.Cols[pos]
			if pos < j.left {
				out.Gather(&b.Cols[pos], j.leftRows)
				continue
			}
			j.gatherRight(out, pos)
		}
		err := j.sent()
		if from += n; err != nil || from == len(left) {
			j.leftRows, j.rightRows = left[:0], right[:0]
			return err
		}
	}
}

// fitPairs is how many of the pairs, but at least one of them, make a batch.
func (j *join) fitPairs(b *column.Batch, left, right []int32) int {
	if len(left) < 2 {
		return len(left)
	}
	j.leftTexts, j.rightTexts = j.leftTexts[:0], j.rightTexts[:0]
	for _, pos := range j.live {
		switch {
		case storageOf(j.out.Cols[pos].Type) != storeText:
		case pos < j.left:
			j.leftTexts = append(j.leftTexts, &b.Cols[pos])
		case j.table.keep[pos-j.left] >= 0:
			j.rightTexts = append(j.rightTexts, j.table.keep[pos-j.left])
		}
	}
	n := fitText(j.leftTexts, left, batchText)
	return j.table.rows.fitText(j.rightTexts, right[:n])
}

// gatherRight fills a column of the right side with the rows of the table.
func (j *join) gatherRight(out *column.Column, pos int) {
	if c := j.table.keep[pos-j.left]; c >= 0 {
		j.table.rows.gather(out, c, j.rightRows)
		return
	}
	nulls(out, len(j.rightRows)) // the table was never read, so no row has a match
}

// nulls makes a column n rows of null.
func nulls(c *column.Column, n int) {
	c.Reset()
	for range n {
		c.AppendNull()
	}
}

func (j *join) sent() error {
	j.out.Len = len(j.leftRows)
	j.counts.out += int64(j.out.Len)
	j.leftRows, j.rightRows = j.leftRows[:0], j.rightRows[:0]
	return j.emit(j.out)
}

// finish emits what waited for the end of the left side.
func (j *join) finish() (more bool, err error) {
	if j.table.parts != nil {
		return j.finishSpilled()
	}
	if j.kind != flowdef.JoinFull {
		return false, nil
	}
	n := j.table.rows.n
	j.matched = growTo(j.matched, (n+63)/64)
	for ; j.at < n && len(j.rightRows) < column.TargetRows; j.at++ {
		if j.matched[j.at>>6]&(1<<(uint(j.at)&63)) == 0 {
			j.rightRows = append(j.rightRows, i32(j.at))
		}
	}
	if fit := j.table.rows.fitText(ordinals(len(j.table.rows.types)), j.rightRows); fit < len(j.rightRows) {
		j.at, j.rightRows = int(j.rightRows[fit]), j.rightRows[:fit]
	}
	for _, pos := range j.live {
		out := &j.out.Cols[pos]
		key := slices.Index(j.leftKeys, pos)
		switch {
		case key >= 0:
			j.table.rows.gather(out, key, j.rightRows)
		case pos < j.left:
			nulls(out, len(j.rightRows))
		default:
			j.gatherRight(out, pos)
		}
	}
	j.leftRows = append(j.leftRows[:0], j.rightRows...)
	return j.at < n, j.sent()
}
