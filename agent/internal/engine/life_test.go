package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// TestFlowsShareTheMemory has a flow take all it can get, and wants that the others get their part all the same.
func TestFlowsShareTheMemory(t *testing.T) {
	t.Parallel()
	const limit = 64 << 20
	root := NewMemory(limit)
	alone := root.Flow()
	if b := (&budget{memory: alone}); !b.fit(limit) || b.fit(limit+1) {
		t.Error("a flow alone does not get all of it")
	} else if b.release(); root.pool.used != 0 {
		t.Errorf("%d bytes are left", root.pool.used)
	}
	others := make([]*budget, 7)
	for i := range others {
		others[i] = &budget{memory: root.Flow()}
	}
	hungry := []*budget{{memory: alone}, {memory: root.Flow()}, {memory: root.Flow()}}
	for size := int64(0); size < limit; size += 1 << 20 {
		for _, b := range hungry {
			b.fit(b.held + 1<<20)
		}
	}
	if got := hungry[0].held; got > limit/oneFlow {
		t.Errorf("one flow got %d bytes", got)
	}
	for i, b := range others {
		if want := int64(limit / keptFree / 10); !b.fit(want) {
			t.Errorf("flow %d does not get its %d bytes", i, want)
		}
	}
	if root.pool.used > limit {
		t.Errorf("%d bytes are taken of %d", root.pool.used, limit)
	}
	for _, b := range append(hungry, others...) {
		b.release()
		b.memory.Leave()
	}
	if root.pool.used != 0 || root.pool.flows != 0 {
		t.Errorf("left are %d bytes and %d flows", root.pool.used, root.pool.flows)
	}
	var none *Memory
	none.Flow().Leave()
}

const pairsFlow = `flow: f
steps:
  - id: left
    read: a
    schema: {k: int, n: int}
  - id: right
    read: a
    schema: {k: int, m: int}
  - from: left
    join: right
    on: [k]
%s`

func samekey(n int) map[string]*table {
	data := &table{}
	for i := range n {
		data.rows = append(data.rows, map[string]any{"k": int64(1), "n": int64(i), "m": int64(i)})
	}
	return map[string]*table{"left": data, "right": data}
}

// TestARunEndsInTheMiddleOfABatch ends runs while one batch of theirs makes a hundred million rows, with End and with the
// context: nothing of the batch is committed, and they return soon.
func TestARunEndsInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	for name, end := range map[string]func(r *Runner, cancel context.CancelCauseFunc){
		"by End":         func(r *Runner, _ context.CancelCauseFunc) { r.End(cause) },
		"by the context": func(_ *Runner, cancel context.CancelCauseFunc) { cancel(cause) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore()
			r := NewRunner(RunSettings{
				Program: program(t, fmt.Sprintf(pairsFlow, "  - aggregate: {s: sum(n * m)}\n  - insight: out\n")), Store: store,
				Open: opener(samekey(30_000), 30_000), Memory: NewMemory(256 << 20), Scratch: &memScratch{},
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- r.Run(ctx) }()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				<-tick.C
				if p := r.Progress(nil); p[0].Busy > 0 && p[0].Beats > 2000 {
					break
				}
			}
			began := time.Now()
			end(r, cancel)
			if err := <-ended; !errors.Is(err, cause) {
				t.Errorf("the run ended with %v", err)
			}
			if took := time.Since(began); took > patience+5*time.Second {
				t.Errorf("it took %s to end", took)
			}
			if store.commits != 0 || len(store.insights) != 0 {
				t.Errorf("%d commits, %d insights", store.commits, len(store.insights))
			}
		})
	}
}

// TestInsightsOfOneBatchGoToDisk has one batch of a run that ends make more insights than may wait in memory.
func TestInsightsOfOneBatchGoToDisk(t *testing.T) {
	t.Parallel()
	store, scratch := newStore(), &memScratch{}
	_, err := Run(t.Context(), RunSettings{
		Program: program(t, fmt.Sprintf(pairsFlow, "  - insight: out\n")), Store: store, Open: opener(samekey(600), 600),
		Memory: NewMemory(64 << 20), Scratch: scratch,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(store.insights) != 600*600 || scratch.created == 0 || scratch.open != 0 {
		t.Errorf("%d insights, %d scratch files of which %d are open", len(store.insights), scratch.created, scratch.open)
	}
	for i, in := range store.insights {
		if !strings.Contains(string(in.Values), fmt.Sprintf(`"n":%d,"m":%d`, i/600, i%600)) {
			t.Fatalf("insight %d is %s", i, in.Values)
		}
	}
}

// TestTextsThatAreTooLargeCommitNothing wants that what expressions could no longer make is never committed as null.
func TestTextsThatAreTooLargeCommitNothing(t *testing.T) {
	t.Parallel()
	text := "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {a: string}\n" +
		strings.Repeat("  - map: {a: a + a + a + a}\n", 7) + strings.Repeat("  - map: {a: upper(a)}\n", 20) + "  - aggregate: {n: count(), last: max(a)}\n  - insight: out\n"
	data := &table{}
	for range 3000 {
		data.rows = append(data.rows, map[string]any{"a": "press"})
	}
	store := newStore()
	_, err := Run(t.Context(), RunSettings{
		Program: program(t, text), Store: store, Open: opener(map[string]*table{"l": data}, 3000), Memory: NewMemory(1 << 20), Scratch: &memScratch{},
	})
	if Overrun(err) != OverrunMemory || store.commits != 0 {
		t.Errorf("%d commits, the error is %v", store.commits, err)
	}
}

// TestTextsThatStepsPassOnCountOnce has texts of 10 MiB, of the 32 that a run may hold, pass many steps and come from
// many sources, of which one is read at a time.
func TestTextsThatStepsPassOnCountOnce(t *testing.T) {
	t.Parallel()
	data, tables := &table{}, map[string]*table{}
	for range 1000 {
		data.rows = append(data.rows, map[string]any{"a": strings.Repeat("press ", 10<<10/6), "n": int64(1)})
	}
	var text strings.Builder
	text.WriteString("flow: f\nsteps:\n")
	var ends []string
	for i := range 6 {
		tables[fmt.Sprintf("r%d", i)] = data
		fmt.Fprintf(&text, "  - id: r%d\n    read: a\n    schema: {a: string, n: int}\n", i)
		text.WriteString(strings.Repeat("  - filter: n > 0 and length(a) > 0\n", 6) + "  - select: [n, a]\n  - validate: {a: {required: true}}\n")
		fmt.Fprintf(&text, "  - id: f%d\n    map: {b: n + 1}\n", i)
		ends = append(ends, fmt.Sprintf("f%d", i))
	}
	text.WriteString("  - union: [" + strings.Join(ends, ", ") + "]\n  - aggregate: {n: count(), last: max(a)}\n  - insight: out\n")
	store := newStore()
	r := NewRunner(RunSettings{Program: program(t, text.String()), Store: store, Open: opener(tables, 1000), Memory: NewMemory(1 << 20), Scratch: &memScratch{}})
	if err := r.Run(t.Context()); err != nil || len(store.insights) != 1 || !strings.HasPrefix(string(store.insights[0].Values), `{"n":6000,`) {
		t.Errorf("%d insights, %v", len(store.insights), err)
	}
	if texts := r.life.texts.Load(); texts < 0 || texts > 1<<20 {
		t.Errorf("%d bytes of texts are still counted", texts)
	}
}

// brokenSource delivers a batch that is none.
type brokenSource struct{ *memory }

func (b brokenSource) Next(ctx context.Context) (connector.Delivery, error) {
	d, err := b.memory.Next(ctx)
	if err == nil && d.Batch != nil && d.Cursor != nil {
		d.Batch.Len += 1000
	}
	return d, err
}

// TestAPanicOfTheOperatorsEndsTheRunAlone wants that what was started is stopped, and the sources closed.
func TestAPanicOfTheOperatorsEndsTheRunAlone(t *testing.T) {
	t.Parallel()
	store := newStore()
	var source *memory
	_, err := Run(t.Context(), RunSettings{
		Program: program(t, "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {n: int}\n  - filter: n + 1 > 0\n  - insight: out\n"), Store: store,
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			source = newMemory(need, from, samekey(10)["left"], 5)
			return brokenSource{source}, nil
		},
	})
	caught, panicked := errors.AsType[*connector.PanicError](err)
	if !panicked || !strings.Contains(string(caught.Stack), "engine") || store.commits != 0 {
		t.Errorf("%d commits, the error is %v", store.commits, err)
	}
	if !source.closed {
		t.Error("the source is open")
	}
}

// TestAHoppingWindowIsMeasuredOnTheWay has one batch of rows belong to a thousand windows each: the run fails before the groups
// take many times the memory, and where it may spill the result is that of one without a limit.
func TestAHoppingWindowIsMeasuredOnTheWay(t *testing.T) {
	t.Parallel()
	const text = "flow: f\n%ssteps:\n  - id: l\n    read: a\n    schema: {ts: timestamp, k: int}\n  - aggregate: {n: count()}\n    by: [k]\n    window: {hopping: 1000s, every: 1s, time: ts}\n  - insight: out\n"
	data := &table{}
	for i := range 40 {
		data.rows = append(data.rows, map[string]any{"ts": time.Unix(int64(i*7), 0).UTC().Format(time.RFC3339), "k": int64(i % 9)})
	}
	tables := map[string]*table{"l": data}
	want, _ := runBounded(t, fmt.Sprintf(text, ""), tables, 40)
	_, got, err := runLimited(t, RunSettings{Program: program(t, fmt.Sprintf(text, "")), Open: opener(tables, 40)}, 2<<20)
	if err != nil || len(got) != len(want) || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("spilled, there are %d insights (%v), want %d", len(got), err, len(want))
	}
}
