package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// mapper adds columns or replaces them. Expressions run in order over the output, so later ones see earlier ones.
type mapper struct {
	outputs
	counts *stepCounts
	assign []kernel
	to     []int
	inputs int
	out    *column.Batch
	texts  *textParts
}

// newMapper leaves out the assignments that nothing reads.
func newMapper(step *flowdef.PlanStep, inputs int, live []bool) (*mapper, error) {
	m := &mapper{inputs: inputs, out: column.NewBatch(step.Output)}
	var nodes []*expr.Node
	for i, node := range step.Assign {
		if !live[i] {
			continue
		}
		to := step.AssignTo[i]
		k, err := compileExpr(node, step.Output[to].Type)
		if err != nil {
			return nil, err
		}
		m.assign, m.to, nodes = append(m.assign, k), append(m.to, to), append(nodes, node)
	}
	m.texts = newTextParts(nodes...)
	return m, nil
}

func (m *mapper) push(b *column.Batch) error { return m.texts.push(b, m, m.counts) }

func (m *mapper) evaluate(b *column.Batch) {
	m.out.Len, m.out.Texts = b.Len, b.Texts
	copy(m.out.Cols[:m.inputs], b.Cols)
	for i, k := range m.assign {
		m.out.Cols[m.to[i]] = *k.eval(m.out)
	}
}

func (m *mapper) use(b *column.Batch) error {
	m.counts.in += int64(b.Len)
	m.counts.out += int64(b.Len)
	m.out.Texts = b.Texts
	return m.emit(m.out)
}

// selecter keeps, renames and orders columns.
type selecter struct {
	outputs
	counts *stepCounts
	keep   []int
	out    *column.Batch
}

func newSelecter(step *flowdef.PlanStep) *selecter {
	return &selecter{keep: step.Keep, out: column.NewBatch(step.Output)}
}

func (s *selecter) push(b *column.Batch) error {
	s.counts.in += int64(b.Len)
	s.counts.out += int64(b.Len)
	s.out.Len = b.Len
	for i, pos := range s.keep {
		s.out.Cols[i] = b.Cols[pos]
	}
	return s.emit(s.out)
}
