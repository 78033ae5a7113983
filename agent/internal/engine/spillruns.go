package engine

import (
	"errors"
	"io"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// runWriter is an operator that spills what it gets.
type runWriter struct {
	out  *spillWriter
	refs []*column.Column
	all  []int32
	none []column.Column
}

func (w *runWriter) push(b *column.Batch) error {
	if w.refs == nil {
		w.refs, w.none = make([]*column.Column, len(b.Cols)), make([]column.Column, len(b.Cols))
	}
	for i := range b.Cols {
		if w.refs[i] = &b.Cols[i]; b.Cols[i].Rows() < b.Len { // nothing reads it
			w.none[i].Type = b.Cols[i].Type
			nulls(&w.none[i], b.Len)
			w.refs[i] = &w.none[i]
		}
	}
	w.all = sequence(w.all, b.Len)
	return w.out.append(w.refs, w.all)
}

// crowded says whether runs are to be merged to one: they are many, or a block of each takes much of the memory together.
func crowded(runs []*spillWriter, m *Memory) bool {
	if len(runs) >= spillFan {
		return true
	}
	blocks := int64(0)
	for _, w := range runs {
		blocks += w.largest
	}
	return len(runs) > 2 && m != nil && blocks > max(m.most()/2, spillFan*2*batchText)
}

// runMerger merges sorted runs.
type runMerger struct {
	cursors []*resultCursor
	// order are the columns that runs are sorted by.
	order []int
	out   *column.Batch
}

func newRunMerger(l *limitedAggregate) (*runMerger, error) {
	m := &runMerger{out: column.NewBatch(l.plan.Output)}
	if l.win != nil {
		m.order = append(m.order, l.plan.Output.Index(flowdef.WindowStart))
	}
	m.order = append(m.order, ordinals(len(l.by))...)
	return m, m.open(l.runs)
}

// open begins to read the runs.
func (m *runMerger) open(runs []*spillWriter) error {
	for _, c := range cursorsOf(runs) {
		more, err := c.load()
		if err != nil {
			return err
		}
		if more {
			m.cursors = append(m.cursors, c)
		}
	}
	return nil
}

// load makes the cursor stand on a row; false says that there is none, and then the file is gone.
func (c *resultCursor) load() (bool, error) {
	if c.batch != nil && c.at < c.batch.Len {
		return true, nil
	}
	var err error
	c.at = 0
	if c.batch, err = c.r.next(); err == nil {
		return true, nil
	}
	if errors.Is(err, io.EOF) {
		return false, c.file.remove()
	}
	return false, err
}

// next gives the next rows in order.
func (m *runMerger) next(emit func(*column.Batch) error) (more bool, err error) {
	emptyColumns(m.out.Cols)
	m.out.Len = 0
	for m.out.Len < column.TargetRows && ownText(m.out.Cols) < batchText && len(m.cursors) > 0 {
		first := 0
		for i := 1; i < len(m.cursors); i++ {
			if m.before(m.cursors[i], m.cursors[first]) {
				first = i
			}
		}
		c := m.cursors[first]
		m.out.AppendRow(c.batch, c.at)
		c.at++
		more, err := c.load()
		if err != nil {
			return false, err
		}
		if !more {
			m.cursors = append(m.cursors[:first], m.cursors[first+1:]...)
		}
	}
	if m.out.Len > 0 {
		err = emit(m.out)
	}
	return len(m.cursors) > 0, err
}

func (m *runMerger) before(a, b *resultCursor) bool {
	for _, c := range m.order {
		if order := compareRows(&a.batch.Cols[c], a.at, &b.batch.Cols[c], b.at); order != 0 {
			return order < 0
		}
	}
	return false
}
