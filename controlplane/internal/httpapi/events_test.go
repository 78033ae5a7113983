package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
)

// follower reads an event stream. Reading blocks until something comes; a stream that stays silent ends with the test.
type follower struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

func follow(t *testing.T, url, key string) *follower {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" ||
		response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("status %d, headers %v", response.StatusCode, response.Header)
	}
	end := func() {
		cancel()
		_ = response.Body.Close()
	}
	t.Cleanup(end)
	f := &follower{t: t, lines: bufio.NewScanner(response.Body), close: end}
	f.lines.Buffer(nil, 1<<20)
	f.comment("connected")
	return f
}

func (f *follower) line() string {
	f.t.Helper()
	if !f.lines.Scan() {
		f.t.Fatalf("the stream ended: %v", f.lines.Err())
	}
	return f.lines.Text()
}

func (f *follower) comment(want string) {
	f.t.Helper()
	for f.line() != ": "+want {
		continue
	}
}

// event reads the next event, which must have that name.
func event[T any](f *follower, name string) T {
	f.t.Helper()
	for {
		got, ok := strings.CutPrefix(f.line(), "event: ")
		if !ok {
			continue
		}
		if got != name {
			f.t.Fatalf("event is %s, want %s", got, name)
		}
		var data T
		if err := json.Unmarshal([]byte(strings.TrimPrefix(f.line(), "data: ")), &data); err != nil {
			f.t.Fatal(err)
		}
		if end := f.line(); end != "" {
			f.t.Fatalf("the event goes on with %q", end)
		}
		return data
	}
}

func TestEventsCarryWhatChanged(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.AgentList = []fleet.Agent{agent()}
	f.RunList = []fleet.Run{{ID: apitest.ID(30), Status: "ok"}}
	server := apitest.Serve(t, f, apitest.Options{})
	stream := follow(t, server.URL, apitest.OwnerKey)

	f.AddInsight(insight(1, "M1"))
	got := event[api.InsightsEvent](stream, "insights")
	if got.AgentID != string(apitest.ID(10)) || len(got.Items) != 1 || string(got.Items[0].Key) != `{"machine":"M1"}` {
		t.Errorf("insights are %+v", got)
	}
	f.Tell(fleet.Event{Kind: "agent", ID: apitest.ID(10)})
	if got := event[api.AgentEvent](stream, "agent"); got.Agent == nil || got.Agent.Name != "hall-3" {
		t.Errorf("agent is %+v", got)
	}
	f.Tell(fleet.Event{Kind: "run", ID: apitest.ID(30)})
	if got := event[api.RunEvent](stream, "run"); got.Run == nil || got.Run.Status != "ok" {
		t.Errorf("run is %+v", got)
	}
	f.Tell(fleet.Event{Kind: "news of a later version", ID: apitest.ID(1)})
	f.Tell(fleet.Event{Kind: "connection", ID: apitest.ID(99)})
	if got := event[api.ConnectionEvent](stream, "connection"); got.ID != string(apitest.ID(99)) || got.Connection != nil {
		t.Errorf("the deleted connection is %+v", got)
	}
}

// A range of many insights comes in several events, in order, and complete.
func TestManyInsightsComeInParts(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	for seq := range int64(1200) {
		f.InsightList = append(f.InsightList, insight(seq+1, "M1"))
	}
	server := apitest.Serve(t, f, apitest.Options{})
	stream := follow(t, server.URL, apitest.OwnerKey)
	f.Tell(fleet.Event{Kind: "insights", ID: apitest.ID(10), FromSeq: 1, ToSeq: 1200})
	next := int64(1)
	for next <= 1200 {
		for _, i := range event[api.InsightsEvent](stream, "insights").Items {
			if i.Seq != next {
				t.Fatalf("insight %d came where %d was due", i.Seq, next)
			}
			next++
		}
	}
}

func TestStreamEndsWhenItsKeyIsRevoked(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	server := apitest.Serve(t, f, apitest.Options{Heartbeat: time.Millisecond})
	key, text, err := f.CreateAPIKey(t.Context(), fleet.Actor{Tenant: apitest.ID(1)}, "short", fleet.Viewer)
	if err != nil {
		t.Fatal(err)
	}
	stream := follow(t, server.URL, text.Reveal())
	stream.comment("alive")
	if err := f.RevokeAPIKey(t.Context(), fleet.Actor{}, key.ID); err != nil {
		t.Fatal(err)
	}
	for stream.lines.Scan() {
		continue
	}
	if err := stream.lines.Err(); err != nil {
		t.Errorf("the stream did not end cleanly: %v", err)
	}
}

// Stopping the server ends the streams cleanly and does not wait for clients to go.
func TestStreamEndsWhenTheServerStops(t *testing.T) {
	t.Parallel()
	server := apitest.Serve(t, apitest.New(), apitest.Options{})
	stream := follow(t, server.URL, apitest.OwnerKey)
	server.Stop()
	rest, err := io.ReadAll(readerOf(stream))
	if err != nil || len(rest) > 0 {
		t.Errorf("after the stop: %q, %v", rest, err)
	}
}

// readerOf reads what is left of a stream's lines.
func readerOf(f *follower) io.Reader {
	var rest []string
	for f.lines.Scan() {
		if text := f.lines.Text(); text != "" {
			rest = append(rest, text)
		}
	}
	if err := f.lines.Err(); err != nil {
		rest = append(rest, err.Error())
	}
	return strings.NewReader(strings.Join(rest, "\n"))
}

func TestStreamsOfATenantAreLimited(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	c := serve(t, f, apitest.Options{})
	var streams []*follower
	for range 100 {
		streams = append(streams, follow(t, c.url, apitest.OwnerKey))
	}
	if p := problemOf(c, http.StatusServiceUnavailable, http.MethodGet, "/api/v1/events", ""); p.Code != "unavailable" {
		t.Errorf("the stream too many: %+v", p)
	}
	for _, s := range streams {
		s.close()
	}
	if got := get[api.Me](c, 200, http.MethodGet, "/api/v1/me", "").Role; got != "owner" {
		t.Errorf("role is %s", got)
	}
}
