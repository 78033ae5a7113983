package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

func freshDetector(tb testing.TB, p *flowdef.Plan) *detector {
	tb.Helper()
	d, err := newDetector(&p.Steps[1], p.Steps[0].Output, endless)
	if err != nil {
		tb.Fatal(err)
	}
	d.counts = &stepCounts{sample: new([]FailedRecord)}
	return d
}

// FuzzDetectRestore gives the decoder of every method entries whose checksum is right, so that it must look at all the
// rest itself.
func FuzzDetectRestore(f *testing.F) {
	plans := map[string]*flowdef.Plan{}
	metas := map[string][]byte{}
	data := wanderingRows(300, 8)
	for name, method := range detectMethods() {
		store := newStore()
		text := detectFlow(method)
		endlessRun(f, text, data, 50, store)
		plans[name] = plan(f, text)
		for key, value := range store.state.Operators["found"] {
			if key == metaKey {
				metas[name] = value
				continue
			}
			f.Add(name, []byte(key), value[:len(value)-4], []byte(key), value[:len(value)-4])
			if key[0] == ringPrefix {
				group := numberedKey(groupPrefix, 0)
				of := store.state.Operators["found"][group]
				f.Add(name, []byte(group), of[:len(of)-4], []byte(key), value[:len(value)-4])
			}
		}
	}
	batch := column.NewBatch(plans["zscore"].Steps[0].Output)
	for i := range 50 {
		batch.Cols[0].AppendInt(int64(1+i%25) * 60_000_000)
		batch.Cols[1].AppendStr([]byte{'k', byte('0' + i%2)})
		batch.Cols[2].AppendFloat(float64(i % 7))
		batch.Len++
	}
	f.Fuzz(func(t *testing.T, name string, key1, value1, key2, value2 []byte) {
		p := plans[name]
		if p == nil {
			return
		}
		d := freshDetector(t, p)
		if b, ok := d.method.(*deadband); ok {
			b.live = []int{0, 1, 2}
		}
		err := d.restore(map[string][]byte{
			metaKey: metas[name], string(key1): seal(value1, key1), string(key2): seal(value2, key2),
		})
		if err != nil {
			return
		}
		// What was accepted must be usable and must write itself back.
		if err = d.push(batch); err != nil {
			t.Fatal(err)
		}
		again := freshDetector(t, p)
		entries := map[string][]byte{metaKey: metas[name]}
		for g := range d.last {
			d.state.changed[g] = true
		}
		for _, ch := range d.changes(nil) {
			if ch.Value != nil {
				entries[ch.Key] = ch.Value
			}
		}
		if err = again.restore(entries); err != nil {
			t.Fatalf("the state is written back as %v", err)
		}
	})
}

func TestADamagedStateOfDetectIsRefused(t *testing.T) {
	t.Parallel()
	for name, method := range detectMethods() {
		text := detectFlow(method)
		store := newStore()
		endlessRun(t, text, wanderingRows(300, 8), 50, store)
		entries := store.state.Operators["found"]
		for key, value := range entries {
			for _, damaged := range [][]byte{nil, value[:len(value)/2], append([]byte{value[0] ^ 1}, value[1:]...)} {
				entries[key] = damaged
				if err := freshDetector(t, plan(t, text)).restore(entries); !errors.Is(err, errCorruptState) {
					t.Errorf("%s: restore gives %v for the entry %q with %d bytes", name, err, key, len(damaged))
				}
			}
			entries[key] = value
		}
		if err := freshDetector(t, plan(t, text)).restore(entries); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOtherBoundsKeepTheStateOfDetect(t *testing.T) {
	t.Parallel()
	base := "zscore: {above: 2, over: 2m, min: 10}"
	first := freshDetector(t, plan(t, detectFlow(base))).state.meta.fingerprint
	for change, same := range map[string]bool{
		"zscore: {above: 3, over: 2m, min: 10}":                        true,
		"zscore: {above: 2, over: 2m, min: 10, clear: 1, for: 1m}":     true,
		"zscore: {above: {a: 2, b: 3}, over: 2m, min: 10}":             false,
		"zscore: {above: 2, over: 4m, min: 10}":                        false,
		"zscore: {above: 2, over: 2m, min: 11}":                        false,
		"zscore: {above: 2, over: 2m, min: 10, direction: up}":         false,
		"ewma: {above: 2, over: 2m, min: 10, half_life: 1s}":           false,
		"zscore: {above: 2, over: 2m, min: 10}\n    severity: serious": true,
	} {
		if got := freshDetector(t, plan(t, detectFlow(change))).state.meta.fingerprint == first; got != same {
			t.Errorf("%s: same fingerprint %t, want %t", change, got, same)
		}
	}
}

// TestDetectWritesWhatChanged holds what a commit costs: an entry for each block of groups with a new reading, and the
// long past of a baseline only when a part of it has ended.
func TestDetectWritesWhatChanged(t *testing.T) {
	t.Parallel()
	data := &table{}
	add := func(second int, k string) {
		data.rows = append(data.rows, map[string]any{"ts": time.Unix(int64(second), 0).UTC(), "k": k, "v": 1.0})
	}
	add(0, "a")  // a block, meta
	add(1, "b")  // the block
	add(2, "a")  // the block
	add(2, "a")  // late: meta
	add(11, "a") // the block and the parts of a
	add(12, "b") // the block and the parts of b
	add(13, "b") // the block
	var changes []string
	store := newStore()
	set := RunSettings{Program: program(t, detectFlow("zscore: {above: 2, over: 320s}")), Store: recorder{store, func(c Checkpoint) {
		var kinds []byte
		for _, ch := range c.Changes {
			kinds = append(kinds, ch.Key[0])
		}
		changes = append(changes, string(kinds))
	}}, CommitRows: 1, Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		m := newMemory(need, from, data, 1)
		m.traits.Bounded = false
		return m, nil
	}}
	runUntilRead(t, set, data)
	if got, want := strings.Join(changes, " "), "gm g g m gr gr g"; got != want {
		t.Errorf("the commits hold %q, want %q", got, want)
	}
}

func TestDetectRefusesTooManyGroups(t *testing.T) {
	t.Parallel()
	d := freshDetector(t, plan(t, detectFlow("threshold: {above: 1}")))
	if d.maxGroups < 100_000 {
		t.Errorf("a threshold watches at most %d groups", d.maxGroups)
	}
	d.maxGroups = 3
	batch := column.NewBatch(d.plan.Output)
	push := func(second int, names string) {
		batch = column.NewBatch(plan(t, detectFlow("threshold: {above: 1}")).Steps[0].Output)
		for _, k := range names {
			batch.Cols[0].AppendInt(int64(second) * 1e6)
			batch.Cols[1].AppendStr([]byte(string(k)))
			batch.Cols[2].AppendFloat(2)
			batch.Len++
		}
		if err := d.push(batch); err != nil {
			t.Fatal(err)
		}
	}
	push(1, "abcde")
	push(2, "fgabc")
	push(3, "az")
	if d.counts.failed != 5 || d.table.len() != 3 || len(d.last) != 3 || d.counts.late != 0 || d.counts.out != 3 {
		t.Errorf("%+v with %d groups", *d.counts, d.table.len())
	}
	if s := *d.counts.sample; len(s) == 0 || !strings.Contains(s[0].Reason, "new group") || !strings.Contains(s[0].Record, `"k":"d"`) {
		t.Errorf("the sample is %+v", s)
	}
}

// TestBaselineForgetsAfterItsSpan compares the mean and the deviation of a rolling baseline with those of the values in
// its parts.
func TestBaselineForgetsAfterItsSpan(t *testing.T) {
	t.Parallel()
	b := newBaselines(&flowdef.DetectStep{Over: 32 * time.Second, Min: 2})
	b.grow(1)
	values := map[int64]float64{}
	second := int64(0)
	for i := range 500 {
		second += int64(i*i%7) / 3
		if i%100 == 99 {
			second += 40
		}
		if _, has := values[second]; has {
			continue
		}
		v := 1e9 + math.Sin(float64(i))
		values[second] = v
		b.learn(0, second*1e6, v)
		n, mean, sum := 0.0, 0.0, 0.0
		for at, v := range values {
			if at > second-32 {
				n, mean = n+1, mean+(v-1e9)
			}
		}
		mean /= n
		for at, v := range values {
			if at > second-32 {
				sum += (v - 1e9 - mean) * (v - 1e9 - mean)
			}
		}
		s, ok := b.distance(0, second*1e6, 1e9)
		if ok != (n >= 2) {
			t.Fatalf("second %d: %t with %v values", second, ok, n)
		}
		if want := -mean / math.Sqrt(sum/(n-1)); ok && math.Abs(s.value-want) > 1e-5*math.Abs(want)+1e-6 {
			t.Fatalf("second %d: %v, want %v", second, s.value, want)
		}
	}
}

// silenceRun runs a silence flow in a bubble of time: the rows come as the source is asked, then nothing until until.
func silenceRun(t *testing.T, store *memStore, data *table, until time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), until)
	defer cancel()
	_, err := Run(ctx, RunSettings{
		Program: program(t, detectFlow("silence: {for: 10s}")), Store: store, CommitRows: 1,
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			m := newMemory(need, from, data, 100)
			m.traits.Bounded = false
			return m, nil
		},
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Run: %v", err)
	}
}

// TestSilenceByTheClock has a stream in which no row comes any more. The events open by the clock, once, also when the
// agent is restarted before or after that.
func TestSilenceByTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := time.Date(2013, 12, 2, 0, 0, 0, 0, time.UTC) // a replay: its times have nothing to do with the clock
		data := &table{}
		add := func(second int, k string) {
			data.rows = append(data.rows, map[string]any{"ts": at.Add(time.Duration(second) * time.Second), "k": k, "v": 1.0})
		}
		add(0, "a")
		add(4, "b")
		store := newStore()
		want := []string{}
		expect := func(step string, more ...string) {
			t.Helper()
			for _, m := range more {
				k, rest, _ := strings.Cut(m, " ")
				want = append(want, "out 2013-12-02T00:00:"+rest[:2]+`Z {"k":"`+k+`"} {`+rest[3:]+`}`)
			}
			sameLines(t, step, store.lines(), want)
		}
		open := func(seconds int) string {
			return fmt.Sprintf(`"event_end":null,"event_state":"open","severity":"warning","seconds":%d`, seconds)
		}
		silenceRun(t, store, data, 5500*time.Millisecond)
		expect("too early for both")
		silenceRun(t, store, data, 9500*time.Millisecond)
		expect("the time before the restart does not count", "a 00 "+open(11))
		silenceRun(t, store, data, 60*time.Second)
		expect("b is silent, and a has been reported", "b 04 "+open(11))
		add(200, "a")
		silenceRun(t, store, data, 5*time.Second)
		expect("a comes back", `a 00 "event_end":"2013-12-02T00:03:20Z","event_state":"closed","severity":"warning","seconds":200`)
	})
}

// TestOpenEventsAtTheEndOfTheInput has an event that is open at the end of the input.
func TestOpenEventsAtTheEndOfTheInput(t *testing.T) {
	t.Parallel()
	rows := secondRows(t, "0 9", "1 9")
	rows.rows = append(rows.rows, map[string]any{"ts": time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC), "k": "b", "v": 1.0})
	for report, want := range map[string]int{"both": 1, "open": 1, "closed": 1} {
		for _, method := range []string{"threshold: {above: 5}", "silence: {for: 10s}"} {
			events := detectEvents(t, detectFlow(method+"\n    report: "+report), rows)
			if len(events) != want || events[0]["event_end"] != nil || events[0]["event_state"] != "open" {
				t.Errorf("%s, report %s: %v", method, report, events)
			}
		}
	}
}

// TestBothDirectionsGoOnFromTheStateOfOneCourse restores what an agent wrote that kept one event for both sums.
func TestBothDirectionsGoOnFromTheStateOfOneCourse(t *testing.T) {
	t.Parallel()
	for sign, rows := range map[float64][]string{1: {"0 4", "1 4"}, -1: {"0 -4", "1 -4"}} {
		given := "cusum: {shift: 1, limit: 5, target: 0, deviation: 1}"
		d := freshDetector(t, plan(t, detectFlow(given)))
		e, _ := d.method.(*events)
		d.grow(1)
		old := append([]byte{byte(lasting), 1}, putBool(nil, false)...)
		old = putInt(putInt(old, 0), noTime)
		for _, v := range []float64{7, sign * 4, sign * 7, 0} {
			old = putFloat(old, v)
		}
		old = putInt(old, 1_000_000)
		c, _ := e.scorer.(*cusum)
		c.group[0] = sums{high: max(7*sign, 0), low: max(-7*sign, 0)}
		r := reader{s: e.scorer.encode(old, 0)}
		if e.decode(&r, 0); r.err != nil || len(r.s) > 0 {
			t.Fatalf("%v, %d bytes left", r.err, len(r.s))
		}
		again := freshDetector(t, plan(t, detectFlow(given)))
		again.grow(1)
		want, _ := again.method.(*events)
		batch := column.NewBatch(plan(t, detectFlow(given)).Steps[0].Output)
		for _, row := range secondRows(t, rows...).rows {
			at, _ := row["ts"].(time.Time)
			v, _ := row["v"].(float64)
			batch.Cols[0].AppendInt(at.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds())
			batch.Cols[1].AppendStr([]byte("a"))
			batch.Cols[2].AppendFloat(v)
			batch.Len++
		}
		if err := again.push(batch); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(e.courses, want.courses) || !slices.Equal(e.since, want.since) {
			t.Errorf("restored\n%+v %v\nwant\n%+v %v", e.courses, e.since, want.courses, want.since)
		}
	}
}

// TestOpenEventsAreReportedOnce cuts a bounded run after every commit and goes on from there.
func TestOpenEventsAreReportedOnce(t *testing.T) {
	t.Parallel()
	data := wanderingRows(300, 21)
	for name, method := range detectMethods() {
		text := strings.Replace(detectFlow(method+"\n    report: closed"), "continuous", "manual", 1)
		if name == "deadband" {
			continue
		}
		open := func(size int) RunSettings {
			return RunSettings{
				Program: program(t, text), CommitRows: 1, Started: time.Unix(0, 0), Open: opener(map[string]*table{"rows": data}, size),
			}
		}
		whole := newStore()
		set := open(300)
		set.Store = whole
		if _, err := Run(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		for cutAt := 1; cutAt < 16; cutAt++ {
			store := newStore()
			set := open(25)
			set.Store = store
			ctx, cancel := context.WithCancel(t.Context())
			store.onCommit = func(s *memStore) {
				if s.commits == cutAt {
					cancel()
				}
			}
			_, err := Run(ctx, set)
			cancel()
			store.onCommit = nil
			if err == nil && cutAt < 12 {
				t.Fatalf("%s: the run ended before commit %d", name, cutAt)
			}
			if _, err = Run(t.Context(), set); err != nil {
				t.Fatal(err)
			}
			sameLines(t, fmt.Sprintf("%s, cut at commit %d", name, cutAt), store.lines(), whole.lines())
		}
	}
}

// TestTheNextRunGoesOnWithAnEvent runs a scheduled flow twice: what the first run leaves open the second one closes.
func TestTheNextRunGoesOnWithAnEvent(t *testing.T) {
	t.Parallel()
	data := secondRows(t, "0 9", "1 9")
	text := strings.Replace(detectFlow("threshold: {above: 5}"), "continuous", "manual", 1)
	store := newStore()
	for range 2 {
		_, err := Run(t.Context(), RunSettings{
			Program: program(t, text), Store: store, Open: opener(map[string]*table{"rows": data}, 10), Started: time.Unix(0, 0),
		})
		if err != nil {
			t.Fatal(err)
		}
		data.rows = append(data.rows, secondRows(t, "2 12", "3 1").rows...)
	}
	sameLines(t, "two runs", store.lines(), []string{
		`out 2026-01-01T00:00:00Z {"k":"a"} {"event_end":null,"event_state":"open","severity":"warning","value":9}`,
		`out 2026-01-01T00:00:00Z {"k":"a"} {"event_end":"2026-01-01T00:00:03Z","event_state":"closed","severity":"warning","value":12}`,
	})
}
