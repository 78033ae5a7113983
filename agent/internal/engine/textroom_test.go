package engine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// collected is an evaluator that keeps what one kernel gave of each row.
type collected struct {
	kernel kernel
	last   *column.Column
	values []any
	parts  int
}

func (c *collected) evaluate(b *column.Batch) { c.last = c.kernel.eval(b) }

func (c *collected) use(b *column.Batch) error {
	c.parts++
	for i := range b.Len {
		c.values = append(c.values, boxed(c.last, i))
	}
	return nil
}

// TestPartsGiveWhatTheWholeDoes computes random expressions over batches at once and in parts of which they may make few
// texts; a row has no bound.
func TestPartsGiveWhatTheWholeDoes(t *testing.T) {
	t.Parallel()
	split := 0
	schema := oracleSchema()
	rapid.Check(t, func(t *rapid.T) {
		text := drawExpr(t, rapid.SampledFrom(oracleTypes()).Draw(t, "type"), rapid.IntRange(1, 4).Draw(t, "depth"))
		parsed, err := expr.Parse(text)
		if err != nil {
			t.Skip("too deep")
		}
		node, err := expr.Check(parsed, schema)
		if err != nil || node.Type == expr.Null || !makesText(node) {
			t.Skip("not an expression that makes texts")
		}
		whole, err := compileExpr(node, node.Type)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		inParts, err := compileExpr(node, node.Type)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		parts := newTextParts(node)
		counts := &stepCounts{sample: new([]FailedRecord), bounds: textBounds{part: rapid.IntRange(1, 300).Draw(t, "room"), row: 1 << 30}}
		for range 2 {
			batch := column.NewBatch(schema)
			for range rapid.IntRange(0, 200).Draw(t, "rows") {
				for c := range schema {
					appendBoxed(&batch.Cols[c], drawValue(t, schema[c].Type))
				}
				batch.Len++
			}
			var want []any
			for i, c := 0, whole.eval(batch); i < batch.Len; i++ {
				want = append(want, boxed(c, i))
			}
			got := &collected{kernel: inParts}
			if err := parts.push(batch, got, counts); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got.values, want, sameBoxed) {
				t.Fatalf("%s gives %v in %d parts, %v at once", text, got.values, got.parts, want)
			}
			if got.parts > 1 {
				split++
			}
		}
		if counts.failed > 0 {
			t.Fatalf("%s: %d rows failed", text, counts.failed)
		}
	})
	if split == 0 {
		t.Error("no batch was divided")
	}
}

// TestStepsGiveTheSameInParts has every step that computes expressions make texts, with so little room that nearly each
// row is a part of its own.
func TestStepsGiveTheSameInParts(t *testing.T) {
	t.Parallel()
	const head = "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {k: int, s: string, t: timestamp}\n"
	data := &table{}
	for i := range 500 {
		row := map[string]any{"k": int64(i % 7), "s": strings.Repeat("x", i%11), "t": time.UnixMicro(1_700_000_000_000_000 + int64(i)*1_000_000).UTC()}
		if i%13 == 0 {
			row["s"] = nil
		}
		data.rows = append(data.rows, row)
	}
	for name, steps := range map[string]string{
		"map":           "  - map: {a: 'upper(s) + string(k)', n: 'length(repeat(s, k))', b: \"pad_left(s ?? 'none', 12)\"}\n",
		"filter":        "  - filter: k > 1 and length(repeat(s, 3)) > 6 and lower(s) != 'x'\n",
		"aggregate":     "  - aggregate: {n: count(), m: max(upper(s)), d: count_distinct(s + string(k))}\n    by: [k]\n",
		"window":        "  - aggregate: {n: count(), m: max(upper(s)), f: first(lower(s))}\n    by: [k]\n    window: {tumbling: 60s, time: t}\n",
		"detect":        "  - detect: 'length(repeat(s, 3))'\n    threshold: {above: 15}\n    time: t\n    by: [k]\n",
		"several steps": "  - map: {a: 'upper(s)'}\n  - filter: length(a + a) > 4\n  - map: {b: 'a + lower(s)'}\n  - sort: [b, k, t]\n",
	} {
		for _, bounds := range []textBounds{{part: 40, row: 1 << 20}, {part: 200, row: 1 << 20}, {part: 15, row: 15}} {
			for _, limit := range []int64{1 << 40, 1} {
				t.Run(fmt.Sprintf("%s %v %d", name, bounds, limit), func(t *testing.T) {
					t.Parallel()
					tables := map[string]*table{"l": data}
					p := program(t, head+steps+"  - insight: out\n")
					run := func(texts textBounds, limit int64) ([]string, Report) {
						store := newStore()
						report, err := Run(t.Context(), RunSettings{
							Program: p, Store: store, Open: opener(tables, 512), Memory: NewMemory(limit), Scratch: &memScratch{}, texts: texts,
						})
						if err != nil {
							t.Fatal(err)
						}
						return insightLines(store.insights), report
					}
					want, _ := run(textBounds{row: bounds.row, part: 0}, 1<<40)
					if len(want) < 2 && bounds.row > 1000 {
						t.Fatalf("the steps give %v", want)
					}
					got, report := run(bounds, limit)
					if bounds.row > 1000 {
						sameLines(t, name, got, want)
					}
					failed := int64(0)
					for _, s := range report.Steps {
						failed += s.Failed
					}
					if (failed > 0) != (bounds.row < 1000) {
						t.Errorf("%d rows failed", failed)
					}
				})
			}
		}
	}
}

// TestARowWithTooMuchTextFailsAlone has one row of which 9 MiB would be made, among 4,096 of which little is.
func TestARowWithTooMuchTextFailsAlone(t *testing.T) {
	t.Parallel()
	data := &table{}
	for i := range 4096 {
		n := int64(1)
		if i == 2000 {
			n = 1 << 20
		}
		data.rows = append(data.rows, map[string]any{"s": "x", "n": n})
	}
	text := "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {s: string, n: int}\n  - id: m\n    map: {l: '" +
		strings.TrimSuffix(strings.Repeat("length(sha256(repeat(s, n))) + ", 9), " + ") + "'}\n  - select: [n, l]\n  - insight: out\n"
	store := newStore()
	report, err := Run(t.Context(), RunSettings{
		Program: program(t, text), Store: store, Open: opener(map[string]*table{"l": data}, 4096), Memory: NewMemory(1 << 20), Scratch: &memScratch{},
	})
	if err != nil || len(store.insights) != 4095 || report.Steps[1].Failed != 1 {
		t.Fatalf("%d insights, %d failed, %v", len(store.insights), report.Steps[1].Failed, err)
	}
	if f := report.Sample[0]; f.Step != "m" || !strings.Contains(f.Reason, "more than 8 MiB of texts of this row") {
		t.Errorf("the failed record is %+v", f)
	}
}

// TestABatchMakesFewTextsAtATime has a step that would make 4 GiB of one batch.
//
//nolint:paralleltest // it looks at the memory of the process
func TestABatchMakesFewTextsAtATime(t *testing.T) {
	data := &table{}
	for range 4096 {
		data.rows = append(data.rows, map[string]any{"s": "x"})
	}
	text := "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {s: string}\n  - map: {t: 'repeat(s, 1048576)'}\n  - map: {u: 'concat(t, \"\")', n: length(t)}\n  - filter: u == t\n" +
		"  - select: [n]\n  - insight: out\n"
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	store := newStore()
	_, err := Run(t.Context(), RunSettings{
		Program: program(t, text), Store: store, Open: opener(map[string]*table{"l": data}, 4096), Memory: NewMemory(1 << 20), Scratch: &memScratch{},
	})
	runtime.ReadMemStats(&after)
	if err != nil || len(store.insights) != 4096 {
		t.Fatalf("%d insights, %v", len(store.insights), err)
	}
	// What the system gave bounds what was in use at any time.
	if took := after.Sys - before.Sys; took > 128<<20 {
		t.Errorf("it took %d MiB", took>>20)
	}
}
