package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// operation describes one endpoint.
type operation struct {
	method, path string
	id, summary  string
	tag          string
	description  string
	// status is that of success; 0 means 200, or 204 without a body.
	status int
}

// none is the input of an operation without parameters and the output of one without an answer.
type none struct{}

// body is an answer.
type body[T any] struct{ Body T }

func answer[T any](v T) *body[T] { return &body[T]{Body: v} }

// actorKey is the key of the caller in a request's context.
type actorKey struct{}

// huma makes the operation that huma registers, for callers who are authenticated.
func (o operation) huma() huma.Operation {
	return huma.Operation{
		Method:          o.method,
		Path:            prefix + o.path,
		OperationID:     o.id,
		Summary:         o.summary,
		Description:     o.description,
		Tags:            []string{o.tag},
		DefaultStatus:   o.status,
		MaxBodyBytes:    maxBodyBytes,
		BodyReadTimeout: -1, // received has read it, in bodyReadTimeout
		Security:        []map[string][]string{{bearerScheme: {}}, {sessionScheme: {}}},

		RejectUnknownQueryParameters: true,
	}
}

// handle is the work of an operation for the one who asks.
type handle[I, O any] func(ctx context.Context, a fleet.Actor, in *I) (*O, error)

// add registers an operation for authenticated callers, bounded in time.
func add[I, O any](s *service, h huma.API, o operation, do handle[I, O]) {
	addOperation(s, h, o.huma(), do)
}

func addOperation[I, O any](s *service, h huma.API, o huma.Operation, do handle[I, O]) {
	huma.Register(h, o, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		actor, ok := ctx.Value(actorKey{}).(fleet.Actor)
		if !ok {
			return nil, s.problem(ctx, o.OperationID, errNoActor())
		}
		var out *O
		err := busy(ctx, func() (err error) {
			out, err = do(ctx, actor, in)
			return err
		})
		if err != nil {
			return nil, s.problem(ctx, o.OperationID, err)
		}
		return out, nil
	})
}

func errNoActor() error {
	return &fleet.Error{Code: fleet.Unauthorized, Message: "This request was not authenticated."}
}

// authenticated lets a request pass to an operation that wants credentials only with good ones.
func (s *service) authenticated(ctx huma.Context, next func(huma.Context)) {
	if len(ctx.Operation().Security) == 0 {
		next(ctx)
		return
	}
	r, _ := humago.Unwrap(ctx)
	var actor fleet.Actor
	err := busy(r.Context(), func() (err error) {
		if actor, err = s.auth.Authenticate(r); err != nil {
			return err
		}
		if seat := seatIn(r.Context()); seat != nil {
			seat.of(actor.Tenant)
		}
		return nil
	})
	if err != nil {
		writeProblem(ctx, s.problem(ctx.Context(), ctx.Operation().OperationID, err))
		return
	}
	next(huma.WithValue(ctx, actorKey{}, actor))
}

// measured counts and times an operation.
func (s *service) measured(ctx huma.Context, next func(huma.Context)) {
	start := time.Now()
	next(ctx)
	s.metrics.observe(ctx.Operation().OperationID, ctx.Status(), time.Since(start))
}

// register makes the operations of the API on the mux and gives the OpenAPI document.
func (s *service) register(mux *http.ServeMux) []byte {
	h := newAPI(mux, "Outfeed API")
	h.OpenAPI().Info.Description = "Flows, agents and insights of one workspace. Errors are RFC 9457 problems, times are RFC 3339."
	h.UseMiddleware(s.measured, s.authenticated, s.received)
	s.registerSession(h)
	s.registerKeys(h)
	s.registerAgents(h)
	s.registerConnections(h)
	s.registerFlows(h)
	s.registerRuns(h)
	s.registerInsights(h)
	s.registerEvents(h)
	document, err := finishDocument(h.OpenAPI())
	if err != nil {
		// Like a route that is registered twice: the program itself is wrong, and no request can be served.
		panic(err)
	}
	return document
}
