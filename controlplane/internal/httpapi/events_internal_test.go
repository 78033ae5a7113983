package httpapi

import (
	"testing"

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
