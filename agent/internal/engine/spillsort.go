package engine

import (
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// limitedSort keeps a sort within its memory: what is there is put in order and spilled as a run each time the memory is
// full, and at the end the runs are merged. Of equal rows those of an earlier run come first, so they stay as they came.
type limitedSort struct {
	*sortStep
	res    *resources
	budget *budget
	types  []expr.Type

	runs    []*spillWriter
	merging *sortMerger
}

// sortingBytes is what putting a row in order takes beside its columns.
const sortingBytes = 36

func (m *maker) limitedSort(s *sortStep) *limitedSort {
	l := &limitedSort{sortStep: s, res: m.res, budget: m.res.budget()}
	for _, pos := range s.keep {
		l.types = append(l.types, s.run.cols[pos].Type)
	}
	return l
}

func (l *limitedSort) push(b *column.Batch) error {
	// While a long text column grows, the old one is there beside the new one.
	if grown := l.grownText(b); grown > 4*batchText && l.top == 0 && l.res.scratch != nil && l.run.rows > 0 && !l.budget.fit(l.size()+grown) {
		l.res.held = true
		if err := l.spill(); err != nil {
			return err
		}
	}
	if err := l.sortStep.push(b); err != nil {
		return err
	}
	size := l.size()
	if l.budget.fit(size) {
		return nil
	}
	if l.res.guard != nil {
		return fmt.Errorf("step %s: %w", l.plan.ID, errNoScratch)
	}
	if l.top > 0 || l.res.scratch == nil {
		l.budget.force(size)
		return nil // it keeps a bounded number of rows
	}
	l.res.held = true
	return l.spill()
}

// size is the bytes that the rows take, and ordering them.
func (l *limitedSort) size() int64 {
	return blockBytes(l.run.cols)*5/4 + int64(l.run.rows)*sortingBytes
}

// grownText is about how many bytes the text columns take anew when a batch makes them grow.
func (l *limitedSort) grownText(b *column.Batch) int64 {
	total := 0
	for _, pos := range l.keep {
		c := &l.run.cols[pos]
		if storageOf(c.Type) != storeText {
			continue
		}
		l.sel = allRows(l.sel, b.Len)
		if n := len(c.Data) + rowsText(&b.Cols[pos], l.sel); n > cap(c.Data) {
			total += n + n/4
		}
	}
	return int64(total)
}

// spill writes what is in memory as a run.
func (l *limitedSort) spill() error {
	w := newSpillWriter(l.res, l.types)
	refs := make([]*column.Column, len(l.keep))
	for i, pos := range l.keep {
		refs[i] = &l.run.cols[pos]
	}
	if err := w.append(refs, l.sorter.sortRows(&l.run)); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	l.run = sortRun{cols: newColumns(l.plan.Output)}
	l.sorter.entries, l.sorter.tmp, l.sorter.order = nil, nil, nil
	l.state.forget()
	l.budget.release()
	if l.runs = append(l.runs, w); !crowded(l.runs, l.budget.memory) {
		return nil
	}
	return l.shorten()
}

// shorten merges the runs to one, so that never too many are open.
func (l *limitedSort) shorten() error {
	m, err := newSortMerger(l)
	if err != nil {
		return err
	}
	w := newSpillWriter(l.res, l.types)
	refs := make([]*column.Column, len(l.keep))
	var all []int32
	for more := true; more; {
		if more, err = m.next(); err != nil {
			return err
		}
		for i, pos := range l.keep {
			refs[i] = &m.out.Cols[pos]
		}
		all = sequence(all, m.out.Len)
		if err := w.append(refs, all); err != nil {
			return err
		}
	}
	l.runs = []*spillWriter{w}
	return w.finish()
}

// finish emits the next rows in order.
func (l *limitedSort) finish() (more bool, err error) {
	if l.runs == nil {
		more, err = l.sortStep.finish()
		if !more {
			l.budget.release()
		}
		return more, err
	}
	if l.merging == nil {
		if l.run.rows > 0 {
			if err := l.spill(); err != nil {
				return false, err
			}
		}
		if l.merging, err = newSortMerger(l); err != nil {
			return false, err
		}
	}
	if more, err = l.merging.next(); err != nil {
		return false, err
	}
	out := l.merging.out
	l.counts.out += int64(out.Len)
	if err := l.emit(out); err != nil {
		return false, err
	}
	if !more {
		l.ended = true
		l.state.forget()
	}
	return more, nil
}

// sortMerger merges the runs of a sort, of equal rows those of earlier runs first.
type sortMerger struct {
	sort *limitedSort
	// cursors are in the order of the runs, rows the batch of each with its columns in their places.
	cursors []*resultCursor
	rows    []*sortRun
	out     *column.Batch
}

func newSortMerger(l *limitedSort) (*sortMerger, error) {
	m := &sortMerger{sort: l, out: column.NewBatch(l.plan.Output)}
	for _, c := range cursorsOf(l.runs) {
		if err := m.add(c); err != nil {
			return nil, fmt.Errorf("merge the spilled rows: %w", err)
		}
	}
	return m, nil
}

func (m *sortMerger) add(c *resultCursor) error {
	more, err := c.load()
	if err != nil || !more {
		return err
	}
	run := &sortRun{cols: newColumns(m.sort.plan.Output)}
	m.sort.place(run, c)
	m.cursors, m.rows = append(m.cursors, c), append(m.rows, run)
	return nil
}

// place puts the columns of the cursor's batch where the keys look for them.
func (l *limitedSort) place(run *sortRun, c *resultCursor) {
	for i, pos := range l.keep {
		run.cols[pos] = c.batch.Cols[i]
	}
	run.rows = c.batch.Len
}

// next fills out with the next rows; more says that there are others.
func (m *sortMerger) next() (more bool, err error) {
	emptyColumns(m.out.Cols)
	m.out.Len = 0
	text := 0
	for m.out.Len < column.TargetRows && text < batchText && len(m.cursors) > 0 {
		first := 0
		for i := 1; i < len(m.cursors); i++ {
			if m.sort.sorter.compare(m.rows[i].cols, m.cursors[i].at, m.rows[first], m.cursors[first].at) < 0 {
				first = i
			}
		}
		c := m.cursors[first]
		for _, pos := range m.sort.keep {
			m.out.Cols[pos].AppendFrom(&m.rows[first].cols[pos], c.at)
		}
		m.out.Len++
		text = ownText(m.out.Cols)
		c.at++
		if c.at < c.batch.Len {
			continue
		}
		left, err := c.load()
		if err != nil {
			return false, err
		}
		if left {
			m.sort.place(m.rows[first], c)
			continue
		}
		m.cursors, m.rows = append(m.cursors[:first], m.cursors[first+1:]...), append(m.rows[:first], m.rows[first+1:]...)
	}
	return len(m.cursors) > 0, nil
}
