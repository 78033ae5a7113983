package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

func TestMergeFoldsWhatIsAboutTheSameThing(t *testing.T) {
	t.Parallel()
	insights := func(agent fleet.ID, from, to int64) fleet.Event {
		return fleet.Event{Kind: "insights", ID: agent, FromSeq: from, ToSeq: to}
	}
	status := fleet.Event{Kind: "agent", ID: "a"}
	events := make(chan fleet.Event, 10)
	for _, e := range []fleet.Event{
		status, insights("a", 3, 4), insights("b", 3, 3), status, insights("a", 5, 9), insights("b", 7, 8),
	} {
		events <- e
	}
	got := merge(insights("a", 1, 2), events)
	want := []fleet.Event{insights("a", 1, 9), status, insights("b", 3, 3), insights("b", 7, 8)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	close(events)
	if got := merge(status, events); len(got) != 1 {
		t.Errorf("of a closed channel: %v", got)
	}
}

// dated is an answer that knows by when it must be written.
type dated struct {
	*httptest.ResponseRecorder
	by, byAtWrite time.Time
}

func (d *dated) SetWriteDeadline(by time.Time) error {
	d.by = by
	return nil
}

func (d *dated) Write(p []byte) (int, error) {
	d.byAtWrite = d.by
	return d.ResponseRecorder.Write(p)
}

// TestEventStreamsRest has no time limit between two events: HTTP/2 would end the stream then.
func TestEventStreamsRest(t *testing.T) {
	t.Parallel()
	d := &dated{ResponseRecorder: httptest.NewRecorder()}
	e := &eventStream{w: d, control: http.NewResponseController(d)}
	if err := e.send([]byte(": alive")); err != nil || d.byAtWrite.IsZero() || !d.by.IsZero() {
		t.Errorf("%v; it was to be written by %v, and to rest until %v", err, d.byAtWrite, d.by)
	}
}
