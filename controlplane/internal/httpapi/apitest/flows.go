package apitest

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Connectors lists ConnectorList.
func (f *Fleet) Connectors(context.Context, fleet.Actor) ([]flowdef.ConnectorSpec, error) {
	return f.ConnectorList, nil
}

// Connections lists the connections by name.
func (f *Fleet) Connections(context.Context, fleet.Actor) ([]fleet.Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.connections), func(a, b fleet.Connection) int {
		return cmp.Compare(a.Name, b.Name)
	}), nil
}

// Connection finds a connection.
func (f *Fleet) Connection(_ context.Context, _ fleet.Actor, ref string) (fleet.Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.connections {
		if c.Name == ref || string(c.ID) == ref {
			return c, nil
		}
	}
	return fleet.Connection{}, problem(fleet.NotFound, "There is no connection %q.", ref)
}

// ApplyConnection makes or changes a connection.
func (f *Fleet) ApplyConnection(_ context.Context, a fleet.Actor, c fleet.Connection) (fleet.Connection, error) {
	if err := mayChange(a); err != nil {
		return fleet.Connection{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, ok := f.connections[c.Name]; ok {
		c.ID, c.Created = have.ID, have.Created
	} else {
		c.ID, c.Created = f.newID(), Clock()
		f.secrets[c.Name] = map[string]secret.String{}
	}
	c.Updated = Clock()
	maps.Copy(f.secrets[c.Name], c.Secrets)
	c.SecretNames, c.Secrets = slices.Sorted(maps.Keys(f.secrets[c.Name])), nil
	f.connections[c.Name] = c
	return c, nil
}

// DeleteConnection deletes a connection.
func (f *Fleet) DeleteConnection(ctx context.Context, a fleet.Actor, ref string) error {
	if err := mayChange(a); err != nil {
		return err
	}
	c, err := f.Connection(ctx, a, ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.connections, c.Name)
	return nil
}

// CheckFlow finds a problem wherever the text says "bogus".
func (f *Fleet) CheckFlow(_ context.Context, _ fleet.Actor, definition string) (fleet.FlowCheck, error) {
	return check(definition), nil
}

// ApplyFlow saves a definition.
func (f *Fleet) ApplyFlow(_ context.Context, a fleet.Actor, definition string) (fleet.Flow, fleet.FlowVersion, error) {
	if err := mayChange(a); err != nil {
		return fleet.Flow{}, fleet.FlowVersion{}, err
	}
	found := check(definition)
	if len(found.Problems) > 0 {
		return fleet.Flow{}, fleet.FlowVersion{}, &fleet.Error{
			Code: fleet.Invalid, Message: "The definition has problems.", Err: found.Problems,
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	flow, known := f.flows[found.Name]
	if !known {
		flow = fleet.Flow{ID: f.newID(), Name: found.Name, Created: Clock()}
	}
	versions := f.versions[flow.Name]
	if n := len(versions); n > 0 && versions[n-1].Definition == definition {
		return flow, versions[n-1], nil
	}
	flow.Latest, flow.Updated = len(versions)+1, Clock()
	version := fleet.FlowVersion{
		Flow: flow.ID, Version: flow.Latest, Definition: definition, SHA256: digest(definition),
		Created: Clock(), CreatedBy: a.Name, Egress: found.Egress, Writes: found.Writes,
	}
	f.flows[flow.Name], f.versions[flow.Name] = flow, append(versions, version)
	return flow, version, nil
}

// find is called with the lock held.
func (f *Fleet) find(ref string) (fleet.Flow, error) {
	for _, flow := range f.flows {
		if flow.Name == ref || string(flow.ID) == ref {
			return flow, nil
		}
	}
	return fleet.Flow{}, problem(fleet.NotFound, "There is no flow %q.", ref)
}

// Publish makes a version deployable.
func (f *Fleet) Publish(_ context.Context, a fleet.Actor, ref string, number int) (fleet.FlowVersion, error) {
	if err := mayChange(a); err != nil {
		return fleet.FlowVersion{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	flow, err := f.find(ref)
	if err != nil {
		return fleet.FlowVersion{}, err
	}
	if number == 0 {
		number = flow.Latest
	}
	if number > flow.Latest {
		return fleet.FlowVersion{}, problem(fleet.NotFound, "Flow %q has no version %d.", flow.Name, number)
	}
	version := &f.versions[flow.Name][number-1]
	version.Published = Clock()
	flow.Published = max(flow.Published, number)
	f.flows[flow.Name] = flow
	return *version, nil
}

// Flows lists the flows by name.
func (f *Fleet) Flows(context.Context, fleet.Actor) ([]fleet.Flow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.flows), func(a, b fleet.Flow) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// Flow finds a flow.
func (f *Fleet) Flow(_ context.Context, _ fleet.Actor, ref string) (fleet.Flow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.find(ref)
}

// FlowVersions lists the versions, newest first.
func (f *Fleet) FlowVersions(_ context.Context, _ fleet.Actor, ref string) ([]fleet.FlowVersion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	flow, err := f.find(ref)
	if err != nil {
		return nil, err
	}
	versions := slices.Clone(f.versions[flow.Name])
	slices.Reverse(versions)
	return versions, nil
}

// Deploy runs a version on agents.
func (f *Fleet) Deploy(
	_ context.Context, a fleet.Actor, ref string, number int, agents []string,
) ([]fleet.Deployment, error) {
	if err := mayChange(a); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	flow, err := f.find(ref)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		number = flow.Published
	}
	if number == 0 || f.versions[flow.Name][number-1].Published.IsZero() {
		return nil, problem(fleet.Conflict, "Flow %q has no published version. Publish one first.", flow.Name)
	}
	for _, agent := range f.AgentList {
		if !slices.ContainsFunc(agents, func(want string) bool { return named(agent, want) }) {
			continue
		}
		flow.Deployments = append(flow.Deployments, fleet.Deployment{
			ID: f.newID(), Flow: flow.ID, Name: flow.Name, Version: number, Agent: agent.ID, Created: Clock(),
		})
	}
	if len(flow.Deployments) == 0 {
		return nil, problem(fleet.NotFound, "No agent is %s.", strings.Join(agents, " or "))
	}
	f.flows[flow.Name] = flow
	return flow.Deployments, nil
}

func named(agent fleet.Agent, want string) bool {
	if label, value, ok := strings.Cut(want, "="); ok {
		return agent.Labels[label] == value
	}
	return agent.Name == want || string(agent.ID) == want
}

// Undeploy stops a flow.
func (f *Fleet) Undeploy(_ context.Context, a fleet.Actor, ref string, agents []string) error {
	if err := mayChange(a); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	flow, err := f.find(ref)
	if err != nil {
		return err
	}
	flow.Deployments = slices.DeleteFunc(slices.Clone(flow.Deployments), func(d fleet.Deployment) bool {
		return len(agents) == 0 || slices.ContainsFunc(f.AgentList, func(agent fleet.Agent) bool {
			return agent.ID == d.Agent && slices.ContainsFunc(agents, func(want string) bool { return named(agent, want) })
		})
	})
	f.flows[flow.Name] = flow
	return nil
}

// Runs lists RunList.
func (f *Fleet) Runs(_ context.Context, _ fleet.Actor, filter fleet.RunFilter) ([]fleet.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastRuns = filter
	return slices.DeleteFunc(slices.Clone(f.RunList), func(r fleet.Run) bool {
		return (filter.Flow != "" && r.Flow != filter.Flow) || (filter.Agent != "" && r.Agent != filter.Agent) ||
			(filter.Status != "" && r.Status != filter.Status)
	}), nil
}

// Run finds a run.
func (f *Fleet) Run(_ context.Context, _ fleet.Actor, id fleet.ID) (fleet.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.RunList {
		if r.ID == id {
			return r, nil
		}
	}
	return fleet.Run{}, problem(fleet.NotFound, "There is no run %s.", id)
}

// Insights lists insights newest first, in pages of the filter's limit; its cursor is the count of those before.
func (f *Fleet) Insights(_ context.Context, _ fleet.Actor, filter fleet.InsightFilter) (fleet.InsightPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastQuery = filter
	found := slices.DeleteFunc(slices.Clone(f.InsightList), func(i fleet.Insight) bool {
		return (filter.Name != "" && i.Name != filter.Name) || !hasKey(i, filter.Key)
	})
	slices.Reverse(found)
	start, err := strconv.Atoi(cmp.Or(filter.After, "0"))
	if err != nil || start < 0 || start > len(found) {
		return fleet.InsightPage{}, problem(fleet.Invalid, "The cursor is not one of this listing.")
	}
	page := fleet.InsightPage{Insights: found[start:]}
	if filter.Limit > 0 && len(page.Insights) > filter.Limit {
		page.Insights = page.Insights[:filter.Limit]
		page.Next = strconv.Itoa(start + filter.Limit)
	}
	return page, nil
}

func hasKey(i fleet.Insight, want map[string]string) bool {
	var key map[string]any
	if err := json.Unmarshal(i.Key, &key); err != nil {
		return false
	}
	for member, value := range want {
		if key[member] != value {
			return false
		}
	}
	return true
}

// RefusedInsights gives a page of RefusedList; a page's Next is the number of those before it.
func (f *Fleet) RefusedInsights(_ context.Context, _ fleet.Actor, q fleet.RefusedFilter) (fleet.RefusedPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	refused, next, err := page(f.RefusedList, q, func(r fleet.RefusedInsight) fleet.ID { return r.Agent })
	return fleet.RefusedPage{Refused: refused, Next: next}, err
}

// MissingInsights gives a page of MissingList in the same way.
func (f *Fleet) MissingInsights(_ context.Context, _ fleet.Actor, q fleet.RefusedFilter) (fleet.MissingPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing, next, err := page(f.MissingList, q, func(m fleet.MissingInsights) fleet.ID { return m.Agent })
	return fleet.MissingPage{Missing: missing, Next: next}, err
}

// page is the part of a list that a filter selects, and what continues behind it.
func page[T any](list []T, q fleet.RefusedFilter, agentOf func(T) fleet.ID) (items []T, next string, err error) {
	var found []T
	for _, item := range list {
		if q.Agent == "" || agentOf(item) == q.Agent {
			found = append(found, item)
		}
	}
	from := 0
	if q.After != "" {
		if from, err = strconv.Atoi(q.After); err != nil || from > len(found) {
			return nil, "", &fleet.Error{Code: fleet.Invalid, Message: "there is no such page"}
		}
	}
	end := min(from+cmp.Or(q.Limit, 50), len(found))
	if end < len(found) {
		next = strconv.Itoa(end)
	}
	return found[from:end], next, nil
}

// InsightNames lists the names of InsightList.
func (f *Fleet) InsightNames(context.Context, fleet.Actor) ([]fleet.InsightName, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []fleet.InsightName
	for _, i := range f.InsightList {
		if !slices.ContainsFunc(names, func(n fleet.InsightName) bool { return n.Name == i.Name }) {
			names = append(names, fleet.InsightName{Name: i.Name, Flow: i.Flow, Last: i.Time})
		}
	}
	return names, nil
}

// InsightsBySeq reads insights of one agent.
func (f *Fleet) InsightsBySeq(
	_ context.Context, _ fleet.Actor, agent fleet.ID, from, to int64,
) ([]fleet.Insight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []fleet.Insight
	for _, i := range f.InsightList {
		if i.Agent == agent && i.Seq >= from && i.Seq <= to {
			found = append(found, i)
		}
	}
	return found, nil
}

// Subscribe gives events until ctx ends.
func (f *Fleet) Subscribe(ctx context.Context, _ fleet.Actor) (<-chan fleet.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	events := make(chan fleet.Event, 16)
	f.listeners = append(f.listeners, events)
	f.listenersChanged()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.listeners = slices.DeleteFunc(f.listeners, func(l chan fleet.Event) bool { return l == events })
		f.listenersChanged()
	})
	return events, nil
}
