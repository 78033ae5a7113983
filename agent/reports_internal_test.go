package agent

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/protocol/wire"
)

// TestReportsOfBytesThatAreNoTextReachTheTunnel stages reports as the supervisor does, and reads them as the tunnel does.
func TestReportsOfBytesThatAreNoTextReachTheTunnel(t *testing.T) {
	t.Parallel()
	st, err := stage.Open(t.Context(), stage.Settings{Dir: filepath.Join(t.TempDir(), "stage"), MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := newReports(t.Context(), st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"M\xfcller", "plain"} {
		payload, err := wire.Encode(&wire.RunReport{RunId: strconv.Itoa(i), Error: text})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.PutRunReport(t.Context(), strconv.Itoa(i), payload); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.ReadReports(t.Context(), 0, 10)
	if err != nil || len(got) != 2 || got[0].Report.GetError() != "M\ufffdller" || got[1].Report.GetError() != "plain" {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := proto.Marshal(got[0].Report); err != nil {
		t.Errorf("it cannot be sent: %v", err)
	}
}

// TestOpenRuns follows what a status says of the runs that are not over.
func TestOpenRuns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "stage")
	st, err := stage.Open(t.Context(), stage.Settings{Dir: dir, MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	put := func(r *reports, id string) {
		t.Helper()
		payload, err := wire.Encode(&wire.RunReport{RunId: id})
		if err == nil {
			err = r.PutRunReport(t.Context(), id, payload)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wants := func(r *reports, underWay []string, want ...string) {
		t.Helper()
		if got := r.openRuns(underWay); got == nil || !slices.Equal(got.GetRunIds(), want) {
			t.Errorf("the open runs are %v, want %q", got, want)
		}
	}
	before, err := newReports(t.Context(), st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	wants(before, nil)
	put(before, "a")

	// As at the next start.
	r := unreadReports(st, slog.New(slog.DiscardHandler))
	if got := r.openRuns([]string{"b"}); got != nil {
		t.Errorf("before the reports are read the open runs are %v", got)
	}
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(r, []string{"b"}, "a", "b")
	put(r, "b")
	wants(r, []string{"b"}, "a", "b")
	got, err := r.ReadReports(t.Context(), 0, 10)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	wants(r, nil, "a", "b")
	if err := r.DropReports(t.Context(), got[0].Number); err != nil {
		t.Fatal(err)
	}
	wants(r, nil, "b")
	// One that is lost on the disk is not named for ever.
	if err := st.DropRunReports(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadReports(t.Context(), 0, 10); err != nil {
		t.Fatal(err)
	}
	wants(r, nil)
	for i := range maxOpenRuns + 1 {
		put(r, strconv.Itoa(i))
	}
	if got := r.openRuns(nil); got != nil {
		t.Errorf("with too many to name the open runs are %d", len(got.GetRunIds()))
	}
}

// TestReportsWhileOffline are not remembered for longer than they are kept.
func TestReportsWhileOffline(t *testing.T) {
	t.Parallel()
	st, err := stage.Open(t.Context(), stage.Settings{Dir: filepath.Join(t.TempDir(), "stage"), MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := newReports(t.Context(), st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// As if as many had made room already.
	for i := range 2 * maxReports {
		r.last++
		r.number("gone"+strconv.Itoa(i), r.last)
	}
	if err := r.PutRunReport(t.Context(), "there", nil); err != nil {
		t.Fatal(err)
	}
	if len(r.numbers) != 1 || r.numbers["there"] != r.last {
		t.Errorf("%d numbers are kept", len(r.numbers))
	}
}
