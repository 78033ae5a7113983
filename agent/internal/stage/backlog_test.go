package stage_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// diskUse is what the files of a directory have together.
func diskUse(t *testing.T, dir string) (total int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// TestADrainedBacklogLeavesTheDisk stages a backlog while nothing is sent, and drains it while more comes: everything is
// there in order, and the files become small without a restart.
func TestADrainedBacklogLeavesTheDisk(t *testing.T) {
	t.Parallel()
	backlog := uint64(300_000)
	if *long {
		backlog = 1_000_000
	}
	s := settings(t, t.TempDir())
	st := open(t, s)
	record := func(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 292), n) }
	produced, number := uint64(0), uint64(0)
	stageMore := func(n int) {
		var insights [][]byte
		for range n {
			produced++
			insights = append(insights, record(produced))
		}
		number++
		commit(t, st, stage.Checkpoint{Flow: "f", Number: number, Insights: insights, Cursors: map[string][]byte{"s": record(produced)}})
	}
	began := time.Now()
	for produced < backlog {
		stageMore(2000)
	}
	most, staged := diskUse(t, s.Dir), time.Since(began)
	began = time.Now()
	after := uint64(0)
	for live := 0; after < produced; live++ {
		records, err := st.ReadOutbox(t.Context(), after, 2000, 1<<20)
		if err != nil || len(records) == 0 {
			t.Fatalf("behind %d: %d records, %v", after, len(records), err)
		}
		for _, r := range records {
			if after++; r.Seq != after || r.Gone != "" || binary.BigEndian.Uint64(r.Payload[292:]) != after {
				t.Fatalf("record %d in place %d is gone by %q", r.Seq, after, r.Gone)
			}
		}
		if err := st.Acknowledge(t.Context(), after); err != nil {
			t.Fatal(err)
		}
		if live%10 == 0 && after < backlog {
			stageMore(10)
		}
	}
	rest := diskUse(t, s.Dir)
	t.Logf("%d insights staged in %s and drained in %s: %d MiB on the disk at most, %d MiB afterwards",
		produced, staged.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), most>>20, rest>>20)
	info, err := os.Stat(filepath.Join(s.Dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	if rest >= 64<<20 || info.Size() > 1<<20 || st.Stats().WaitingRecords != 0 {
		t.Errorf("%d MiB are left on the disk, %d KiB of them state.db: %+v", rest>>20, info.Size()>>10, st.Stats())
	}
}
