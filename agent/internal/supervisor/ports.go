package supervisor

import (
	"context"
	"iter"
	"reflect"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
)

// Staging keeps the state of flows and their reports; stage.Stage does, behind a conversion of types. It is used by many
// goroutines at once.
type Staging interface {
	// LoadFlow gives the state of the flow's last commit, and an empty one for a flow that has none.
	LoadFlow(ctx context.Context, flow string) (FlowState, error)
	// Commit makes a checkpoint durable as a whole. After an error its outcome is unknown: the same checkpoint is then
	// committed again under the same number, or the flow is loaded again. An error that will not pass wraps
	// engine.ErrCannotCommit. It keeps no reference to the checkpoint.
	Commit(ctx context.Context, c Checkpoint) error
	// DropFlow forgets a flow's state; one that is not there is no error.
	DropFlow(ctx context.Context, flow string) error
	// Flows lists the flows that have a state.
	Flows(ctx context.Context) ([]string, error)
	// PutRunReport stores a report, in place of an earlier one of the same id.
	PutRunReport(ctx context.Context, id string, payload []byte) error
}

// FlowState is what a flow resumes from.
type FlowState struct {
	// Number is that of the last commit, 0 when there was none.
	Number uint64
	// Cursors are by step, Operators by step and key.
	Cursors   map[string][]byte
	Operators map[string]map[string][]byte
}

// Checkpoint is what changed since the commit before.
type Checkpoint struct {
	// Flow is the deployment's id, Number one more than the last commit's.
	Flow    string
	Number  uint64
	Cursors map[string][]byte
	Changes []Change
	// Earlier are the messages before Insights where they are too many for the memory; nil for none. It can be gone
	// through again and again.
	Earlier iter.Seq2[[]byte, error]
	// Insights are marshalled wire.InsightRecord messages, in order.
	Insights [][]byte
	// Late is how many rows came too late since the last commit.
	Late uint64
}

// Change sets an operator's entry, or removes it when Value is nil.
type Change = engine.StateChange

// Finder gives the connector of a kind.
type Finder func(kind string) (connector.Connector, bool)

// Deployment is one flow that shall run.
type Deployment struct {
	// ID is the deployment's, under which the flow's state is kept over its versions.
	ID, FlowID, Name string
	Version          uint32
	// Definition is the text as published.
	Definition []byte
	// Connections are those that the flow may use.
	Connections []connector.Connection
	// Origin is what the deployment was made of, for Settings.Reopen, without plain secrets.
	Origin []byte
}

// Same says whether two deployments run alike. Their origins may differ: a secret is sealed anew every time.
func (d *Deployment) Same(o *Deployment) bool {
	a, b := *d, *o
	a.Origin, b.Origin = nil, nil
	return reflect.DeepEqual(a, b)
}
