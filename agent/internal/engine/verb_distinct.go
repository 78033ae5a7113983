package engine

import (
	"errors"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func requireDistinct(_ *flowdef.PlanStep, live, from []bool) { mark(from, live) }

func (*maker) distinct(int) (operator, *outputs, error) {
	return nil, nil, errors.New("distinct is not there yet")
}
