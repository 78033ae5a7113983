package stage_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestADamagedStateKeepsWhatWasCounted overwrites each page of a state.db that has counted a damaged segment, and all of them.
func TestADamagedStateKeepsWhatWasCounted(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(fastDir(t), "stage"))
	inChildren(&s)
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(5, "a")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(databases(t, s.Dir)[0], []byte("no database"), 0o600), os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	st = open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(5, "b")})
	if err := st.Acknowledge(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.Dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	kept := 0
	for at := int64(-page); at < min(info.Size(), 16*page); at += page {
		to := killed(t, s)
		from, length := at, page
		if at < 0 {
			from, length = 0, int(info.Size())
		}
		overwrite(t, filepath.Join(to.Dir, "state.db"), from, bytes.Repeat([]byte{0xff}, length))
		if err := os.WriteFile(filepath.Join(to.Dir, "RUNNING"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		st := open(t, to)
		got := st.Stats()
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		told := len(got.Damaged) > 0 && strings.Contains(got.Damaged[0].Reason, "may be too low")
		files := uint64(len(got.Damaged))
		if got.SetAside != files || files < 1 {
			t.Errorf("page at %d: %d files are counted and %d there", at, got.SetAside, files)
		}
		switch {
		case got.Lost >= 5:
			kept++
		case !told:
			t.Errorf("page at %d: nothing says that the counters begin anew: %+v", at, got)
		}
	}
	if kept < 2 {
		t.Errorf("the counter of what is lost was kept in %d cases", kept)
	}
}
