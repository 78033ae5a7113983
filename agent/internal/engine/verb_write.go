package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// WriteNeed is what a program writes.
type WriteNeed struct {
	// Step is the write step's id, Connection the connection's name, With the step's options.
	Step, Connection string
	With             map[string]any
	// Schema is the columns of the rows.
	Schema expr.Schema
}

// Writes lists what the program writes into systems of the plant, in the plan's order.
func (p *Program) Writes() []WriteNeed {
	var list []WriteNeed
	for i := range p.plan.Steps {
		if step := &p.plan.Steps[i]; step.Verb == flowdef.Write && p.main.include[i] {
			list = append(list, writeNeed(step))
		}
	}
	return list
}

func writeNeed(step *flowdef.PlanStep) WriteNeed {
	need := WriteNeed{Step: step.ID, Schema: step.Output}
	if step.Write != nil {
		need.Connection, need.With = step.Write.Connection.Name, step.Write.With
	}
	return need
}

// maxHeldBytes is how much a sink may hold before it is flushed without a commit.
const maxHeldBytes = 4 << 20

// writer hands its rows to a sink and passes them on, those too that the system refuses later.
type writer struct {
	outputs
	counts *stepCounts
	need   WriteNeed
	// sink and flush are set by the run; there is no sink in a table, whose rows the main graph writes.
	sink  connector.Sink
	flush func() error
	// holds says that rows wait for a flush.
	holds bool
}

// requireWrite marks what is written. A table that is read through a write step must not write its rows twice.
func (g *graph) requireWrite(live, from []bool) {
	if mark(from, live); g.sink >= 0 {
		return
	}
	for i := range from {
		from[i] = true
	}
}

func (m *maker) write(i int) (operator, *outputs, error) {
	step, _, counts, _ := m.step(i)
	w := &writer{counts: counts, need: writeNeed(step)}
	if m.graph.sink < 0 {
		m.writers = append(m.writers, w)
	}
	return w, &w.outputs, nil
}

func (w *writer) push(b *column.Batch) error {
	w.counts.in += int64(b.Len)
	w.counts.out += int64(b.Len)
	if w.sink != nil && b.Len > 0 {
		held, failed := w.sink.Write(b)
		w.holds = true
		if err := w.counts.failAll(failed); err != nil {
			return err
		}
		if held >= maxHeldBytes {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return w.emit(b)
}
