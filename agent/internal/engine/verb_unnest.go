package engine

import (
	"errors"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func requireUnnest(_ *flowdef.PlanStep, live, from []bool) { mark(from, live) }

func (*maker) unnest(int) (operator, *outputs, error) {
	return nil, nil, errors.New("unnest is not there yet")
}
