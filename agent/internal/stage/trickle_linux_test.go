package stage_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// In these tests a young agent has staged in small commits, so that the journal alone has all of it: there is no segment, and
// state.db says that nothing was produced.

// lockedLog is a log that can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// trickled is a stage on a full disk, and what must be true of it.
type trickled struct {
	st       *stage.Stage
	disk     string
	log      *lockedLog
	produced uint64
	// stored is what the control plane has.
	stored uint64
	// room is how many bytes of the disk whoever fills it leaves.
	room int64
}

// fill takes all but the room.
func (tr *trickled) fill(t *testing.T) {
	t.Helper()
	fill(t, tr.disk)
	path := filepath.Join(tr.disk, "fill")
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, max(info.Size()-tr.room, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// settings are those of the stage, with a journal that has room for all that is staged.
func (tr *trickled) settings() stage.Settings {
	tr.log = &lockedLog{}
	s := faultSettings(filepath.Join(tr.disk, "stage"), slog.New(slog.NewTextHandler(tr.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	return s
}

// until looks at the stage until fn gives true, which must be within 30 s.
func (tr *trickled) until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !fn() {
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("30 s without this: %s: %+v\n%s", what, tr.st.Stats(), tr.log)
		}
	}
}

// settles waits until the files were read again n times after commits that failed, and fills the disk in between.
func (tr *trickled) settles(t *testing.T, n int) {
	t.Helper()
	again := func() int { return strings.Count(tr.log.String(), "was read again after a failed commit") }
	for from := again(); n > 0; n-- {
		tr.fill(t)
		tr.until(t, "it settles", func() bool { return again() > from || tr.st.Stats().Degraded == "" })
		from = again()
	}
}

// counts looks whether the numbers are what they were.
func (tr *trickled) counts(t *testing.T, when string) {
	t.Helper()
	got := tr.st.Stats()
	if got.Produced != tr.produced || got.Acknowledged != tr.stored || got.Lost+got.SetAside > 0 {
		t.Errorf("%s: %d are acknowledged of %d, and %+v", when, tr.stored, tr.produced, got)
	}
}

// drains does what a session does on the full disk.
func (tr *trickled) drains(t *testing.T) {
	t.Helper()
	after, err := tr.st.Reconcile(t.Context(), tr.stored, nil)
	if err != nil || after != tr.stored {
		t.Fatalf("a session that has %d stored is told to go on behind %d: %v\n%s", tr.stored, after, err, tr.log)
	}
	tr.settles(t, 1)
	tr.counts(t, "once a session has agreed")
	if _, err := tr.st.RunReports(t.Context(), 10); err != nil {
		t.Errorf("the run reports cannot be read: %v", err)
	}
	for first := true; tr.stored < tr.produced; first = false {
		records, err := tr.st.ReadOutbox(t.Context(), tr.stored, 100, 1<<20)
		if err != nil || len(records) == 0 {
			t.Fatalf("behind %d it reads %d records: %v\n%s", tr.stored, len(records), err, tr.log)
		}
		for _, r := range records {
			if want := fmt.Sprintf("rows %d x", tr.stored+1); r.Seq != tr.stored+1 || !strings.HasPrefix(string(r.Payload), want) {
				t.Fatalf("record %d is %.20q %s instead of %s", r.Seq, r.Payload, r.Gone, want)
			}
			tr.stored = r.Seq
		}
		if err := tr.st.Acknowledge(t.Context(), tr.stored); err != nil {
			t.Fatal(err)
		}
		if first {
			tr.settles(t, 1)
		}
		tr.counts(t, "while it drains")
	}
	tr.settles(t, 1)
	tr.counts(t, "once it is drained")
}

// goesOn makes room, and looks whether what comes gets new numbers, now and after the next start.
func (tr *trickled) goesOn(t *testing.T) {
	t.Helper()
	empty(t, tr.disk, "fill")
	tr.until(t, "it can write again", func() bool { return tr.st.Stats().Degraded == "" })
	tr.counts(t, "once there is room")
	for range 2 {
		if err := commitRows(t.Context(), tr.st, 5); err != nil {
			t.Fatal(err)
		}
		tr.produced += 5
		tr.counts(t, "after the next commit")
		records := readAll(t, tr.st, tr.stored)
		if len(records) == 0 || !strings.HasPrefix(string(records[0].Payload), fmt.Sprintf("rows %d x", tr.stored+1)) {
			t.Errorf("behind %d there are %d records", tr.stored, len(records))
		}
		if err := tr.st.Close(); err != nil {
			t.Fatal(err)
		}
		tr.st = openOnDisk(t, tr.settings())
		tr.counts(t, "after the next start")
	}
	if err := tr.st.Close(); err != nil {
		t.Error(err)
	}
	if strings.Contains(tr.log.String(), "repeat what they had read") {
		t.Errorf("it says that flows go back:\n%s", tr.log)
	}
	checkFiles(t, filepath.Join(tr.disk, "stage"))
}

// TestFaultAKilledYoungAgentOnAFullDisk kills an agent, and starts it on a disk that is full.
func TestFaultAKilledYoungAgentOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, shape := range []struct {
		name string
		// more are commits of 50 behind the first 10, which are acknowledged; waits says that these are not.
		more           int
		waits, noSpare bool
	}{
		{name: "trickle-a", more: 9},
		{name: "trickle-w", more: 9, waits: true},
		{name: "nospare-acked", noSpare: true},
		{name: "nospare-trickle-a", more: 9, noSpare: true},
		{name: "nospare-trickle-w", more: 9, waits: true, noSpare: true},
	} {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			tr := &trickled{disk: smallDisk(t, "size=24m"), produced: 10, stored: 10}
			dir := filepath.Join(tr.disk, "stage")
			c := startFaultChild(t, dir)
			c.send("agree")
			c.send("rows 10")
			c.await(t, "rowed")
			c.send("drain")
			c.await(t, "drained")
			for range shape.more {
				c.send("rows 50")
				c.await(t, "rowed")
				tr.produced += 50
			}
			if !shape.waits {
				c.send("drain")
				c.await(t, "drained")
				tr.stored = tr.produced
			}
			if list, err := filepath.Glob(filepath.Join(dir, "outbox-*")); err != nil || len(list) > 0 {
				t.Fatalf("it is no young agent: %v, %v", list, err)
			}
			c.end(t, true)
			if shape.noSpare {
				removeAll(t, filepath.Join(dir, "SPARE"))
			}
			fill(t, tr.disk)
			tr.st = openOnDisk(t, tr.settings())
			fill(t, tr.disk)
			if got := tr.st.Stats(); got.Produced != tr.produced || got.Lost+got.SetAside > 0 {
				t.Errorf("after the start: %+v", got)
			}
			tr.drains(t)
			tr.goesOn(t)
		})
	}
}

// TestFaultAYoungAgentWhoseDiskIsFull fills the disk under an agent with a backlog that nothing happens to, but that the link is
// cut for a while. With a little room a commit comes as far as the segment, or into state.db.
func TestFaultAYoungAgentWhoseDiskIsFull(t *testing.T) {
	t.Parallel()
	for _, room := range []int64{0, 64, 128, 192, 256, 384, 512} {
		for _, noSpare := range []bool{false, true} {
			if !*long && room > 0 && !noSpare {
				continue
			}
			t.Run(fmt.Sprintf("room %d KiB, no spare %t", room, noSpare), func(t *testing.T) {
				t.Parallel()
				tr := &trickled{disk: smallDisk(t, "size=24m"), produced: 10, stored: 10, room: room << 10}
				tr.st = openOnDisk(t, tr.settings())
				if _, err := tr.st.Reconcile(t.Context(), 0, nil); err != nil {
					t.Fatal(err)
				}
				if err := commitRows(t.Context(), tr.st, 10); err != nil {
					t.Fatal(err)
				}
				if err := tr.st.Acknowledge(t.Context(), 10); err != nil {
					t.Fatal(err)
				}
				for range 9 {
					if err := commitRows(t.Context(), tr.st, 50); err != nil {
						t.Fatal(err)
					}
					tr.produced += 50
				}
				if noSpare {
					removeAll(t, filepath.Join(tr.disk, "stage", "SPARE"))
				}
				tr.fill(t)
				// A run that ends is noted in place, with all that the journal has.
				if err := tr.st.PutRunReport(t.Context(), "run", bytes.Repeat([]byte{1}, 600<<10)); err == nil {
					t.Error("on the full disk there is room for a large report")
				}
				tr.counts(t, "after a commit has failed")
				tr.drains(t)
				tr.goesOn(t)
			})
		}
	}
}

// TestAFailedCommitBehindALargeSegmentIsNoDamage lets commits fail once they have appended to a segment that is too large to be
// written anew, then acknowledges some of it, so that the next one begins another segment in the middle of what it has. That one
// lands, and is read again at once.
func TestAFailedCommitBehindALargeSegmentIsNoDamage(t *testing.T) {
	t.Parallel()
	tr := &trickled{disk: t.TempDir(), produced: 1000, stored: 1000}
	tr.st = openOnDisk(t, tr.settings())
	if err := commitRows(t.Context(), tr.st, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.st.Reconcile(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	for range 9 {
		if err := commitRows(t.Context(), tr.st, 50); err != nil {
			t.Fatal(err)
		}
		tr.produced += 50
	}
	var landed atomic.Bool
	stage.FailAt(tr.st, func(point string) error {
		if point == "state" {
			return unix.EIO
		}
		return nil
	})
	if err := tr.st.PutRunReport(t.Context(), "run", []byte("x")); err == nil {
		t.Fatal("the commit does not fail")
	}
	tr.stored += 100
	if err := tr.st.Acknowledge(t.Context(), tr.stored); err != nil {
		t.Fatal(err)
	}
	tr.counts(t, "after it was acknowledged")
	stage.FailAt(tr.st, func(point string) error {
		if point == "state landed" && !landed.Swap(true) {
			return unix.EIO
		}
		return nil
	})
	tr.until(t, "it can write again", func() bool { return landed.Load() && tr.st.Stats().Degraded == "" })
	stage.FailAt(tr.st, nil)
	tr.counts(t, "after it could be written again")
	if n := len(readAll(t, tr.st, tr.stored)); n != 350 {
		t.Errorf("%d records wait", n)
	}
	if err := tr.st.Close(); err != nil {
		t.Error(err)
	}
	checkFiles(t, filepath.Join(tr.disk, "stage"))
}
