package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent"
)

const spillFlow = `flow: big
steps:
  - id: counts
    read: here
    with: {path: left.csv, format: csv}
    schema: {ord: int, machine: string, qty: int}
  - id: orders
    read: here
    with: {path: right.csv, format: csv}
    schema: {ord: int, customer: string, price: int}
  - id: joined
    join: orders
    from: counts
    on: [ord]
  - map: {value: qty * price}
  - aggregate: {n: count(), value: sum(value), share: avg(qty)}
    by: [GROUP]
  - insight: out
    key: [GROUP]
`

// writeBig writes left and right files of so many rows; every left row has one match. Customers' names are of this width.
func writeBig(t *testing.T, dir string, left, right, width int) {
	t.Helper()
	file := func(name, head string, n int, row func(w io.Writer, i int)) {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriterSize(f, 1<<20)
		fmt.Fprintln(w, head)
		for i := range n {
			row(w, i)
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	file("right.csv", "ord,customer,price", right, func(w io.Writer, i int) { fmt.Fprintf(w, "%d,C%0*d,%d\n", i, width, i%1000, i%977) })
	x, orders := uint64(1), uint64(right) //nolint:gosec // a number of rows
	file("left.csv", "ord,machine,qty", left, func(w io.Writer, i int) {
		x = x*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
		fmt.Fprintf(w, "%d,M%d,%d\n", x>>33%orders, i%50, i%13)
	})
}

func spillDefinition(t *testing.T, dir, group string) agent.Definition {
	t.Helper()
	d := definition(t, dir)
	d.Flow = []byte(strings.ReplaceAll(spillFlow, "GROUP", group))
	return d
}

var timeMember = regexp.MustCompile(`"time":"[^"]*",`)

func withoutTime(out string) string { return timeMember.ReplaceAllString(out, "") }

func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("%d spilled files are left in %s", len(entries), dir)
	}
}

func TestAFlowThatSpillsPrintsTheSameAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeBig(t, dir, 100_000, 200_000, 120)
	d := spillDefinition(t, dir, "ord, customer")
	var want, got, log bytes.Buffer
	if _, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, MemoryLimit: 2 << 30, Out: &want, Log: &log}); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	scratch := filepath.Join(data, "stage", "scratch")
	// A process that was killed has left this behind.
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, scratch, "1.spill", "rows")
	if _, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, DataDir: data, MemoryLimit: 48 << 20, Out: &got, Log: &log}); err != nil {
		t.Fatal(err)
	}
	if withoutTime(got.String()) != withoutTime(want.String()) || want.Len() == 0 {
		t.Errorf("the spilled run printed %d bytes, the one in memory %d, or in another order", got.Len(), want.Len())
	}
	empty(t, scratch)
}

func TestACancelledRunThatSpilledStartsOver(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), t.TempDir()
	writeBig(t, dir, 100_000, 200_000, 120)
	d := spillDefinition(t, dir, "customer")
	scratch := filepath.Join(data, "stage", "scratch")
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan bool)
	go func() {
		defer close(watched)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if entries, err := os.ReadDir(scratch); err == nil && len(entries) > 20 {
				cancel()
				watched <- true
				return
			}
		}
	}()
	var out, log bytes.Buffer
	_, err := agent.RunFlow(ctx, agent.FlowRun{Definition: d, DataDir: data, MemoryLimit: 48 << 20, Out: &out, Log: &log})
	cancelled := ctx.Err() != nil
	cancel()
	if spilled := <-watched; !spilled || !cancelled || err != nil || out.Len() > 0 {
		t.Fatalf("spilled %t, cancelled %t: %v, and %d bytes were printed", spilled, cancelled, err, out.Len())
	}
	empty(t, scratch)
	if _, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, DataDir: data, Out: &out, Log: &log}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 1000 {
		t.Errorf("the second run printed %d insights, want 1000", n)
	}
}

var long = flag.Bool("long", false, "also run what takes minutes: 50 million rows joined with 5 million")

// TestFiftyMillionRowsJoinedWithFiveMillion measures what is promised: the process stays within its limit, and spilling
// takes at most three times as long as memory does.
func TestFiftyMillionRowsJoinedWithFiveMillion(t *testing.T) {
	if !*long {
		t.Skip("takes minutes and 1 GB of disk; run it with -long")
	}
	dir := t.TempDir()
	writeBig(t, dir, 50_000_000, 5_000_000, 3)
	binary := filepath.Join(dir, "outfeed-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/outfeed-agent").CombinedOutput(); err != nil { //nolint:gosec // a fixed command
		t.Fatalf("%v: %s", err, out)
	}
	d := spillDefinition(t, dir, "customer")
	write(t, dir, "flow.yaml", string(d.Flow))
	write(t, dir, "conn.yaml", string(d.Connections))
	measured := func(limit string) (out string, took time.Duration, kilobytes int64) {
		c := exec.CommandContext(t.Context(), binary, "flow", "run", filepath.Join(dir, "flow.yaml"), "--connections", filepath.Join(dir, "conn.yaml"), "--memory-limit", limit) //nolint:gosec // what was built above
		began := time.Now()
		text, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return withoutTime(string(text)), time.Since(began), peak(c.ProcessState)
	}
	want, inMemory, _ := measured("4GB")
	got, spilled, kilobytes := measured("128MB")
	t.Logf("in memory %v; spilled %v, at most %d MiB resident", inMemory, spilled, kilobytes>>10)
	if got != want {
		t.Error("spilling changes what comes out")
	}
	if kilobytes > 128<<10 {
		t.Errorf("the process took %d MiB, more than its limit of 128", kilobytes>>10)
	}
	if spilled > 3*inMemory {
		t.Errorf("spilling takes %v, more than three times %v", spilled, inMemory)
	}
}
