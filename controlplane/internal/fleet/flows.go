package fleet

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// CheckFlow checks a definition and runs its tests.
func (s *Service) CheckFlow(ctx context.Context, a Actor, definition string) (FlowCheck, error) {
	if err := require(a, Viewer); err != nil {
		return FlowCheck{}, err
	}
	var out FlowCheck
	var tests []flowdef.Test
	err := s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		c, err := compile(ctx, tx, a.Workspace, definition)
		out = FlowCheck{}
		if c != nil {
			out.Name, out.Egress, out.Writes = c.flow.Name, c.egress, c.writes
			tests = c.flow.Tests
		}
		if p, ok := problemsIn(err); ok {
			out.Problems = p
			return nil
		}
		return err
	})
	if err != nil || len(out.Problems) > 0 || len(tests) == 0 {
		return out, err
	}
	var failed flowdef.Problems
	out.Tests, failed, err = s.tested(ctx, a.Tenant, definition)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == Invalid {
		out.Problems = flowdef.Problems{{Pos: tests[0].Pos, Message: e.Message}}
		return out, nil
	}
	out.Problems = failed
	return out, public(err)
}

// ApplyFlow saves a definition as the newest version of the flow that it names.
func (s *Service) ApplyFlow(ctx context.Context, a Actor, definition string) (Flow, FlowVersion, error) {
	if err := require(a, Editor); err != nil {
		return Flow{}, FlowVersion{}, err
	}
	var f Flow
	var v FlowVersion
	err := s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		c, err := compile(ctx, tx, a.Workspace, definition)
		if err != nil {
			return refused(err)
		}
		if f, err = flowNamed(ctx, tx, a, c.flow.Name); err != nil {
			return err
		}
		v, err = tx.FlowVersion(ctx, f.ID, f.Latest)
		if err == nil && v.SHA256 == c.sha256 {
			return withDeployments(ctx, tx, a.Workspace, &f)
		}
		if err != nil && !errors.Is(err, ErrNoRow) {
			return err
		}
		n := NewVersion{
			FlowVersion: FlowVersion{
				Flow: f.ID, Version: f.Latest + 1, Definition: definition, SHA256: c.sha256, CreatedBy: a.Name, Egress: c.egress, Writes: c.writes,
			},
			Description: c.flow.Description, Connections: c.connections,
		}
		if err := tx.AddVersion(ctx, n); err != nil {
			return err
		}
		if err := changedFlow(ctx, tx, a, f, what{"apply", map[string]any{"version": n.Version, "sha256": n.SHA256}}); err != nil {
			return err
		}
		f, v, err = flowAndVersion(ctx, tx, a.Workspace, string(f.ID), n.Version)
		return err
	})
	if err != nil {
		return Flow{}, FlowVersion{}, err
	}
	return f, v, nil
}

// flowNamed finds the flow of that name, or makes it. The caller holds the workspace's lock.
func flowNamed(ctx context.Context, tx Tx, a Actor, name string) (Flow, error) {
	if isID(ID(strings.ToLower(name))) {
		return Flow{}, fail(Invalid, "the flow's name %q looks like an id; give it a name that people can tell apart", name)
	}
	f, err := tx.FlowByRef(ctx, a.Workspace, name)
	if !errors.Is(err, ErrNoRow) {
		return f, err
	}
	id, err := newID()
	if err != nil {
		return Flow{}, err
	}
	return Flow{ID: id, Name: name}, tx.CreateFlow(ctx, a.Workspace, id, name)
}

// changedFlow tells replicas and the audit log.
func changedFlow(ctx context.Context, tx Tx, a Actor, f Flow, w what) error {
	if err := tx.Notify(ctx, Notice{Event: Event{Kind: "flow", ID: f.ID}, Workspace: a.Workspace}); err != nil {
		return err
	}
	return audit(ctx, tx, a, object{"flow", f.ID, f.Name}, w)
}

// flowAndVersion reads a flow with its deployments, and one of its versions; version 0 is the latest.
func flowAndVersion(ctx context.Context, tx Tx, workspace ID, ref string, version int) (Flow, FlowVersion, error) {
	f, err := tx.FlowByRef(ctx, workspace, ref)
	if err != nil {
		return f, FlowVersion{}, found(err, "flow", ref)
	}
	if version == 0 {
		version = f.Latest
	}
	v, err := tx.FlowVersion(ctx, f.ID, version)
	if errors.Is(err, ErrNoRow) {
		return f, v, fail(NotFound, "the flow %q has no version %d; its latest is %d", f.Name, version, f.Latest)
	}
	if err == nil {
		err = withDeployments(ctx, tx, workspace, &f)
	}
	return f, v, err
}

// withDeployments fills in where flows run.
func withDeployments(ctx context.Context, tx Tx, workspace ID, flows ...*Flow) error {
	all, err := tx.Deployments(ctx, workspace)
	if err != nil {
		return err
	}
	byFlow := map[ID][]Deployment{}
	for _, d := range all {
		byFlow[d.Flow] = append(byFlow[d.Flow], d)
	}
	for _, f := range flows {
		f.Deployments = byFlow[f.ID]
	}
	return nil
}

// Publish makes a version ready to deploy. It is checked again, because connections change, and its own tests must pass.
func (s *Service) Publish(ctx context.Context, a Actor, flow string, version int) (FlowVersion, error) {
	if err := require(a, Editor); err != nil {
		return FlowVersion{}, err
	}
	var v FlowVersion
	err := s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		_, v, err = flowAndVersion(ctx, tx, a.Workspace, flow, version)
		return err
	})
	if err != nil {
		return FlowVersion{}, err
	}
	if v.Published.IsZero() {
		if err := s.passes(ctx, a.Tenant, v); err != nil {
			return FlowVersion{}, public(err)
		}
	}
	version = v.Version // a version that came in the meantime was not tested
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		var f Flow
		var err error
		if f, v, err = flowAndVersion(ctx, tx, a.Workspace, flow, version); err != nil {
			return err
		}
		if !v.Published.IsZero() {
			return connected(ctx, tx, a.Workspace, f, v)
		}
		c, err := compile(ctx, tx, a.Workspace, v.Definition)
		if err != nil {
			return refused(err)
		}
		v.Egress, v.Writes = c.egress, c.writes
		if err := tx.PublishVersion(ctx, v); err != nil {
			return err
		}
		if err := changedFlow(ctx, tx, a, f, what{"publish", map[string]any{"version": v.Version, "sha256": v.SHA256}}); err != nil {
			return err
		}
		v, err = tx.FlowVersion(ctx, f.ID, v.Version)
		return err
	})
	if err != nil {
		return FlowVersion{}, err
	}
	return v, nil
}

// Flows lists the workspace's flows.
func (s *Service) Flows(ctx context.Context, a Actor) (out []Flow, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if out, err = tx.Flows(ctx, a.Workspace); err != nil {
			return err
		}
		list := make([]*Flow, len(out))
		for i := range out {
			list[i] = &out[i]
		}
		return withDeployments(ctx, tx, a.Workspace, list...)
	})
	return out, err
}

// Flow finds a flow by id or name.
func (s *Service) Flow(ctx context.Context, a Actor, ref string) (out Flow, err error) {
	if err := require(a, Viewer); err != nil {
		return Flow{}, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if out, err = tx.FlowByRef(ctx, a.Workspace, ref); err != nil {
			return found(err, "flow", ref)
		}
		return withDeployments(ctx, tx, a.Workspace, &out)
	})
	return out, err
}

// FlowVersions lists a flow's versions, newest first.
func (s *Service) FlowVersions(ctx context.Context, a Actor, ref string) (out []FlowVersion, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		f, err := tx.FlowByRef(ctx, a.Workspace, ref)
		if err != nil {
			return found(err, "flow", ref)
		}
		out, err = tx.FlowVersions(ctx, f.ID)
		return err
	})
	return out, err
}

// Deploy runs a published version on agents.
func (s *Service) Deploy(ctx context.Context, a Actor, flow string, version int, agents []string) (out []Deployment, err error) {
	if err := require(a, Operator); err != nil {
		return nil, err
	}
	if len(agents) == 0 {
		return nil, fail(Invalid, "say on which agents: their names, ids or a label like site=berlin")
	}
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		f, v, err := deployable(ctx, tx, a.Workspace, flow, version)
		if err != nil {
			return err
		}
		if err := connected(ctx, tx, a.Workspace, f, v); err != nil {
			return err
		}
		chosen, err := chooseAgents(ctx, tx, a.Workspace, agents)
		if err != nil {
			return err
		}
		touched, err := putDeployments(ctx, tx, f, v.Version, chosen)
		if err != nil {
			return err
		}
		if err := fits(ctx, tx, a.Workspace, chosen); err != nil {
			return err
		}
		if err := touchAgents(ctx, tx, a.Workspace, touched); err != nil {
			return err
		}
		if len(touched) > 0 {
			if err := changedFlow(ctx, tx, a, f, what{"deploy", map[string]any{"version": v.Version, "agents": touched}}); err != nil {
				return err
			}
		}
		if err := withDeployments(ctx, tx, a.Workspace, &f); err != nil {
			return err
		}
		out = slices.DeleteFunc(f.Deployments, func(d Deployment) bool { return !slices.Contains(chosen, d.Agent) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// putDeployments gives agents that version of the flow, and says which of them did not have it.
func putDeployments(ctx context.Context, tx Tx, f Flow, version int, agents []ID) ([]ID, error) {
	var touched []ID
	for _, agent := range agents {
		d := Deployment{Flow: f.ID, Version: version, Agent: agent}
		if i := slices.IndexFunc(f.Deployments, func(x Deployment) bool { return x.Agent == agent }); i >= 0 {
			if f.Deployments[i].Version == version {
				continue
			}
			d.ID = f.Deployments[i].ID
		} else {
			var err error
			if d.ID, err = newID(); err != nil {
				return nil, err
			}
		}
		if err := tx.PutDeployment(ctx, d); err != nil {
			return nil, err
		}
		touched = append(touched, agent)
	}
	return touched, nil
}

// deployable finds a published version; 0 is the latest published.
func deployable(ctx context.Context, tx Tx, workspace ID, ref string, version int) (Flow, FlowVersion, error) {
	f, err := tx.FlowByRef(ctx, workspace, ref)
	if err != nil {
		return f, FlowVersion{}, found(err, "flow", ref)
	}
	if version == 0 {
		if version = f.Published; version == 0 {
			return f, FlowVersion{}, fail(Conflict, "no version of the flow %q is published yet; publish one with `outfeed flow publish %s`", f.Name, f.Name)
		}
	}
	f, v, err := flowAndVersion(ctx, tx, workspace, string(f.ID), version)
	if err == nil && v.Published.IsZero() {
		err = fail(Conflict, "version %d of the flow %q is a draft; publish it first with `outfeed flow publish %s`", version, f.Name, f.Name)
	}
	return f, v, err
}

// touchAgents gives agents their next desired state and tells them, at the end of the transaction.
func touchAgents(ctx context.Context, tx Tx, workspace ID, agents []ID) error {
	if len(agents) == 0 {
		return nil
	}
	if err := tx.BumpDesired(ctx, agents); err != nil {
		return err
	}
	return notifyAgents(ctx, tx, workspace, agents)
}

// chooseAgents resolves ids, names and labels to living agents, each once, in the order of the listing.
func chooseAgents(ctx context.Context, tx Tx, workspace ID, refs []string) ([]ID, error) {
	all, err := tx.AgentNamesAndLabels(ctx, workspace)
	if err != nil {
		return nil, err
	}
	chosen := map[ID]bool{}
	for _, ref := range refs {
		matched := false
		for i := range all {
			if all[i].matches(ref) {
				chosen[all[i].ID], matched = true, true
			}
		}
		if matched {
			continue
		}
		if strings.Contains(ref, "=") {
			return nil, fail(NotFound, "no agent of this workspace has the label %s; `outfeed agent list` shows their labels", ref)
		}
		return nil, found(ErrNoRow, "agent", ref)
	}
	out := make([]ID, 0, len(chosen))
	for i := range all {
		if chosen[all[i].ID] {
			out = append(out, all[i].ID)
		}
	}
	return out, nil
}

// matches says whether a reference means the agent: its id, its name, or a label as name=value.
func (g *Agent) matches(ref string) bool {
	if ref == string(g.ID) || ref == g.Name {
		return true
	}
	name, value, isLabel := strings.Cut(ref, "=")
	if !isLabel {
		return false
	}
	have, there := g.Labels[name]
	return there && have == value
}

// Undeploy stops a flow on agents; on all when none is named.
func (s *Service) Undeploy(ctx context.Context, a Actor, flow string, agents []string) error {
	if err := require(a, Operator); err != nil {
		return err
	}
	return s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		f, err := tx.FlowByRef(ctx, a.Workspace, flow)
		if err != nil {
			return found(err, "flow", flow)
		}
		if err := withDeployments(ctx, tx, a.Workspace, &f); err != nil {
			return err
		}
		var chosen []ID
		if len(agents) > 0 {
			if chosen, err = chooseAgents(ctx, tx, a.Workspace, agents); err != nil {
				return err
			}
		}
		var touched []ID
		for _, d := range f.Deployments {
			if len(agents) > 0 && !slices.Contains(chosen, d.Agent) {
				continue
			}
			if err := tx.DeleteDeployment(ctx, d.ID); err != nil {
				return err
			}
			touched = append(touched, d.Agent)
		}
		if len(touched) == 0 {
			return nil
		}
		if err := touchAgents(ctx, tx, a.Workspace, touched); err != nil {
			return err
		}
		return changedFlow(ctx, tx, a, f, what{"undeploy", map[string]any{"agents": touched}})
	})
}
