package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// filter keeps the rows whose condition is true; false and null go.
type filter struct {
	outputs
	counts    *stepCounts
	condition kernel
	live      []int
	sel       []int32
	out       *column.Batch
}

func newFilter(step *flowdef.PlanStep, live []int) (*filter, error) {
	condition, err := compileExpr(step.Filter, expr.Bool)
	if err != nil {
		return nil, err
	}
	return &filter{condition: condition, live: live, out: column.NewBatch(step.Output)}, nil
}

func (f *filter) push(b *column.Batch) error {
	f.counts.in += int64(b.Len)
	keep := f.condition.eval(b)
	f.sel = selectTrue(f.sel, keep, b.Len)
	f.counts.out += int64(len(f.sel))
	if len(f.sel) == b.Len {
		return f.emit(b)
	}
	for _, pos := range f.live {
		f.out.Cols[pos].Gather(&b.Cols[pos], f.sel)
	}
	f.out.Len = len(f.sel)
	return f.emit(f.out)
}

// selectTrue lists the rows that are true and not null, without a branch on the condition.
func selectTrue(sel []int32, c *column.Column, n int) []int32 {
	sel = resize(sel, n)
	count, nulls := 0, c.HasNulls()
	for i, v := range c.Bools[:n] {
		sel[count] = i32(i)
		if v && (!nulls || !c.Null(i)) {
			count++
		}
	}
	return sel[:count]
}
