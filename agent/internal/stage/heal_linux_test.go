package stage_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestFaultDamageWhileItRunsOnAFullDisk damages files under a running stage whose disk has no room for their salvage: what is in
// front of the damage can be read, the stage says that it waits for room and how much, and with room it goes on by itself.
func TestFaultDamageWhileItRunsOnAFullDisk(t *testing.T) {
	t.Parallel()
	const n = 400
	all := payloads(n, "wide-enough-to-fill-some-pages-"+strings.Repeat("x", 900))
	segment := func(do func(t *testing.T, path string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			path, _ := segmentWith(t, dir, string(all[200]))
			do(t, path)
		}
	}
	emptied := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	state := func(t *testing.T, dir string) {
		t.Helper()
		overwrite(t, filepath.Join(dir, "state.db"), 2*4096, bytes.Repeat([]byte{0xff}, 8*4096))
	}
	for name, h := range map[string]healed{
		"every second page of a segment": {harm: segment(func(t *testing.T, path string) { t.Helper(); spoil(t, path, 2) }), files: 1},
		"a segment is emptied":           {harm: segment(emptied), files: 1},
		"the state":                      {harm: state, files: 1, all: true},
		"a segment and the state":        {harm: func(t *testing.T, dir string) { t.Helper(); segment(emptied)(t, dir); state(t, dir) }, files: 2},
	} {
		for _, first := range []string{"read", "commit"} {
			t.Run(name+", then "+first, func(t *testing.T) {
				t.Parallel()
				h := h
				h.payloads, h.disk = all, smallDisk(t, "size=24m")
				s := faultSettings(filepath.Join(h.disk, "stage"), nil)
				inChildren(&s)
				stage.SmallSegments(&s, 128<<10)
				stage.JournalBytes(&s, -1)
				s, log := logged(t, s)
				st := openOnDisk(t, s)
				for i, part := range slices.Collect(slices.Chunk(all, 50)) {
					commit(t, st, stage.Checkpoint{Flow: "a", Number: uint64(i + 1), Insights: part})
				}
				if _, err := st.Reconcile(t.Context(), 0, nil); err != nil {
					t.Fatal(err)
				}
				removeAll(t, filepath.Join(s.Dir, "SPARE"))
				h.harm(t, s.Dir)
				fill(t, h.disk)
				if first == "commit" {
					// It fails or not, and nobody waits for it: the salvage comes first.
					_ = st.PutRunReport(t.Context(), "r", []byte("x"))
				}
				h.waits(t, st, s.Dir)
				empty(t, h.disk, "fill")
				h.goesOn(t, st)
				if err := st.Close(); err != nil {
					t.Error(err)
				}
				if text := log.String(); strings.Contains(text, "in use") || strings.Count(text, "level=ERROR") > 12 {
					t.Errorf("the log:\n%s", text)
				}
			})
		}
	}
}

// healed is damage to a stage whose disk is full. files is how many are salvaged, and all says that no insight goes with it.
type healed struct {
	harm     func(t *testing.T, dir string)
	payloads [][]byte
	disk     string
	files    uint64
	all      bool
}

// front reads what can be read while the stage waits for room.
func (h *healed) front(t *testing.T, st *stage.Stage) (last uint64) {
	t.Helper()
	for last = st.Stats().Acknowledged; ; {
		records, err := st.ReadOutbox(t.Context(), last, 20, 1<<20)
		if err != nil && !errors.Is(err, stage.ErrBeingRepaired) {
			t.Fatalf("behind %d the outbox gives %v", last, err)
		}
		if len(records) == 0 {
			return last
		}
		for _, r := range records {
			if r.Seq != last+1 || !bytes.Equal(r.Payload, h.payloads[last]) {
				t.Fatalf("%d is followed by %+v", last, r)
			}
			last = r.Last()
		}
	}
}

// waits looks at a stage for which there is no room, for as long as it needs for some tries.
func (h *healed) waits(t *testing.T, st *stage.Stage, dir string) {
	t.Helper()
	until := time.NewTimer(2 * time.Second)
	defer until.Stop()
	for looks := 0; ; looks++ {
		front := h.front(t, st)
		if _, err := st.RunReports(t.Context(), 10); err != nil && !errors.Is(err, stage.ErrBeingRepaired) {
			t.Errorf("the run reports give %v", err)
		}
		got := st.Stats()
		if !strings.Contains(got.Degraded, "make room") || !strings.Contains(got.Degraded, dir) || !strings.Contains(got.Degraded, "needs up to") {
			t.Fatalf("after %d looks it says %q", looks, got.Degraded)
		}
		if front == 0 && h.files == 1 || got.Unknown || got.Produced != uint64(len(h.payloads)) || got.WaitingRecords != got.Produced-got.Acknowledged || got.WaitingBytes == 0 {
			t.Fatalf("%d can be read, and %+v", front, got)
		}
		if err := st.Acknowledge(t.Context(), min(front, uint64(looks), 100)); err != nil && !errors.Is(err, stage.ErrBeingRepaired) {
			t.Errorf("an acknowledgement gives %v", err)
		}
		if _, err := st.Reconcile(t.Context(), min(front, uint64(looks), 100), nil); err != nil && !errors.Is(err, stage.ErrBeingRepaired) {
			t.Errorf("a session gets %v", err)
		}
		select {
		case <-st.Settled():
			t.Fatalf("it says that it was repaired: %+v", st.Stats())
		case <-until.C:
			t.Logf("after %d looks: %s", looks, got.Degraded)
			return
		default:
		}
	}
}

// goesOn looks at the stage once there is room.
func (h *healed) goesOn(t *testing.T, st *stage.Stage) {
	t.Helper()
	room := time.NewTimer(30 * time.Second)
	defer room.Stop()
	select {
	case <-st.Settled():
	case <-room.C:
		t.Fatalf("30 s after there is room: %+v", st.Stats())
	}
	commitAfterDamage(t, st)
	got := st.Stats()
	lost := uint64(0)
	for _, r := range readAll(t, st, got.Acknowledged) {
		switch {
		case r.Gone != "":
			lost += r.Count
		case r.Seq <= uint64(len(h.payloads)) && !bytes.Equal(r.Payload, h.payloads[r.Seq-1]):
			t.Errorf("record %d is wrong", r.Seq)
		}
	}
	if lost != got.Lost || lost > 200 || (lost == 0) != h.all || got.Degraded != "" || got.SetAside != h.files || got.Produced != uint64(len(h.payloads))+1 {
		t.Errorf("%d are lost: %s", lost, fmt.Sprintf("%+v", got))
	}
}
