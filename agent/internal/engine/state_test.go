package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// stateSamples is the state that a run of pressFlow leaves behind.
func stateSamples(tb testing.TB) map[string][]byte {
	tb.Helper()
	store := newStore()
	endlessRun(tb, pressFlow, pressRows(150, 3), 50, store)
	return store.state.Operators["per_minute"]
}

func freshAggregate(tb testing.TB, p *flowdef.Plan) *aggregate {
	tb.Helper()
	a, err := newAggregate(&p.Steps[3], p.Steps[2].Output, endless)
	if err != nil {
		tb.Fatal(err)
	}
	a.counts = &stepCounts{sample: new([]FailedRecord)}
	return a
}

// FuzzRestore gives the decoder entries whose checksum is right, so that it must look at all the rest itself.
func FuzzRestore(f *testing.F) {
	p := plan(f, pressFlow)
	samples := stateSamples(f)
	meta := samples[metaKey]
	for key, value := range samples {
		f.Add([]byte(key), value[:len(value)-4])
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		a := freshAggregate(t, p)
		entries := map[string][]byte{metaKey: meta}
		entries[string(key)] = seal(value, key)
		err := a.state.restore(entries)
		if err != nil {
			return
		}
		// What was accepted must be usable and must write itself back.
		for g := range a.table.prefix {
			a.state.changed[g] = true
		}
		for _, ch := range a.state.changes(nil) {
			if ch.Key == metaKey {
				continue
			}
			if _, err = unseal(ch.Key, ch.Value); err != nil {
				t.Fatalf("the restored state is written back as %v", err)
			}
		}
		if _, err = a.finish(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestOnlyChangedGroupsAreWritten(t *testing.T) {
	t.Parallel()
	text := `
flow: f
trigger: continuous
steps:
  - id: rows
    read: x
    schema: {at: timestamp, k: string, v: int}
  - id: sums
    aggregate: {n: count(), d: count_distinct(v)}
    by: [k]
    window: {tumbling: 1m, time: at}
  - insight: sums
    key: [k]
`
	data := &table{}
	add := func(at, k string, v int) {
		data.rows = append(data.rows, map[string]any{"at": "2026-01-01T00:" + at + "Z", "k": k, "v": int64(v)})
	}
	add("00:01", "a", 1) // the block of the groups, value 1, meta
	add("00:01", "b", 1) // the block, value 1
	add("00:01", "a", 1) // the block alone
	add("00:01", "a", 2) // the block, value 2
	add("01:00", "a", 9) // closes both: four entries removed; block, value, meta
	store := newStore()
	var changes []string
	set := RunSettings{Program: program(t, text), Store: recorder{store, func(c Checkpoint) {
		sets, removals := 0, 0
		for _, ch := range c.Changes {
			if ch.Value == nil {
				removals++
			} else {
				sets++
			}
		}
		changes = append(changes, strings.Repeat("s", sets)+strings.Repeat("r", removals))
	}}, CommitRows: 1, Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		m := newMemory(need, from, data, 1)
		m.traits.Bounded = false
		return m, nil
	}}
	runUntilRead(t, set, data)
	if got, want := strings.Join(changes, " "), "sss ss s ss sssrrrr"; got != want {
		t.Errorf("the commits hold %q, want %q", got, want)
	}
	if n := len(store.state.Operators["sums"]); n != 3 {
		t.Errorf("%d entries remain, want 3", n)
	}
}

func TestFingerprintFollowsTheDefinition(t *testing.T) {
	t.Parallel()
	base := freshAggregate(t, plan(t, pressFlow)).state.fingerprint
	for name, change := range map[string][2]string{
		"late is no part of the state": {"late: 5s", "late: 9s"},
		"another window":               {"tumbling: 1m", "tumbling: 2m"},
		"another function":             {"max(vibration)", "min(vibration)"},
		"another name":                 {"vib_max", "vib_most"},
		"another constant":             {"stddev(temp)", "stddev(temp * 2)"},
	} {
		text := strings.Replace(pressFlow, change[0], change[1], 1)
		same := freshAggregate(t, plan(t, text)).state.fingerprint == base
		if want := strings.HasPrefix(name, "late"); same != want {
			t.Errorf("%s: same fingerprint %t, want %t", name, same, want)
		}
	}
}

func TestWindowBoundsNeverOverflow(t *testing.T) {
	t.Parallel()
	w, err := newWindow(&flowdef.Window{Tumbling: time.Hour, Late: time.Minute}, endless)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []int64{-1 << 63, 1<<63 - 1} {
		if _, _, _, ok := w.bounds(v); ok {
			t.Errorf("%d has a window", v)
		}
	}
	if start, _, end, ok := w.bounds(-1); !ok || start != -3600e6 || end != 0 {
		t.Errorf("-1 is in %d to %d", start, end)
	}
	w.seen, w.newest = true, -1<<63+1
	if w.watermark() != -1<<63 {
		t.Error("the watermark wraps")
	}
}

func TestCompileRefusesWhatItCannotRun(t *testing.T) {
	t.Parallel()
	call := func(name string) *expr.Node {
		return &expr.Node{Op: expr.OpCall, Name: name, Type: expr.Bool, Args: []*expr.Node{{Op: expr.OpLiteral, Type: expr.Bool, Value: expr.Value{Type: expr.Bool}}}}
	}
	p := plan(t, pressFlow)
	p.Steps[1].Filter = call("of_a_newer_agent")
	if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), "running") || !strings.Contains(err.Error(), "of_a_newer_agent") {
		t.Errorf("Compile gives %v", err)
	}
	p = plan(t, pressFlow)
	p.Steps = p.Steps[:4]
	if _, err := Compile(p); err == nil {
		t.Error("a flow without insights compiles")
	}
	p = plan(t, pressFlow)
	p.Steps[3].Aggregates[0].Func = "mediane"
	if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), "mediane") {
		t.Errorf("Compile gives %v", err)
	}
}
