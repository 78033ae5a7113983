package stage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestWhatIsNoFileIsSetAside puts folders and links that lead nowhere in the place of files, after a clean stop and a kill.
func TestWhatIsNoFileIsSetAside(t *testing.T) {
	t.Parallel()
	link := func(path string) error { return os.Symlink(filepath.Join(filepath.Dir(path), "nowhere"), path) }
	for kind, put := range map[string]func(path string) error{
		"a link that leads nowhere": link,
		"a link to itself":          func(path string) error { return os.Symlink(path, path) },
		"a folder":                  func(path string) error { return os.Mkdir(path, 0o700) },
		"a folder with a file": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "file"), nil, 0o600))
		},
	} {
		for name, lost := range map[string]uint64{"JOURNAL": 10, "RUNNING": 0, "state.db": 0, "outbox": 10, "OWNER": 0, "FORMAT": 0, "LOCK": 0, stage.ScratchName: 0} {
			for _, clean := range []bool{true, false} {
				if strings.HasPrefix(kind, "a folder") && name == stage.ScratchName {
					continue // it is one
				}
				t.Run(fmt.Sprintf("%s is %s, clean %t", name, kind, clean), func(t *testing.T) {
					t.Parallel()
					s := settings(t, filepath.Join(fastDir(t), "stage"))
					s.Owner = "agent-a"
					st := open(t, s)
					commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(10, "in-a-segment")})
					if err := st.PutDesired(t.Context(), []byte("d"), 1); err != nil { // it folds
						t.Fatal(err)
					}
					commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(10, "in-the-journal")})
					to := killed(t, s)
					if clean {
						if err := st.Close(); err != nil {
							t.Fatal(err)
						}
						to = killed(t, s)
					}
					path := filepath.Join(to.Dir, name)
					if name == "outbox" {
						path = databases(t, to.Dir)[0]
					}
					if err := os.Remove(path); err != nil && (!clean || name != "RUNNING") && name != stage.ScratchName {
						t.Fatal(err)
					}
					if err := put(path); err != nil {
						t.Fatal(err)
					}
					checkStrange(t, to, name, map[bool]map[string]uint64{true: {"outbox": 20}, false: {name: lost}}[clean][name])
				})
			}
		}
	}
}

// checkStrange starts three times and finds what is not lost.
func checkStrange(t *testing.T, s stage.Settings, name string, lost uint64) {
	t.Helper()
	for start := range 3 {
		st := open(t, s)
		got := st.Stats()
		if got.Lost != lost || got.Produced != 20+uint64(start) || got.SetAside == 0 || len(got.Damaged) == 0 || got.Degraded != "" {
			t.Fatalf("start %d: %+v", start+1, got)
		}
		told := false
		for _, d := range got.Damaged {
			told = told || strings.Contains(d.Reason, "it is no f") || strings.Contains(d.Reason, "leads nowhere")
		}
		if !told {
			t.Errorf("start %d: it is not told what was there: %+v", start+1, got.Damaged)
		}
		scratch, err := stage.OpenScratch(filepath.Join(s.Dir, stage.ScratchName), 1)
		if err == nil {
			err = scratch.Close()
		}
		if err != nil {
			t.Error(err)
		}
		commit(t, st, stage.Checkpoint{Flow: "b", Number: flowAt(t, st, "b").Number + 1, Insights: payloads(1, "x")})
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(s.Dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was written where the link leads: %v", name, err)
	}
}

// TestADirectoryThatOthersMayWriteIntoIsRefused does as the refusal says.
func TestADirectoryThatOthersMayWriteIntoIsRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // its access lists decide
	}
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	if err := open(t, s).Close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, s.Dir)
	for _, mode := range []fs.FileMode{0o777, 0o770, 0o702, 0o1777} {
		if err := os.Chmod(s.Dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := stage.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), "mend it with: chmod go-w "+s.Dir) {
			t.Errorf("mode %o: Open gives %v", mode, err)
		}
	}
	if after := contents(t, s.Dir); len(after) != len(before) {
		t.Errorf("the refusals have made %d files of %d", len(after), len(before))
	}
	for _, mode := range []fs.FileMode{0o700, 0o750, 0o755} {
		if err := os.Chmod(s.Dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := open(t, s).Close(); err != nil {
			t.Error(err)
		}
	}
}
