package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/all"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

const (
	crashDirEnv  = "OUTFEED_TEST_CRASH_DIR"
	crashKindEnv = "OUTFEED_TEST_CRASH_KIND"
)

func open(t *testing.T, dir string) *history {
	t.Helper()
	return openHistory(t.Context(), dir, slog.New(slog.DiscardHandler))
}

// TestHalvesAreRemoved leaves what a process leaves that is killed while it writes.
func TestHalvesAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, dir)
	if err := first.SaveRecord("0190-flow", supervisor.Record{}); err != nil {
		t.Fatal(err)
	}
	whole := first.path("0190-flow")
	for _, half := range []string{whole + newSuffix + "588161030", filepath.Join(first.dir, busyName+newSuffix)} {
		if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	left, err := filepath.Glob(filepath.Join(first.dir, "*"))
	if err != nil || len(left) != 1 || left[0] != whole {
		t.Errorf("%q are there, %v, want %s alone", left, err, whole)
	}
}

// TestCrashOfAChild is what TestACrashNamesItsFlow runs in a process of its own, which dies. By itself it does nothing.
func TestCrashOfAChild(t *testing.T) {
	dir := os.Getenv(crashDirEnv)
	if dir == "" {
		return
	}
	h := open(t, dir)
	h.Crashes()
	if err := h.reportCrashes(); err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{})
	pprof.Do(t.Context(), pprof.Labels(supervisor.FlowLabel, "0190-flow"), func(context.Context) {
		go func() { die(os.Getenv(crashKindEnv)) }()
	})
	<-dead
}

// die ends the process in a way that nobody can catch.
func die(kind string) {
	switch kind {
	case "panic":
		go func() { panic("in a goroutine that nobody guards") }()
	case "map":
		m := map[int]int{}
		for range 4 {
			go func() {
				for i := 0; ; i++ {
					m[i%7] = i
				}
			}()
		}
	case "stack":
		debug.SetMaxStack(1 << 20)
		fmt.Fprintln(os.Stderr, deeper(1))
	}
}

func deeper(n int) int {
	if n < 0 {
		return 0
	}
	return deeper(n+1) + 1
}

// TestACrashNamesItsFlow has processes die of what Go's runtime ends them for, in a goroutine of a flow.
func TestACrashNamesItsFlow(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"panic", "map", "stack"} {
		dir := t.TempDir()
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashOfAChild$") //nolint:gosec // this program
		child.Env = append(os.Environ(), crashDirEnv+"="+dir, crashKindEnv+"="+kind)
		said, err := child.CombinedOutput()
		if _, died := errors.AsType[*exec.ExitError](err); !died {
			t.Fatalf("%s: the child gave %v: %s", kind, err, said)
		}
		got := open(t, dir).Crashes()
		if len(got) != 1 || !strings.Contains(got["0190-flow"], "internal error") {
			t.Errorf("%s: blamed is %v; the child said %.600s", kind, got, said)
		}
		if _, err := os.Stat(filepath.Join(dir, historyDir, lastCrash)); err != nil {
			t.Errorf("%s: the report was not kept: %v", kind, err)
		}
		if again := open(t, dir).Crashes(); len(again) != 0 {
			t.Errorf("%s: counted twice: %v", kind, again)
		}
	}
}

func FuzzParseCrash(f *testing.F) {
	f.Add([]byte("panic: x\n\ngoroutine 18 [running labels:{\"outfeed_flow\": \"abc\"}]:\nmain.main()\n"))
	f.Add([]byte("fatal error: y\n"))
	f.Fuzz(func(t *testing.T, report []byte) {
		if c := parseCrash(report); len(c.deployment) > 100 || len(c.reason) > 10_000 {
			t.Errorf("%d bytes of a deployment, %d of a reason", len(c.deployment), len(c.reason))
		}
	})
}

// TestWhoIsBlamedForAKill holds the rule for processes that were ended from outside.
func TestWhoIsBlamedForAKill(t *testing.T) {
	t.Parallel()
	type end struct {
		boot string
		busy []string
	}
	one := end{"b", []string{"x"}}
	for name, c := range map[string]struct {
		ends []end
		want []string
	}{
		"three times alone":             {[]end{one, one, one}, []string{"x"}},
		"twice":                         {[]end{one, one}, nil},
		"not in a row":                  {[]end{one, one, {"b", nil}, one}, nil},
		"another flow was busy too":     {[]end{one, one, {"b", []string{"x", "y"}}}, nil},
		"the machine was started anew":  {[]end{one, one, {"c", []string{"x"}}}, nil},
		"and a clean end lies between":  {[]end{one, one, {"", nil}, one}, nil},
		"nobody was at work":            {[]end{{"b", nil}, {"b", nil}, {"b", nil}}, nil},
		"every time another one worked": {[]end{one, {"b", []string{"y"}}, one}, nil},
	} {
		var blamed []string
		streaks := map[string]int{}
		for _, e := range c.ends {
			m := marks{Boot: e.boot, Running: e.boot != "", Busy: e.busy, Streaks: streaks}
			blamed, streaks = m.blame("b")
		}
		if !slices.Equal(blamed, c.want) {
			t.Errorf("%s: blamed is %v, want %v", name, blamed, c.want)
		}
	}
}

func TestWhatIsKnownOfVersionsIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	want := supervisor.Record{Deployed: &supervisor.Kept{Version: 2, SHA256: []byte{1}, Origin: []byte{2}}, Failures: 2, Reason: "it panicked"}
	for _, id := range []string{"0190a", "../../etc/passwd", strings.Repeat("x", 300)} {
		if err := h.SaveRecord(id, want); err != nil {
			t.Fatal(err)
		}
		if got := open(t, dir).LoadRecord(id); got.Failures != 2 || got.Deployed.Version != 2 || got.Reason != want.Reason {
			t.Errorf("%s: read back is %+v", id, got)
		}
	}
	if err := h.KeepRecords([]string{"0190a"}); err != nil {
		t.Fatal(err)
	}
	if got := h.LoadRecord("../../etc/passwd"); got.Deployed != nil {
		t.Errorf("a removed flow is still known: %+v", got)
	}
	if err := os.WriteFile(h.path("0190a"), []byte(`{"deployed":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := h.LoadRecord("0190a"); got.Deployed != nil {
		t.Errorf("a damaged record gave %+v", got)
	}
	left, err := filepath.Glob(filepath.Join(dir, historyDir, "*.new*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestTheLastResort has a flow hold more than there is, by what the heap really has.
func TestTheLastResort(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	var rows strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&rows, "{\"ts\":\"2026-01-01T00:00:00Z\",\"n\":%d,\"text\":%q}\n", i, strings.Repeat("x", 200))
	}
	for name, text := range map[string]string{"big": rows.String(), "small": rows.String()[:250]} {
		if err := os.WriteFile(filepath.Join(r.root, name+".jsonl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reports, err := newReports(t.Context(), r.stage, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sup := supervisor.New(supervisor.Settings{
		Staging: staging{reports: reports, stage: r.stage}, Connector: all.Find, Memory: engine.NewMemory(1 << 40),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sup.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run gave %v", err)
		}
	}()
	files, err := r.connection(r.bundle(1, 1).Connections[0])
	if err != nil {
		t.Fatal(err)
	}
	flow := func(name string) supervisor.Deployment {
		return supervisor.Deployment{
			ID: name, FlowID: name, Name: name, Version: 1, Connections: []connector.Connection{files},
			Definition: fmt.Appendf(nil, `flow: %s
trigger: continuous
steps:
  - read: files
    with: {path: %s.jsonl, format: jsonl, follow: true}
    schema: {ts: timestamp, n: int, text: string}
  - aggregate: {rows: count()}
    by: [n, text]
    window: {tumbling: 1h, time: ts}
  - insight: kept
`, name, name),
		}
	}
	sup.Apply([]supervisor.Deployment{flow("small"), flow("big")})
	p := newPressure(sup, slog.New(slog.DiscardHandler))
	looks := time.NewTicker(10 * time.Millisecond)
	defer looks.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	read := func() bool {
		s := sup.Status()
		return len(s) == 2 && len(s[1].GetSources()) > 0 && s[1].GetSources()[0].GetLastRecord() > 0 && s[0].GetSources()[0].GetLastRecord() > 0
	}
	for looked := false; sup.Isolations().Memory == 0; {
		select {
		case <-looks.C:
		case <-limit.C:
			t.Fatalf("nothing was ended; the flows are %v", sup.Status())
		}
		if !looked && read() {
			// The limit is less than the process has, so it has run out.
			looked = true
			runtime.GC()                           // or the garbage may be more than half
			p.look(t.Context(), int64(p.heap()/4)) //nolint:gosec // far below
		}
	}
	for _, s := range sup.Status() {
		if got := strings.Contains(s.GetError(), "holds the most"); got != (s.GetName() == "big") {
			t.Errorf("the flow %s says %q", s.GetName(), s.GetError())
		}
	}
}

// TestAFolderThatCannotBeWritten wants that the agent runs without what it cannot keep.
func TestAFolderThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, historyDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(t, dir)
	if got := h.Crashes(); len(got) != 0 {
		t.Errorf("blamed is %v", got)
	}
	h.MarkBusy([]string{"a"})
	if err := h.SaveRecord("a", supervisor.Record{}); err == nil {
		t.Error("the record was kept, it is said")
	}
	if got := h.LoadRecord("a"); got.Deployed != nil {
		t.Errorf("the record is %+v", got)
	}
}
