package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// connectionPath is a path that names a connection.
type connectionPath struct {
	Connection string `path:"connection" maxLength:"200" doc:"The connection's name or id."`
}

type connectionApply struct {
	Connection string `path:"connection" maxLength:"200" doc:"The connection's name, or the id of one that is there."`
	Body       api.ConnectionApply
}

func (s *service) registerConnections(h huma.API) {
	const tag = "connections"
	add(s, h, operation{
		method: http.MethodGet, path: "/connectors", id: "list-connectors", tag: tag,
		summary:     "List the kinds of connection",
		description: "The kinds that the workspace's agents offer, with their options.",
	}, func(ctx context.Context, a fleet.Actor, _ *none) (*body[api.List[flowdef.ConnectorSpec]], error) {
		connectors, err := s.fleet.Connectors(ctx, a)
		if err != nil {
			return nil, err
		}
		return listOf(connectors, toConnector), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/connections", id: "list-connections", tag: tag, summary: "List the connections",
	}, func(ctx context.Context, a fleet.Actor, _ *none) (*body[api.List[api.Connection]], error) {
		connections, err := s.fleet.Connections(ctx, a)
		if err != nil {
			return nil, err
		}
		return listOf(connections, toConnection), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/connections/{connection}", id: "get-connection", tag: tag,
		summary: "Show a connection",
	}, func(ctx context.Context, a fleet.Actor, in *connectionPath) (*body[api.Connection], error) {
		connection, err := s.fleet.Connection(ctx, a, in.Connection)
		if err != nil {
			return nil, err
		}
		return answer(toConnection(connection)), nil
	})
	add(s, h, operation{
		method: http.MethodPut, path: "/connections/{connection}", id: "apply-connection", tag: tag,
		summary:     "Make or change a connection",
		description: "Secrets are write-only. One that is left out stays as it is.",
	}, func(ctx context.Context, a fleet.Actor, in *connectionApply) (*body[api.Connection], error) {
		connection, err := s.fleet.ApplyConnection(ctx, a, fromConnection(in.Connection, in.Body))
		if err != nil {
			return nil, err
		}
		return answer(toConnection(connection)), nil
	})
	add(s, h, operation{
		method: http.MethodDelete, path: "/connections/{connection}", id: "delete-connection", tag: tag,
		summary: "Delete a connection",
	}, func(ctx context.Context, a fleet.Actor, in *connectionPath) (*none, error) {
		return &none{}, s.fleet.DeleteConnection(ctx, a, in.Connection)
	})
}

// flowPath is a path that names a flow.
type flowPath struct {
	Flow string `path:"flow" maxLength:"200" doc:"The flow's name or id."`
}

type flowPublish struct {
	Flow string `path:"flow" maxLength:"200" doc:"The flow's name or id."`
	Body api.FlowPublish
}

type flowDeploy struct {
	Flow string `path:"flow" maxLength:"200" doc:"The flow's name or id."`
	Body api.FlowDeploy
}

type flowUndeploy struct {
	Flow string `path:"flow" maxLength:"200" doc:"The flow's name or id."`
	Body api.FlowUndeploy
}

func (s *service) registerFlows(h huma.API) {
	const tag = "flows"
	add(s, h, operation{
		method: http.MethodPost, path: "/flows/check", id: "check-flow", tag: tag, summary: "Check a flow definition",
		description: "Checks the text against the workspace's connections, runs its tests, and lists what would leave the plant and what would be written into its systems. Saves nothing.",
	}, func(ctx context.Context, a fleet.Actor, in *body[api.FlowDefinition]) (*body[api.FlowCheck], error) {
		check, err := s.fleet.CheckFlow(ctx, a, in.Body.Definition)
		if err != nil {
			return nil, err
		}
		return answer(api.FlowCheck{
			OK: len(check.Problems) == 0, Name: check.Name,
			Problems: flowProblems(check.Problems), Egress: toManifest(check.Egress),
			Writes: list(check.Writes, toFlowWrite), Tests: list(check.Tests, func(t fleet.FlowTest) api.FlowTest { return api.FlowTest(t) }),
		}), nil
	})
	add(s, h, operation{
		method: http.MethodPost, path: "/flows", id: "apply-flow", tag: tag, summary: "Save a flow definition",
		description: "Saves the text as a new draft version of the flow it names. The same text again changes nothing.",
	}, func(ctx context.Context, a fleet.Actor, in *body[api.FlowDefinition]) (*body[api.FlowApplied], error) {
		flow, version, err := s.fleet.ApplyFlow(ctx, a, in.Body.Definition)
		if err != nil {
			return nil, err
		}
		return answer(api.FlowApplied{Flow: toFlow(flow), Version: toFlowVersion(version)}), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/flows", id: "list-flows", tag: tag, summary: "List the flows",
	}, func(ctx context.Context, a fleet.Actor, _ *none) (*body[api.List[api.Flow]], error) {
		flows, err := s.fleet.Flows(ctx, a)
		if err != nil {
			return nil, err
		}
		return listOf(flows, toFlow), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/flows/{flow}", id: "get-flow", tag: tag, summary: "Show a flow",
	}, func(ctx context.Context, a fleet.Actor, in *flowPath) (*body[api.Flow], error) {
		flow, err := s.fleet.Flow(ctx, a, in.Flow)
		if err != nil {
			return nil, err
		}
		return answer(toFlow(flow)), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/flows/{flow}/versions", id: "list-flow-versions", tag: tag,
		summary: "List the versions of a flow",
	}, func(ctx context.Context, a fleet.Actor, in *flowPath) (*body[api.List[api.FlowVersion]], error) {
		versions, err := s.fleet.FlowVersions(ctx, a, in.Flow)
		if err != nil {
			return nil, err
		}
		return listOf(versions, toFlowVersion), nil
	})
	s.registerDeployment(h, tag)
}

func (s *service) registerDeployment(h huma.API, tag string) {
	add(s, h, operation{
		method: http.MethodPost, path: "/flows/{flow}/publish", id: "publish-flow", tag: tag,
		summary: "Make a version ready to deploy",
	}, func(ctx context.Context, a fleet.Actor, in *flowPublish) (*body[api.FlowVersion], error) {
		version, err := s.fleet.Publish(ctx, a, in.Flow, in.Body.Version)
		if err != nil {
			return nil, err
		}
		return answer(toFlowVersion(version)), nil
	})
	add(s, h, operation{
		method: http.MethodPost, path: "/flows/{flow}/deploy", id: "deploy-flow", tag: tag,
		summary: "Run a published version on agents",
	}, func(ctx context.Context, a fleet.Actor, in *flowDeploy) (*body[api.List[api.Deployment]], error) {
		deployments, err := s.fleet.Deploy(ctx, a, in.Flow, in.Body.Version, in.Body.Agents)
		if err != nil {
			return nil, err
		}
		return listOf(deployments, toDeployment), nil
	})
	add(s, h, operation{
		method: http.MethodPost, path: "/flows/{flow}/undeploy", id: "undeploy-flow", tag: tag,
		summary: "Stop a flow on agents",
	}, func(ctx context.Context, a fleet.Actor, in *flowUndeploy) (*none, error) {
		return &none{}, s.fleet.Undeploy(ctx, a, in.Flow, in.Body.Agents)
	})
}
