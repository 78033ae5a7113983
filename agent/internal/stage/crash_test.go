package stage_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

const crashFlows = 3

// commitForEver is the process that gets killed: three flows commit as fast as they can, and each prints what was
// acknowledged to it. A flow's cursor is the number of insights that it has ever produced.
func commitForEver(dir string) {
	ctx := context.Background()
	st, err := stage.Open(ctx, stage.Settings{Dir: dir, MinFreeBytes: 1})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var wg sync.WaitGroup
	for i := range crashFlows {
		wg.Go(func() {
			flow := fmt.Sprint("flow", i)
			if err := commitFlow(ctx, st, flow); err != nil {
				fmt.Println("error", flow, err)
			}
		})
	}
	wg.Wait()
	if err := st.Close(); err != nil {
		fmt.Println("error", err)
	}
}

func commitFlow(ctx context.Context, st *stage.Stage, flow string) error {
	state, err := st.LoadFlow(ctx, flow)
	if err != nil {
		return err
	}
	produced := uint64(0)
	if c := state.Cursors["source"]; c != nil {
		produced = binary.BigEndian.Uint64(c)
	}
	random := newRandom()
	for number := state.Number + 1; ; number++ {
		var insights [][]byte
		for range random.IntN(20) {
			produced++
			insights = append(insights, fmt.Appendf(nil, "%s %d %s", flow, produced, strings.Repeat("x", random.IntN(2000))))
		}
		cursor := binary.BigEndian.AppendUint64(nil, produced)
		_, err := st.Commit(ctx, stage.Checkpoint{
			Flow: flow, Number: number, Insights: insights, Cursors: map[string][]byte{"source": cursor},
			Changes: []stage.Change{{Step: "count", Key: "all", Value: cursor}},
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Println("done", flow, produced); err != nil {
			return err
		}
	}
}

func TestNothingIsLostOrDoubledByKilling(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	told := map[string]uint64{}
	received := map[string]uint64{}
	after := uint64(0)
	for round := range 40 {
		killOnce(t, s.Dir, told)
		if t.Failed() {
			return
		}
		st, err := stage.Open(t.Context(), s)
		if err != nil {
			t.Fatalf("round %d: Open: %v", round, err)
		}
		for _, r := range readAll(t, st, after) {
			var flow string
			var n uint64
			if _, err := fmt.Sscan(string(r.Payload), &flow, &n); err != nil || n != received[flow]+1 {
				t.Fatalf("round %d: record %d is %q after insight %d of its flow, %v", round, r.Seq, r.Payload, received[flow], err)
			}
			received[flow], after = n, r.Seq
		}
		for flow, n := range told {
			state, err := st.LoadFlow(t.Context(), flow)
			if err != nil {
				t.Fatal(err)
			}
			cursor := binary.BigEndian.Uint64(state.Cursors["source"])
			if cursor < n || cursor != received[flow] || string(state.Operators["count"]["all"]) != string(state.Cursors["source"]) {
				t.Fatalf("round %d: %s was told %d, its cursor is %d and the outbox has %d", round, flow, n, cursor, received[flow])
			}
		}
		if got := st.Stats(); got.Lost != 0 || got.SetAside != 0 || got.Produced != after {
			t.Fatalf("round %d: stats: %+v, the outbox ends at %d", round, got, after)
		}
		if round%3 == 0 {
			if err := st.Acknowledge(t.Context(), after); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		checkFiles(t, s.Dir)
	}
	if after < 1000 {
		t.Errorf("only %d insights were staged, so little was tried", after)
	}
}

// newRandom has another seed each time, so that every run tries other moments.
func newRandom() *rand.Rand {
	return rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(os.Getpid()))) //nolint:gosec // it picks moments, not secrets
}

// killOnce starts the process, kills it at a random moment, and notes what it was told to be durable.
func killOnce(t *testing.T, dir string, told map[string]uint64) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=none") //nolint:gosec // it is this test itself
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The moment is a number of commits and a few microseconds more, so that a slow machine is tried as well as a fast one.
	random := newRandom()
	commits, more := random.IntN(60), time.Duration(random.IntN(3000))*time.Microsecond
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		var flow string
		var n uint64
		if _, err := fmt.Sscanf(lines.Text(), "done %s %d", &flow, &n); err != nil {
			t.Errorf("the process says %q", lines.Text())
			break
		}
		told[flow] = n
		if i == commits {
			timer := time.AfterFunc(more, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
		}
	}
	_, _ = io.Copy(io.Discard, out)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Errorf("the process ended by itself: %v", err)
	}
}
