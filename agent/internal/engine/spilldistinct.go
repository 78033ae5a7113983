package engine

import (
	"errors"
	"io"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// limitedDistinct keeps a distinct within its memory. When its keys have outgrown that, rows of other keys are spilled
// with their number, in parts by the hash of their key. At the end each part gives the first row of each of its keys in
// the same way, and the rows of all parts are merged by their numbers, so that they come in the order of the input.
type limitedDistinct struct {
	*distinct
	res    *resources
	budget *budget
	// cols are the columns that are kept: the key's, then the others that are live. Behind them a row has its number.
	cols  []int
	types []expr.Type
	keys  int
	seq   int64

	parts  []*spillWriter
	split  partitioner
	hasher *keyTable
	refs   []*column.Column
	number column.Column
	prefix []int64
	found  []int32
	other  []int32

	work    []groupPart
	runs    []*spillWriter
	merging *runMerger
	began   bool
	left    []StateChange
}

func (m *maker) limitedDistinct(i int, d *distinct) *limitedDistinct {
	step, input, _, _ := m.step(i)
	l := &limitedDistinct{distinct: d, res: m.res, budget: m.res.budget(), keys: len(step.DistinctPlan.By)}
	place := map[int]bool{}
	for _, list := range [][]int{step.DistinctPlan.By, d.live} {
		for _, pos := range list {
			if !place[pos] {
				place[pos] = true
				l.cols, l.types = append(l.cols, pos), append(l.types, input[pos].Type)
			}
		}
	}
	l.types = append(l.types, expr.Int)
	l.hasher = newHasher(l.types[:l.keys])
	l.number.Type = expr.Int
	l.refs = make([]*column.Column, len(l.types))
	return l
}

func (l *limitedDistinct) push(b *column.Batch) error {
	if l.parts != nil {
		return l.route(b)
	}
	if err := l.distinct.push(b); err != nil {
		return err
	}
	if l.budget.fit(l.seen.size()) {
		return nil
	}
	if l.res.scratch == nil || l.seen.within > 0 {
		return l.budget.hold(l.seen.size(), l.seen.step, "the keys that distinct remembers")
	}
	l.res.held = true
	l.parts = newParts(l.res, l.types)
	return nil
}

// route spills the rows of a batch whose key is not in memory.
func (l *limitedDistinct) route(b *column.Batch) error {
	l.counts.in += int64(b.Len)
	l.number.Ints = l.number.Ints[:0]
	for row := range b.Len {
		l.number.Ints = append(l.number.Ints, l.seq+int64(row))
	}
	l.seq += int64(b.Len)
	for i, pos := range l.cols {
		l.refs[i] = &b.Cols[pos]
	}
	l.refs[len(l.cols)] = &l.number
	return l.spillOthers(l.seen.table, l.parts, b.Len, 0)
}

// spillOthers spills the rows at refs whose key is not in the table.
func (l *limitedDistinct) spillOthers(table *keyTable, parts []*spillWriter, n, level int) error {
	l.prefix = growTo(l.prefix, n) // always zero
	keys := keyRows{cols: l.refs[:l.keys], rows: sequence(nil, n), prefix: l.prefix[:n]}
	l.found = table.lookup(keys, l.found)
	l.other = l.other[:0]
	for row, entry := range l.found {
		if entry == noEntry {
			l.other = append(l.other, i32(row))
		}
	}
	hashes := l.hasher.hash(keyRows{cols: keys.cols, rows: l.other, prefix: l.prefix[:len(l.other)]})
	return l.split.write(parts, l.refs, l.other, hashes, level)
}

// finish emits the next rows that had to wait, or works towards it.
func (l *limitedDistinct) finish() (more bool, err error) {
	switch {
	case !l.began:
		l.began = true
		if _, err := l.distinct.finish(); err != nil || l.parts == nil {
			l.budget.release()
			return false, err
		}
		l.left = l.distinct.changes(nil)
		l.budget.release()
		return true, l.queue(l.parts, 1)
	case len(l.work) > 0:
		part := l.work[len(l.work)-1]
		l.work = l.work[:len(l.work)-1]
		return true, l.part(part)
	case l.merging == nil:
		l.merging, err = l.merger()
		return true, err
	}
	return l.merging.next(func(b *column.Batch) error {
		for i, pos := range l.cols {
			l.out.Cols[pos] = b.Cols[i]
		}
		l.out.Len = b.Len
		l.counts.out += int64(b.Len)
		return l.emit(l.out)
	})
}

// queue notes parts as work to do.
func (l *limitedDistinct) queue(parts []*spillWriter, level int) error {
	for _, w := range parts {
		if w.rows == 0 {
			continue
		}
		if err := w.finish(); err != nil {
			return err
		}
		l.work = append(l.work, groupPart{rows: w, level: min(level, deepest)})
	}
	return nil
}

// part writes the first rows of the keys of a part as a run, and spills the rows of keys that do not fit again.
func (l *limitedDistinct) part(p groupPart) error {
	table := newKeyTable(l.types[:l.keys])
	run := newSpillWriter(l.res, l.types)
	var parts []*spillWriter
	var entries, fresh []int32
	for r := p.rows.reader(); ; {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i := range l.refs {
			l.refs[i] = &b.Cols[i]
		}
		if parts != nil {
			if err := l.spillOthers(table, parts, b.Len, p.level); err != nil {
				return err
			}
			continue
		}
		l.prefix = growTo(l.prefix, b.Len)
		known := table.len()
		if entries, err = table.assign(keyRows{cols: l.refs[:l.keys], rows: sequence(nil, b.Len), prefix: l.prefix[:b.Len]}, entries); err != nil {
			return err
		}
		fresh = fresh[:0]
		for row, entry := range entries {
			if int(entry) == known {
				known++
				fresh = append(fresh, i32(row))
			}
		}
		if err := run.append(l.refs, fresh); err != nil {
			return err
		}
		if !l.budget.fit(table.size()) && p.level < deepest {
			parts = newParts(l.res, l.types)
		}
	}
	l.budget.release()
	if err := errors.Join(p.rows.remove(), run.finish(), l.queue(parts, p.level+1)); err != nil {
		return err
	}
	if l.runs = append(l.runs, run); !crowded(l.runs, l.budget.memory) {
		return nil
	}
	return l.shorten()
}

// shorten merges the runs to one, so that never too many are open.
func (l *limitedDistinct) shorten() error {
	m, err := l.merger()
	if err != nil {
		return err
	}
	run := &runWriter{out: newSpillWriter(l.res, l.types)}
	for more := true; more; {
		if more, err = m.next(run.push); err != nil {
			return err
		}
	}
	l.runs = []*spillWriter{run.out}
	return run.out.finish()
}

// merger merges the runs by the rows' numbers.
func (l *limitedDistinct) merger() (*runMerger, error) {
	schema := make(expr.Schema, len(l.types))
	for i := range schema {
		schema[i].Type = l.types[i]
	}
	m := &runMerger{out: column.NewBatch(schema), order: []int{len(l.cols)}}
	return m, m.open(l.runs)
}

func (l *limitedDistinct) changes(dst []StateChange) []StateChange {
	if l.left == nil {
		return l.distinct.changes(dst)
	}
	dst = append(dst, l.left...)
	l.left = l.left[:0]
	return dst
}
