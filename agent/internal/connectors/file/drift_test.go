package file_test

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
)

// notesOf reads the plant's files to their end and gives what was noticed.
func notesOf(p *plant, policy connector.Drift) (notes []string, rows int64, err error) {
	src, err := file.New().NewSource(connector.SourceSettings{
		Connection: connector.Connection{Name: "files", Kind: "file", Options: map[string]any{"root": p.dir}},
		With:       p.with, Schema: p.schema[:1], Declared: p.schema, Drift: policy, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, 0, err
	}
	defer finish(p.t, src)
	for {
		d, err := src.Next(p.t.Context())
		if errors.Is(err, io.EOF) {
			return notes, rows, nil
		}
		if err != nil {
			return notes, rows, err
		}
		if d.Batch != nil {
			rows += int64(d.Batch.Len)
		}
		for _, n := range d.Failed.Notes {
			notes = append(notes, n.Where+": "+n.Reason)
		}
	}
}

func TestDriftOfFiles(t *testing.T) {
	t.Parallel()
	csv := newPlant(t, map[string]any{"path": "*.csv", "format": "csv"})
	csv.write("a.csv", "id,name\n1,x\n")
	csv.write("b.csv", "humidity,id\n5,2\n")
	notes, rows, err := notesOf(csv, connector.DriftReport)
	want := []string{
		`b.csv: the header has column "humidity", which the schema does not name`,
		`b.csv: the schema names column "name", which the header has not`,
	}
	if err != nil || rows != 2 || !slices.Equal(notes, want) {
		t.Errorf("%d rows, %q, %v", rows, notes, err)
	}
	var permanent *connector.PermanentError
	if _, rows, err = notesOf(csv, connector.DriftFail); !errors.As(err, &permanent) || rows != 1 || !strings.Contains(err.Error(), `b.csv in `) {
		t.Errorf("%d rows, %v", rows, err)
	}
	if notes, rows, err = notesOf(csv, connector.DriftIgnore); err != nil || rows != 2 || notes != nil {
		t.Errorf("%d rows, %q, %v", rows, notes, err)
	}

	lines := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
	lines.write("a.jsonl", `{"id":1,"name":"x"}`+"\n"+`{"id":2,"humidity":1}`+"\n")
	notes, rows, err = notesOf(lines, connector.DriftReport)
	if err != nil || rows != 2 || !slices.Equal(notes, []string{`a.jsonl: the source sends "humidity", which the schema does not name`}) {
		t.Errorf("%d rows, %q, %v", rows, notes, err)
	}
}

// TestColumnsThatNeverCome of a header are null where that is to be reported, and end the read otherwise.
func TestColumnsThatNeverCome(t *testing.T) {
	t.Parallel()
	csv := newPlant(t, map[string]any{"path": "*.csv", "format": "csv"})
	csv.write("a.csv", "name\nx\ny\n")
	notes, rows, err := notesOf(csv, connector.DriftReport)
	if want := []string{`a.csv: the schema names column "id", which the header has not`}; err != nil || rows != 2 || !slices.Equal(notes, want) {
		t.Errorf("report: %d rows, %q, %v", rows, notes, err)
	}
	for _, policy := range []connector.Drift{connector.DriftIgnore, connector.DriftFail} {
		var permanent *connector.PermanentError
		if _, rows, err = notesOf(csv, policy); !errors.As(err, &permanent) || rows != 0 || !strings.Contains(err.Error(), `"id"`) {
			t.Errorf("policy %d: %d rows, %v", policy, rows, err)
		}
	}

	// A member may still come in the next file, so it is missed at the end of the last.
	lines := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
	lines.write("a.jsonl", `{"id":1}`+"\n")
	lines.write("b.jsonl", `{"id":2,"name":null}`+"\n")
	if _, rows, err = notesOf(lines, connector.DriftFail); err != nil || rows != 2 {
		t.Errorf("%d rows, %v", rows, err)
	}
	if notes, rows, err = notesOf(lines, connector.DriftReport); err != nil || rows != 2 || notes != nil {
		t.Errorf("a member that comes in the second file is missed: %d rows, %q, %v", rows, notes, err)
	}
	lines.write("b.jsonl", `{"id":2}`+"\n")
	var permanent *connector.PermanentError
	if _, rows, err = notesOf(lines, connector.DriftFail); !errors.As(err, &permanent) || rows != 2 || !strings.Contains(err.Error(), `the files *.jsonl in `) || !strings.Contains(err.Error(), `"name", which none of the 2 records has`) {
		t.Errorf("%d rows, %v", rows, err)
	}
	if notes, rows, err = notesOf(lines, connector.DriftReport); err != nil || rows != 2 || !slices.Equal(notes, []string{`*.jsonl: the schema names "name", which none of the 2 records has`}) {
		t.Errorf("%d rows, %q, %v", rows, notes, err)
	}
}

// TestAColumnThatComesNoLonger is noted with the file that none of whose records has it.
func TestAColumnThatComesNoLonger(t *testing.T) {
	t.Parallel()
	for _, policy := range []connector.Drift{connector.DriftIgnore, connector.DriftReport, connector.DriftFail} {
		lines := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
		lines.write("a.jsonl", strings.Repeat(`{"id":1,"name":"x"}`+"\n", 150))
		lines.write("b.jsonl", strings.Repeat(`{"id":2}`+"\n", 99)) // too few to say so
		lines.write("c.jsonl", strings.Repeat(`{"id":3,"name":null}`+"\n", 100))
		lines.write("d.jsonl", strings.Repeat(`{"id":4}`+"\n", 20_000))
		var want []string
		if policy != connector.DriftIgnore {
			want = []string{`d.jsonl: the schema names "name", which came before, and none of the last 1000 records has it`}
		}
		notes, rows, err := notesOf(lines, policy)
		if err != nil || rows != 20_349 || !slices.Equal(notes, want) {
			t.Errorf("policy %d: %d rows, %q, %v", policy, rows, notes, err)
		}
	}
}
