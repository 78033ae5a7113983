package engine

import (
	"fmt"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// FuzzRestoreWindows is FuzzRestore for the state of sessions, samples and what is carried over.
func FuzzRestoreWindows(f *testing.F) {
	var plans []*flowdef.Plan
	var metas [][]byte
	for i, c := range windowCases(f) {
		text := fmt.Sprintf(windowFlow, "continuous", c.text+", late: 30m")
		plans = append(plans, plan(f, text))
		store := newStore()
		endlessRun(f, text, streamRows(60, 2), 20, store)
		samples := store.state.Operators["agg"]
		metas = append(metas, samples[metaKey])
		for key, value := range samples {
			f.Add(uint8(i), []byte(key), value[:len(value)-4])
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, key, value []byte) {
		i := int(kind) % len(plans)
		a, err := newAggregate(&plans[i].Steps[1], plans[i].Steps[0].Output, endless)
		if err != nil {
			t.Fatal(err)
		}
		a.counts = &stepCounts{sample: new([]FailedRecord)}
		entries := map[string][]byte{metaKey: metas[i]}
		entries[string(key)] = seal(value, key)
		if err = a.restore(entries); err != nil {
			return
		}
		for g := range a.table.prefix {
			a.state.changed[g] = true
		}
		for _, ch := range a.changes(nil) {
			if _, err = unseal(ch.Key, ch.Value); err != nil {
				t.Fatalf("the restored state is written back as %v", err)
			}
		}
		a.compact()
		if _, err = a.finish(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestGroupsSurviveTheirEncoding holds that encode and decode of a whole group lose nothing, and that merge of two
// halves is the whole.
func TestGroupsSurviveTheirEncoding(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(windowFlow, "manual", "tumbling: 1d")
	data := streamRows(200, 4)
	p := plan(t, text)
	fresh := func() *aggregate {
		a, err := newAggregate(&p.Steps[1], p.Steps[0].Output, bounded)
		if err != nil {
			t.Fatal(err)
		}
		a.counts = &stepCounts{sample: new([]FailedRecord)}
		return a
	}
	a, b := fresh(), fresh()
	source := newMemory(ReadNeed{Schema: p.Steps[0].Output}, nil, data, 4096)
	d, err := source.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err = a.push(d.Batch); err != nil {
		t.Fatal(err)
	}
	if err = b.push(d.Batch); err != nil {
		t.Fatal(err)
	}
	// b's accumulators are made new and filled from a's, through another group.
	n := a.table.len()
	for i, acc := range a.accs {
		acc2, accErr := newAccumulator(&p.Steps[1].Aggregates[i], &b.frames)
		if accErr != nil {
			t.Fatal(accErr)
		}
		acc2.grow(2 * n)
		for g := range n {
			rest, decodeErr := acc2.decode(acc.encode(nil, i32(g)), i32(n+g))
			if decodeErr != nil || len(rest) > 0 {
				t.Fatalf("%s: %v, %d bytes left", p.Steps[1].Aggregates[i].Func, decodeErr, len(rest))
			}
			if err = acc2.merge(i32(g), i32(n+g)); err != nil {
				t.Fatal(err)
			}
		}
		b.accs[i] = acc2
		if c, ok := acc2.(carrier); ok {
			c.growKeys(b.keys.table.len())
			b.keys.carriers[carrierPlace(b, i)] = c
		}
	}
	lines := func(a *aggregate) []string {
		seen := &rowLines{}
		a.next = append(a.next, seen)
		for more := true; more; {
			if more, err = a.finish(); err != nil {
				t.Fatal(err)
			}
		}
		return seen.list
	}
	want := lines(a)
	if len(want) < 6 {
		t.Fatalf("the input shows too little: %d rows", len(want))
	}
	sameLines(t, "decoded and merged", lines(b), want)
}

// rowLines is an operator that writes down the rows.
type rowLines struct{ list []string }

func (r *rowLines) push(b *column.Batch) error {
	for i := range b.Len {
		r.list = append(r.list, describeRow(b, i))
	}
	return nil
}

// carrierPlace is which of the carriers the accumulator at that place is.
func carrierPlace(a *aggregate, place int) int {
	n := 0
	for _, acc := range a.accs[:place] {
		if _, ok := acc.(carrier); ok {
			n++
		}
	}
	return n
}
