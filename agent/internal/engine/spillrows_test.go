package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestASpilledSortGivesWhatOneInMemoryDoes(t *testing.T) {
	t.Parallel()
	spilled := 0
	rapid.Check(t, func(rt *rapid.T) {
		by := rapid.SampledFrom([]string{"[k]", "[{k: desc}, s]", "[{f: desc}, k2, {n: desc}]", "[ok]"}).Draw(rt, "by")
		text := `
flow: f
steps:
  - id: l
    read: a
    schema: {k: int, k2: string, n: int, s: string, f: float, ok: bool}
  - id: sorted
    sort: ` + by + `
  - insight: out
`
		data := drawSpillTable(rt, rapid.IntRange(0, 300).Draw(rt, "rows"), rapid.SampledFrom([]int{3, 5000}).Draw(rt, "distinct"),
			map[string]string{"k": "int", "k2": "string", "n": "int", "s": "string", "f": "float", "ok": "bool"})
		tables := map[string]*table{"l": data}
		want, _ := runBounded(t, text, tables, 4096)
		size := rapid.IntRange(1, 50).Draw(rt, "batch")
		limit := int64(rapid.SampledFrom([]int{1, 10_000}).Draw(rt, "limit"))
		scratch, got, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, size), CommitRows: 7}, limit)
		if err != nil {
			rt.Fatal(err)
		}
		spilled += scratch.created
		sameLines(t, "sort by "+by, got, want)
	})
	if spilled == 0 {
		t.Error("nothing was spilled")
	}
}

func TestASpilledDistinctGivesWhatOneInMemoryDoes(t *testing.T) {
	t.Parallel()
	spilled := 0
	rapid.Check(t, func(rt *rapid.T) {
		by := rapid.SampledFrom([]string{"[k]", "[k2, f]", "all"}).Draw(rt, "by")
		text := `
flow: f
steps:
  - id: l
    read: a
    schema: {k: int, k2: string, n: int, f: float}
  - id: first
    distinct: ` + by + `
  - insight: out
`
		data := drawSpillTable(rt, rapid.IntRange(0, 600).Draw(rt, "rows"), rapid.SampledFrom([]int{3, 5000}).Draw(rt, "distinct"),
			map[string]string{"k": "int", "k2": "string", "n": "int", "f": "float"})
		tables := map[string]*table{"l": data}
		want, _ := runBounded(t, text, tables, 4096)
		size := rapid.IntRange(1, 50).Draw(rt, "batch")
		limit := int64(rapid.SampledFrom([]int{1, 50_000}).Draw(rt, "limit"))
		store := newStore()
		set := RunSettings{Program: program(t, text), Open: opener(tables, size), CommitRows: 7, Store: store}
		scratch, _, err := runLimited(t, set, limit)
		if err != nil {
			rt.Fatal(err)
		}
		spilled += scratch.created
		sameLines(t, "distinct "+by, store.lines(), want)
		for step, entries := range store.state.Operators {
			if len(entries) > 0 {
				rt.Fatalf("step %s left %d entries of state", step, len(entries))
			}
		}
	})
	if spilled == 0 {
		t.Error("nothing was spilled")
	}
}

func TestASpilledDistinctLosesNoKeyOfMany(t *testing.T) {
	t.Parallel()
	const text = `
flow: f
steps:
  - id: l
    read: a
    schema: {id: string}
  - id: first
    distinct: [id]
  - id: number
    aggregate: {n: count()}
  - insight: out
`
	const rows, different = 60_000, 42_000
	data, ids := &table{}, map[string]bool{}
	random := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // the numbers of a test
	for range rows {
		id := fmt.Sprintf("s%d", random.IntN(different))
		ids[id] = true
		data.rows = append(data.rows, map[string]any{"id": id})
	}
	for _, limit := range []int64{1, 300_000, 1 << 30} {
		store := newStore()
		set := RunSettings{Program: program(t, text), Open: opener(map[string]*table{"l": data}, 4096), Store: store}
		scratch, _, err := runLimited(t, set, limit)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Join(store.lines(), "\n"), fmt.Sprintf(`"n":%d`, len(ids)); !strings.Contains(got, want) {
			t.Errorf("with %d bytes the insight is %s, want %s", limit, got, want)
		}
		if spilled := scratch.created > 0; spilled != (limit < 1<<30) {
			t.Errorf("with %d bytes there were %d scratch files", limit, scratch.created)
		}
	}
}
