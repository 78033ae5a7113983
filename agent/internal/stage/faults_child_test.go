package stage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/internal/backoff"
)

// faultDirEnv turns the test binary into the process whose disk fails: two flows commit without a pause and say what was
// acknowledged to them, and commands on its standard input read the outbox and the stats.
const (
	faultDirEnv  = "OUTFEED_STAGE_FAULT_DIR"
	faultFlows   = 2
	faultPerFlow = 3
)

// faultSettings are those of the child and of whoever looks at its directory afterwards.
func faultSettings(dir string, log *slog.Logger) stage.Settings {
	return stage.Settings{Dir: dir, Owner: "agent", Logger: log, MinFreeBytes: 256 << 10, MaxBytes: 64 << 20, LockWait: time.Second}
}

// serveFaults is the child.
func serveFaults(dir string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	allowTracing()
	st, err := stage.Open(ctx, faultSettings(dir, slog.New(slog.NewTextHandler(os.Stderr, nil))))
	if err != nil {
		return err
	}
	out := &lineWriter{}
	out.say("open")
	var flows sync.WaitGroup
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var n, each int
		if _, err := fmt.Sscanf(in.Text(), "bench %d %d", &n, &each); err == nil {
			out.say("benched " + commitHundreds(ctx, st, n, each).Round(time.Millisecond).String())
			continue
		}
		if _, err := fmt.Sscanf(in.Text(), "rows %d", &n); err == nil {
			if err := commitRows(ctx, st, n); err != nil {
				out.say("failed " + err.Error())
			}
			out.say("rowed")
			continue
		}
		switch in.Text() {
		case "go":
			for f := range faultFlows {
				flows.Go(func() { produceUntil(ctx, st, fmt.Sprint("flow", f), out) })
			}
		case "stats":
			text, err := json.Marshal(st.Stats())
			if err != nil {
				return err
			}
			out.say("stats " + string(text))
		case "agree":
			if _, err := st.Reconcile(ctx, 0, nil); err != nil {
				out.say("failed " + err.Error())
			}
		case "drain":
			if err := drainTo(ctx, st, out); err != nil {
				out.say("failed " + err.Error())
			}
		}
	}
	stop()
	flows.Wait()
	return st.Close()
}

// lineWriter keeps the lines of many goroutines whole.
type lineWriter struct{ mu sync.Mutex }

func (w *lineWriter) say(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = fmt.Println(line)
}

// produceUntil commits as the engine does: the same checkpoint again after an error, with a pause.
func produceUntil(ctx context.Context, st *stage.Stage, flow string, out *lineWriter) {
	state, err := st.LoadFlow(ctx, flow)
	if err != nil {
		out.say("failed " + err.Error())
		return
	}
	produced, _ := strconv.Atoi(string(state.Cursors["source"])) // nothing is 0
	for number := state.Number + 1; ctx.Err() == nil; number++ {
		var insights [][]byte
		for range faultPerFlow {
			produced++
			insights = append(insights, fmt.Appendf(nil, "%s %d %s", flow, produced, strings.Repeat("x", 500)))
		}
		c := stage.Checkpoint{
			Flow: flow, Number: number, Insights: insights, Cursors: map[string][]byte{"source": []byte(strconv.Itoa(produced))},
		}
		wait := backoff.Backoff{Min: 100 * time.Millisecond, Max: time.Second}
		for {
			_, err := st.Commit(ctx, c)
			if err == nil {
				out.say(fmt.Sprint("done ", flow, " ", produced))
				break
			}
			out.say("refused " + strings.ReplaceAll(err.Error(), "\n", " "))
			if errors.Is(err, stage.ErrStaleCommit) || wait.Wait(ctx) != nil {
				return
			}
		}
	}
}

// commitRows makes one commit of so many insights, as a flow does that reads a file that grows.
func commitRows(ctx context.Context, st *stage.Stage, n int) error {
	state, err := st.LoadFlow(ctx, "rows")
	if err != nil {
		return fmt.Errorf("load the flow: %w", err)
	}
	at, _ := strconv.Atoi(string(state.Cursors["source"])) // nothing is 0
	c := stage.Checkpoint{Flow: "rows", Number: state.Number + 1, Cursors: map[string][]byte{"source": []byte(strconv.Itoa(at + n))}}
	for range n {
		at++
		c.Insights = append(c.Insights, fmt.Appendf(nil, "rows %d %s", at, strings.Repeat("x", 1500)))
	}
	if _, err := st.Commit(ctx, c); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// commitHundreds lets so many flows make so many commits of a hundred records each, and gives how long that took.
func commitHundreds(ctx context.Context, st *stage.Stage, flows, each int) time.Duration {
	insights := make([][]byte, 100)
	for i := range insights {
		insights[i] = make([]byte, benchPayload)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for f := range flows {
		wg.Go(func() {
			flow := fmt.Sprint("bench ", flows, " ", f)
			for n := range each {
				c := stage.Checkpoint{
					Flow: flow, Number: uint64(n) + 1, Insights: insights,
					Cursors: map[string][]byte{"source": []byte(strconv.Itoa(n))},
				}
				if _, err := st.Commit(ctx, c); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// drainTo does what the tunnel does, until nothing waits.
func drainTo(ctx context.Context, st *stage.Stage, out *lineWriter) error {
	after := st.Stats().Acknowledged
	for {
		records, err := st.ReadOutbox(ctx, after, 100, 1<<20)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			out.say(fmt.Sprint("drained ", after))
			return nil
		}
		for _, r := range records {
			text, _, _ := strings.Cut(string(r.Payload), " x")
			out.say("sent " + text + r.Gone)
			after = r.Last()
		}
		if err := st.Acknowledge(ctx, after); err != nil {
			return err
		}
	}
}
