package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// requireUnion marks the columns that are read in every input, which may have them in another order.
func (g *graph) requireUnion(step *flowdef.PlanStep, live []bool) {
	for _, in := range step.Inputs {
		for pos, from := range columnsByName(step.Output, g.plan.Steps[in].Output) {
			g.live[in][from] = g.live[in][from] || live[pos]
		}
	}
}

// columnsByName gives, for every column of to, its position in from, which has them all.
func columnsByName(to, from expr.Schema) []int {
	places := make(map[string]int, len(from))
	for i := range from {
		places[from[i].Name] = i
	}
	list := make([]int, len(to))
	for i := range to {
		list[i] = places[to[i].Name]
	}
	return list
}

// union passes the rows of all its inputs on as they come.
type union struct {
	outputs
	counts *stepCounts
	inputs []operator
}

// push takes rows whose columns are in the order of the output.
func (u *union) push(b *column.Batch) error {
	u.counts.in += int64(b.Len)
	u.counts.out += int64(b.Len)
	return u.emit(b)
}

func (u *union) entrance(n int) operator { return u.inputs[n] }

// reorder brings the columns of an input of a union into the order of its output.
type reorder struct {
	union *union
	from  []int
	out   *column.Batch
}

func (r *reorder) push(b *column.Batch) error {
	r.out.Len = b.Len
	for i, pos := range r.from {
		r.out.Cols[i] = b.Cols[pos]
	}
	return r.union.push(r.out)
}

func (m *maker) union(i int) (operator, *outputs, error) {
	step, _, counts, _ := m.step(i)
	u := &union{counts: counts}
	for _, in := range step.Inputs {
		from := columnsByName(step.Output, m.graph.plan.Steps[in].Output)
		inOrder := true
		for pos := range from {
			inOrder = inOrder && from[pos] == pos
		}
		if inOrder {
			u.inputs = append(u.inputs, u)
		} else {
			u.inputs = append(u.inputs, &reorder{union: u, from: from, out: column.NewBatch(step.Output)})
		}
	}
	return u, &u.outputs, nil
}

// forks finds the steps whose rows come by several ways to one step with several inputs: a union, or a join of streams.
// Batch by batch, that step would get a batch of the first way and then one of the second, in an order that depends on
// where the batches are cut; so a fork hands its rows on one by one. Ways through a step that gives nothing before its
// input has ended do not count.
func (g *graph) forks(spans func(read int) span) []bool {
	steps, holds := g.plan.Steps, g.holding(spans)
	forks, reached, ways := make([]bool, len(steps)), make([]bool, len(steps)), make([]int, len(steps))
	for end := len(steps) - 1; end >= 0; end-- {
		if !g.include[end] || len(g.inputs(end)) < 2 || reached[end] {
			continue // the ways to such a step before another one are ways to that one too
		}
		clear(ways)
		ways[end] = 1
		for i := end; i >= 0; i-- {
			if ways[i] == 0 {
				continue
			}
			reached[i] = true
			forks[i] = forks[i] || ways[i] > 1
			if holds[i] {
				continue
			}
			for _, in := range g.inputs(i) {
				ways[in]++
			}
		}
	}
	return forks
}

// holding finds the steps that give nothing before their input has ended.
func (g *graph) holding(spans func(read int) span) []bool {
	steps := g.plan.Steps
	holds := make([]bool, len(steps))
	ends := make([]span, len(steps))
	read := 0
	for i := range steps {
		if !g.include[i] {
			continue
		}
		ends[i] = bounded
		if steps[i].Verb == flowdef.Read {
			ends[i] = spans(read)
			read++
		}
		for _, in := range g.inputs(i) {
			ends[i] = max(ends[i], ends[in])
		}
		holds[i] = steps[i].Verb == flowdef.Sort || steps[i].Verb == flowdef.Aggregate && ends[i] == bounded
	}
	return holds
}

// oneByOne hands rows on one at a time. See forks.
type oneByOne struct {
	outputs
	live []int
	sel  []int32
	out  *column.Batch
}

// behind is where the operators behind a step go: behind a oneByOne where the step is a fork.
func (m *pipeline) behind(step int, out *outputs, forks []bool) *outputs {
	if !forks[step] {
		return out
	}
	o := &oneByOne{live: positions(m.graph.live[step]), sel: []int32{0}, out: column.NewBatch(m.graph.plan.Steps[step].Output)}
	o.out.Len = 1
	out.next = append(out.next, o)
	o.worker = m.res.worker
	return &o.outputs
}

func (o *oneByOne) push(b *column.Batch) error {
	if b.Len == 1 {
		return o.emit(b)
	}
	for row := range b.Len {
		o.sel[0] = i32(row)
		for _, pos := range o.live {
			o.out.Cols[pos].Gather(&b.Cols[pos], o.sel)
		}
		if err := o.emit(o.out); err != nil {
			return err
		}
	}
	return nil
}
