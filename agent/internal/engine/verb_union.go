package engine

import (
	"errors"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func (g *graph) requireUnion(step *flowdef.PlanStep, live []bool) {
	for _, in := range step.Inputs {
		mark(g.live[in], live)
	}
}

func (*maker) union(int) (operator, *outputs, error) {
	return nil, nil, errors.New("union is not there yet")
}
