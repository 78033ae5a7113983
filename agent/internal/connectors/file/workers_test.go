package file_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
	"github.com/outfeed/outfeed/agent/internal/decode"
)

// nastyFile writes a file of about size bytes from the records, in an order without a period.
func nastyFile(size int, records ...string) string {
	var text strings.Builder
	seed := uint32(3)
	for text.Len() < size {
		seed = seed*1664525 + 1013904223
		text.WriteString(strings.ReplaceAll(records[int(seed>>9)%len(records)], "#", strconv.Itoa(text.Len())))
	}
	return text.String()
}

// nastyFiles are files that are decoded by several goroutines, with what makes that hard.
func nastyFiles() map[string]string {
	const size = 3<<20 + 4321
	long := strings.Repeat("long ", 30_000)
	jsonl := nastyFile(size, `{"id":#,"name":"a"}`+"\n", `{"id":#,"name":"x\"y\u00e9\n"}`+"\r\n", "\n", " \r\n", "{\"id\":#}\n", "nonsense #\n", "{\"name\":\"é\",\"id\":#}\n", `{"id":"#"}`+"\n")
	plain := nastyFile(size, "#,a\n", "#,b c\r\n", "\n", "x#,c\n", "#\n", "#,5\" pipe\n", ",\n")
	quoted := nastyFile(size, "#,\"a\"\n", "#,\"b,\nc\"\r\n", "\"#\",\"\"\"\n\"\"\"\n", "#,\"\n\n\n\"\n", "\n", "#,\"\"\n", "x#,\"c\"\n", "#,plain\n")
	return map[string]string{
		"plain.jsonl":   jsonl,
		"end.jsonl":     "\xef\xbb\xbf" + jsonl + `{"id":7}`,
		"long.jsonl":    jsonl + `{"id":1,"name":"` + strings.Repeat(long, 8) + "\"}\n" + jsonl[:1<<20] + `{"id":2,"name":"` + strings.Repeat("x", 9<<20) + "\"}\n" + jsonl,
		"toolong.jsonl": jsonl + `{"id":2,"name":"` + strings.Repeat("x", 9<<20) + "\"}",
		"plain.csv":     "id,name\n" + plain,
		"end.csv":       "\xef\xbb\xbfid,name\r\n" + plain + "7,end",
		"quoted.csv":    "id,name\n" + quoted,
		"quotedend.csv": "id,name\n" + quoted + "7,\"end\"",
		"odd.csv":       "id,name\n" + nastyFile(size, "#,\"a\"\n", "#,5\" pipe\n", "#,\"b\n\"\n", "#,\"b\" c\n", "#,a \"\"\n", "#,\"b\" \"c\n"),
		"stray.csv":     "id,name\n" + plain + "7,\"stray\n" + plain,
		"strays.csv":    "id,name\n" + strings.Repeat(plain[:200_000]+nastyFile(1_000, "#,\"stray\n", "#,plain\n", "#,\"a\"\n", "#,\",\"\n", "\"#,b\n", "#,\"c\nd\"\r\n", "#,\"\"\n", "#,5\" pipe\n"), 12),
		"nostops.csv":   "id,name\n" + plain[:100_000] + strings.Repeat("a\",\"b\n", 1_420_000) + plain[:100_000],
		"late.csv":      "id,name\n" + plain + quoted + plain,
	}
}

// deliveries reads a file with so many workers and says what came, delivery by delivery.
func deliveries(t *testing.T, p *plant, name string, workers int) (all []string, rows []string, failures []string) {
	t.Helper()
	_, format, _ := strings.Cut(name, ".")
	src, err := file.NewWithWorkers(workers).NewSource(connector.SourceSettings{
		Connection: connector.Connection{Name: "files", Kind: "file", Options: map[string]any{"root": p.dir}},
		With:       map[string]any{"path": name, "format": format}, Schema: p.schema,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer finish(t, src)
	for {
		d, err := src.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return all, rows, failures
		}
		if err != nil {
			t.Fatal(err)
		}
		var g got
		g.add(d)
		all = append(all, fmt.Sprintf("%d %d %d %x %v %q", d.Batch.Len, d.Read, d.Bytes, []byte(d.Cursor), d.Failed, g.rows))
		rows, failures = append(rows, g.rows...), append(failures, g.failures...)
	}
}

func TestAnyNumberOfWorkersDeliversTheSame(t *testing.T) {
	t.Parallel()
	for name, text := range nastyFiles() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, nil)
			p.write(name, text)
			one, rows, failures := deliveries(t, p, name, 1)
			for _, workers := range []int{2, 4} {
				many, _, _ := deliveries(t, p, name, workers)
				if !slices.Equal(one, many) {
					t.Errorf("%d workers: %d deliveries, one worker: %d", workers, len(many), len(one))
				}
			}
			if !strings.HasPrefix(name, "toolong") && name != "long.jsonl" {
				sameAsWhole(t, name, text, rows, failures)
			}
		})
	}
}

// sameAsWhole compares with the whole file decoded at once.
func sameAsWhole(t *testing.T, name, text string, rows, failures []string) {
	t.Helper()
	var d decode.Decoder = decode.NewJSON(schema, nil)
	in := decode.Input{Text: []byte(text), Final: true, MaxRows: len(text), Name: name, Line: 1}
	if strings.HasPrefix(text, "\xef\xbb\xbf") {
		in.Off = 3
	}
	if strings.HasSuffix(name, ".csv") {
		d = decode.NewCSV(schema, schema.Names(), ',', nil)
		in.Off, in.Line = strings.IndexByte(text, '\n')+1, 2
	}
	b := column.NewBatch(schema)
	r := d.Decode(b, in)
	var whole got
	whole.add(connector.Delivery{Batch: b, Failed: r.Failed})
	if !slices.Equal(rows, whole.rows) {
		t.Errorf("%d rows, the whole has %d", len(rows), len(whole.rows))
	}
	// A batch keeps the first few failures, so those of the whole are the first ones of the first batch.
	if n := len(whole.failures); n > len(failures) || !slices.Equal(failures[:n], whole.failures) {
		t.Errorf("failures %q, the whole has %q", failures[:min(n, len(failures))], whole.failures)
	}
}

func TestCloseWhileWorkersDecode(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.write("x.jsonl", nastyFile(12<<20, "{\"id\":#,\"name\":\"a\"}\n"))
	for calls := range 5 {
		src, err := file.NewWithWorkers(3).NewSource(connector.SourceSettings{
			Connection: connector.Connection{Name: "files", Kind: "file", Options: map[string]any{"root": p.dir}},
			With:       map[string]any{"path": "x.jsonl", "format": "jsonl"}, Schema: p.schema,
		})
		if err != nil {
			t.Fatal(err)
		}
		for range calls * calls {
			if _, err := src.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		finish(t, src)
	}
}
