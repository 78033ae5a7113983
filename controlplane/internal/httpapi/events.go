package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
)

const (
	eventsOperation = "stream-events"
	// streamsPerTenant is how many event streams of one tenant one replica serves.
	streamsPerTenant = 100
	// insightsPerEvent is how many insights one event carries at most.
	insightsPerEvent = 500
	// mergedEvents is how many waiting events are looked at together, so that one reading serves all changes of a thing.
	mergedEvents = 64
	// streamWriteTimeout is how long a client may take to take an event, before it counts as gone.
	streamWriteTimeout = 10 * time.Second
	// reconnectMillis is what a browser waits before it connects again.
	reconnectMillis = 2000
)

func (s *service) registerEvents(h huma.API) {
	op := operation{
		method: http.MethodGet, path: "/events", id: eventsOperation, tag: "events", summary: "Follow what happens",
		description: "Server-sent events: insights, run, agent, flow and connection, each with the changed thing as JSON, an agent in brief as in list-agents. " +
			"A comment every 15 seconds shows that the stream lives. There is no replay: after a reconnect, load anew.",
	}.huma()
	op.Responses = map[string]*huma.Response{
		"200": {
			Description: "A stream of events. The event's name says which schema its data has.",
			Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{OneOf: []*huma.Schema{
				schemaOf[api.InsightsEvent](h), schemaOf[api.RunEvent](h), schemaOf[api.AgentEvent](h),
				schemaOf[api.FlowEvent](h), schemaOf[api.ConnectionEvent](h),
			}}}},
		},
		"default": {
			Description: "Error",
			Content:     map[string]*huma.MediaType{api.ProblemType: {Schema: schemaOf[api.Problem](h)}},
		},
	}
	huma.Register(h, op, s.follow)
}

func schemaOf[T any](h huma.API) *huma.Schema {
	return h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

// follow subscribes before the answer begins, so that a failure is still a problem and no event is missed after it.
func (s *service) follow(ctx context.Context, _ *none) (*huma.StreamResponse, error) {
	actor, ok := ctx.Value(actorKey{}).(fleet.Actor)
	if !ok {
		return nil, s.problem(ctx, eventsOperation, errNoActor())
	}
	if !s.streams.enter(actor.Tenant) {
		p := newProblem(http.StatusServiceUnavailable, string(fleet.Unavailable),
			"Too many event streams of your organization are open here. Close some dashboards, or try again later.")
		p.headers.Set("Retry-After", "30")
		return nil, p
	}
	var events <-chan fleet.Event
	err := busy(ctx, func() (err error) {
		events, err = s.fleet.Subscribe(ctx, actor)
		return err
	})
	if err != nil {
		s.streams.leave(actor.Tenant)
		return nil, s.problem(ctx, eventsOperation, err)
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer s.streams.leave(actor.Tenant)
		if seat := seatIn(ctx); seat != nil {
			seat.leave() // streams have a limit of their own
		}
		s.metrics.streams.Inc()
		defer s.metrics.streams.Dec()
		r, w := humago.Unwrap(hctx)
		hctx.SetHeader("Content-Type", "text/event-stream")
		hctx.SetHeader("X-Accel-Buffering", "no")
		hctx.SetStatus(http.StatusOK)
		stream := &eventStream{service: s, actor: actor, request: r, w: w, control: http.NewResponseController(w)}
		if err := stream.run(ctx, events); err != nil {
			s.logger.DebugContext(ctx, "event stream ended", "error", err)
		}
	}}, nil
}

// eventStream is one client that follows. It belongs to the goroutine of its request.
type eventStream struct {
	*service
	actor   fleet.Actor
	request *http.Request
	w       http.ResponseWriter
	control *http.ResponseController
	buffer  bytes.Buffer
}

// run sends events until the client goes, is too slow, may no longer see them, or the server stops.
func (e *eventStream) run(ctx context.Context, events <-chan fleet.Event) error {
	if err := e.send(fmt.Appendf(nil, "retry: %d\n: connected\n\n", reconnectMillis)); err != nil {
		return err
	}
	beat := time.NewTicker(e.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stopping(ctx):
			return nil
		case <-beat.C:
			// A key or session that was revoked in the meantime ends the stream here.
			if _, err := e.auth.Authenticate(e.request.WithContext(ctx)); err != nil {
				return err
			}
			if err := e.send([]byte(": alive\n\n")); err != nil {
				return err
			}
		case event, open := <-events:
			if !open {
				return nil
			}
			if err := e.forward(ctx, merge(event, events)); err != nil {
				return err
			}
		}
	}
}

// merge takes what waits behind an event and folds what is about the same thing into one.
func merge(first fleet.Event, events <-chan fleet.Event) []fleet.Event {
	merged := []fleet.Event{first}
	for range mergedEvents {
		select {
		case next, open := <-events:
			if !open {
				return merged // the next receive sees it again
			}
			merged = fold(merged, next)
		default:
			return merged
		}
	}
	return merged
}

func fold(events []fleet.Event, next fleet.Event) []fleet.Event {
	for i := range events {
		have := &events[i]
		if have.Kind != next.Kind || have.ID != next.ID {
			continue
		}
		if next.Kind != api.EventInsights {
			return events
		}
		if next.FromSeq == have.ToSeq+1 {
			have.ToSeq = next.ToSeq
			return events
		}
	}
	return append(events, next)
}

func (e *eventStream) forward(ctx context.Context, events []fleet.Event) error {
	for _, event := range events {
		if err := e.forwardOne(ctx, event); err != nil {
			return err
		}
	}
	return nil
}

func (e *eventStream) forwardOne(ctx context.Context, event fleet.Event) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	id := string(event.ID)
	switch event.Kind {
	case api.EventInsights:
		return e.forwardInsights(ctx, event)
	case api.EventRun:
		run, err := e.fleet.Run(ctx, e.actor, event.ID)
		return e.emit(ctx, event.Kind, api.RunEvent{ID: id, Run: shown(run, err, toRun)}, err)
	case api.EventAgent:
		agent, err := e.fleet.BriefAgent(ctx, e.actor, id)
		return e.emit(ctx, event.Kind, api.AgentEvent{ID: id, Agent: shown(agent, err, toAgent)}, err)
	case api.EventFlow:
		flow, err := e.fleet.Flow(ctx, e.actor, id)
		return e.emit(ctx, event.Kind, api.FlowEvent{ID: id, Flow: shown(flow, err, toFlow)}, err)
	case api.EventConnection:
		connection, err := e.fleet.Connection(ctx, e.actor, id)
		data := api.ConnectionEvent{ID: id, Connection: shown(connection, err, toConnection)}
		return e.emit(ctx, event.Kind, data, err)
	}
	return nil // an event of a newer replica, which this one cannot show
}

// shown is the thing that an event is about, or nil when it could not be read.
func shown[F, T any](found F, err error, convert func(F) T) *T {
	if err != nil {
		return nil
	}
	out := convert(found)
	return &out
}

func (e *eventStream) forwardInsights(ctx context.Context, event fleet.Event) error {
	for from := event.FromSeq; from <= event.ToSeq; from += insightsPerEvent {
		to := min(from+insightsPerEvent-1, event.ToSeq)
		insights, err := e.fleet.InsightsBySeq(ctx, e.actor, event.ID, from, to)
		if fleet.CodeOf(err) == fleet.NotFound || (err == nil && len(insights) == 0) {
			continue // they have expired since
		}
		data := api.InsightsEvent{AgentID: string(event.ID), Items: list(insights, toInsight)}
		if err = e.emit(ctx, event.Kind, data, err); err != nil {
			return err
		}
	}
	return nil
}

// emit sends one event. What is gone is shown as gone, what the listener may not see is left out, and any other error
// of reading it ends the stream: the client connects again and loads anew.
func (e *eventStream) emit(ctx context.Context, name string, data any, readError error) error {
	if readError != nil {
		switch fleet.CodeOf(readError) { //nolint:exhaustive // the other codes are failures alike
		case fleet.NotFound:
		case fleet.Forbidden:
			return nil
		default:
			e.logger.WarnContext(ctx, "event could not be read", "event", name, "error", readError)
			return readError
		}
	}
	e.buffer.Reset()
	fmt.Fprintf(&e.buffer, "event: %s\ndata: ", name)
	if err := json.NewEncoder(&e.buffer).Encode(data); err != nil { // ends the line
		return fmt.Errorf("encode event %s: %w", name, err)
	}
	e.buffer.WriteByte('\n')
	return e.send(e.buffer.Bytes())
}

func (e *eventStream) send(text []byte) error {
	if err := e.control.SetWriteDeadline(time.Now().Add(streamWriteTimeout)); err != nil {
		return fmt.Errorf("bound the writing of an event: %w", err)
	}
	if _, err := e.w.Write(text); err != nil {
		return fmt.Errorf("send an event: %w", err)
	}
	if err := e.control.Flush(); err != nil {
		return fmt.Errorf("send an event: %w", err)
	}
	// HTTP/2 resets a stream at the deadline even when nothing is being written.
	if err := e.control.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("bound the writing of an event: %w", err)
	}
	return nil
}

// streamLimit counts the open event streams of each tenant.
type streamLimit struct {
	mu   sync.Mutex
	open map[fleet.ID]int
}

func newStreamLimit() *streamLimit { return &streamLimit{open: map[fleet.ID]int{}} }

func (l *streamLimit) enter(tenant fleet.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[tenant] >= streamsPerTenant {
		return false
	}
	l.open[tenant]++
	return true
}

func (l *streamLimit) leave(tenant fleet.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[tenant]--; l.open[tenant] <= 0 {
		delete(l.open, tenant)
	}
}
