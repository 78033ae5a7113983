package engine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// TestFilterIsItsCondition compares what a filter keeps with where its whole condition, made by one kernel, is true.
func TestFilterIsItsCondition(t *testing.T) {
	t.Parallel()
	schema := expr.Schema{{Name: "i", Type: expr.Int}, {Name: "f", Type: expr.Float}, {Name: "s", Type: expr.String}, {Name: "b", Type: expr.Bool}}
	var conditions []string
	for _, op := range []string{"==", "!=", "<", "<=", ">", ">="} {
		for _, c := range []string{"i %s 2", "2 %s i", "i %s -9223372036854775807", "f %s 2", "f %s 1.5", "1.5 %s f", "-0.0 %s f", "f %s i", "i %s 1.5", "s %s 'RUN'", "'' %s s", "s %s 'longer than a word'", "s %s 'eight888'"} {
			conditions = append(conditions, fmt.Sprintf(c, op))
		}
	}
	simple := len(conditions)
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	for range 200 {
		parts := make([]string, 2+rng.IntN(3))
		for i := range parts {
			parts[i] = conditions[rng.IntN(simple)]
			if rng.IntN(4) == 0 {
				parts[i] = "(" + parts[i] + " or b)"
			}
		}
		conditions = append(conditions, strings.Join(parts, " and "))
	}
	conditions = append(conditions, "b", "not b and i > 1", "null", "i == null and f > 1")
	for _, nulls := range []int{0, 5} {
		b := refineBatch(rng, schema, nulls)
		for _, text := range conditions {
			checkFilter(t, schema, b, text)
		}
	}
}

func refineBatch(rng *rand.Rand, schema expr.Schema, nulls int) *column.Batch {
	b := column.NewBatch(schema)
	floats := []float64{0, math.Copysign(0, -1), 1, 1.5, 2, math.NaN(), math.Inf(1), math.Inf(-1)}
	texts := []string{"", "RUN", "RUNX", "IDLE", "eight888", "longer than a word", "longer than a wore", "R\x00N"}
	for range 500 {
		b.Cols[0].AppendInt([]int64{math.MinInt64, -1, 0, 1, 2, 3, math.MaxInt64}[rng.IntN(7)])
		b.Cols[1].AppendFloat(floats[rng.IntN(len(floats))])
		b.Cols[2].AppendStr([]byte(texts[rng.IntN(len(texts))]))
		b.Cols[3].AppendBool(rng.IntN(2) == 0)
		for c := range b.Cols {
			if nulls > 0 && rng.IntN(nulls) == 0 {
				b.Cols[c].SetNull(b.Len)
			}
		}
		b.Len++
	}
	return b
}

func checkFilter(t *testing.T, schema expr.Schema, b *column.Batch, text string) {
	t.Helper()
	parsed, err := expr.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	node, err := expr.Check(parsed, schema)
	if err != nil {
		return // a comparison of types that do not meet
	}
	k, err := compileExpr(node, expr.Bool)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	refiners, err := newRefiners(node, nil)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var want, rows []int32
	keep := k.eval(b)
	for i := range b.Len {
		rows = append(rows, i32(i))
		if keep.Bools[i] && !keep.Null(i) {
			want = append(want, i32(i))
		}
	}
	out := make([]int32, b.Len)
	for _, r := range refiners {
		rows = r.refine(b, rows, out)
	}
	if !slices.Equal(rows, want) {
		t.Errorf("%s keeps %d rows, want %d", text, len(rows), len(want))
	}
}
