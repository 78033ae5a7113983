package httpapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
)

type runsQuery struct {
	Flow   string `query:"flow" maxLength:"200" doc:"A flow's name or id."`
	Agent  string `query:"agent" maxLength:"200" doc:"An agent's name or id."`
	Status string `query:"status" maxLength:"50"`
	Limit  int    `query:"limit" minimum:"0" maximum:"1000" doc:"0 means 100."`
}

func (s *service) registerRuns(h huma.API) {
	const tag = "runs"
	add(s, h, operation{
		method: http.MethodGet, path: "/runs", id: "list-runs", tag: tag, summary: "List runs, newest first",
	}, func(ctx context.Context, a fleet.Actor, in *runsQuery) (*body[api.List[api.Run]], error) {
		filter := fleet.RunFilter{Status: in.Status, Limit: in.Limit}
		var err error
		if filter.Flow, err = s.flowID(ctx, a, in.Flow); err != nil {
			return nil, err
		}
		if filter.Agent, err = s.agentID(ctx, a, in.Agent); err != nil {
			return nil, err
		}
		runs, err := s.fleet.Runs(ctx, a, filter)
		if err != nil {
			return nil, err
		}
		return listOf(runs, toRun), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/runs/{id}", id: "get-run", tag: tag, summary: "Show a run",
	}, func(ctx context.Context, a fleet.Actor, in *idPath) (*body[api.Run], error) {
		run, err := s.fleet.Run(ctx, a, fleet.ID(in.ID))
		if err != nil {
			return nil, err
		}
		return answer(toRun(run)), nil
	})
}

// flowID finds the id behind a name or an id; none selects all.
func (s *service) flowID(ctx context.Context, a fleet.Actor, ref string) (fleet.ID, error) {
	if ref == "" {
		return "", nil
	}
	flow, err := s.fleet.Flow(ctx, a, ref)
	return flow.ID, err
}

func (s *service) agentID(ctx context.Context, a fleet.Actor, ref string) (fleet.ID, error) {
	if ref == "" {
		return "", nil
	}
	agent, err := s.fleet.BriefAgent(ctx, a, ref)
	return agent.ID, err
}

type insightsQuery struct {
	Name  string    `query:"name" maxLength:"200" doc:"An insight's name."`
	Flow  string    `query:"flow" maxLength:"200" doc:"A flow's name or id."`
	Agent string    `query:"agent" maxLength:"200" doc:"An agent's name or id."`
	From  time.Time `query:"from" doc:"The earliest time."`
	To    time.Time `query:"to" doc:"The end of the time range, which is not part of it."`
	Limit int       `query:"limit" minimum:"0" maximum:"10000" doc:"0 means 500."`
	After string    `query:"after" maxLength:"500" doc:"The next of the page before."`

	key map[string]string
}

type refusedQuery struct {
	Agent string `query:"agent" maxLength:"200" doc:"An agent's name or id."`
	Limit int    `query:"limit" minimum:"0" maximum:"200" doc:"0 means 50."`
	After string `query:"after" maxLength:"500" doc:"The next of the page before."`
}

// maxKeyMembers bounds the members of a key that one request may name.
const maxKeyMembers = 16

// Resolve reads the key.<member> parameters and refuses those that nobody knows.
func (q *insightsQuery) Resolve(ctx huma.Context) []error {
	var wrong []error
	refuse := func(name, message string) {
		wrong = append(wrong, &huma.ErrorDetail{Location: "query." + name, Message: message})
	}
	url := ctx.URL()
	q.key = map[string]string{}
	for name, values := range url.Query() {
		member, isKey := strings.CutPrefix(name, "key.")
		switch {
		case isKey && member == "":
			refuse(name, "name the member, as in key.machine=M1")
		case isKey && len(values) > 1:
			refuse(name, "give one value")
		case isKey:
			q.key[member] = values[0]
		case !knownInsightParameter(name):
			refuse(name, "unknown query parameter")
		}
	}
	if len(q.key) > maxKeyMembers {
		refuse("key", "name at most 16 members")
	}
	return wrong
}

func knownInsightParameter(name string) bool {
	switch name {
	case "name", "flow", "agent", "from", "to", "limit", "after":
		return true
	}
	return false
}

func (s *service) registerInsights(h huma.API) {
	const tag = "insights"
	query := operation{
		method: http.MethodGet, path: "/insights", id: "list-insights", tag: tag,
		summary:     "List insights, newest first",
		description: "Besides the parameters below, key.<member>=<value> selects by a member of the key, as in key.machine=M1.",
	}.huma()
	query.RejectUnknownQueryParameters = false
	addOperation(s, h, query, func(ctx context.Context, a fleet.Actor, in *insightsQuery) (*body[api.InsightPage], error) {
		filter := fleet.InsightFilter{
			Name: in.Name, Key: in.key, From: in.From, To: in.To, Limit: in.Limit, After: in.After,
		}
		var err error
		if filter.Flow, err = s.flowID(ctx, a, in.Flow); err != nil {
			return nil, err
		}
		if filter.Agent, err = s.agentID(ctx, a, in.Agent); err != nil {
			return nil, err
		}
		page, err := s.fleet.Insights(ctx, a, filter)
		if err != nil {
			return nil, err
		}
		return answer(api.InsightPage{Items: list(page.Insights, toInsight), Next: page.Next}), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/insights/refused", id: "list-refused-insights", tag: tag,
		summary:     "List refused insights, newest first",
		description: "What agents sent and what can never be stored. The newest 1,000 of each agent are kept; the agent's outbox counts them all.",
	}, func(ctx context.Context, a fleet.Actor, in *refusedQuery) (*body[api.RefusedInsightPage], error) {
		agent, err := s.agentID(ctx, a, in.Agent)
		if err != nil {
			return nil, err
		}
		page, err := s.fleet.RefusedInsights(ctx, a, fleet.RefusedFilter{Agent: agent, Limit: in.Limit, After: in.After})
		if err != nil {
			return nil, err
		}
		return answer(api.RefusedInsightPage{Items: list(page.Refused, toRefusedInsight), Next: page.Next}), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/insights/missing", id: "list-missing-insights", tag: tag,
		summary: "List insights that never came, newest first",
		description: "The ranges of agents' sequences that hold no insight, with the reason that the agent gave. " +
			"The newest 1,000 ranges of each agent are kept; the receipts in the agent's outbox count them all.",
	}, func(ctx context.Context, a fleet.Actor, in *refusedQuery) (*body[api.MissingInsightsPage], error) {
		agent, err := s.agentID(ctx, a, in.Agent)
		if err != nil {
			return nil, err
		}
		page, err := s.fleet.MissingInsights(ctx, a, fleet.RefusedFilter{Agent: agent, Limit: in.Limit, After: in.After})
		if err != nil {
			return nil, err
		}
		return answer(api.MissingInsightsPage{Items: list(page.Missing, toMissingInsights), Next: page.Next}), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/insights/names", id: "list-insight-names", tag: tag,
		summary: "List the insights that exist",
	}, func(ctx context.Context, a fleet.Actor, _ *none) (*body[api.List[api.InsightName]], error) {
		names, err := s.fleet.InsightNames(ctx, a)
		if err != nil {
			return nil, err
		}
		return listOf(names, toInsightName), nil
	})
}
