package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/secret"
)

// requestKey is the key of the *http.Request in the context of the two operations that need it.
type requestKey struct{}

func withRequest(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	next(huma.WithValue(ctx, requestKey{}, r))
}

func requestIn(ctx context.Context) (*http.Request, error) {
	r, ok := ctx.Value(requestKey{}).(*http.Request)
	if !ok {
		return nil, &fleet.Error{Code: fleet.Internal, Message: "The operation was registered without its request."}
	}
	return r.WithContext(ctx), nil
}

type signedIn struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      api.Me
}

type signedOut struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

func (s *service) registerSession(h huma.API) {
	signIn := operation{
		method: http.MethodPost, path: "/session", id: "sign-in", tag: "session",
		summary:     "Sign in to the dashboard",
		description: "Checks an API key and sets a session cookie.",
	}.huma()
	signIn.Security = nil
	signIn.MaxBodyBytes = maxSignInBytes
	signIn.Middlewares = huma.Middlewares{withRequest}
	huma.Register(h, signIn, func(ctx context.Context, in *body[api.SignIn]) (*signedIn, error) {
		out, err := s.signIn(ctx, in.Body)
		if err != nil {
			return nil, s.problem(ctx, signIn.OperationID, err)
		}
		return out, nil
	})

	signOut := operation{
		method: http.MethodDelete, path: "/session", id: "sign-out", tag: "session", summary: "Sign out",
	}.huma()
	signOut.Middlewares = huma.Middlewares{withRequest}
	addOperation(s, h, signOut, func(ctx context.Context, _ fleet.Actor, _ *none) (*signedOut, error) {
		r, err := requestIn(ctx)
		if err != nil {
			return nil, err
		}
		cookie, err := s.auth.SignOut(r)
		if err != nil {
			return nil, err
		}
		return &signedOut{SetCookie: *cookie}, nil
	})

	add(s, h, operation{
		method: http.MethodGet, path: "/me", id: "get-me", tag: "session", summary: "Say who is asking",
	}, func(_ context.Context, a fleet.Actor, _ *none) (*body[api.Me], error) {
		return answer(toMe(a)), nil
	})
}

func (s *service) signIn(ctx context.Context, in api.SignIn) (*signedIn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := requestIn(ctx)
	if err != nil {
		return nil, err
	}
	var actor fleet.Actor
	var cookie *http.Cookie
	err = busy(ctx, func() (err error) {
		actor, cookie, err = s.auth.SignIn(r, secret.New(in.APIKey))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &signedIn{SetCookie: *cookie, Body: toMe(actor)}, nil
}

func (s *service) registerKeys(h huma.API) {
	const tag = "api keys"
	add(s, h, operation{
		method: http.MethodGet, path: "/api-keys", id: "list-api-keys", tag: tag, summary: "List the API keys",
	}, func(ctx context.Context, a fleet.Actor, _ *none) (*body[api.List[api.APIKey]], error) {
		keys, err := s.fleet.APIKeys(ctx, a)
		if err != nil {
			return nil, err
		}
		return listOf(keys, toAPIKey), nil
	})
	add(s, h, operation{
		method: http.MethodPost, path: "/api-keys", id: "create-api-key", tag: tag, summary: "Make an API key",
		status: http.StatusCreated,
	}, func(ctx context.Context, a fleet.Actor, in *body[api.APIKeyCreate]) (*body[api.APIKeyCreated], error) {
		key, text, err := s.fleet.CreateAPIKey(ctx, a, in.Body.Name, fleet.Role(in.Body.Role))
		if err != nil {
			return nil, err
		}
		return answer(api.APIKeyCreated{APIKey: toAPIKey(key), Key: text.Reveal()}), nil
	})
	add(s, h, operation{
		method: http.MethodDelete, path: "/api-keys/{id}", id: "revoke-api-key", tag: tag, summary: "Revoke an API key",
	}, func(ctx context.Context, a fleet.Actor, in *idPath) (*none, error) {
		return &none{}, s.fleet.RevokeAPIKey(ctx, a, fleet.ID(in.ID))
	})
}

// idPath is a path that names a thing by its id.
type idPath struct {
	ID string `path:"id" format:"uuid"`
}

// agentPath is a path that names an agent.
type agentPath struct {
	Agent string `path:"agent" maxLength:"200" doc:"The agent's id or name."`
}

type agentsQuery struct {
	Limit int    `query:"limit" minimum:"0" maximum:"1000" doc:"0 means 500. A page has fewer where agents say much."`
	After string `query:"after" maxLength:"1000" doc:"The next of the page before."`
}

func (s *service) registerAgents(h huma.API) {
	const tag = "agents"
	add(s, h, operation{
		method: http.MethodPost, path: "/agent-tokens", id: "create-agent-token", tag: tag,
		summary: "Make an enrolment token", status: http.StatusCreated,
		description: "The token lets one machine become an agent, once, within an hour.",
	}, func(ctx context.Context, a fleet.Actor, in *body[api.AgentTokenCreate]) (*body[api.AgentTokenCreated], error) {
		token, text, err := s.fleet.CreateToken(ctx, a, in.Body.Labels, time.Duration(in.Body.TTLSeconds)*time.Second)
		if err != nil {
			return nil, err
		}
		return answer(api.AgentTokenCreated{AgentToken: toAgentToken(token), Token: text.Reveal(), URL: s.agentURL}), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/agent-tokens", id: "list-agent-tokens", tag: tag,
		summary: "List the enrolment tokens",
	}, func(ctx context.Context, a fleet.Actor, _ *none) (*body[api.List[api.AgentToken]], error) {
		tokens, err := s.fleet.Tokens(ctx, a)
		if err != nil {
			return nil, err
		}
		return listOf(tokens, toAgentToken), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/agents", id: "list-agents", tag: tag, summary: "List the agents",
		description: "By name, the revoked ones last. Each is in brief: errors are cut to the beginning of their first line, at most 200 characters, " +
			"with … where something is missing; where an agent has very many flows that fail, some say … alone; and damaged files have no more than name and time. " +
			"get-agent gives the whole.",
	}, func(ctx context.Context, a fleet.Actor, in *agentsQuery) (*body[api.AgentPage], error) {
		page, err := s.fleet.Agents(ctx, a, fleet.AgentFilter(*in))
		if err != nil {
			return nil, err
		}
		return answer(api.AgentPage{Items: list(page.Agents, toAgent), Next: page.Next}), nil
	})
	add(s, h, operation{
		method: http.MethodGet, path: "/agents/{agent}", id: "get-agent", tag: tag, summary: "Show an agent",
	}, func(ctx context.Context, a fleet.Actor, in *agentPath) (*body[api.Agent], error) {
		agent, err := s.fleet.Agent(ctx, a, in.Agent)
		if err != nil {
			return nil, err
		}
		return answer(toAgent(agent)), nil
	})
	add(s, h, operation{
		method: http.MethodPost, path: "/agents/{agent}/revoke", id: "revoke-agent", tag: tag,
		summary:     "Revoke an agent",
		description: "The agent's session is cut and it can never connect again. It stays in the list.",
	}, func(ctx context.Context, a fleet.Actor, in *agentPath) (*none, error) {
		return &none{}, s.fleet.RevokeAgent(ctx, a, in.Agent)
	})
	s.registerAgentKeys(h)
}

// unlockAgent names an agent and the copy that goes on.
type unlockAgent struct {
	Agent string `path:"agent" maxLength:"200" doc:"The agent's id or name."`
	Body  api.AgentUnlock
}

func (s *service) registerAgentKeys(h huma.API) {
	const tag = "agents"
	add(s, h, operation{
		method: http.MethodPost, path: "/agents/{agent}/unlock", id: "unlock-agent", tag: tag,
		summary: "Decide between two copies of an agent",
		description: "An agent is locked when a copy of its data directory, or an older one from a backup, has connected. " +
			"The copy that is kept goes on within a minute or so; the other one is refused for good.",
	}, func(ctx context.Context, a fleet.Actor, in *unlockAgent) (*body[api.Agent], error) {
		agent, err := s.fleet.UnlockAgent(ctx, a, in.Agent, fleet.Keep(in.Body.Keep))
		if err != nil {
			return nil, err
		}
		return answer(toAgent(agent)), nil
	})
	add(s, h, operation{
		method: http.MethodPost, path: "/agents/{agent}/rotate", id: "rotate-agent", tag: tag,
		summary: "Have an agent change its keys",
		description: "At once, or when it connects the next time. Both its old and its new key work until it has connected with the new one. " +
			"rotation_asked_at is absent again, and rotated_at newer, when it is done.",
	}, func(ctx context.Context, a fleet.Actor, in *agentPath) (*body[api.Agent], error) {
		agent, err := s.fleet.RotateAgent(ctx, a, in.Agent)
		if err != nil {
			return nil, err
		}
		return answer(toAgent(agent)), nil
	})
}
