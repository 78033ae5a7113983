package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

// flowStaging is what the supervisor sees of the stage.
type flowStaging struct{ *stage.Stage }

// LoadFlow converts the stage's type.
func (s flowStaging) LoadFlow(ctx context.Context, flow string) (supervisor.FlowState, error) {
	state, err := s.Stage.LoadFlow(ctx, flow)
	return supervisor.FlowState(state), err
}

// Commit converts the types, and says which errors cannot pass.
func (s flowStaging) Commit(ctx context.Context, c supervisor.Checkpoint) error {
	out := stage.Checkpoint{Flow: c.Flow, Number: c.Number, Cursors: c.Cursors, Insights: c.Insights}
	for _, change := range c.Changes {
		out.Changes = append(out.Changes, stage.Change(change))
	}
	_, err := s.Stage.Commit(ctx, out)
	if errors.Is(err, stage.ErrStaleCommit) || errors.Is(err, stage.ErrTooLarge) {
		return fmt.Errorf("%w: %w", supervisor.ErrFinalCommit, err)
	}
	return err
}
