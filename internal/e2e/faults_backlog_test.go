package e2e

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// backlog is how many insights wait in the test at length.
var backlog = flag.Int("backlog", 1_000_000, "with -long: how many insights wait in TestFaultBacklog")

const backlogFlow = `
flow: backlog
trigger: continuous
steps:
  - read: old
    with: {path: "*.csv", format: csv, follow: true}
    schema: {n: int, made: timestamp, machine: string, temp: float}
  - insight: backlog
    key: [machine]
`

const (
	// oldestStatus is how old the status and the newest run report may get at the API while a backlog drains.
	oldestStatus = 30 * time.Second
	// longestStall is for how long no insight may be staged while the plant works.
	longestStall = 10 * time.Second
	// mostDisk and mostMemory bound the agent afterwards and meanwhile.
	mostDisk   = 64 << 20
	mostMemory = 160 << 20
	// drainTime is how long the drain may take.
	drainTime = 15 * time.Minute
)

// TestFaultBacklog stages a backlog while the control plane cannot be reached, with restarts in between, and lets the link
// return while the plant works.
func TestFaultBacklog(t *testing.T) {
	b := &backlogTest{t: t, size: 20_000}
	if *long { // alone, for the sake of the figures
		b.size = *backlog
	} else {
		t.Parallel()
	}
	b.plant, b.site = newProductionSite(t)
	old := t.TempDir()
	b.site.connections(b.plant.connections() + fmt.Sprintf("old: {kind: file, root: %q}\n", old))
	b.site.apply(backlogFlow)
	b.site.eventually("the flow of the backlog runs", func() error {
		st := b.site.agentStatus()
		for _, f := range st.Flows {
			if f.Name == "backlog" && f.State == "running" {
				return nil
			}
		}
		return fmt.Errorf("the agent says %+v", st)
	})
	b.site.link.setCut(true)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.plant.run(ctx, 50*time.Millisecond) }()
	writeBacklog(t, old, b.size)
	b.fill()
	b.drain()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	b.check()
}

// writeBacklog writes the readings of the week into a file that appears as a whole.
func writeBacklog(t *testing.T, dir string, size int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "week.part"))
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "n,made,machine,temp")
	for n := range size {
		fmt.Fprintf(w, "%d,%s,press-%d,%.1f\n", n, origin.Add(time.Duration(n)*600*time.Millisecond).Format("2006-01-02 15:04:05.000"), n%12, 60+float64(n%300)/10)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, "week.csv")); err != nil {
		t.Fatal(err)
	}
}

type backlogTest struct {
	t     *testing.T
	plant *production
	site  *site
	size  int
	// mostStatus, mostRun, mostStall and mostResident are the greatest ages, pause and memory that were seen.
	mostStatus, mostRun, mostStall time.Duration
	mostResident                   int64
}

// fill waits until the backlog is staged, and restarts the agent in between.
func (b *backlogTest) fill() {
	b.t.Helper()
	began := time.Now()
	for _, part := range []struct {
		share int
		then  func()
	}{
		{3, func() { b.site.agent.kill(); b.site.startAgent() }},
		{2, func() { b.site.agent.stop(); b.site.startAgent() }},
		{1, b.killVerifying},
	} {
		want := uint64(b.size / part.share) //nolint:gosec // a count
		b.waitAgent(fmt.Sprintf("%d insights wait", want), func(st agentStatus) bool { return st.Outbox.Waiting >= want })
		b.noteMemory()
		part.then()
	}
	bytes, _ := usage(b.t, b.site.agentDir)
	b.t.Logf("%d insights staged in %v, with restarts in between; %d MiB on the disk", b.size, time.Since(began).Round(time.Second), bytes>>20)
}

// killVerifying kills the agent again and again while a child verifies what it has staged, which takes a while by now, and
// lets that child hang, as on a disk that does not answer: the next start does not find the files in use.
func (b *backlogTest) killVerifying() {
	b.t.Helper()
	const times = 5
	longest := time.Duration(0)
	part := "" // any file, since a small backlog is verified too quickly to be caught at it
	if *long {
		part = "outbox-"
	}
	hung := 0
	for range times {
		b.site.agent.mustLive()
		b.site.agent.kill()
		b.site.startAgent()
		child, found := b.site.agent.awaitChild(part)
		if !found {
			continue // on a busy machine it may be gone before anyone has looked
		}
		hung++
		awaitLock(b.t, child)
		b.site.agent.kill()
		if syscall.Kill(child, syscall.SIGSTOP) == nil {
			defer syscall.Kill(child, syscall.SIGKILL) //nolint:errcheck // it may have ended
		}
		b.site.startAgent()
		began := time.Now()
		b.waitAgent("the agent is there", func(st agentStatus) bool {
			b.site.agent.mustLive()
			return st.Outbox.Produced > 0
		})
		longest = max(longest, time.Since(began))
	}
	b.t.Logf("killed %d times, with a child that verified the backlog and hung in %d of them; it was there within %v", times+hung, hung, longest.Round(time.Millisecond))
	if hung == 0 {
		b.t.Error("no verification after a kill was met")
	}
}

// waitAgent waits until the agent's status is as wanted.
func (b *backlogTest) waitAgent(what string, good func(agentStatus) bool) {
	b.t.Helper()
	within(b.t, drainTime, what, func() error {
		if st := b.site.agentStatus(); !good(st) {
			return fmt.Errorf("the agent says %+v", st)
		}
		return nil
	})
}

// drain lets the link return, and looks at everything until the backlog is gone.
func (b *backlogTest) drain() {
	b.t.Helper()
	target := b.site.agentStatus().Outbox.Produced
	b.site.link.setCut(false)
	b.waitAgent("the agent is connected", func(st agentStatus) bool { return st.Tunnel.Connected })
	began := time.Now()
	produced, moved := target, began
	within(b.t, drainTime, "the backlog is gone", func() error {
		st := b.site.agentStatus()
		if st.Outbox.Produced > produced {
			produced, moved = st.Outbox.Produced, time.Now()
		}
		b.mostStall = max(b.mostStall, time.Since(moved))
		b.noteMemory()
		b.noteAges(began)
		if st.Outbox.Acknowledged < target {
			return fmt.Errorf("%d of %d are stored", st.Outbox.Acknowledged, target)
		}
		return nil
	})
	took := time.Since(began)
	b.t.Logf("%d insights drained in %v: %.0f a second", target, took.Round(time.Millisecond), float64(target)/took.Seconds())
	b.t.Logf("meanwhile the status was at most %v old at the API and the newest run %v; nothing was staged for at most %v; the agent had at most %d MiB",
		b.mostStatus.Round(time.Millisecond), b.mostRun.Round(time.Millisecond), b.mostStall.Round(time.Millisecond), b.mostResident>>20)
	if b.mostStatus > goal(oldestStatus) || b.mostRun > goal(oldestStatus) {
		b.t.Errorf("want status and run reports that are at most %v old", oldestStatus)
	}
	if b.mostStall > goal(longestStall) {
		b.t.Errorf("want insights to be staged at least every %v", longestStall)
	}
	if b.mostResident > mostMemory {
		b.t.Errorf("want at most %d MiB", mostMemory>>20)
	}
}

// noteAges asks the API for the newest status and run. Before the link returned they were old.
func (b *backlogTest) noteAges(since time.Time) {
	b.t.Helper()
	var agents struct {
		Items []struct {
			Status struct {
				Time time.Time `json:"time"`
			} `json:"status"`
		} `json:"items"`
	}
	var runs struct {
		Items []struct {
			Started time.Time `json:"started_at"`
			Ended   time.Time `json:"ended_at"`
		} `json:"items"`
	}
	if err := b.site.get("/agents", &agents); err != nil || len(agents.Items) == 0 {
		b.t.Fatalf("agents: %v %+v", err, agents)
	}
	if err := b.site.get("/runs?limit=1", &runs); err != nil || len(runs.Items) == 0 {
		b.t.Fatalf("runs: %v %+v", err, runs)
	}
	age := func(at time.Time) time.Duration {
		if at.Before(since) {
			at = since
		}
		return time.Since(at)
	}
	b.mostStatus = max(b.mostStatus, age(agents.Items[0].Status.Time))
	newest := runs.Items[0].Started // of one that is under way there is no end yet
	if runs.Items[0].Ended.After(newest) {
		newest = runs.Items[0].Ended
	}
	b.mostRun = max(b.mostRun, age(newest))
}

func (b *backlogTest) noteMemory() {
	b.mostResident = max(b.mostResident, b.site.agent.mostResident())
}

// check wants everything once, in order, and the agent small again without a restart.
func (b *backlogTest) check() {
	b.t.Helper()
	p := b.plant
	windows := wantedWindows(p.messages)
	want := uint64(b.size + p.messages + p.lines + p.rows + len(windows)) //nolint:gosec // a count
	b.waitAgent(fmt.Sprintf("%d insights are stored", want), func(st agentStatus) bool {
		return st.Outbox.Acknowledged >= want && st.Outbox.Waiting == 0
	})
	db := p.database.superuser(b.t)
	for name, n := range map[string]int{"backlog": b.size, "raw": p.messages, "pieces": p.lines, "orders": p.rows} {
		b.checkNames(db, name, n)
	}
	all, err := b.site.insights("per_ten_seconds")
	if err != nil {
		b.t.Fatal(err)
	}
	b.site.compareWindows(all, windows)
	var stored, first, last uint64
	var inOrder bool
	err = db.QueryRow(b.t.Context(), `SELECT count(*), min(seq), max(seq), bool_and(received_at >= before)
		FROM (SELECT seq, received_at, lag(received_at, 1, '-infinity') OVER (ORDER BY seq) AS before FROM insights) AS i`).Scan(&stored, &first, &last, &inOrder)
	if err != nil {
		b.t.Fatal(err)
	}
	if stored != want || first != 1 || last != want || !inOrder {
		b.t.Errorf("%d insights from %d to %d are stored, in order: %v; want %d", stored, first, last, inOrder, want)
	}
	b.site.checkAgentIsWell(mostDisk)
	bytes, _ := usage(b.t, b.site.agentDir)
	b.t.Logf("%d insights: 0 lost, 0 doubled, oldest first; %.1f MiB on the agent's disk afterwards", stored, float64(bytes)/(1<<20))
}

// checkNames wants each number once, and rising with the sequence.
func (b *backlogTest) checkNames(db *pgx.Conn, name string, want int) {
	b.t.Helper()
	var count, different, least, most int
	var rising bool
	err := db.QueryRow(b.t.Context(), `SELECT count(*), count(DISTINCT n), coalesce(min(n), 0), coalesce(max(n), -1), coalesce(bool_and(n > before), true)
		FROM (SELECT n, lag(n, 1, -1) OVER (ORDER BY seq) AS before
			FROM (SELECT seq, (values_json ->> 'n')::int AS n FROM insights WHERE name = $1) AS i) AS j`, name).Scan(&count, &different, &least, &most, &rising)
	if err != nil {
		b.t.Fatal(err)
	}
	if count != want || different != want || least != 0 || most != want-1 || !rising {
		b.t.Errorf("%s: %d insights with %d numbers from %d to %d, rising: %v; want %d", name, count, different, least, most, rising, want)
	}
}

// mostResident is the most memory that the process had so far, in bytes; 0 when it has ended.
func (p *process) mostResident() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	return 0
}
