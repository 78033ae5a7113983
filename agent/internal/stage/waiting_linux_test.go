package stage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// oneOf is the only file of a pattern in a directory.
func oneOf(t *testing.T, dir, pattern string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(list) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return list[0]
}

// spoil overwrites every other page of a file from one on.
func spoil(t *testing.T, path string, from int) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(from) * 4096; at+4096 <= info.Size(); at += 2 * 4096 {
		overwrite(t, path, at, bytes.Repeat([]byte{0xa5}, 4096))
	}
}

func removeAll(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// harm is what happens to a directory while no process has it. loses says that records may go with it.
type harm struct {
	do    func(t *testing.T, dir string)
	loses bool
}

func harms() map[string]harm {
	spoilOne := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { t.Helper(); spoil(t, oneOf(t, dir, pattern), 2) }
	}
	removeThese := func(patterns ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			for _, p := range patterns {
				removeAll(t, oneOf(t, dir, p))
			}
		}
	}
	spoilJournal := func(t *testing.T, dir string) {
		t.Helper()
		overwrite(t, filepath.Join(dir, "JOURNAL"), 4096+100, bytes.Repeat([]byte{0xa5}, 9000))
	}
	return map[string]harm{
		"state.db is damaged": {do: spoilOne("state.db")},
		"state.db is cut short": {do: func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Truncate(filepath.Join(dir, "state.db"), 8192); err != nil {
				t.Fatal(err)
			}
		}},
		"state.db is removed":          {do: removeThese("state.db")},
		"a segment is damaged":         {do: spoilOne("outbox-*.db"), loses: true},
		"a segment is removed":         {do: removeThese("outbox-*.db"), loses: true},
		"the journal is damaged":       {do: spoilJournal, loses: true},
		"the journal is removed":       {do: removeThese("JOURNAL"), loses: true},
		"OWNER and FORMAT are removed": {do: removeThese("OWNER", "FORMAT")},
		"OWNER and FORMAT are damaged": {do: func(t *testing.T, dir string) {
			t.Helper()
			overwrite(t, filepath.Join(dir, "OWNER"), 0, []byte{0})
			overwrite(t, filepath.Join(dir, "FORMAT"), 0, []byte{0})
		}},
		"everything is damaged at once": {do: func(t *testing.T, dir string) {
			t.Helper()
			spoilOne("state.db")(t, dir)
			spoilOne("outbox-*.db")(t, dir)
			spoilJournal(t, dir)
		}, loses: true},
	}
}

// TestFaultDamageOnAFullDisk damages or removes what a killed or stopped process has left, with no room at all on the disk: the
// stage waits and says so, and once there is room it goes on by itself, with all that is not damaged.
func TestFaultDamageOnAFullDisk(t *testing.T) {
	t.Parallel()
	for name, harm := range harms() {
		for _, full := range []struct {
			name, options, filler string
			fill                  func(*testing.T, string)
		}{
			{"no bytes", "size=32m", "fill", fill},
			{"no inodes", "size=64m,nr_inodes=64", "crowd", crowd},
		} {
			for _, kill := range []bool{true, false} {
				if !*long && kill == (full.filler == "crowd") {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, killed %t", name, full.name, kill), func(t *testing.T) {
					t.Parallel()
					disk := smallDisk(t, full.options)
					dir := filepath.Join(disk, "stage")
					c := startFaultChild(t, dir)
					c.begin(t)
					c.commits(t, 30)
					c.end(t, false)
					// What was staged before is in a segment by now, and what comes is in the journal.
					next := startFaultChild(t, dir)
					next.done = c.done
					c = next
					c.begin(t)
					c.commits(t, 10)
					c.end(t, kill)
					harm.do(t, dir)
					removeAll(t, filepath.Join(dir, "SPARE"))
					full.fill(t, disk)
					c.waitsForRoom(t, dir, func() { empty(t, disk, full.filler) }, harm.loses)
				})
			}
		}
	}
}

// waitsForRoom opens a stage that was harmed on a full disk, makes room, and looks what is left.
func (c *faultChild) waitsForRoom(t *testing.T, dir string, makeRoom func(), loses bool) { //revive:disable-line:flag-parameter
	t.Helper()
	s, log := logged(t, faultSettings(dir, nil))
	st, err := stage.OpenOrWait(t.Context(), s)
	if err != nil {
		t.Fatalf("it does not start: %v", err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case <-st.Opened():
		// What was removed or damaged after a clean stop may need nothing, as the journal then does.
	default:
		if got := st.Stats(); !strings.Contains(got.Degraded, "make room") || !strings.Contains(got.Degraded, dir) {
			t.Errorf("it says that it is degraded because of %q", got.Degraded)
		} else {
			t.Log(got.Degraded)
		}
		if _, err := st.ReadOutbox(ctx, 0, 10, 1<<20); err == nil {
			t.Error("the outbox can be read although nobody has looked what is in it")
		}
		if _, err := st.Reconcile(ctx, 1, nil); err == nil {
			t.Error("a session agrees with what is not open")
		}
		second := s
		second.LockWait = time.Millisecond
		if _, err := stage.OpenOrWait(ctx, second); !errors.Is(err, stage.ErrLocked) {
			t.Errorf("a second agent gets %v", err)
		}
	}
	go func() {
		_, err := st.Commit(ctx, stage.Checkpoint{Flow: "another", Number: 1, Insights: payloads(1, "late")})
		ended <- err
	}()
	stage.AwaitBlocked(st, 1)
	makeRoom()
	room := time.Now()
	select {
	case <-st.Opened():
	case <-ctx.Done():
		t.Fatalf("30 s after there is room: %+v", st.Stats())
	}
	if err := <-ended; err != nil {
		t.Fatalf("a commit that has waited ends with %v, after %s: %+v", err, time.Since(room), st.Stats())
	}
	t.Logf("it runs %s after there is room", time.Since(room).Round(time.Millisecond))
	if err := st.OpenError(); err != nil {
		t.Error(err)
	}
	c.countLeft(t, st, loses)
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if strings.Count(log.String(), "level=ERROR") > 8 {
		t.Errorf("the log:\n%s", log)
	}
}

// countLeft finds every insight that was acknowledged to a flow, or counted as lost.
func (c *faultChild) countLeft(t *testing.T, st *stage.Stage, loses bool) { //revive:disable-line:flag-parameter
	t.Helper()
	got := st.Stats()
	lost, there := uint64(0), map[string]int{}
	for _, r := range readAll(t, st, got.Acknowledged) {
		if r.Gone != "" {
			lost += r.Count
			continue
		}
		text, _, _ := strings.Cut(string(r.Payload), " x")
		flow, number, _ := strings.Cut(text, " ")
		if n, err := strconv.Atoi(number); err == nil && n <= c.done[flow] {
			there[flow]++
		}
	}
	missing := 0
	for flow, n := range c.done {
		missing += n - there[flow]
	}
	if missing > int(lost) || lost != got.Lost || !loses && lost > 0 {
		t.Errorf("%d insights are missing, %d are told as gone, and %+v", missing, lost, got)
	}
	if got.Degraded != "" || got.SetAside != uint64(len(got.Damaged)) {
		t.Errorf("in the end: %+v", got)
	}
}

// onFullDisk stages five insights on a disk, stops, harms the files, and fills the disk.
func onFullDisk(t *testing.T, harm func(t *testing.T, dir string)) (s stage.Settings, disk string) {
	t.Helper()
	disk = smallDisk(t, "size=16m")
	s = settings(t, filepath.Join(disk, "stage"))
	stage.JournalBytes(&s, -1)
	st := openOnDisk(t, s)
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(5, "p")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	removeAll(t, filepath.Join(s.Dir, "SPARE"))
	harm(t, s.Dir)
	fill(t, disk)
	return s, disk
}

func withoutState(t *testing.T, dir string) {
	t.Helper()
	removeAll(t, filepath.Join(dir, "state.db"))
}

// TestAStageThatWaitsForRoomCanBeClosed leaves what is staged as it is, and lets the next start refuse, wait, or go on.
func TestAStageThatWaitsForRoomCanBeClosed(t *testing.T) {
	t.Parallel()
	s, disk := onFullDisk(t, withoutState)
	for range 2 {
		st, err := stage.OpenOrWait(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if st.Stats().Degraded == "" || st.OpenError() != nil {
			t.Errorf("it does not wait: %+v, %v", st.Stats(), st.OpenError())
		}
		if got := st.Stats(); !got.Unknown || got.RoomBytes != 0 {
			t.Errorf("it says that it knows its numbers: %+v", got)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := stage.Open(t.Context(), s); !stage.IsNoSpace(err) {
		t.Errorf("what does not wait gets %v", err)
	}
	empty(t, disk, "fill")
	st := openOnDisk(t, s)
	if got := st.Stats(); got.WaitingRecords != 5 || got.SetAside != 1 || got.Lost != 0 || got.Unknown || got.RoomBytes == 0 {
		t.Errorf("in the end: %+v", got)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

// TestAStartSaysHowMuchRoomItNeeds fills a disk before a start that has to repair something, or nothing.
func TestAStartSaysHowMuchRoomItNeeds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		want string
	}{
		"damaged":   {func(t *testing.T, dir string) { t.Helper(); spoil(t, filepath.Join(dir, "state.db"), 2) }, "(state.db is damaged"},
		"missing":   {withoutState, "at least 320 KiB (state.db is missing"},
		"all whole": {func(*testing.T, string) {}, "at least 64 KiB;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := onFullDisk(t, c.harm)
			st, err := stage.OpenOrWait(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			got := st.Stats()
			if !strings.Contains(got.Degraded, "at least") || !strings.Contains(got.Degraded, c.want) || !strings.Contains(got.Degraded, " KiB") {
				t.Errorf("it says: %s", got.Degraded)
			}
			if !got.Unknown {
				t.Errorf("it tells numbers before its files are read: %+v", got)
			}
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
