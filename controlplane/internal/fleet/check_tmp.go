package fleet

import "github.com/outfeed/outfeed/protocol/flowdef"

func check(f *flowdef.Flow, _ flowdef.Environment) (*flowdef.Plan, error) {
	return &flowdef.Plan{Flow: f}, nil
}
