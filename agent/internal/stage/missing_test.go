package stage_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// logged are settings whose log can be read, and a look at what it says.
func logged(t *testing.T, s stage.Settings) (stage.Settings, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s.Logger = slog.New(slog.NewTextHandler(&log, nil))
	return s, &log
}

// segmented stages 40 insights in segments of a few each, acknowledges the first 5, and gives the segment files in order.
func segmented(t *testing.T, s stage.Settings) []string {
	t.Helper()
	st := open(t, s)
	for n := range 8 {
		commit(t, st, stage.Checkpoint{Flow: "a", Number: uint64(n + 1), Insights: payloads(5, strings.Repeat("a", 6000))})
	}
	if err := st.Acknowledge(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(s.Dir, "outbox-*.db"))
	if err != nil || len(list) < 4 {
		t.Fatalf("there are too few segments: %v, %v", list, err)
	}
	return list
}

// whys reads the explanations beside what was damaged.
func whys(t *testing.T, dir string) (list []stage.DamagedFile) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.why"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var d stage.DamagedFile
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		list = append(list, d)
	}
	return list
}

func TestAMissingSegmentIsToldAndBlamesNobody(t *testing.T) {
	t.Parallel()
	for name, which := range map[string]func([]string) []string{
		"the first":  func(l []string) []string { return l[:1] },
		"the second": func(l []string) []string { return l[1:2] },
		"two":        func(l []string) []string { return l[1:3] },
		"apart":      func(l []string) []string { return []string{l[0], l[2]} },
		"the last":   func(l []string) []string { return l[len(l)-1:] },
		"all":        func(l []string) []string { return l },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(t.TempDir(), "stage"))
			stage.SmallSegments(&s, 64<<10)
			list := segmented(t, s)
			want, gone := map[uint64]bool{}, which(list)
			for i, path := range list {
				end := uint64(40)
				if i+1 < len(list) {
					end = stage.SegmentFirst(list[i+1]) - 1
				}
				if !slices.Contains(gone, path) {
					continue
				}
				for seq := max(stage.SegmentFirst(path), 6); seq <= end; seq++ {
					want[seq] = true
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			s, log := logged(t, s)
			for start := range 3 {
				st := open(t, s)
				got := st.Stats()
				if got.Produced != 40 || got.Lost != uint64(len(want)) || got.SetAside != uint64(len(gone)) || len(got.Damaged) != len(gone) {
					t.Errorf("start %d: want %d lost in %d files: %+v", start, len(want), len(gone), got)
				}
				for _, r := range readAll(t, st, 5) {
					for seq := r.Seq; seq <= r.Last(); seq++ {
						if (r.Gone != "") != want[seq] {
							t.Errorf("start %d: insight %d: gone is %q", start, seq, r.Gone)
						}
					}
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
			lost := uint64(0)
			for _, d := range whys(t, s.Dir) {
				if !d.Missing || d.Lost != d.LostLast-d.LostFirst+1 || !want[d.LostFirst] || !want[d.LostLast] || !strings.Contains(d.Reason, fmt.Sprintf("%d to %d", d.LostFirst, d.LostLast)) {
					t.Errorf("it says %+v", d)
				}
				lost += d.Lost
			}
			if lost != uint64(len(want)) || strings.Count(log.String(), "level=ERROR") != len(gone) {
				t.Errorf("%d of %d are explained, and the log says %s", lost, len(want), log)
			}
			st := open(t, s)
			if last := commit(t, st, stage.Checkpoint{Flow: "a", Number: 9, Insights: payloads(1, "b")}); last != 41 {
				t.Errorf("the next insight is %d", last)
			}
			if err := st.Acknowledge(t.Context(), 41); err != nil {
				t.Fatal(err)
			}
			if got := reopen(t, st, s).Stats(); got.Lost != uint64(len(want)) || got.WaitingRecords != 0 {
				t.Errorf("at the end: %+v", got)
			}
		})
	}
}

func TestAMissingStateIsDamage(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]struct {
		insights uint64
		unclean  bool
	}{
		"with an outbox":   {insights: 40},
		"after a crash":    {insights: 40, unclean: true},
		"without insights": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(t.TempDir(), "stage"))
			s.Owner, s.KnownFlows = "agent-a", []string{"flow-2", "flow-1"}
			stage.SmallSegments(&s, 64<<10)
			if how.insights > 0 {
				segmented(t, s)
			} else if err := open(t, s).Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(s.Dir, "state.db")); err != nil {
				t.Fatal(err)
			}
			if how.unclean {
				if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, log := logged(t, s)
			for start := range 2 {
				st := open(t, s)
				got := st.Stats()
				if got.Produced != how.insights || got.SetAside != 1 || len(got.Damaged) != 1 || !got.Damaged[0].Missing ||
					!slices.Equal(got.Damaged[0].StartedAnew, []string{"flow-1", "flow-2"}) {
					t.Fatalf("start %d: %+v", start, got)
				}
				// What the control plane has settles what waits: none of it comes again.
				if after, err := st.Reconcile(t.Context(), how.insights*3/4, nil); err != nil || after != how.insights*3/4 {
					t.Fatalf("Reconcile gives %d, %v", after, err)
				}
				if got := st.Stats(); got.WaitingRecords != how.insights/4 || got.Lost != 0 {
					t.Errorf("start %d: of what the control plane does not have there waits %+v", start, got)
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "the staged state is missing") {
				t.Errorf("the log has %d errors: %s", n, log)
			}
			if list := whys(t, s.Dir); len(list) != 1 || !strings.Contains(list[0].Reason, "Find out what removed the file") {
				t.Errorf("it says %+v", list)
			}
		})
	}
}

// TestAMissingStateCountsWhatIsKeptOfEarlierDamage damages a segment, and then removes the state that has counted it.
func TestAMissingStateCountsWhatIsKeptOfEarlierDamage(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	stage.SmallSegments(&s, 64<<10)
	list := segmented(t, s)
	if err := os.Remove(list[1]); err != nil {
		t.Fatal(err)
	}
	if err := open(t, s).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.Dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	if got := open(t, s).Stats(); got.SetAside != 2 || len(got.Damaged) != 2 {
		t.Errorf("stats: %+v", got)
	}
}

func TestAMissingOwnerOrFormatIsProvenOrRefused(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]struct {
		gone, begin []string
		owner       string
		// refused is what the refusal must say, and mend what is then written where; empty when nothing is refused.
		refused, mend string
	}{
		"proven owner":             {gone: []string{"OWNER"}, owner: "agent-a"},
		"proven owner of another":  {gone: []string{"OWNER"}, owner: "agent-b"},
		"proven format":            {gone: []string{"FORMAT"}, owner: "agent-a"},
		"proven, both":             {gone: []string{"FORMAT", "OWNER"}, owner: "agent-a"},
		"owner without a state":    {gone: []string{"OWNER", "state.db"}, owner: "agent-b", refused: "write the line agent-b into that file", mend: "OWNER"},
		"format without a state":   {gone: []string{"FORMAT", "state.db"}, owner: "agent-a", refused: `write the line "outfeed-stage 2" into that file`, mend: "FORMAT"},
		"nothing but an old spare": {gone: []string{"OWNER", "FORMAT", "state.db", "outbox", "JOURNAL"}, owner: "agent-b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(t.TempDir(), "stage"))
			s.Owner = "agent-a"
			leave(t, s)
			for _, gone := range how.gone {
				paths, err := filepath.Glob(filepath.Join(s.Dir, gone+"*"))
				if err != nil || len(paths) == 0 {
					t.Fatal(gone, err)
				}
				for _, path := range paths {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.Owner = how.owner
			if how.refused != "" {
				before := contents(t, s.Dir)
				for range 2 {
					_, err := stage.Open(t.Context(), s)
					if !errors.Is(err, stage.ErrDamaged) || !strings.Contains(err.Error(), how.refused) || !strings.Contains(err.Error(), filepath.Join(s.Dir, how.mend)) {
						t.Fatalf("Open gives %v", err)
					}
				}
				if after := contents(t, s.Dir); len(after) != len(before) {
					t.Errorf("the refusal has changed the directory from %d to %d files", len(before), len(after))
				}
				// A person who knows does as it says.
				text := map[string]string{"OWNER": "agent-a\n", "FORMAT": "outfeed-stage 2\n"}[how.mend]
				if err := os.WriteFile(filepath.Join(s.Dir, how.mend), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := open(t, s).Stats()
			if how.owner == "agent-b" && name != "nothing but an old spare" {
				if got.Produced != 0 || len(got.Formers) != 1 || got.Formers[0].Owner != "agent-a" {
					t.Errorf("another's insights: %+v", got)
				}
			} else if name != "nothing but an old spare" && (got.Produced != 3 || len(got.Formers) != 0) {
				t.Errorf("the own insights: %+v", got)
			}
			if owner, err := stage.Owner(s.Dir); owner != how.owner || err != nil {
				t.Errorf("OWNER says %q, %v", owner, err)
			}
		})
	}
}

func TestAStateOfAnotherOwnerIsRefused(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	leave(t, s)
	if err := os.WriteFile(filepath.Join(s.Dir, "OWNER"), []byte("agent-b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Owner = "agent-b"
	if _, err := stage.Open(t.Context(), s); err == nil || !strings.Contains(err.Error(), "write agent-a into") {
		t.Fatalf("Open gives %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "OWNER"), []byte("agent-a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open(t, s).Stats(); got.Produced != 0 || len(got.Formers) != 1 || got.Formers[0].Waiting != 2 {
		t.Errorf("stats: %+v", got)
	}
}
