package file_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connector/conformance"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
	"github.com/outfeed/outfeed/protocol/expr"
)

func newSink(t *testing.T, root string, with map[string]any) (connector.Sink, error) {
	t.Helper()
	c, ok := file.New().(connector.Sinker)
	if !ok {
		t.Fatal("the connector writes nothing")
	}
	return c.NewSink(connector.SinkSettings{
		Connection: connector.Connection{Name: "out", Kind: "file", Options: map[string]any{"root": root}}, With: with,
		Schema: expr.Schema{{Name: "machine", Type: expr.String}, {Name: "made", Type: expr.Int}},
	})
}

func made(machine string, n int64) *column.Batch {
	b := column.NewBatch(expr.Schema{{Name: "machine", Type: expr.String}, {Name: "made", Type: expr.Int}})
	b.Cols[0].AppendStr([]byte(machine))
	b.Cols[1].AppendInt(n)
	b.Cols[0].AppendStr([]byte("x"))
	b.Cols[1].AppendNull()
	b.Len = 2
	return b
}

// flushed writes each batch with a sink of its own, as one run after another does.
func flushed(t *testing.T, root string, with map[string]any, batches ...*column.Batch) {
	t.Helper()
	for _, b := range batches {
		s, err := newSink(t, root, with)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(b)
		if failed, err := s.Flush(t.Context()); err != nil || failed.Count > 0 {
			t.Fatal(failed, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSinkAppends(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	flushed(t, root, map[string]any{"path": "a/b.jsonl"}, made("M1", 1), made("M\n2", 2))
	flushed(t, root, map[string]any{"path": "{date}.csv", "format": "csv", "delimiter": ";"}, made("M;1", 1), made("M2", 2))
	for name, want := range map[string]string{
		"a/b.jsonl": `{"machine":"M1","made":1}` + "\n" + `{"machine":"x","made":null}` + "\n" + `{"machine":"M\n2","made":2}` + "\n" + `{"machine":"x","made":null}` + "\n",
		time.Now().UTC().Format(time.DateOnly) + ".csv": "machine;made\n\"M;1\";1\nx;\nM2;2\nx;\n",
	} {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestSinkBeginsALineAfterACrash(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "r.jsonl"), []byte(`{"machine":"M`), 0o600); err != nil {
		t.Fatal(err)
	}
	flushed(t, root, map[string]any{"path": "r.jsonl"}, made("M1", 1))
	got, err := os.ReadFile(filepath.Join(root, "r.jsonl"))
	if err != nil || !strings.HasPrefix(string(got), `{"machine":"M`+"\n"+`{"machine":"M1"`) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSinkStaysUnderItsRoot(t *testing.T) {
	t.Parallel()
	root, other := t.TempDir(), t.TempDir()
	for _, path := range []string{"../x", "/etc/x", "a/../../x", "*.csv", `a\b`, "C:x", ""} {
		_, err := newSink(t, root, map[string]any{"path": path})
		var wrong *connector.OptionError
		if !errors.As(err, &wrong) || wrong.Option != "path" {
			t.Errorf("%q gives %v", path, err)
		}
	}
	if err := os.Symlink(other, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	s, err := newSink(t, root, map[string]any{"path": "link/x.jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	s.Write(made("M1", 1))
	_, err = s.Flush(t.Context())
	if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
		t.Errorf("a link out of the root gives %v", err)
	}
	if list, err := os.ReadDir(other); err != nil || len(list) > 0 {
		t.Errorf("the other folder has %v, %v", list, err)
	}
}

func TestSinkKeepsWhatItCouldNotWrite(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "later")
	s, err := newSink(t, root, map[string]any{"path": "r.jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	s.Write(made("M1", 1))
	if _, err := s.Flush(t.Context()); err == nil {
		t.Fatal("a folder that is not there takes rows")
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "r.jsonl")); err != nil || strings.Count(string(got), "\n") != 2 {
		t.Errorf("%q, %v", got, err)
	}
}

// target is a folder that is written to.
type target struct {
	t    *testing.T
	root string
}

func (f *target) SinkSettings() connector.SinkSettings {
	return connector.SinkSettings{
		Connection: connector.Connection{Name: "out", Kind: "file", Options: map[string]any{"root": f.root}}, With: map[string]any{"path": "r.jsonl"},
	}
}

func (f *target) Down() { f.rename(f.root, f.root+".away") }
func (f *target) Up()   { f.rename(f.root+".away", f.root) }

func (f *target) rename(from, to string) {
	if err := os.Rename(from, to); err != nil {
		f.t.Fatal(err)
	}
}

func (f *target) Written() []int {
	text, err := os.ReadFile(filepath.Join(f.root, "r.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.t.Fatal(err)
	}
	var ids []int
	for line := range strings.Lines(string(text)) {
		var row struct{ ID int }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			f.t.Fatal(err)
		}
		ids = append(ids, row.ID)
	}
	return ids
}

func TestSinkConformance(t *testing.T) {
	t.Parallel()
	conformance.RunSink(t, file.New(), func(t *testing.T) conformance.SinkSystem {
		t.Helper()
		root := filepath.Join(t.TempDir(), "out")
		if err := os.Mkdir(root, 0o700); err != nil {
			t.Fatal(err)
		}
		return &target{t: t, root: root}
	})
}
