package file_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
	"github.com/outfeed/outfeed/protocol/expr"
)

// TestRecordings reads recordings of real machines, where they are, and compares with the standard library.
func TestRecordings(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "..", "shared", "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, delimiter string
		comma           rune
		column          string
	}{
		{"machine-temperature.csv", ",", ',', "value"},
		{"ai4i2020.tsv", `\t`, '\t', "Torque [Nm]"},
	} {
		f, err := os.Open(filepath.Join(root, tt.name))
		if err != nil {
			t.Logf("%s is not here", tt.name)
			continue
		}
		r := csv.NewReader(f)
		r.Comma = tt.comma
		records, err := r.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		at := 0
		for records[0][at] != tt.column {
			at++
		}
		src, err := file.New().NewSource(connector.SourceSettings{
			Connection: connector.Connection{Name: "recordings", Options: map[string]any{"root": root}},
			With:       map[string]any{"path": tt.name, "format": "csv", "delimiter": tt.delimiter},
			Schema:     expr.Schema{{Name: tt.column, Type: expr.Float}},
		})
		if err != nil {
			t.Fatal(err)
		}
		n := 1
		for n < len(records) {
			d, err := src.Next(t.Context())
			if err != nil || d.Failed.Count > 0 {
				t.Fatalf("%s: %+v, error %v", tt.name, d.Failed, err)
			}
			for _, got := range d.Batch.Cols[0].Floats {
				if want, err := strconv.ParseFloat(records[n][at], 64); err != nil || got != want {
					t.Fatalf("%s, record %d: %v, want %v", tt.name, n, got, want)
				}
				n++
			}
		}
		finish(t, src)
	}
}
