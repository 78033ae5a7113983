package engine

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// rowKeepers are flows with one keeper each, by name.
func rowKeepers() map[string]string {
	flows := map[string]string{}
	for name, steps := range map[string]string{
		"sort":            "  - sort: [k, {f: desc}]\n",
		"top":             "  - sort: [i]\n  - limit: 3\n",
		"limit":           "  - limit: 3\n    by: [k, f]\n",
		"distinct":        "  - distinct: [k, i]\n",
		"distinct within": "  - distinct: [k]\n    within: 30s\n    time: ts\n",
		"validate":        "  - validate: {k: {unique: {with: [b]}}, i: {unique: {within: 5s, time: ts}}}\n",
	} {
		flows[name] = fmt.Sprintf(rowsRead, "manual") + steps + "  - insight: out\n    key: [n]\n    time: ts\n"
	}
	return flows
}

// keeperOf gives the first keeper of a flow.
func keeperOf(tb testing.TB, p *Program) (*pipeline, keeper) {
	tb.Helper()
	pipe, err := p.main.instantiate(func(int) span { return bounded }, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return pipe, pipe.keepers[0]
}

// entriesOf is the state of a flow's first keeper after some rows.
func entriesOf(tb testing.TB, p *Program) map[string][]byte {
	tb.Helper()
	pipe, k := keeperOf(tb, p)
	d, err := newMemory(p.Reads()[0], nil, orderRows(120, 2), 120).Next(tb.Context())
	if err == nil {
		err = pipe.sources[0].push(d.Batch)
	}
	if err != nil {
		tb.Fatal(err)
	}
	entries := map[string][]byte{}
	for _, ch := range k.changes(nil) {
		entries[ch.Key] = ch.Value
	}
	return entries
}

// FuzzRestoreRows gives the decoders entries whose checksum is right, so that they must look at all the rest themselves.
func FuzzRestoreRows(f *testing.F) {
	programs, metas := map[string]*Program{}, map[string][]byte{}
	for name, text := range rowKeepers() {
		p := program(f, text)
		entries := entriesOf(f, p)
		programs[name], metas[name] = p, entries[metaKey]
		for _, key := range sortedKeys(entries)[:min(3, len(entries))] {
			f.Add(name, []byte(key), entries[key][:len(entries[key])-4])
		}
	}
	f.Fuzz(func(t *testing.T, name string, key, value []byte) {
		p := programs[name]
		if p == nil {
			return
		}
		_, k := keeperOf(t, p)
		entries := map[string][]byte{metaKey: metas[name]}
		entries[string(key)] = seal(value, key)
		if k.restore(entries) != nil {
			return
		}
		for _, ch := range k.changes(nil) {
			if ch.Value == nil {
				continue
			}
			if _, err := unseal(ch.Key, ch.Value); err != nil {
				t.Fatalf("the restored state is written back as %v", err)
			}
		}
		if op, ok := k.(finisher); ok {
			for more := true; more; {
				var err error
				if more, err = op.finish(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestStateOfAnotherDefinitionIsDropped holds that what a step remembers is not taken for what another one does.
func TestStateOfAnotherDefinitionIsDropped(t *testing.T) {
	t.Parallel()
	flows := rowKeepers()
	for name, text := range flows {
		entries := entriesOf(t, program(t, text))
		if _, k := keeperOf(t, program(t, text)); k.restore(entries) != nil {
			t.Errorf("%s does not take its own state", name)
		}
		for other, otherText := range flows {
			if other == name {
				continue
			}
			_, k := keeperOf(t, program(t, otherText))
			if err := k.restore(entries); err != errOtherDefinition { //nolint:errorlint // Run looks for it with errors.Is too
				t.Errorf("%s takes the state of %s: %v", other, name, err)
			}
			k.discard(entries)
			removed := 0
			for _, ch := range k.changes(nil) {
				if _, was := entries[ch.Key]; was && ch.Value == nil {
					removed++
				}
			}
			if removed != len(entries) {
				t.Errorf("%s removes %d of %d entries of %s", other, removed, len(entries), name)
			}
		}
		for key := range entries {
			damaged := cloneState(State{Operators: map[string]map[string][]byte{"x": entries}}).Operators["x"]
			value := append([]byte(nil), damaged[key]...)
			value[len(value)/2] ^= 1
			damaged[key] = value
			if _, k := keeperOf(t, program(t, text)); k.restore(damaged) == nil {
				t.Errorf("%s takes a damaged entry", name)
			}
			break
		}
	}
}

// drifting is a source that notices things.
type drifting struct{ left int }

func (d *drifting) Traits() connector.Traits { return connector.Traits{Bounded: true} }

func (d *drifting) Next(context.Context) (connector.Delivery, error) {
	if d.left--; d.left < 0 {
		return connector.Delivery{}, io.EOF
	}
	var failed connector.Failures
	for i := range 3 {
		failed.Note(connector.FailedRecord{Where: fmt.Sprintf("file %d", d.left), Reason: fmt.Sprintf("member %d is new", i)})
	}
	return connector.Delivery{Failed: failed, Read: 1}, nil
}

func (d *drifting) Committed(context.Context, connector.Cursor) error { return nil }
func (d *drifting) Close() error                                      { return nil }

// TestDriftIsReportedOnce holds that what sources notice is in the sample once, and is no failed record.
func TestDriftIsReportedOnce(t *testing.T) {
	t.Parallel()
	text := "flow: f\non_error: stop\nsteps:\n  - read: c\n    schema: {t: timestamp}\n    drift: report\n  - insight: i\n"
	report, err := Run(t.Context(), RunSettings{Program: program(t, text), Store: newStore(), Started: time.Unix(0, 0), Open: func(need ReadNeed, _ connector.Cursor) (connector.Source, error) {
		if need.Drift != connector.DriftReport {
			t.Errorf("the source is asked for drift %d", need.Drift)
		}
		return &drifting{left: 4}, nil
	}})
	if err != nil || report.Failed != 0 || len(report.Sample) != 3 || report.Sample[2].Reason != "member 2 is new" {
		t.Errorf("Run gives %+v, %v", report, err)
	}
	for word, want := range map[string]connector.Drift{"": connector.DriftIgnore, flowdef.DriftIgnore: connector.DriftIgnore, flowdef.DriftFail: connector.DriftFail} {
		if got := driftOf(word); got != want {
			t.Errorf("drift %q is %d", word, got)
		}
	}
}

// TestLongKeysFitIntoTheStore holds that keys which are longer than the store allows are remembered all the same.
func TestLongKeysFitIntoTheStore(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(rowsRead, "continuous") + "  - distinct: [k]\n    within: 1h\n    time: ts\n  - select: [ts, n]\n  - insight: out\n    key: [n]\n"
	data := &table{}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 30 {
		long := strings.Repeat("long ", 10_000) + strconv.Itoa(i%10)
		data.rows = append(data.rows, map[string]any{"ts": at.Add(time.Duration(i) * time.Second), "n": int64(i), "k": long})
	}
	store := restartedRun(t, text, map[string]*table{"rows": data}, 7, endless)
	if n := len(store.lines()); n != 10 {
		t.Errorf("%d rows are distinct, want 10", n)
	}
	entries := store.state.Operators["distinct_2"]
	if len(entries) != 11 {
		t.Errorf("the store has %d entries", len(entries))
	}
	for key := range entries {
		if len(key) > maxStoreKey {
			t.Errorf("a key has %d bytes", len(key))
		}
	}
}
