package stage_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestFaultADirectoryCopiedWhileItRunsTellsWhatItLacks copies the directory of a running process, file by file as cp does, and
// starts on the copies: whatever of different moments they have, what was acknowledged before is there, or it is told.
func TestFaultADirectoryCopiedWhileItRunsTellsWhatItLacks(t *testing.T) {
	t.Parallel()
	copies := 4
	if *long {
		copies = 100
	}
	base := fastDir(t)
	dir := filepath.Join(base, "stage")
	c := startFaultChild(t, dir)
	c.begin(t)
	told, lost := 0, uint64(0)
	for n := range copies {
		c.commits(t, 300)
		before := maps.Clone(c.done)
		to := filepath.Join(base, fmt.Sprint("copy", n))
		out, err := exec.CommandContext(t.Context(), "cp", "-a", dir, to).CombinedOutput() //nolint:gosec // folders of the test
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for range 2 {
			shown, gone := checkCopy(t, to, before)
			told, lost = told+shown, lost+gone
		}
		if t.Failed() {
			t.Fatalf("that was copy %d", n)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	c.end(t, true)
	c.checkAfter(t, dir)
	t.Logf("%d copies of a running directory, each started twice: 0 wrong or unnoticed; %d starts have told of damage, and %d insights were counted as lost", copies, told, lost)
}

// checkCopy opens a copy, and gives whether it tells of damage, and how many insights are lost.
func checkCopy(t *testing.T, dir string, before map[string]int) (told int, lost uint64) {
	t.Helper()
	s := faultSettings(dir, nil)
	inChildren(&s)
	st, err := stage.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	got, served, gone := st.Stats(), map[string]map[int]bool{}, uint64(0)
	for _, r := range readAll(t, st, 0) {
		if r.Gone != "" {
			gone++
			continue
		}
		text, _, _ := strings.Cut(string(r.Payload), " x")
		flow, number, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(number)
		if err != nil || len(r.Payload) < 500 || served[flow][n] {
			t.Errorf("record %d is wrong, or there twice: %.40q", r.Seq, r.Payload)
		}
		if served[flow] == nil {
			served[flow] = map[int]bool{}
		}
		served[flow][n] = true
	}
	if got.Lost != gone {
		t.Errorf("%d insights are gone and %d are counted as lost", gone, got.Lost)
	}
	var flows []string
	for _, d := range got.Damaged {
		flows = slices.Concat(flows, d.SetBack, d.StartedAnew)
	}
	for flow, acknowledged := range before {
		state, err := st.LoadFlow(t.Context(), flow)
		if err != nil {
			t.Fatal(err)
		}
		cursor, _ := strconv.Atoi(string(state.Cursors["source"]))
		there := 0
		for n := range served[flow] {
			if n <= cursor {
				there++
			}
		}
		repeats := slices.Contains(flows, flow) || slices.Contains(flows, "(a flow whose name could not be read)")
		if !repeats && (cursor < acknowledged || len(served[flow]) != there) {
			t.Errorf("%s is at %d of %d and has %d insights, and nothing is told: %+v", flow, cursor, acknowledged, len(served[flow]), got)
		}
		if there < cursor && gone == 0 {
			t.Errorf("%s is at %d and %d insights are there: %+v", flow, cursor, there, got)
		}
	}
	if len(got.Damaged) > 0 {
		told = 1
	}
	return told, gone
}
