package stage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

func TestASecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	open(t, s)
	_, err := stage.Open(t.Context(), s)
	if !errors.Is(err, stage.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("the second Open gave %v", err)
	}
}

func TestANewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(1, "a")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	format := filepath.Join(s.Dir, "FORMAT")
	if err := errors.Join(stage.PutOrigin(filepath.Join(s.Dir, "state.db"), "", 3), os.WriteFile(format, []byte("outfeed-stage 3\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	before := contents(t, s.Dir)
	if _, err := stage.Open(t.Context(), s); !errors.Is(err, stage.ErrNewerFormat) {
		t.Errorf("Open gave %v", err)
	}
	if after := contents(t, s.Dir); !maps.Equal(before, after) {
		t.Error("the refused directory was changed")
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestWhatIsDamagedIsSetAsideAndCounted(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(5, "a")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	segment := databases(t, s.Dir)[0]
	if err := os.WriteFile(segment, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var verified []string
	s.Verify = func(_ context.Context, path string) error {
		mu.Lock()
		verified = append(verified, filepath.Base(path))
		mu.Unlock()
		return stage.Verify(path)
	}
	st = open(t, s)
	if len(verified) != 2 {
		t.Errorf("verified were %v", verified)
	}
	if got := st.Stats(); got.Lost != 5 || got.SetAside != 1 {
		t.Errorf("stats: %+v", got)
	}
	if aside, err := filepath.Glob(segment + ".corrupt-*Z"); err != nil || len(aside) != 1 {
		t.Errorf("set aside are %v, %v", aside, err)
	}
	if last := commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(1, "b")}); last != 6 {
		t.Errorf("the next record is %d, want 6", last)
	}
	got := readAll(t, st, 0)
	if len(got) != 6 || got[0].Gone == "" || got[4].Gone == "" || got[5].Gone != "" || string(got[5].Payload) != "b-0" {
		t.Errorf("the outbox has %+v", got)
	}
	if err := st.Acknowledge(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	st = reopen(t, st, s)
	if got := st.Stats(); got.Lost != 5 || got.SetAside != 1 {
		t.Errorf("after a restart the stats are %+v", got)
	}
}

func TestADamagedStateBeginsBehindTheOutbox(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(5, "a")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "state.db"), make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	st = open(t, s)
	state, err := st.LoadFlow(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if last := commit(t, st, stage.Checkpoint{Flow: "a", Number: state.Number + 1, Insights: payloads(1, "again")}); last != 6 {
		t.Errorf("the next record is %d, want 6", last)
	}
	if got := readAll(t, st, 0); len(got) != 6 {
		t.Errorf("the outbox has %d records, want 6", len(got))
	}
	if st.Stats().SetAside != 1 {
		t.Errorf("stats: %+v", st.Stats())
	}
}

func TestADamagedRecordIsNotServed(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(3, "needle")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	path := databases(t, s.Dir)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("needle-1"), []byte("needle-7")), 0o600); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	if err := stage.Verify(path); !errors.Is(err, stage.ErrDamaged) {
		t.Errorf("one damaged record makes Verify give %v", err)
	}
	st = open(t, s)
	got := readAll(t, st, 0)
	if len(got) != 3 || got[0].Gone != "" || got[1].Gone == "" || got[1].Payload != nil || string(got[2].Payload) != "needle-2" {
		t.Errorf("the outbox has %+v", got)
	}
	if n := st.Stats().Lost; n != 1 {
		t.Errorf("%d are lost, want 1", n)
	}
}

func TestVerifyErrorsThatAreNotDamageEndOpen(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	if err := open(t, s).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no child could be started")
	s.Verify = func(context.Context, string) error { return cause }
	if _, err := stage.Open(t.Context(), s); !errors.Is(err, cause) {
		t.Errorf("Open gave %v", err)
	}
	if aside, err := filepath.Glob(filepath.Join(s.Dir, "*.corrupt-*Z")); err != nil || len(aside) != 0 {
		t.Errorf("set aside were %v, %v", aside, err)
	}
}
