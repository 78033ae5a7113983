package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
)

const ordersFlow = `
flow: orders
steps:
  - id: made
    read: press
    schema: {ts: timestamp, order_no: int, n: int}
  - id: order
    lookup: erp
    on: {order_no: id}
    schema: {product: string, planned: int}
    type: left
    cache: {size: 100, age: 1m}
  - insight: progress
    key: [order_no]
    time: ts
`

// erp is a system that knows every id below known but the sevens, by the name p<id>.
type erp struct {
	known    int64
	twice    int64
	asked    [][]int64
	faults   []error
	before   func()
	rows     *column.Batch
	closed   int
	mistaken bool
}

func (e *erp) Fetch(ctx context.Context, keys *column.Batch) (connector.Found, error) {
	if e.before != nil {
		e.before()
	}
	if ctx.Err() != nil {
		return connector.Found{}, ctx.Err()
	}
	if len(e.faults) > 0 {
		err := e.faults[0]
		e.faults = e.faults[1:]
		return connector.Found{}, err
	}
	e.asked = append(e.asked, slices.Clone(keys.Cols[0].Ints))
	e.rows.Reset()
	found := connector.Found{Rows: e.rows}
	add := func(i int, id int64) {
		for c := range e.rows.Cols {
			if e.rows.Schema[c].Name == "product" {
				e.rows.Cols[c].AppendStr(fmt.Appendf(nil, "p%d", id))
			} else {
				e.rows.Cols[c].AppendInt(id * 10)
			}
		}
		e.rows.Len++
		found.Key = append(found.Key, i32(i))
	}
	for i, id := range slices.Backward(keys.Cols[0].Ints) {
		if id >= e.known || id%10 == 7 {
			continue
		}
		if add(i, id); id == e.twice && id != 0 {
			add(i, id)
		}
	}
	if e.mistaken {
		found.Unreadable = map[int32]string{0: "0.5 is not a whole number"}
	}
	return found, nil
}

func (e *erp) Close() error { e.closed++; return nil }

func ordersRun(tb testing.TB, text string, e *erp, store Store, orders ...any) RunSettings {
	tb.Helper()
	data := &table{}
	for i, o := range orders {
		data.rows = append(data.rows, map[string]any{"ts": int64(i) * 1000, "order_no": o, "n": int64(i)})
	}
	return RunSettings{
		Program: program(tb, text), Store: store, Open: opener(map[string]*table{"made": data}, 3), Started: time.Unix(0, 0),
		OpenLookup: func(need ReadNeed) (connector.Lookup, error) {
			e.rows = column.NewBatch(need.Schema)
			return e, nil
		},
	}
}

func ids(list ...int64) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}

func TestLookupAsksOnceForAKey(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]string{
		"left":  "1:p1 1:p1 2:p2 7:null null:null 99:null 2:p2 7:null",
		"inner": "1:p1 1:p1 2:p2 2:p2",
	} {
		e := &erp{known: 50}
		store := newStore()
		set := ordersRun(t, strings.Replace(ordersFlow, "left", kind, 1), e, store, int64(1), int64(1), int64(2), int64(7), nil, int64(99), int64(2), int64(7))
		report, err := Run(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, in := range store.insights {
			key := strings.TrimSuffix(strings.TrimPrefix(string(in.Key), `{"order_no":`), "}")
			product := "null"
			if _, after, ok := strings.Cut(string(in.Values), `"product":"`); ok {
				product, _, _ = strings.Cut(after, `"`)
			}
			got = append(got, key+":"+product)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s gives %q, want %q", kind, strings.Join(got, " "), want)
		}
		if asked := fmt.Sprint(e.asked); asked != "[[1 2] [7 99]]" || e.closed != 1 {
			t.Errorf("it asked for %s and was closed %d times", asked, e.closed)
		}
		last := report.Sources[len(report.Sources)-1]
		if last.Step != "order" || last.Connection != "erp" || last.State != "ended" {
			t.Errorf("the report says %+v", last)
		}
	}
}

func TestLookupFailsWhatIsNotClear(t *testing.T) {
	t.Parallel()
	e := &erp{known: 50, twice: 4, mistaken: true}
	store := newStore()
	report, err := Run(t.Context(), ordersRun(t, ordersFlow, e, store, ids(4, 3, 4)...))
	if err != nil {
		t.Fatal(err)
	}
	// Key 0 of the question is 4, which is also there twice.
	if report.Failed != 2 || len(store.insights) != 1 || !strings.Contains(report.Sample[0].Reason, "id = 4") {
		t.Errorf("%d failed, %d insights, sample %+v", report.Failed, len(store.insights), report.Sample)
	}
}

func TestLookupPrunesWhatNothingReads(t *testing.T) {
	t.Parallel()
	text := strings.Replace(ordersFlow, "  - insight", "  - select: [ts, order_no, planned]\n  - insight", 1)
	reads := program(t, text).Reads()
	if len(reads) != 2 || reads[1].Role != RoleLookup || len(reads[1].Schema) != 1 || reads[1].Schema[0].Name != "planned" || reads[1].Keys[0].Name != "id" {
		t.Errorf("the program reads %+v", reads)
	}
	if names := reads[0].Schema.Names(); !slices.Equal(names, []string{"ts", "order_no"}) {
		t.Errorf("the source delivers %v", names)
	}
}

func TestLookupBelievesForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &erp{known: 50}
		calls := 0
		set := ordersRun(t, ordersFlow, e, newStore(), ids(1, 1, 1, 1, 1, 1, 7, 7, 7, 1, 1, 1)...)
		open := set.Open
		set.Open = func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			source, err := open(need, from)
			m, _ := source.(*memory)
			m.onNext = func(int) {
				if calls++; calls == 3 || calls == 4 {
					<-time.NewTimer(40 * time.Second).C // of the bubble's clock
				}
			}
			return m, err
		}
		if _, err := Run(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		if asked := fmt.Sprint(e.asked); asked != "[[1] [7] [1]]" {
			t.Errorf("it asked for %s", asked)
		}
	})
}

func TestLookupCacheIsBounded(t *testing.T) {
	t.Parallel()
	schema := expr.Schema{{Name: "product", Type: expr.String}}
	keys := expr.Schema{{Name: "id", Type: expr.Int}}
	c := newLookupCache(keys, schema, 100, time.Minute)
	e := &erp{known: 1 << 40, rows: column.NewBatch(schema)}
	side := newKeySide([]int{0})
	for turn := range int64(500) {
		b := column.NewBatch(keys)
		b.Cols[0].Ints, b.Len = []int64{turn * 2, turn*2 + 1, 5}, 3
		c.trim()
		entries, err := c.find(side.load(b), nil)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Duration(turn) * time.Second
		missing := slices.Clone(c.missing(entries, now))
		question, err := c.question(missing)
		if err != nil {
			t.Fatal(err)
		}
		found, _ := e.Fetch(t.Context(), question)
		if err = c.store(missing, &found, now, "erp"); err != nil {
			t.Fatal(err)
		}
		for i, entry := range entries {
			id := b.Cols[0].Ints[i]
			want := fmt.Sprintf("p%d", id)
			if id%10 == 7 {
				if c.row[entry] != noEntry {
					t.Fatalf("turn %d: %d is found", turn, id)
				}
			} else if got := string(c.rows[0].Bytes(int(c.row[entry]))); got != want {
				t.Fatalf("turn %d: %d gives %s", turn, id, got)
			}
		}
		if c.table.len() > 103 || c.n > 203+maxQuestion {
			t.Fatalf("turn %d: %d keys and %d rows are held", turn, c.table.len(), c.n)
		}
	}
	fives := 0
	for _, asked := range e.asked {
		if slices.Contains(asked, 5) {
			fives++
		}
	}
	if fives != 9 { // wanted in every turn, so it stays, and is asked for once in a minute
		t.Errorf("the key of every batch was asked for %d times", fives)
	}
}

func TestLookupWaitsForItsSystem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &erp{known: 50, faults: []error{errors.New("refused"), errors.New("refused")}}
		store := newStore()
		set := ordersRun(t, ordersFlow, e, store, ids(1, 2)...)
		r := NewRunner(set)
		var during string
		e.before = func() {
			if len(e.faults) == 1 {
				during = fmt.Sprint(r.Report().Sources[1])
			}
		}
		began := time.Now()
		if err := r.Run(t.Context()); err != nil || len(store.insights) != 2 {
			t.Fatalf("%v, %d insights", err, len(store.insights))
		}
		if took := time.Since(began); took == 0 || !strings.Contains(during, "failing refused") {
			t.Errorf("it took %v and said %q meanwhile", took, during)
		}
	})
}

func TestLookupThatCannotWorkEndsTheRun(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{"permanent": &connector.PermanentError{Err: errors.New("no such table")}} {
		e := &erp{known: 50, faults: []error{fault}}
		store := newStore()
		_, err := Run(t.Context(), ordersRun(t, ordersFlow, e, store, ids(1)...))
		if err == nil || !strings.Contains(err.Error(), "step order: connection erp: no such table") || store.commits != 0 {
			t.Errorf("%s: %v, %d commits", name, err, store.commits)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("ended by the test")
	e := &erp{known: 50, before: func() { cancel(ended) }}
	if _, err := Run(ctx, ordersRun(t, ordersFlow, e, newStore(), ids(1)...)); !errors.Is(err, ended) {
		t.Errorf("a context that ends gives %v", err)
	}
}

// lookupStepper pushes a batch whose keys are all remembered.
func lookupStepper(tb testing.TB) func() {
	tb.Helper()
	p := program(tb, strings.Replace(strings.Replace(ordersFlow, "size: 100", "size: 10000", 1), "  - insight", "  - filter: planned < 0\n  - insight", 1))
	pipe, err := p.main.instantiate(func(int) span { return endless }, 0)
	if err != nil {
		tb.Fatal(err)
	}
	l := pipe.lookups[0]
	e := &erp{known: 1 << 40, rows: column.NewBatch(l.need.Schema)}
	l.now = func() time.Duration { return 0 }
	l.fetch = func(keys *column.Batch) (connector.Found, error) { return e.Fetch(tb.Context(), keys) }
	b := column.NewBatch(p.main.reads[0].need.Schema)
	for i := range column.TargetRows {
		b.Cols[0].AppendInt(int64(i))
		b.Cols[1].AppendInt(int64(i % 1000))
		b.Cols[2].AppendInt(int64(i))
		b.Len++
	}
	return func() {
		if err := pipe.sources[0].push(b); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestLookupOfRememberedKeysAllocatesNothing is not parallel, because it counts the allocations of the whole process.
func TestLookupOfRememberedKeysAllocatesNothing(t *testing.T) {
	step := lookupStepper(t)
	step()
	if n := testing.AllocsPerRun(50, step); n > 0 {
		t.Errorf("%v allocations for %d rows", n, column.TargetRows)
	}
}

func BenchmarkLookup(b *testing.B) {
	step := lookupStepper(b)
	step()
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/column.TargetRows, "ns/row")
}
