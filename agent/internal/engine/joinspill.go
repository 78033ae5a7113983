package engine

import (
	"errors"
	"io"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// A spilled join cuts both sides by the hash of their keys into parts whose right side fits in memory; one that does not
// is cut again, and where that is no use, because one key has too many rows, its right side is taken in pieces.
//
// The left rows themselves lie in one file in their order, the parts have only their keys. A part's result is again in
// the order of its left rows, so that the whole result is put together in order by going through the left rows and taking
// for each what the result of its part has next. So the order is that of a join in memory, whatever was spilled.
const (
	// spillFan is into how many parts a side is cut at once, from spillFanBits bits of the hash.
	spillFanBits = 4
	spillFan     = 1 << spillFanBits
	// spillDepth is how often a part is cut again. The bits of the hash that choose the part are its highest.
	spillDepth = 6
)

func partOf(hash uint64, level int) int {
	return int(hash >> (64 - spillFanBits*(level+1)) & (spillFan - 1))
}

func newParts(res *resources, types []expr.Type) []*spillWriter {
	parts := make([]*spillWriter, spillFan)
	for i := range parts {
		parts[i] = newSpillWriter(res, types)
	}
	return parts
}

// partitioner spreads rows over parts.
type partitioner struct{ lists [spillFan][]int32 }

func (p *partitioner) write(parts []*spillWriter, cols []*column.Column, rows []int32, hashes []uint64, level int) error {
	for i, row := range rows {
		at := partOf(hashes[i], level)
		p.lists[at] = append(p.lists[at], row)
	}
	for i := range p.lists {
		if len(p.lists[i]) == 0 {
			continue
		}
		if err := parts[i].append(cols, p.lists[i]); err != nil {
			return err
		}
		p.lists[i] = p.lists[i][:0]
	}
	return nil
}

// Where the columns of a result lie that say whether the row is a match, and whether another one of the same left row
// follows. Those of the table's kept columns come behind them.
const (
	resultMatch = iota
	resultMore
	resultKept
)

// spilledJoin is the part of a join that goes through scratch files.
type spilledJoin struct {
	join   *join
	table  *joinTable
	budget *budget
	// cols are the positions of the left columns that are kept: the key's first, then those that are live.
	cols  []int
	place []int
	refs  []*column.Column
	left  *spillWriter
	keys  []*spillWriter
	split partitioner
	// side takes the key out of a row of left or keys.
	side *keySide
	// matched has a bit for each row of the table, for a full join.
	matched []uint64

	// finishing: the results by part, then the reading of the left rows, then that of the unmatched right rows.
	results []*spillWriter
	cursors []*resultCursor
	reader  *spillReader
	rest    *spillReader
	seq     int
	key     []int32
	// repeated is the bytes of text that the left rows of the pairs have.
	repeated int
}

// spill keeps a batch of the left side for later.
func (j *join) spill(b *column.Batch) error {
	s := j.spilled
	if s == nil {
		s = newSpilledJoin(j)
		j.spilled = s
	}
	j.res.held = true
	for i, pos := range s.cols {
		s.refs[i] = &b.Cols[pos]
	}
	s.key = sequence(s.key, b.Len)
	if err := s.left.append(s.refs, s.key); err != nil {
		return err
	}
	keys := j.keys.load(b)
	return s.split.write(s.keys, keys.cols, keys.rows, s.table.hasher.hash(keys), 0)
}

func newSpilledJoin(j *join) *spilledJoin {
	s := &spilledJoin{join: j, table: j.table, budget: j.table.res.budget(), cols: slices.Clone(j.leftKeys)}
	s.place = make([]int, j.left)
	for i, pos := range s.cols {
		s.place[pos] = i
	}
	for _, pos := range j.live {
		if pos < j.left && !slices.Contains(s.cols, pos) {
			s.place[pos] = len(s.cols)
			s.cols = append(s.cols, pos)
		}
	}
	types := make([]expr.Type, len(s.cols))
	for i, pos := range s.cols {
		types[i] = j.out.Cols[pos].Type
	}
	s.refs = make([]*column.Column, len(s.cols))
	s.left, s.keys = newSpillWriter(j.table.res, types), newParts(j.table.res, types[:len(j.leftKeys)])
	s.side = newKeySide(ordinals(len(j.leftKeys)))
	if j.kind == flowdef.JoinFull {
		s.matched = make([]uint64, (j.table.total+63)/64)
		j.table.budget.force(int64(8 * len(s.matched)))
	}
	return s
}

// finishSpilled does the next part of the work that is left at the end of the left side.
func (j *join) finishSpilled() (more bool, err error) {
	s := j.spilled
	if s == nil {
		s = newSpilledJoin(j)
		j.spilled = s
	}
	switch {
	case s.results == nil:
		err = s.begin()
		return true, err
	case s.reader == nil:
		return true, s.nextPart()
	case s.rest == nil:
		return s.assemble()
	}
	return s.unmatched()
}

func (s *spilledJoin) begin() error {
	s.results = []*spillWriter{}
	for _, w := range append([]*spillWriter{s.left}, s.keys...) {
		if err := w.finish(); err != nil {
			return err
		}
	}
	return nil
}

// nextPart joins the next part, or begins to put the results together when there is none left.
func (s *spilledJoin) nextPart() error {
	n := len(s.results)
	if n == spillFan {
		s.budget.release()
		s.cursors = cursorsOf(s.results)
		s.reader = s.left.reader()
		return nil
	}
	result, err := s.part(s.table.parts[n], s.keys[n], 1)
	if err != nil {
		return err
	}
	s.results = append(s.results, result)
	return errors.Join(s.table.parts[n].remove(), s.keys[n].remove())
}

// resultTypes are those of a result's columns.
func (s *spilledJoin) resultTypes() []expr.Type {
	return append([]expr.Type{expr.Bool, expr.Bool}, s.table.types[s.table.keys:]...)
}

// part joins one part. Its result has for each left key in order its matches in order, or one row that is no match.
func (s *spilledJoin) part(right, left *spillWriter, level int) (*spillWriter, error) {
	estimate := right.bytes + right.bytes/8 + indexBytes(int(right.rows))
	if s.budget.fit(estimate) {
		rows, err := s.load(right.reader(), nil)
		if err != nil {
			return nil, err
		}
		return s.probe(rows, left)
	}
	if level < spillDepth {
		return s.cutAgain(right, left, level)
	}
	return s.pieces(right, left)
}

// load reads rows of a part's right side into memory: all of them, or until more says no.
func (s *spilledJoin) load(r *spillReader, more func(*rowStore) bool) (*rowStore, error) {
	rows := newRowStore(s.table.partTypes())
	cols := make([]*column.Column, len(rows.types))
	var all []int32
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range cols {
			cols[i] = &b.Cols[i]
		}
		all = sequence(all, b.Len)
		if err := rows.append(cols, all); err != nil {
			return nil, err
		}
		if more != nil && !more(rows) {
			return rows, nil
		}
	}
}

// probe joins a part whose right side is in memory.
func (s *spilledJoin) probe(rows *rowStore, left *spillWriter) (*spillWriter, error) {
	p := newProber(s, indexRows(rows, s.table.keys, s.table.hasher))
	r := left.reader()
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return p.finish()
		}
		if err == nil {
			err = p.add(b)
		}
		if err != nil {
			return nil, err
		}
	}
}

// prober writes the result of a part.
type prober struct {
	s    *spilledJoin
	x    *joinIndex
	out  *spillWriter
	refs []*column.Column
	cols []column.Column
	// kept are the columns of the right side that a result has.
	kept  []int
	heads []int32
	// rows are those of the right side that wait, more whether another of the same left row follows.
	rows []int32
	more []bool
	all  []int32
}

func newProber(s *spilledJoin, x *joinIndex) *prober {
	types := s.resultTypes()
	p := &prober{s: s, x: x, out: newSpillWriter(s.table.res, types), cols: make([]column.Column, len(types)), refs: make([]*column.Column, len(types))}
	for i, t := range types {
		p.cols[i].Type, p.refs[i] = t, &p.cols[i]
	}
	for i := resultKept; i < len(types); i++ {
		p.kept = append(p.kept, s.table.keys+i-resultKept)
	}
	return p
}

func (p *prober) add(b *column.Batch) error {
	keys := p.s.side.load(b)
	once := p.s.join.once()
	p.heads = p.x.find(&keys, p.s.table.hasher.hash(keys), p.heads)
	for i := range keys.rows {
		match := p.heads[i]
		for {
			next := int32(noEntry)
			if match != noEntry && !once {
				p.mark(match)
				next = p.x.match(&keys, i, p.x.after(match))
			}
			p.rows, p.more = append(p.rows, match), append(p.more, next != noEntry)
			if len(p.rows) >= spillRows {
				if err := p.flush(); err != nil {
					return err
				}
			}
			if match = next; match == noEntry {
				break
			}
		}
	}
	return p.flush()
}

// once says that only whether there is a match counts.
func (j *join) once() bool { return j.kind == flowdef.JoinSemi || j.kind == flowdef.JoinAnti }

// mark notes that a row of the table has a match.
func (p *prober) mark(row int32) {
	if p.s.matched == nil {
		return
	}
	col, at := p.x.rows.column(len(p.x.rows.types)-1, row)
	seq := col.Ints[at]
	p.s.matched[seq>>6] |= 1 << (uint64Of(seq) & 63)
}

func (p *prober) flush() error {
	for from := 0; from < len(p.rows); {
		rows := p.rows[from:]
		rows = rows[:p.x.rows.fitText(p.kept, rows)]
		if err := p.write(rows, p.more[from:from+len(rows)]); err != nil {
			return err
		}
		from += len(rows)
	}
	p.rows, p.more = p.rows[:0], p.more[:0]
	return nil
}

// write writes the result for some of the rows that wait.
func (p *prober) write(rows []int32, more []bool) error {
	match := &p.cols[resultMatch]
	for _, row := range rows {
		match.Bools = append(match.Bools, row != noEntry)
	}
	p.cols[resultMore].Bools = append(p.cols[resultMore].Bools, more...)
	for i, c := range p.kept {
		p.x.rows.gather(&p.cols[resultKept+i], c, rows)
	}
	p.all = sequence(p.all, len(rows))
	err := p.out.append(p.refs, p.all)
	for i := range p.cols {
		p.cols[i].Reset()
	}
	return err
}

func (p *prober) finish() (*spillWriter, error) { return p.out, p.out.finish() }

// cutAgain joins a part whose right side is too large by cutting both sides again.
func (s *spilledJoin) cutAgain(right, left *spillWriter, level int) (*spillWriter, error) {
	rights, err := s.cut(right, s.table.partTypes(), level)
	if err != nil {
		return nil, err
	}
	lefts, err := s.cut(left, s.table.types[:s.table.keys], level)
	if err != nil {
		return nil, err
	}
	results := make([]*spillWriter, spillFan)
	for i := range results {
		next := level + 1
		if rights[i].rows == right.rows {
			next = spillDepth // all rows have the same bits, most likely the same key: cutting is no use
		}
		if results[i], err = s.part(rights[i], lefts[i], next); err != nil {
			return nil, err
		}
		if err = errors.Join(rights[i].remove(), lefts[i].remove()); err != nil {
			return nil, err
		}
	}
	return s.merge(left, results, func(hash uint64) (from, to int) {
		at := partOf(hash, level)
		return at, at + 1
	})
}

// cut spreads the rows of a file, which have their key in front, over new files.
func (s *spilledJoin) cut(from *spillWriter, types []expr.Type, level int) ([]*spillWriter, error) {
	parts := newParts(s.table.res, types)
	cols := make([]*column.Column, len(types))
	r := from.reader()
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for i := range cols {
			cols[i] = &b.Cols[i]
		}
		keys := s.side.load(b)
		if err := s.split.write(parts, cols, keys.rows, s.table.hasher.hash(keys), level); err != nil {
			return nil, err
		}
	}
	for _, w := range parts {
		if err := w.finish(); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// pieces joins a part by taking as much of its right side as fits at a time.
func (s *spilledJoin) pieces(right, left *spillWriter) (*spillWriter, error) {
	var results []*spillWriter
	every := func(uint64) (from, to int) { return 0, len(results) }
	r := right.reader()
	for r.left > 0 {
		s.budget.release()
		rows, err := s.load(r, func(rows *rowStore) bool { return s.budget.fit(2 * (rows.size() + indexBytes(rows.n))) })
		if err != nil {
			return nil, err
		}
		s.budget.force(rows.size() + indexBytes(rows.n))
		result, err := s.probe(rows, left)
		if err != nil {
			return nil, err
		}
		if results = append(results, result); len(results) == spillFan {
			if result, err = s.merge(left, results, every); err != nil {
				return nil, err
			}
			results = []*spillWriter{result}
		}
	}
	return s.merge(left, results, every)
}

// assemble emits the rows of the next block of left rows.
func (s *spilledJoin) assemble() (more bool, err error) {
	j := s.join
	b, err := s.reader.next()
	if errors.Is(err, io.EOF) {
		err = s.left.remove()
		for _, c := range s.cursors {
			err = errors.Join(err, c.file.remove())
		}
		s.cursors = nil
		if s.matched == nil {
			return false, err
		}
		s.rest = s.table.inOrder.reader()
		return true, err
	}
	if err != nil {
		return false, err
	}
	keys := s.side.load(b)
	hashes := s.table.hasher.hash(keys)
	s.resetRight()
	at := 0
	for row := range b.Len {
		if at == len(keys.rows) || int(keys.rows[at]) != row {
			s.unpaired(row)
			continue
		}
		if s.pairText() >= batchText {
			if err := s.send(b); err != nil {
				return false, err
			}
		}
		if err := s.take(b, s.cursors[partOf(hashes[at], 0)], row); err != nil {
			return false, err
		}
		at++
	}
	s.key = append(s.key[:0], j.leftRows...)
	return true, s.send(b)
}

// unpaired adds a left row without a match, where the kind of the join wants it.
func (s *spilledJoin) unpaired(row int) {
	j := s.join
	if j.kind == flowdef.JoinInner || j.kind == flowdef.JoinSemi {
		return
	}
	j.leftRows = append(j.leftRows, i32(row))
	for _, pos := range j.live {
		if pos >= j.left {
			j.out.Cols[pos].AppendNull()
		}
	}
}

// take adds the pairs of a left row from its part's result.
func (s *spilledJoin) take(b *column.Batch, c *resultCursor, row int) error {
	j := s.join
	for n := 0; ; n++ {
		r, at, err := c.next()
		if err != nil {
			return err
		}
		switch match := r.Cols[resultMatch].Bools[at]; {
		case !match:
			s.unpaired(row)
		case j.kind != flowdef.JoinAnti && (n == 0 || j.kind != flowdef.JoinSemi):
			j.leftRows = append(j.leftRows, i32(row))
			for _, pos := range j.live {
				if pos < j.left {
					s.repeated += textLen(&b.Cols[s.place[pos]], row)
				} else {
					j.out.Cols[pos].AppendFrom(&r.Cols[resultKept+j.table.keep[pos-j.left]-j.table.keys], at)
				}
			}
		}
		if !r.Cols[resultMore].Bools[at] {
			return nil
		}
		if len(j.leftRows) >= column.TargetRows || s.pairText() >= batchText {
			if err := s.send(b); err != nil {
				return err
			}
		}
	}
}

// send emits the pairs gathered so far; b is the block of left rows.
func (s *spilledJoin) send(b *column.Batch) error {
	j := s.join
	for _, pos := range j.live {
		if pos < j.left {
			j.out.Cols[pos].Gather(&b.Cols[s.place[pos]], j.leftRows)
		}
	}
	err := j.sent()
	s.resetRight()
	return err
}

func (s *spilledJoin) resetRight() {
	emptyColumns(s.join.out.Cols[s.join.left:])
	s.repeated = 0
}

// pairText is the bytes of text of the pairs gathered so far.
func (s *spilledJoin) pairText() int { return s.repeated + ownText(s.join.out.Cols[s.join.left:]) }

// unmatched emits the next rows of the table that a full join has not matched.
func (s *spilledJoin) unmatched() (more bool, err error) {
	j, t := s.join, s.table
	b, err := s.rest.next()
	if errors.Is(err, io.EOF) {
		return false, t.inOrder.remove()
	}
	if err != nil {
		return false, err
	}
	j.leftRows = j.leftRows[:0]
	for row := range b.Len {
		if s.matched[s.seq>>6]&(1<<(uint(s.seq)&63)) == 0 {
			j.leftRows = append(j.leftRows, i32(row))
		}
		s.seq++
	}
	for _, pos := range j.live {
		out := &j.out.Cols[pos]
		key := slices.Index(j.leftKeys, pos)
		switch {
		case key >= 0:
			out.Gather(&b.Cols[key], j.leftRows)
		case pos < j.left:
			nulls(out, len(j.leftRows))
		default:
			out.Gather(&b.Cols[t.keep[pos-j.left]], j.leftRows)
		}
	}
	return true, j.sent()
}
