package stage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// crashDirEnv turns the test binary into the process that the kill test kills.
const crashDirEnv = "OUTFEED_STAGE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		commitForEver(dir)
		return
	}
	if dir := os.Getenv(faultDirEnv); dir != "" {
		if err := serveFaults(dir); err != nil {
			fmt.Fprintln(os.Stderr, "the process ends:", err)
			os.Exit(1)
		}
		return
	}
	if what := os.Getenv(childEnv); what != "" {
		os.Exit(child(what))
	}
	goleak.VerifyTestMain(m)
}

func settings(t *testing.T, dir string) stage.Settings {
	t.Helper()
	// A test that starts a process holds all locks of the others for a moment: between fork and exec.
	s := stage.Settings{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), MinFreeBytes: 1, LockWait: 500 * time.Millisecond}
	stage.JournalBytes(&s, 512<<10)
	return s
}

// open opens a stage that the test closes; afterwards bbolt's own check runs over its files.
func open(t *testing.T, s stage.Settings) *stage.Stage {
	t.Helper()
	st, err := stage.Open(t.Context(), s)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		checkFiles(t, s.Dir)
	})
	return st
}

func reopen(t *testing.T, st *stage.Stage, s stage.Settings) *stage.Stage {
	t.Helper()
	if err := st.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	checkFiles(t, s.Dir)
	return open(t, s)
}

func checkFiles(t *testing.T, dir string) {
	t.Helper()
	for _, path := range databases(t, dir) {
		db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
		if err != nil {
			t.Errorf("bbolt cannot open %s: %v", path, err)
			continue
		}
		if err := db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("%s: %v", path, err)
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func databases(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func payloads(n int, prefix string) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "%s-%d", prefix, i)
	}
	return out
}

func commit(t *testing.T, st *stage.Stage, c stage.Checkpoint) uint64 {
	t.Helper()
	last, err := st.Commit(t.Context(), c)
	if err != nil {
		t.Fatalf("Commit %d of %s: %v", c.Number, c.Flow, err)
	}
	return last
}

// readAll reads the outbox from the beginning and checks that the sequence has no gap.
func readAll(t *testing.T, st *stage.Stage, after uint64) []stage.Record {
	t.Helper()
	var all []stage.Record
	for {
		records, err := st.ReadOutbox(t.Context(), after, 100, 1<<20)
		if err != nil {
			t.Fatalf("ReadOutbox: %v", err)
		}
		if len(records) == 0 {
			return all
		}
		for _, r := range records {
			if r.Seq != after+1 || r.Count == 0 || r.Gone == "" && r.Count != 1 || r.Gone != "" && r.Payload != nil {
				t.Fatalf("record %+v follows %d", r, after)
			}
			after = r.Last()
			// A run is told as its single places.
			for last := r.Last(); r.Seq <= last; r.Seq++ {
				all = append(all, stage.Record{Seq: r.Seq, Count: 1, Payload: r.Payload, Gone: r.Gone})
			}
		}
	}
}

func texts(records []stage.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = string(r.Payload)
	}
	return out
}

func TestACommitIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	st := open(t, s)
	last := commit(t, st, stage.Checkpoint{
		Flow: "a", Number: 1, Cursors: map[string][]byte{"read_1": []byte("c1"), "read_2": {}},
		Changes:  []stage.Change{{Step: "agg", Key: "M1", Value: []byte("v")}, {Step: "agg", Key: "M2", Value: []byte{}}, {Step: "join", Key: "M1", Value: []byte("w")}},
		Insights: payloads(3, "a"),
	})
	if last != 3 {
		t.Errorf("the last sequence is %d, want 3", last)
	}
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Changes: []stage.Change{{Step: "agg", Key: "M1"}}})
	st = reopen(t, st, s)
	got, err := st.LoadFlow(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if got.Number != 2 || string(got.Cursors["read_1"]) != "c1" || got.Cursors["read_2"] == nil && len(got.Cursors) != 2 {
		t.Errorf("the flow's state is %+v", got)
	}
	if len(got.Operators["agg"]) != 1 || string(got.Operators["join"]["M1"]) != "w" {
		t.Errorf("the operators' state is %+v", got.Operators)
	}
	if v, ok := got.Operators["agg"]["M2"]; !ok || v == nil || len(v) != 0 {
		t.Errorf("an empty entry came back as %v, %v", v, ok)
	}
	if got, want := texts(readAll(t, st, 0)), []string{"a-0", "a-1", "a-2"}; !slices.Equal(got, want) {
		t.Errorf("the outbox has %v, want %v", got, want)
	}
	if err := st.DropFlow(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if flows, err := st.Flows(t.Context()); err != nil || len(flows) != 0 {
		t.Errorf("after DropFlow the flows are %v, %v", flows, err)
	}
	if got := readAll(t, st, 0); len(got) != 3 {
		t.Errorf("after DropFlow the outbox has %d records, want 3", len(got))
	}
}

func TestARepeatedCheckpointIsStoredOnce(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	c := stage.Checkpoint{Flow: "a", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}, Insights: payloads(2, "x")}
	commit(t, st, c)
	commit(t, st, stage.Checkpoint{Flow: "b", Number: 1, Insights: payloads(5, "y")})
	if last := commit(t, st, c); last != 2 {
		t.Errorf("the repeated checkpoint ends at %d, want 2", last)
	}
	st = reopen(t, st, s)
	if last := commit(t, st, c); last != 2 {
		t.Errorf("after a restart the repeated checkpoint ends at %d, want 2", last)
	}
	other := c
	other.Insights = payloads(2, "z")
	for name, bad := range map[string]stage.Checkpoint{
		"another content under the same number": other,
		"a number that was skipped":             {Flow: "a", Number: 3},
		"no number":                             {Flow: "a"},
	} {
		if _, err := st.Commit(t.Context(), bad); !errors.Is(err, stage.ErrStaleCommit) {
			t.Errorf("%s: %v, want ErrStaleCommit", name, err)
		}
	}
	if got := readAll(t, st, 0); len(got) != 7 {
		t.Errorf("the outbox has %d records, want 7", len(got))
	}
}

func TestAFailedCommitIsOfUnknownOutcomeAndItsRepetitionCountsOnce(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"outbox", "outbox landed", "state", "state landed", "journal", "journal landed"} {
		for _, answer := range []string{"retry", "reload", "others go on", "restart"} {
			t.Run(point+", "+answer, func(t *testing.T) {
				t.Parallel()
				s := settings(t, t.TempDir())
				if !strings.HasPrefix(point, "journal") {
					stage.JournalBytes(&s, -1)
				}
				st := open(t, s)
				commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(2, "first")})
				broken := errors.New("input/output error")
				stage.FailAt(st, func(at string) error {
					if at == point {
						return broken
					}
					return nil
				})
				c := stage.Checkpoint{Flow: "a", Number: 2, Cursors: map[string][]byte{"r": []byte("2")}, Insights: payloads(3, "second")}
				if _, err := st.Commit(t.Context(), c); !errors.Is(err, broken) {
					t.Fatalf("Commit gave %v, want the injected error", err)
				}
				stage.FailAt(st, nil)
				switch answer {
				case "others go on":
					commit(t, st, stage.Checkpoint{Flow: "b", Number: 1, Insights: payloads(1, "b")})
				case "reload":
					state, err := st.LoadFlow(t.Context(), "a")
					if err != nil {
						t.Fatal(err)
					}
					if landed := point == "state landed"; (state.Number == 2) != landed {
						t.Errorf("the flow is at commit %d", state.Number)
					}
				case "restart":
					st = reopen(t, st, s)
				}
				commit(t, st, c)
				commit(t, st, stage.Checkpoint{Flow: "a", Number: 3, Insights: payloads(1, "third")})
				st = reopen(t, st, s)
				got := slices.DeleteFunc(texts(readAll(t, st, 0)), func(p string) bool { return p == "b-0" })
				want := []string{"first-0", "first-1", "second-0", "second-1", "second-2", "third-0"}
				if !slices.Equal(got, want) {
					t.Errorf("the outbox has %v, want %v", got, want)
				}
			})
		}
	}
}

func TestCommitsThatWaitTogetherAreMerged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testMerging)
}

func testMerging(t *testing.T) {
	t.Helper()
	st := open(t, settings(t, t.TempDir()))
	inside, goOn := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	writes := 0
	stage.FailAt(st, func(at string) error {
		if at != "journal" {
			return nil
		}
		mu.Lock()
		writes++
		first := writes == 1
		mu.Unlock()
		if first {
			close(inside)
			<-goOn
		}
		return nil
	})
	var wg sync.WaitGroup
	start := func(flow string) {
		wg.Go(func() {
			if _, err := st.Commit(t.Context(), stage.Checkpoint{Flow: flow, Number: 1, Insights: payloads(10, flow)}); err != nil {
				t.Errorf("Commit of %s: %v", flow, err)
			}
		})
	}
	start("first")
	<-inside
	for i := range 20 {
		start(fmt.Sprint("flow", i))
	}
	synctest.Wait()
	close(goOn)
	wg.Wait()
	if writes != 2 {
		t.Errorf("21 checkpoints took %d commits, want 2", writes)
	}
	if got := readAll(t, st, 0); len(got) != 210 {
		t.Errorf("the outbox has %d records, want 210", len(got))
	}
}

// TestTheWaitForACommitEndsWithItsContext holds a commit inside the writer: its caller gets away, the same checkpoint
// lands once, and whoever loads the flow waits for what is under way.
func TestTheWaitForACommitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := open(t, settings(t, t.TempDir()))
		inside, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		stage.FailAt(st, func(at string) error {
			if at == "journal" {
				once.Do(func() { close(inside); <-goOn })
			}
			return nil
		})
		c := stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(10, "p"), Changes: []stage.Change{{Step: "s", Key: "k", Value: []byte("v")}}}
		stop := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-inside; cancel(stop) }()
		if _, err := st.Commit(ctx, c); !errors.Is(err, stop) {
			t.Fatalf("Commit gives %v", err)
		}
		short, cancelShort := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancelShort()
		if _, err := st.Commit(short, c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the repetition gives %v", err)
		}
		loaded := make(chan stage.FlowState)
		go func() {
			state, err := st.LoadFlow(t.Context(), "f")
			if err != nil {
				t.Error(err)
			}
			loaded <- state
		}()
		synctest.Wait()
		close(goOn)
		if state := <-loaded; state.Number != 1 || string(state.Operators["s"]["k"]) != "v" {
			t.Errorf("the flow is loaded as %+v", state)
		}
		commit(t, st, c)
		if got := readAll(t, st, 0); len(got) != 10 {
			t.Errorf("the outbox has %d records, want 10", len(got))
		}
	})
}

func TestAcknowledgedSegmentsAreDropped(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	big := bytes.Repeat([]byte("x"), 1<<20)
	insights := make([][]byte, 150)
	for i := range insights {
		insights[i] = big
	}
	last := commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: insights})
	segments, err := filepath.Glob(filepath.Join(s.Dir, "outbox-*.db"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("150 MiB are in the segments %v, %v", segments, err)
	}
	for _, path := range segments {
		if info, err := os.Stat(path); err != nil || info.Size() > 64<<20 {
			t.Errorf("%s has %d MiB, %v", path, info.Size()>>20, err)
		}
	}
	if got := st.Stats(); got.WaitingRecords != 150 || got.WaitingBytes < 150<<20 {
		t.Errorf("stats: %+v", got)
	}
	if err := st.Acknowledge(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	if got := st.Stats(); got.WaitingBytes != 50*(1<<20+16) {
		t.Errorf("50 waiting records take %d bytes", got.WaitingBytes)
	}
	st = reopen(t, st, s)
	if got := readAll(t, st, 100); len(got) != 50 {
		t.Errorf("the outbox has %d records, want 50", len(got))
	}
	if err := st.Acknowledge(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	var left int64
	for _, path := range databases(t, s.Dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		left += info.Size()
	}
	if left > 1<<20 {
		t.Errorf("with everything acknowledged the files still take %d bytes", left)
	}
	if err := st.Acknowledge(t.Context(), last+1); !errors.Is(err, stage.ErrBeyondEnd) {
		t.Errorf("acknowledging what does not exist gave %v", err)
	}
	if last := commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(1, "next")}); last != 151 {
		t.Errorf("the next record is %d, want 151", last)
	}
}

func TestAFullOutboxMakesCommitWait(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	s.MaxBytes = 1000
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: [][]byte{make([]byte, 800)}})
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan error, 1)
	go func() {
		_, err := st.Commit(ctx, stage.Checkpoint{Flow: "a", Number: 2, Insights: [][]byte{make([]byte, 300)}})
		blocked <- err
	}()
	stage.AwaitBlocked(st, 1)
	if got := st.Stats(); !strings.Contains(got.BlockedBy, "outbox is full") {
		t.Errorf("stats say %q", got.BlockedBy)
	}
	commit(t, st, stage.Checkpoint{Flow: "b", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}})
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) {
		t.Errorf("Commit gave %v, want the context's end", err)
	}
	go func() {
		_, err := st.Commit(t.Context(), stage.Checkpoint{Flow: "a", Number: 2, Insights: [][]byte{make([]byte, 300)}})
		blocked <- err
	}()
	stage.AwaitBlocked(st, 1)
	if err := st.Acknowledge(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := <-blocked; err != nil {
		t.Errorf("with room again Commit gave %v", err)
	}
	if got := st.Stats(); got.Blocked != 0 {
		t.Errorf("stats count %d blocked commits", got.Blocked)
	}
}

func TestAFullDiskMakesCommitWait(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	s.MinFreeBytes = 1 << 62
	st = reopen(t, st, s)
	ctx, cancel := context.WithCancel(t.Context())
	blocked := make(chan error, 1)
	go func() {
		_, err := st.Commit(ctx, stage.Checkpoint{Flow: "a", Number: 1})
		blocked <- err
	}()
	stage.AwaitBlocked(st, 1)
	cancel()
	if err := <-blocked; err == nil || !strings.Contains(err.Error(), "stay free") {
		t.Errorf("Commit gave %v", err)
	}
}

func TestDesiredNeverGoesBack(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	if _, _, err := st.Desired(t.Context()); !errors.Is(err, stage.ErrNone) {
		t.Errorf("an empty store gave %v", err)
	}
	for _, serial := range []uint64{3, 5, 5} {
		if err := st.PutDesired(t.Context(), fmt.Append(nil, "e", serial), serial); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.PutDesired(t.Context(), []byte("old"), 4); !errors.Is(err, stage.ErrOlderDesired) {
		t.Errorf("an older one gave %v", err)
	}
	st = reopen(t, st, s)
	envelope, serial, err := st.Desired(t.Context())
	if err != nil || serial != 5 || string(envelope) != "e5" {
		t.Errorf("got %q, %d, %v", envelope, serial, err)
	}
}

func TestRunReportsAreNewestFirstAndBounded(t *testing.T) {
	t.Parallel()
	st := open(t, settings(t, t.TempDir()))
	var wg sync.WaitGroup
	for i := range stage.MaxRunReports {
		wg.Go(func() {
			if err := st.PutRunReport(t.Context(), fmt.Sprint("old", i), []byte("p")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range []string{"x", "y", "x"} {
		if err := st.PutRunReport(t.Context(), id, []byte("new "+id)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := st.RunReports(t.Context(), 2)
	if err != nil || len(got) != 2 || got[0].ID != "x" || got[1].ID != "y" || string(got[0].Payload) != "new x" {
		t.Errorf("the newest reports are %v, %v", got, err)
	}
	if n := st.Stats().DroppedReports; n != 2 {
		t.Errorf("%d reports were dropped, want 2", n)
	}
	if err := st.DropRunReports(t.Context(), "x", "unknown"); err != nil {
		t.Fatal(err)
	}
	if got, err := st.RunReports(t.Context(), 2000); err != nil || len(got) != stage.MaxRunReports-1 || got[0].ID != "y" {
		t.Errorf("%d reports are left, %v", len(got), err)
	}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(10, "a")})
	reconcile := func(stored, want uint64) {
		t.Helper()
		if after, err := st.Reconcile(t.Context(), stored, nil); err != nil || after != want {
			t.Errorf("Reconcile(%d) gave %d, %v, want %d", stored, after, err, want)
		}
	}
	reconcile(0, 0)
	if records, err := st.ReadOutbox(t.Context(), 0, 6, 1<<20); err != nil || len(records) != 6 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	reconcile(6, 6)
	for range 3 {
		reconcile(4, 6)
		if n := st.Stats().LostRemotely; n != 2 {
			t.Errorf("%d are lost remotely, want 2", n)
		}
	}
	// This directory went back: the control plane has stored more than was produced.
	reconcile(100, 100)
	st = reopen(t, st, s)
	if got, want := texts(readAll(t, st, 100)), []string{"a-6", "a-7", "a-8", "a-9"}; !slices.Equal(got, want) {
		t.Errorf("what waits is %v, want %v", got, want)
	}
	if last := commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(1, "b")}); last != 105 {
		t.Errorf("the next record is %d, want 105", last)
	}
	if got := st.Stats(); got.Lost != 0 || got.WaitingRecords != 5 {
		t.Errorf("stats: %+v", got)
	}
}

func TestAClosedStageSaysSo(t *testing.T) {
	t.Parallel()
	st := open(t, settings(t, t.TempDir()))
	if err := errors.Join(st.Close(), st.Close()); err != nil {
		t.Fatal(err)
	}
	_, commitErr := st.Commit(t.Context(), stage.Checkpoint{Flow: "a", Number: 1})
	_, loadErr := st.LoadFlow(t.Context(), "a")
	_, readErr := st.ReadOutbox(t.Context(), 0, 1, 1)
	for name, err := range map[string]error{"Commit": commitErr, "LoadFlow": loadErr, "ReadOutbox": readErr, "Acknowledge": st.Acknowledge(t.Context(), 0)} {
		if !errors.Is(err, stage.ErrClosed) {
			t.Errorf("%s gave %v", name, err)
		}
	}
}
