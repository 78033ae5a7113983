package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// compiled is a definition that was found right.
type compiled struct {
	flow   *flowdef.Flow
	egress flowdef.Manifest
	writes []flowdef.PlannedWrite
	// connections are the names that it uses, sorted.
	connections []string
	sha256      string
}

// compile checks a definition against the workspace's connections and connectors. What is wrong with the text is an
// error that holds flowdef.Problems.
func compile(ctx context.Context, tx Tx, workspace ID, definition string) (*compiled, error) {
	flow, err := flowdef.Parse([]byte(definition))
	if err != nil {
		return nil, err
	}
	env, err := environment(ctx, tx, workspace)
	if err != nil {
		return nil, err
	}
	plan, err := flowdef.Check(flow, env)
	if err != nil {
		return &compiled{flow: flow}, err
	}
	c := &compiled{flow: flow, egress: plan.Egress, writes: plan.Writes(), connections: connectionsOf(flow)}
	h := sha256.Sum256([]byte(definition))
	c.sha256 = hex.EncodeToString(h[:])
	return c, nil
}

// connectionsOf gives the names of the connections that a flow uses, sorted.
func connectionsOf(flow *flowdef.Flow) []string {
	names := []string{}
	for _, ref := range flow.Connections() {
		names = append(names, ref.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// connected refuses a version that uses a connection that was deleted since.
func connected(ctx context.Context, tx Tx, workspace ID, f Flow, v FlowVersion) error {
	flow, err := flowdef.Parse([]byte(v.Definition))
	if err != nil {
		return refused(err)
	}
	list, err := tx.Connections(ctx, workspace)
	if err != nil {
		return err
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	for _, name := range connectionsOf(flow) {
		if !slices.Contains(names, name) {
			return fail(Conflict, "version %d of the flow %q uses a connection that is not there any more: %s. Make it again, or apply a version that uses another", v.Version, f.Name, expr.Unknown("connection", name, names))
		}
	}
	return nil
}

// environment is what the workspace's flows are checked against.
func environment(ctx context.Context, tx Tx, workspace ID) (flowdef.Environment, error) {
	list, err := tx.Connections(ctx, workspace)
	if err != nil {
		return flowdef.Environment{}, err
	}
	env := flowdef.Environment{Connections: map[string]string{}}
	for i := range list {
		env.Connections[list[i].Name] = list[i].Kind
	}
	env.Connectors, err = connectors(ctx, tx, workspace)
	return env, err
}

// problemsIn finds what is wrong with a text in an error.
func problemsIn(err error) (flowdef.Problems, bool) {
	return errors.AsType[flowdef.Problems](err)
}

// refused turns problems into an error for people.
func refused(err error) error {
	if p, ok := problemsIn(err); ok {
		return &Error{Code: Invalid, Message: "the definition has problems", Err: p}
	}
	return err
}
