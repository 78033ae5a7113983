package stage_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestLostOnceAlsoWithoutTheState damages a segment, before and behind what is acknowledged, lets a session settle it, and then
// takes away the state, so that only the segment tells what was lost.
func TestLostOnceAlsoWithoutTheState(t *testing.T) {
	t.Parallel()
	damage := map[string]func(path string) error{
		"removed": os.Remove,
		"zeroed":  func(path string) error { return os.WriteFile(path, make([]byte, 128<<10), 0o600) },
		"every second page": func(path string) error {
			b, err := os.ReadFile(path)
			for at := 8192; at+4096 < len(b); at += 8192 {
				copy(b[at:], bytes.Repeat([]byte{0xa5}, 4096))
			}
			return errors.Join(err, os.WriteFile(path, b, 0o600)) //nolint:gosec // a file of the test
		},
		"only the acknowledgement": func(path string) error {
			b, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, bytes.ReplaceAll(b, []byte("acknowledged"), []byte("acknowledgeX")), 0o600)) //nolint:gosec // a file of the test
		},
	}
	for name, harm := range damage {
		for _, c := range []struct {
			what         string
			stored, lost uint64
		}{{"nothing of it was stored", 10, 20}, {"some of it was stored", 25, 15}} {
			t.Run(name+", "+c.what, func(t *testing.T) {
				t.Parallel()
				s := settings(t, filepath.Join(t.TempDir(), "stage"))
				inChildren(&s)
				st := openedAfterDamage(t, s, c.stored)
				wantLost(t, st, "once a session has agreed", c.lost, 0)
				readAll(t, st, c.stored)
				if err := st.Acknowledge(t.Context(), 50); err != nil {
					t.Fatal(err)
				}
				commit(t, st, stage.Checkpoint{Flow: "a", Number: 3, Insights: payloads(20, "later")})
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
				if err := harm(filepath.Join(s.Dir, "state.db")); err != nil {
					t.Fatal(err)
				}
				st = open(t, s)
				if _, err := st.Reconcile(t.Context(), 50, &c.lost); err != nil {
					t.Fatal(err)
				}
				wantLost(t, st, "without the state", c.lost, 0)
				if err := st.Acknowledge(t.Context(), 70); err != nil {
					t.Fatal(err)
				}
				wantLost(t, reopen(t, st, s), "in the end", c.lost, 0)
			})
		}
	}
}

// openedAfterDamage stages 50 insights, 10 of which are acknowledged, damages 5 of these and the 20 from 21 on, and agrees
// with a control plane that has stored so many.
func openedAfterDamage(t *testing.T, s stage.Settings, stored uint64) *stage.Stage {
	t.Helper()
	st := open(t, s)
	if _, err := st.Reconcile(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	all := payloads(50, "unsure")
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: all[:10]})
	if err := st.Acknowledge(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: all[10:]})
	readAll(t, st, 10)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	path, _ := segmentWith(t, s.Dir, string(all[0]))
	b, err := os.ReadFile(path)
	for i, p := range all {
		if i >= 5 && i < 10 || i >= 20 && i < 40 {
			b = bytes.ReplaceAll(b, p, bytes.ToUpper(p))
		}
	}
	if err = errors.Join(err, os.WriteFile(path, b, 0o600), os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600)); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	st = open(t, s)
	if _, err := st.Reconcile(t.Context(), stored, nil); err != nil {
		t.Fatal(err)
	}
	return st
}

// TestLostOnceThoughTheFileIsDamagedAgain damages a segment a second time, while a session runs that was told what is lost of it.
func TestLostOnceThoughTheFileIsDamagedAgain(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	inChildren(&s)
	st := openedAfterDamage(t, s, 10)
	wantLost(t, st, "before", 20, 0)
	readAll(t, st, 10)
	path, at := segmentWith(t, s.Dir, string(payloads(50, "unsure")[44]))
	overwrite(t, path, at, []byte("other"))
	readAll(t, st, 10)
	wantLost(t, st, "damaged again", 21, 1)
	if err := st.Acknowledge(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	// That one was sent when it was whole.
	wantLost(t, st, "all acknowledged", 20, 0)
	wantLost(t, reopen(t, st, s), "in the end", 20, 0)
}
