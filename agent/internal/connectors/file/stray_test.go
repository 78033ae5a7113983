package file_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/expr"
)

// TestStrayQuoteCostsItsLineOnly reads files in which the next quote behind a stray one opens a field, far away or near.
func TestStrayQuoteCostsItsLineOnly(t *testing.T) {
	t.Parallel()
	far := []string{"a,b"}
	var farRows []string
	for i := range 100_000 {
		switch i {
		case 5:
			far = append(far, `"5,5`)
			continue
		case 90_000:
			far = append(far, fmt.Sprintf(`"n%d",%d`, i, i))
		default:
			far = append(far, fmt.Sprintf("n%d,%d", i, i))
		}
		farRows = append(farRows, fmt.Sprintf("n%d %d", i, i))
	}
	const reason = ": a quote is opened and never closed: the next one, on a later line, has text behind it"
	tests := []struct {
		name    string
		lines   []string
		rows    []string
		failure string
	}{
		{"near.csv", []string{"a,b", `"oops,1`, "2,3", `"4",5`}, []string{"2 3", "4 5"}, "near.csv:2" + reason},
		{"far.csv", far, farRows, "far.csv:7" + reason},
	}
	for _, tt := range tests {
		for _, end := range []string{"\n", "\r\n"} {
			p := newPlant(t, map[string]any{"path": tt.name, "format": "csv"})
			p.schema = expr.Schema{{Name: "a", Type: expr.String}, {Name: "b", Type: expr.Int}}
			p.write(tt.name, strings.Join(tt.lines, end))
			g := p.all(nil)
			if !slices.Equal(g.rows, tt.rows) || g.read != int64(len(tt.lines)-1) || !slices.Equal(g.failures, []string{tt.failure}) {
				t.Errorf("%s: %d rows and %d records, want %d and %d; failures %q", tt.name, len(g.rows), g.read, len(tt.rows), len(tt.lines)-1, g.failures)
			}
			one, rows, _ := deliveries(t, p, tt.name, 1)
			for _, workers := range []int{2, 4} {
				if many, _, _ := deliveries(t, p, tt.name, workers); !slices.Equal(one, many) || !slices.Equal(rows, tt.rows) {
					t.Errorf("%s: %d workers deliver something else than one", tt.name, workers)
				}
			}
		}
	}
}
