package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
)

// memScratch is a Scratch in memory that counts.
type memScratch struct {
	mu      sync.Mutex
	open    int
	created int
	written int64
	// room is how many bytes fit; 0 means any.
	room int64
}

var errDiskFull = errors.New("the disk is full")

func (s *memScratch) Create() (ScratchFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.created++
	return &memScratchFile{s: s}, nil
}

type memScratchFile struct {
	s      *memScratch
	data   []byte
	closed bool
}

func (f *memScratchFile) Write(p []byte) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.written += int64(len(p)); f.s.room > 0 && f.s.written > f.s.room {
		return 0, errDiskFull
	}
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *memScratchFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.data).ReadAt(p, off)
}

func (f *memScratchFile) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return errors.New("a scratch file was closed twice")
	}
	f.closed, f.data = true, nil
	f.s.open--
	return nil
}

// runLimited is runBounded with a limit. It checks that everything was given back.
func runLimited(tb testing.TB, set RunSettings, limit int64) (*memScratch, []string, error) {
	tb.Helper()
	scratch, memory, store := &memScratch{}, &Memory{pool: &pool{limit: limit, floor: limit / 16}}, newStore()
	if set.Scratch == nil {
		set.Scratch = scratch
	} else if given, ok := set.Scratch.(*memScratch); ok {
		scratch = given
	}
	if set.Store == nil {
		set.Store = store
	}
	set.Memory, set.Started = memory, time.Unix(0, 0)
	_, err := Run(tb.Context(), set)
	if scratch.open != 0 || memory.held() != 0 {
		tb.Errorf("after the run %d scratch files are open and %d bytes are reserved", scratch.open, memory.held())
	}
	return scratch, store.lines(), err
}

const spillJoin = `
flow: f
steps:
  - id: l
    read: a
    schema: {k: KEY, k2: string, n: int, s: string, f: float, ok: bool}
  - id: r
    read: b
    schema: {k: KEY, q2: string, m: int, t: string, g: float, yes: bool}
  - id: j
    join: r
    from: l
    on: {ON}
    type: KIND
  - insight: out
    key: [k]
`

func drawSpillValue(t *rapid.T, typ string, distinct int) any {
	v := rapid.IntRange(-1, distinct).Draw(t, "v")
	if v < 0 {
		return nil
	}
	switch typ {
	case "int":
		return int64(v)
	case "float":
		return []any{float64(v), math.Copysign(0, -1), float64(v) / 3}[v%3]
	case "bool":
		return v%2 == 0
	}
	return strings.Repeat("k", v%5) + strconv.Itoa(v)
}

func drawSpillTable(t *rapid.T, n, distinct int, columns map[string]string) *table {
	giant := rapid.Bool().Draw(t, "giant")
	d := &table{}
	for i := range n {
		row := map[string]any{}
		for _, name := range sortedKeys(columns) {
			row[name] = drawSpillValue(t, columns[name], distinct)
		}
		if giant && i%4 != 0 {
			row["k"] = drawGiant(columns["k"])
			row["k2"], row["q2"] = "x", "x"
		}
		d.rows = append(d.rows, row)
	}
	return d
}

func drawGiant(typ string) any {
	if typ == "int" {
		return int64(7)
	}
	if typ == "float" {
		return 7.0
	}
	return "kk7"
}

func TestASpilledJoinGivesWhatOneInMemoryDoes(t *testing.T) {
	t.Parallel()
	spilled := 0
	rapid.Check(t, func(rt *rapid.T) {
		typ := rapid.SampledFrom([]string{"int", "string", "float"}).Draw(rt, "type")
		kind := rapid.SampledFrom([]string{"inner", "left", "semi", "anti", "full"}).Draw(rt, "kind")
		on := rapid.SampledFrom([]string{"k: k", "k: k, k2: q2"}).Draw(rt, "on")
		text := strings.NewReplacer("KEY", typ, "KIND", kind, "ON", on).Replace(spillJoin)
		distinct := rapid.SampledFrom([]int{3, 50, 5000}).Draw(rt, "distinct")
		tables := map[string]*table{
			"l": drawSpillTable(rt, rapid.IntRange(0, 120).Draw(rt, "left"), distinct, map[string]string{"k": typ, "k2": "string", "n": "int", "s": "string", "f": "float", "ok": "bool"}),
			"r": drawSpillTable(rt, rapid.IntRange(0, 120).Draw(rt, "right"), distinct, map[string]string{"k": typ, "q2": "string", "m": "int", "t": "string", "g": "float", "yes": "bool"}),
		}
		want, _ := runBounded(t, text, tables, 4096)
		size := rapid.IntRange(1, 50).Draw(rt, "batch")
		limit := int64(rapid.SampledFrom([]int{1, 20_000}).Draw(rt, "limit"))
		scratch, got, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, size), CommitRows: 7}, limit)
		if err != nil {
			rt.Fatal(err)
		}
		spilled += scratch.created
		sameLines(t, kind+" on "+on, got, want)
	})
	if spilled == 0 {
		t.Error("nothing was spilled")
	}
}

// bigTables has n rows on the left and right, a share of them of one key.
func bigTables(n, giant int) map[string]*table {
	left, right := &table{}, &table{}
	for i := range n {
		k := int64(i * 7919 % (n + 13))
		left.rows = append(left.rows, map[string]any{"k": k, "n": int64(i)})
		if i < giant {
			k = 5
		}
		right.rows = append(right.rows, map[string]any{"k": k, "m": int64(i), "t": "t" + strconv.Itoa(i)})
	}
	return map[string]*table{"l": left, "r": right}
}

const bigJoin = `
flow: f
steps:
  - id: l
    read: a
    schema: {k: int, n: int}
  - id: r
    read: b
    schema: {k: int, m: int, t: string}
  - id: j
    join: r
    from: l
    on: [k]
    type: KIND
  - insight: out
    key: [k]
`

func TestPartsThatAreTooLargeAreCutAgainAndAGiantKeyIsTakenInPieces(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"inner", "left", "semi", "anti", "full"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(bigJoin, "KIND", kind, 1)
			tables := bigTables(30_000, 20_000)
			want, _ := runBounded(t, text, tables, 4096)
			scratch, got, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, 1000)}, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			if scratch.created < 100 {
				t.Errorf("only %d scratch files were made, so no part was cut again", scratch.created)
			}
			sameLines(t, kind, got, want)
		})
	}
}

func TestARunThatSpilledCommitsOnceAndStartsOverWhenItIsKilled(t *testing.T) {
	t.Parallel()
	text := strings.Replace(bigJoin, "KIND", "left", 1)
	tables := bigTables(5000, 10)
	want, _ := runBounded(t, text, tables, 4096)
	for _, fault := range []error{errors.New("killed"), nil} {
		store, broken := newStore(), fault
		store.onCommit = func(s *memStore) {
			if n := len(s.insights); n != len(want) {
				t.Errorf("a commit has %d insights, want all %d", n, len(want))
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		open := func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			if len(from) > 0 {
				t.Error("the run does not start over")
			}
			m := newMemory(need, from, tables[need.Step], 500)
			if need.Step == "l" && broken != nil {
				m.onNext = func(at int) {
					if at >= 4000 {
						cancel(broken)
					}
				}
			}
			return m, nil
		}
		scratch := &memScratch{}
		_, err := Run(ctx, RunSettings{
			Program: program(t, text), Open: open, Store: store, Scratch: scratch, Memory: NewMemory(1 << 14),
			Started: time.Unix(0, 0), CommitRows: 100, CommitEvery: time.Nanosecond,
		})
		cancel(nil)
		if scratch.open != 0 {
			t.Errorf("%d scratch files are left", scratch.open)
		}
		if broken != nil {
			if !errors.Is(err, broken) || store.commits != 0 {
				t.Errorf("the killed run ended with %v after %d commits", err, store.commits)
			}
			continue
		}
		if err != nil || store.commits != 1 {
			t.Errorf("the run ended with %v after %d commits", err, store.commits)
		}
		sameLines(t, "the second run", store.lines(), want)
	}
}

func TestAFullDiskEndsTheRunWithItsReason(t *testing.T) {
	t.Parallel()
	text := strings.Replace(bigJoin, "KIND", "inner", 1)
	for _, room := range []int64{1, 100_000, 300_000} {
		_, got, err := runLimited(t, RunSettings{
			Program: program(t, text), Open: opener(bigTables(20_000, 0), 1000), Scratch: &memScratch{room: room},
		}, 1<<14)
		if !errors.Is(err, errDiskFull) || len(got) > 0 {
			t.Errorf("with room for %d bytes the run ends with %v and %d insights", room, err, len(got))
		}
	}
}

func TestATableOfAnEndlessFlowThatDoesNotFitIsAnError(t *testing.T) {
	t.Parallel()
	tables := bigTables(20_000, 0)
	open := func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		m := newMemory(need, from, tables[need.Step], 1000)
		m.traits.Bounded = need.Role == RoleTable
		return m, nil
	}
	text := strings.Replace(strings.Replace(bigJoin, "KIND", "left", 1), "flow: f", "flow: f\ntrigger: continuous", 1)
	_, _, err := runLimited(t, RunSettings{Program: program(t, text), Open: open}, 1<<14)
	if !errors.Is(err, errTableTooLarge) || !strings.Contains(err.Error(), "step j") {
		t.Errorf("got %v", err)
	}
}

func TestHeldInsightsWaitOnDisk(t *testing.T) {
	t.Parallel()
	const text = "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {k: int, s: string}\n  - insight: out\n    key: [k]\n"
	data := &table{}
	for i := range 30_000 {
		data.rows = append(data.rows, map[string]any{"k": int64(i), "s": strings.Repeat("s", 300+i%7)})
	}
	tables := map[string]*table{"l": data}
	want, _ := runBounded(t, text, tables, 4096)
	store := newStore()
	store.fail = func(commit int) (error, bool) {
		if commit == 1 {
			return errors.New("not yet"), false
		}
		return nil, true
	}
	scratch, _, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, 1000), Store: store, HoldFor: time.Hour}, 1<<30)
	if err != nil || scratch.created != 1 || store.commits != 2 {
		t.Errorf("the run ended with %v, %d scratch files and %d commits", err, scratch.created, store.commits)
	}
	sameLines(t, "the insights", store.lines(), want)
}

const spillAggregate = `
flow: f
steps:
  - id: l
    read: a
    schema: {k: KEY, k2: string, at: timestamp, n: int, s: string, f: float, ok: bool}
  - id: agg
    aggregate: {rows: count(), total: sum(n), avg: avg(f), dev: stddev(f), lo: min(f), hi: max(n), a: first(s), z: last(s)MORE}
    BY
    WINDOW
  - insight: out
`

func spillWindows() []string {
	return []string{
		"", "window: {tumbling: 1m, time: at}", "window: {hopping: 2m, every: 1m, time: at}", "window: {session: 45s, time: at}",
		`window: {shift: {a: "06:00-14:00", b: "14:00-22:00"}, timezone: Europe/Berlin, time: at}`,
	}
}

func TestASpilledAggregateGivesWhatOneInMemoryDoes(t *testing.T) {
	t.Parallel()
	spilled := 0
	rapid.Check(t, func(rt *rapid.T) {
		typ := rapid.SampledFrom([]string{"int", "string", "float"}).Draw(rt, "type")
		text := strings.NewReplacer(
			"KEY", typ,
			"BY", rapid.SampledFrom([]string{"by: [k]", "by: [k2, k]", ""}).Draw(rt, "by"),
			"MORE", rapid.SampledFrom([]string{"", `, q: "quantile(f, 0.3)", d: count_distinct(s)`, ", i: increase(n), w: time_weighted_avg(f), u: duration_where(ok)"}).Draw(rt, "more"),
			"WINDOW", rapid.SampledFrom(spillWindows()).Draw(rt, "window"),
		).Replace(spillAggregate)
		if strings.Contains(text, "increase") && !strings.Contains(text, "window:") {
			text = strings.Replace(text, ", i: increase(n), w: time_weighted_avg(f), u: duration_where(ok)", "", 1)
		}
		data := drawSpillTable(rt, rapid.IntRange(0, 300).Draw(rt, "rows"), rapid.SampledFrom([]int{3, 5000}).Draw(rt, "distinct"),
			map[string]string{"k": typ, "k2": "string", "n": "int", "s": "string", "f": "float", "ok": "bool"})
		step := rapid.SampledFrom([]int{30, 3600}).Draw(rt, "step")
		for _, row := range data.rows {
			if at := rapid.IntRange(-1, 20).Draw(rt, "at"); at >= 0 {
				row["at"] = time.Unix(int64(at*step), 0).UTC().Format(time.RFC3339)
			}
		}
		tables := map[string]*table{"l": data}
		want, report := runBounded(t, text, tables, 4096)
		size := rapid.IntRange(1, 50).Draw(rt, "batch")
		set := RunSettings{Program: program(t, text), Open: opener(tables, size), CommitRows: 7, Store: newStore()}
		scratch, memory := &memScratch{}, NewMemory(int64(rapid.SampledFrom([]int{20_000, 30_000, 50_000}).Draw(rt, "limit")))
		set.Scratch, set.Memory, set.Started = scratch, memory, time.Unix(0, 0)
		got, err := Run(t.Context(), set)
		if err != nil && !strings.Contains(err.Error(), "raise memory_limit") {
			rt.Fatal(err)
		}
		if scratch.open != 0 || memory.held() != 0 {
			rt.Fatalf("after the run %d scratch files are open and %d bytes are reserved", scratch.open, memory.held())
		}
		if err != nil {
			return
		}
		spilled += scratch.created
		store, _ := set.Store.(*memStore)
		sameLines(t, "groups", store.lines(), want)
		for i := range report.Steps {
			if got.Steps[i] != report.Steps[i] {
				rt.Fatalf("the step counts %+v, want %+v", got.Steps[i], report.Steps[i])
			}
		}
		for step, entries := range store.state.Operators {
			if left := leftBehind(entries, text); left > 0 {
				rt.Fatalf("step %s left %d entries of state", step, left)
			}
		}
	})
	if spilled == 0 {
		t.Error("nothing was spilled")
	}
}

func TestAnAggregateOfVeryManyGroupsSpills(t *testing.T) {
	t.Parallel()
	data := &table{}
	for i := range 15_000 {
		data.rows = append(data.rows, map[string]any{"k": int64(i * 7919 % 10_000), "n": int64(i), "f": float64(i) / 3, "s": "s" + strconv.Itoa(i%9)})
	}
	tables := map[string]*table{"l": data}
	text := strings.NewReplacer("KEY", "int", "BY", "by: [k]", "WINDOW", "", "MORE", ", d: count_distinct(s)").Replace(spillAggregate)
	want, _ := runBounded(t, text, tables, 4096)
	scratch, got, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, 500)}, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	if scratch.created < 40 {
		t.Errorf("only %d scratch files were made, so no part was cut again", scratch.created)
	}
	sameLines(t, "groups", got, want)
}

func TestTheGroupsOfAnEndlessFlowThatDoNotFitAreAnError(t *testing.T) {
	t.Parallel()
	data := &table{}
	for i := range 60_000 {
		data.rows = append(data.rows, map[string]any{"k": int64(i), "at": "2026-01-01"})
	}
	text := strings.NewReplacer("KEY", "int", "BY", "by: [k]", "WINDOW", "window: {tumbling: 1m, time: at}", "MORE", "").Replace(spillAggregate)
	_, _, err := runLimited(t, RunSettings{Program: program(t, text), Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		m := newMemory(need, from, data, 1000)
		m.traits.Bounded = false
		return m, nil
	}}, 500_000)
	if !errors.Is(err, errTooManyGroups) || !strings.Contains(err.Error(), "step agg") {
		t.Errorf("got %v", err)
	}
}

func spillTypes() []expr.Type {
	return []expr.Type{expr.Bool, expr.Int, expr.Float, expr.String, expr.Timestamp, expr.JSON}
}

func TestBlocksComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		res := &resources{scratch: &memScratch{}}
		w := newSpillWriter(res, spillTypes())
		n := rapid.IntRange(0, 10_000).Draw(rt, "rows")
		nullEvery := rapid.IntRange(1, 100).Draw(rt, "null")
		batch := column.Batch{Cols: make([]column.Column, 6)}
		refs := make([]*column.Column, 6)
		for i, typ := range spillTypes() {
			batch.Cols[i].Type, refs[i] = typ, &batch.Cols[i]
		}
		for i := range n {
			for k := range batch.Cols {
				c := &batch.Cols[k]
				switch {
				case (i+k)%nullEvery == nullEvery-1:
					c.AppendNull()
				case c.Type == expr.Bool:
					c.AppendBool(i%3 == 0)
				case storageOf(c.Type) == storeInt:
					c.AppendInt(int64(i * k))
				case c.Type == expr.Float:
					c.AppendFloat(float64(i) / 7)
				default:
					c.AppendStr([]byte(strconv.Itoa(i)))
				}
			}
		}
		all := sequence(nil, n)
		for len(all) > 0 {
			part := min(len(all), rapid.IntRange(1, 5000).Draw(rt, "part"))
			if err := w.append(refs, all[:part]); err != nil {
				rt.Fatal(err)
			}
			all = all[part:]
		}
		if err := w.finish(); err != nil {
			rt.Fatal(err)
		}
		r, at := w.reader(), 0
		for {
			b, err := r.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				rt.Fatal(err)
			}
			for row := range b.Len {
				for k := range b.Cols {
					if compareRows(&b.Cols[k], row, refs[k], at) != 0 || b.Cols[k].Null(row) != refs[k].Null(at) {
						rt.Fatalf("row %d, column %d differs", at, k)
					}
				}
				at++
			}
		}
		if at != n {
			rt.Fatalf("%d rows came back of %d", at, n)
		}
	})
}

func FuzzSpillReader(f *testing.F) {
	scratch := &memScratch{}
	res := &resources{scratch: scratch}
	w := newSpillWriter(res, spillTypes())
	batch := column.Batch{Cols: make([]column.Column, 6)}
	refs := make([]*column.Column, 6)
	for i, typ := range spillTypes() {
		batch.Cols[i].Type, refs[i] = typ, &batch.Cols[i]
		batch.Cols[i].AppendNull()
	}
	if err := errors.Join(w.append(refs, []int32{0, 0, 0}), w.finish()); err != nil {
		f.Fatal(err)
	}
	file, ok := w.file.ScratchFile.(*memScratchFile)
	if !ok {
		f.Fatal("another kind of file")
	}
	f.Add(bytes.Clone(file.data))
	f.Add(file.data[:20])
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := newSpillReader(bytes.NewReader(data), int64(len(data)), spillTypes())
		for range 100 {
			b, err := r.next()
			if err != nil {
				return
			}
			for i := range b.Cols {
				for row := range b.Len {
					_ = compareRows(&b.Cols[i], row, &b.Cols[i], 0)
				}
			}
		}
	})
}

func FuzzInsightsLaidAside(f *testing.F) {
	f.Add([]byte{1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 'n', '{', '}', '{', '}'})
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := newAsideReader(bytes.NewReader(data), int64(len(data)))
		for range 100 {
			if _, err := r.next(); err != nil {
				return
			}
		}
	})
}

func BenchmarkSpill(b *testing.B) {
	res := &resources{scratch: &memScratch{}}
	var c [2]column.Column
	refs := []*column.Column{&c[0], &c[1]}
	for i := range c {
		c[i].Type = expr.Int
		for row := range column.TargetRows {
			c[i].AppendInt(int64(row))
		}
	}
	all := sequence(nil, column.TargetRows)
	b.SetBytes(column.TargetRows * 16)
	b.ReportAllocs()
	w := newSpillWriter(res, []expr.Type{expr.Int, expr.Int})
	for i := 0; b.Loop(); i++ {
		if err := w.append(refs, all); err != nil {
			b.Fatal(err)
		}
		if i%256 == 255 {
			if err := errors.Join(w.finish(), w.remove()); err != nil {
				b.Fatal(err)
			}
			w.bytes = 0
		}
	}
}
