package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// filter keeps the rows whose condition is true; false and null go.
type filter struct {
	outputs
	counts   *stepCounts
	refiners []refiner
	live     []int
	// all are the rows 0, 1, 2 and so on, sel those that are kept.
	all, sel []int32
	out      *column.Batch
	// rows are those of sel that the last evaluation kept.
	rows  []int32
	texts *textParts
}

func newFilter(step *flowdef.PlanStep, live []int) (*filter, error) {
	refiners, err := newRefiners(step.Filter, nil)
	if err != nil {
		return nil, err
	}
	return &filter{refiners: refiners, live: live, out: column.NewBatch(step.Output), texts: newTextParts(step.Filter)}, nil
}

func (f *filter) push(b *column.Batch) error { return f.texts.push(b, f, f.counts) }

func (f *filter) evaluate(b *column.Batch) {
	for len(f.all) < b.Len {
		f.all = append(f.all, i32(len(f.all)))
	}
	f.sel = resize(f.sel, b.Len)
	rows := f.all[:b.Len]
	for _, r := range f.refiners {
		rows = r.refine(b, rows, f.sel)
	}
	f.rows = rows
}

func (f *filter) use(b *column.Batch) error {
	rows := f.rows
	f.counts.in += int64(b.Len)
	f.counts.out += int64(len(rows))
	if len(rows) == b.Len {
		return f.emit(b)
	}
	for _, pos := range f.live {
		f.out.Cols[pos].Gather(&b.Cols[pos], rows)
	}
	f.out.Len = len(rows)
	return f.emit(f.out)
}
