package agent

import (
	"log/slog"
	"path/filepath"
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
