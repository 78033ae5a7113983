package file_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
	"github.com/outfeed/outfeed/protocol/expr"
)

var schema = expr.Schema{{Name: "id", Type: expr.Int}, {Name: "name", Type: expr.String}}

// plant is a folder with files and how a source reads it.
type plant struct {
	t      *testing.T
	dir    string
	with   map[string]any
	schema expr.Schema
}

func newPlant(t *testing.T, with map[string]any) *plant {
	t.Helper()
	return &plant{t: t, dir: t.TempDir(), with: with, schema: schema}
}

func (p *plant) write(name, text string) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(p.dir, name)), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) append(name, text string) {
	p.t.Helper()
	f, err := os.OpenFile(filepath.Join(p.dir, name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) open(resume connector.Cursor) (connector.Source, error) {
	return file.New().NewSource(connector.SourceSettings{
		Connection: connector.Connection{Name: "files", Kind: "file", Options: map[string]any{"root": p.dir}},
		With:       p.with, Schema: p.schema, Resume: resume, Logger: slog.New(slog.DiscardHandler),
	})
}

// got is what a source delivered.
type got struct {
	rows     []string
	failures []string
	cursor   connector.Cursor
	read     int64
}

func (g *got) add(d connector.Delivery) {
	if d.Batch != nil {
		for i := range d.Batch.Len {
			var row []string
			for c := range d.Batch.Cols {
				col := &d.Batch.Cols[c]
				switch {
				case col.Null(i):
					row = append(row, "-")
				case col.Type == expr.Int:
					row = append(row, strconv.FormatInt(col.Ints[i], 10))
				default:
					row = append(row, string(col.Bytes(i)))
				}
			}
			g.rows = append(g.rows, strings.Join(row, " "))
		}
	}
	for _, f := range d.Failed.Sample {
		g.failures = append(g.failures, f.Where+": "+f.Reason)
	}
	g.cursor = d.Cursor
	g.read += d.Read
}

// all reads a bounded source to its end.
func (p *plant) all(resume connector.Cursor) got {
	p.t.Helper()
	src, err := p.open(resume)
	if err != nil {
		p.t.Fatal(err)
	}
	defer finish(p.t, src)
	g := got{cursor: resume}
	for {
		d, err := src.Next(p.t.Context())
		if errors.Is(err, io.EOF) {
			return g
		}
		if err != nil {
			p.t.Fatal(err)
		}
		g.add(d)
	}
}

func (p *plant) fails(want string) {
	p.t.Helper()
	src, err := p.open(nil)
	if err == nil {
		defer finish(p.t, src)
		_, err = src.Next(p.t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		p.t.Fatalf("error %v, want %q", err, want)
	}
}

// finish closes a source, which must not fail.
func finish(t *testing.T, src connector.Source) {
	t.Helper()
	if err := src.Close(); err != nil {
		t.Error(err)
	}
}

func same(t *testing.T, g got, rows ...string) {
	t.Helper()
	if !slices.Equal(g.rows, rows) {
		t.Fatalf("rows %q, want %q; failures %q", g.rows, rows, g.failures)
	}
}

func TestFilesInLexicalOrderOnceEach(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "in/*.csv", "format": "csv", "delimiter": ";"})
	p.write("in/b.csv", "\xef\xbb\xbfname;id;more\r\nx;1;\r\n\"y;\"\"z\";2;\r\n")
	p.write("in/a.csv", "id;name\n7;last line")
	p.write("in/c.txt", "id;name\n9;no\n")
	p.write("other/d.csv", "id;name\n9;no\n")
	g := p.all(nil)
	same(t, g, "7 last line", "1 x", `2 y;"z`)
	same(t, p.all(g.cursor))
	p.write("in/aa.csv", "id;name\n8;new\n")
	p.append("in/b.csv", "3;w\r\n")
	p.append("in/b.csv", "\"v\";4;\n")
	g = p.all(g.cursor)
	same(t, g, "8 new", "4 v")
	if !slices.Equal(g.failures, []string{"in/b.csv:4: it has 2 fields instead of 3"}) {
		t.Fatalf("failures %q", g.failures)
	}
}

func TestDecimalComma(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "*.csv", "format": "csv", "delimiter": ";", "decimal": ","})
	p.write("a.csv", "name;id\nx;7,0\ny;8.0\nz;9\n")
	g := p.all(nil)
	same(t, g, "7 x", "9 z")
	if len(g.failures) != 1 || !strings.Contains(g.failures[0], "the number has a point") {
		t.Errorf("failures %q", g.failures)
	}
}

func TestJSONLinesAndNulls(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "x.jsonl", "format": "jsonl"})
	p.write("x.jsonl", "{\"id\":1}\nnonsense\n\n{\"name\":\"a\\u00e4\",\"id\":2}")
	g := p.all(nil)
	same(t, g, "1 -", "2 aä")
	if g.read != 3 || !slices.Equal(g.failures, []string{"x.jsonl:2: not a JSON object"}) {
		t.Fatalf("read %d, failures %q", g.read, g.failures)
	}
}

func TestWithoutHeaderColumnsAreInDeclaredOrder(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.write("x.csv", "1\ta\n")
	src, err := file.New().NewSource(connector.SourceSettings{
		Connection: connector.Connection{Name: "files", Options: map[string]any{"root": p.dir}},
		With:       map[string]any{"path": "x.csv", "format": "csv", "header": false, "delimiter": `\t`},
		Schema:     schema[1:], Declared: schema,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer finish(p.t, src)
	d, err := src.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var g got
	g.add(d)
	same(t, g, "a")
}

func TestMissingColumn(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "*.csv", "format": "csv"})
	p.write("x.csv", "id,nam\n1,a\n")
	p.fails(`file x.csv in ` + p.dir + `: the header lacks a column of the schema: unknown column "name"; did you mean "nam"?`)
}

func TestMissingFolder(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "in/*.csv", "format": "csv"})
	p.fails("the folder in in " + p.dir + " cannot be read: no such file or directory")
	if err := os.Remove(p.dir); err != nil {
		t.Fatal(err)
	}
	p.fails("the folder " + p.dir + " cannot be opened: no such file or directory")
}

func TestLinkOutOfTheRootIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
	outside := filepath.Join(t.TempDir(), "secret.jsonl")
	if err := os.WriteFile(outside, []byte(`{"id":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(p.dir, "link.jsonl")); err != nil {
		t.Fatal(err)
	}
	p.fails("links out of the folder are refused")
}

func TestReplacedAndTruncatedFilesAreNew(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
	p.write("x.jsonl", "{\"id\":1}\n{\"id\":2}\n")
	g := p.all(nil)
	same(t, g, "1 -", "2 -")
	p.write("temp", "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n")
	if err := os.Rename(filepath.Join(p.dir, "temp"), filepath.Join(p.dir, "x.jsonl")); err != nil {
		t.Fatal(err)
	}
	g = p.all(g.cursor)
	same(t, g, "1 -", "2 -", "3 -")
	p.write("x.jsonl", "{\"id\":4}\n") // the same file, cut and written anew
	g = p.all(g.cursor)
	same(t, g, "4 -")
	p.write("x.jsonl", "{\"id\":5}\n{\"id\":6}\n")
	g = p.all(g.cursor)
	same(t, g, "5 -", "6 -")
	if err := os.Rename(filepath.Join(p.dir, "x.jsonl"), filepath.Join(p.dir, "y.jsonl")); err != nil {
		t.Fatal(err)
	}
	p.append("y.jsonl", "{\"id\":7}\n")
	g = p.all(g.cursor)
	same(t, g, "7 -")
}

func TestCursorForgetsFilesThatAreGone(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
	var g got
	largest := 0
	for i := range 100 {
		name := fmt.Sprintf("%03d.jsonl", i)
		p.write(name, fmt.Sprintf("{\"id\":%d}\n", i))
		g = p.all(g.cursor)
		same(t, g, fmt.Sprintf("%d -", i))
		largest = max(largest, len(g.cursor))
		if i > 0 {
			if err := os.Remove(filepath.Join(p.dir, fmt.Sprintf("%03d.jsonl", i-1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if largest > 300 {
		t.Fatalf("the cursor grew to %d bytes", largest)
	}
}

func TestManyFilesAndRecordsResumeAnywhere(t *testing.T) {
	t.Parallel()
	p := newPlant(t, map[string]any{"path": "*.jsonl", "format": "jsonl"})
	var want []string
	for f := range 30 {
		var text strings.Builder
		for i := range 20 + f*f*30 {
			fmt.Fprintf(&text, "{\"id\":%d,\"name\":\"%s\"}\n", len(want), strings.Repeat("x", i%50))
			want = append(want, fmt.Sprintf("%d %s", len(want), strings.Repeat("x", i%50)))
		}
		p.write(fmt.Sprintf("%02d.jsonl", f), text.String())
	}
	var cursor connector.Cursor
	var rows []string
	for step := 1; ; step = step%7 + 1 {
		src, err := p.open(cursor)
		if err != nil {
			t.Fatal(err)
		}
		g := got{cursor: cursor}
		for range step {
			var d connector.Delivery
			if d, err = src.Next(t.Context()); err != nil {
				break
			}
			g.add(d)
		}
		rows, cursor = append(rows, g.rows...), g.cursor
		finish(t, src)
		if errors.Is(err, io.EOF) {
			break
		}
	}
	if !slices.Equal(rows, want) {
		t.Fatalf("%d rows, want %d", len(rows), len(want))
	}
}

func TestVeryLongRecordFails(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"jsonl", "csv"} {
		p := newPlant(t, map[string]any{"path": "x", "format": format})
		long := `{"id":1,"name":"` + strings.Repeat("x", 11<<20) + "\"}\n"
		good := "{\"id\":2}\n"
		if format == "csv" {
			long, good = "1,"+strings.Repeat("x", 11<<20)+"\n", "2,\n"
			p.write("x", "id,name\n"+good+long+good)
		} else {
			p.write("x", good+long+good)
		}
		g := p.all(nil)
		same(t, g, "2 -", "2 -")
		if len(g.failures) != 1 || !strings.Contains(g.failures[0], "longer than 8 MiB") {
			t.Fatalf("%s: failures %q", format, g.failures)
		}
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, map[string]any{"path": "*.csv", "format": "csv", "follow": true})
		p.write("a.csv", "id,name\n1,a\n2,")
		src, err := p.open(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer finish(p.t, src)
		next := func() got {
			t.Helper()
			d, err := src.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var g got
			g.add(d)
			return g
		}
		same(t, next(), "1 a")
		p.append("a.csv", "b\n3")
		same(t, next(), "2 b")
		ctx, cancel := context.WithTimeout(t.Context(), 5e9)
		if _, err := src.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		cancel()
		p.append("a.csv", ",c\n")
		g := next()
		same(t, g, "3 c")
		p.write("b.csv", "id,na")
		p.append("b.csv", "me\n4,d\n")
		same(t, next(), "4 d")

		again, err := p.open(g.cursor)
		if err != nil {
			t.Fatal(err)
		}
		defer finish(t, again)
		d, err := again.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g = got{}
		g.add(d)
		same(t, g, "4 d")
	})
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		with   map[string]any
		option string
	}{
		{map[string]any{"format": "csv"}, "path"},
		{map[string]any{"path": "../x", "format": "csv"}, "path"},
		{map[string]any{"path": "/etc/passwd", "format": "csv"}, "path"},
		{map[string]any{"path": `a\b`, "format": "csv"}, "path"},
		{map[string]any{"path": "a[", "format": "csv"}, "path"},
		{map[string]any{"path": "x", "format": "xml"}, "format"},
		{map[string]any{"path": "x", "format": "csv", "delimiter": ";;"}, "delimiter"},
		{map[string]any{"path": "x", "format": "csv", "decimal": ","}, "decimal"},
		{map[string]any{"path": "x", "format": "jsonl", "decimal": ",", "delimiter": ";"}, "decimal"},
		{map[string]any{"path": "x", "format": "csv", "header": "yes"}, "header"},
		{map[string]any{"path": "x", "format": "csv", "pth": "y"}, "pth"},
	} {
		_, err := newPlant(t, tt.with).open(nil)
		var option *connector.OptionError
		if !errors.As(err, &option) || option.Option != tt.option {
			t.Errorf("%v: error %v, want one of option %s", tt.with, err, tt.option)
		}
	}
}
