package decode_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// driftOf decodes lines with a watching decoder of the columns i and s; f is declared and not read.
func driftOf(policy connector.Drift, text string) (rows, failed, notes []string) {
	schema := expr.Schema{{Name: "i", Type: expr.Int}, {Name: "s", Type: expr.String}}
	d := decode.NewJSON(schema, time.UTC)
	d.Watch(policy, append(slices.Clone(schema), expr.Column{Name: "f", Type: expr.Float}))
	b := column.NewBatch(schema)
	in := decode.Input{Text: []byte(text), Final: true, MaxRows: 5000, Name: "x.jsonl", Line: 1}
	r := d.Decode(b, in)
	for _, f := range r.Failed.Sample {
		failed = append(failed, f.Where+": "+f.Reason)
	}
	for _, n := range r.Failed.Notes {
		notes = append(notes, n.Where+": "+n.Reason)
	}
	return cells(b), failed, append(notes, d.Drift(true)...)
}

func TestDrift(t *testing.T) {
	t.Parallel()
	const text = `{"i":1,"f":2.5}
{"i":2,"hum\u0069dity":{"a":1},"i2":0}
{"humidity":3,"i":3}
{"i":4}
`
	for policy, want := range map[connector.Drift][3][]string{
		connector.DriftIgnore: {{"1 | -", "2 | -", "3 | -", "4 | -"}, nil, nil},
		connector.DriftReport: {{"1 | -", "2 | -", "3 | -", "4 | -"}, nil, {
			`x.jsonl: the source sends "humidity", which the schema does not name`,
			`x.jsonl: the source sends "i2", which the schema does not name`,
			`the schema names "s", which none of the 4 records has`,
		}},
		connector.DriftFail: {{"1 | -", "4 | -"}, {
			`x.jsonl:2: the source sends "humidity", which the schema does not name, and the read says drift: fail`,
			`x.jsonl:3: the source sends "humidity", which the schema does not name, and the read says drift: fail`,
		}, {`the schema names "s", which none of the 4 records has`}},
	} {
		rows, failed, notes := driftOf(policy, text)
		for i, got := range [3][]string{rows, failed, notes} {
			if !slices.Equal(got, want[i]) {
				t.Errorf("with policy %d:\n%s\nwant\n%s", policy, strings.Join(got, "\n"), strings.Join(want[i], "\n"))
			}
		}
	}
}

// TestDriftIsBounded holds that neither many nor long names make the report large.
func TestDriftIsBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&text, "{\"i\":1,\"s\":\"\",\"name %d%s\":0}\n", i, strings.Repeat("ü", 3000))
	}
	rows, _, notes := driftOf(connector.DriftReport, text.String())
	if len(rows) != 3000 || len(notes) != 32 || len(notes[0]) > 300 {
		t.Errorf("%d rows, %d notes", len(rows), len(notes))
	}
}

func TestDriftOfAHeader(t *testing.T) {
	t.Parallel()
	declared := expr.Schema{{Name: "i", Type: expr.Int}, {Name: "s", Type: expr.String}}
	notes, err := decode.CheckDrift(connector.DriftReport, declared, []string{"i", "extra", "extra"})
	want := []string{`the header has column "extra", which the schema does not name`, `the schema names column "s", which the header has not`}
	if err != nil || !slices.Equal(notes, want) {
		t.Errorf("CheckDrift gives %q, %v", notes, err)
	}
	if _, err = decode.CheckDrift(connector.DriftFail, declared, []string{"i", "s", "extra"}); err == nil || !strings.Contains(err.Error(), `"extra"`) {
		t.Errorf("CheckDrift gives %v", err)
	}
	if _, err = decode.CheckDrift(connector.DriftFail, declared, []string{"s"}); err == nil || !strings.Contains(err.Error(), `the schema names column "i", which the header has not, and the read says drift: fail`) {
		t.Errorf("CheckDrift gives %v", err)
	}
	if notes, err = decode.CheckDrift(connector.DriftIgnore, declared, []string{"extra"}); err != nil || notes != nil {
		t.Errorf("CheckDrift gives %q, %v", notes, err)
	}
}

// TestColumnsThatNeverCome are known when no more records will come. That one is not read makes no difference, nor that
// it came as null; one that another filled is not missed.
func TestColumnsThatNeverCome(t *testing.T) {
	t.Parallel()
	declared := expr.Schema{{Name: "topic", Type: expr.String}, {Name: "i", Type: expr.Int}, {Name: "unread", Type: expr.Int}}
	for text, want := range map[string]string{
		"":                         "",
		"\n\n":                     "",
		`{"i":1,"unread":2}`:       "",
		`{"i":null,"unread":null}`: "",
		`{"\u0069":1}` + "\n" + `{"unread":[]}` + "\n": "",
		`{"i":1}` + "\n\n" + `{"i":2}`:                 `the schema names "unread", which none of the 2 records has, and the read says drift: fail; take it out of the schema, or say drift: report`,
		`{"unread":1}`:                                 `the schema names "i", which none of the 1 records has, and the read says drift: fail; take it out of the schema, or say drift: report`,
		`no record`:                                    "",
	} {
		for _, policy := range []connector.Drift{connector.DriftIgnore, connector.DriftReport, connector.DriftFail} {
			d := decode.NewJSON(declared[:2], time.UTC)
			d.Ignore("topic")
			d.Watch(policy, declared)
			b := column.NewBatch(declared[:2])
			d.Decode(b, decode.Input{Text: []byte(text), Final: true, MaxRows: 10})
			got := ""
			if err := d.Absent(); err != nil {
				got = err.Error()
			}
			if policy != connector.DriftFail && got != "" || policy == connector.DriftFail && got != want {
				t.Errorf("%q with policy %d: %s", text, policy, got)
			}
		}
	}
}

// FuzzElement holds that an array of JSON is taken apart as the standard library does, and that nothing else panics.
func FuzzElement(f *testing.F) {
	for _, seed := range []string{`[]`, ` [ 1 , "a,]\"" ,{"x":[1,2]}, [ ] ] `, `[1`, `[1,]`, `{}`, `7`, `["\\"]`, `[[[]],{"]":"}"}]`, `[null,true]x`, `[,]`, `[}]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got []string
		for next := 0; next >= 0; {
			start, end, after, good := decode.Element(text, next)
			if !good {
				if json.Valid(text) && text[strings.IndexFunc(string(text), func(r rune) bool { return !strings.ContainsRune(" \t\r\n", r) })] == '[' {
					t.Fatalf("%q is an array", text)
				}
				return
			}
			if after >= 0 && after <= next {
				t.Fatalf("%q: from %d to %d", text, next, after)
			}
			if start >= 0 {
				got = append(got, string(text[start:end]))
			}
			next = after
		}
		var want []json.RawMessage
		if !json.Valid(text) || json.Unmarshal(text, &want) != nil {
			return // columns hold JSON; what is none only must not hang
		}
		if len(got) != len(want) {
			t.Fatalf("%q has %d elements: %q", text, len(want), got)
		}
		for i := range want {
			if got[i] != string(want[i]) {
				t.Fatalf("%q: element %d is %q", text, i, got[i])
			}
		}
	})
}

// TestColumnsThatComeNoLonger are noticed once, after 1,000 records without them or a file of at least 100,
// wherever the text is cut into batches. What comes now and then, as null, or written in another way still comes.
func TestColumnsThatComeNoLonger(t *testing.T) {
	t.Parallel()
	record := func(i int) string {
		switch {
		case i < 1500:
			return fmt.Sprintf(`{"i":%d,"s":"x","f":1}`, i)
		case i < 2600 && i%700 == 0: // seldom, elsewhere and escaped
			return fmt.Sprintf(`{"\u0073":null,"i":%d}`, i)
		case i%2 == 0:
			return fmt.Sprintf(`{"z":0,"i":%d}`, i)
		}
		return fmt.Sprintf(`{ "i": null, "z":0, "n%d": 1}`, i%7)
	}
	const (
		f = `the schema names "f", which came before, and none of the last 1000 records has it`
		s = `the schema names "s", which came before, and none of the last 1000 records has it`
	)
	for _, c := range []struct {
		from, to, files int
		want            []string
	}{
		{0, 1500, 1, nil},
		{0, 2499, 1, nil},
		{0, 2500, 1, []string{f}},
		{0, 3100, 1, []string{f}},
		{0, 3101, 1, []string{f, s}},
		{0, 4099, 1, []string{f, s}},
		{0, 9000, 1, []string{f, s}},
		{0, 9000, 9000, []string{f, s}},
		{1400, 1600, 2, []string{`the schema names "s", which came before, and none of the last 100 records has it`, `the schema names "f", which came before, and none of the last 100 records has it`}},
		{1400, 1600, 20, nil},
		{400, 1620, 1, nil}, // the file has them, if not at its end
		{1401, 1600, 1, nil},
	} {
		for _, rows := range []int{1, 7, 1000, 5000} {
			got := stoppedOf(c.from, c.to, c.files, rows, record)
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("records %d to %d in %d files, %d rows a batch: %q, want %q", c.from, c.to, c.files, rows, got, c.want)
			}
		}
	}
}

// TestColumnsThatComeNoLongerOverFiles wants that a file is judged by its own records, and that records in a row are counted
// over files, wherever the text is cut into batches.
func TestColumnsThatComeNoLongerOverFiles(t *testing.T) {
	t.Parallel()
	const with, without = "{\"i\":1,\"s\":null}\n", "{\"i\":1}\n"
	note := func(n int) []string {
		return []string{fmt.Sprintf(`the schema names "s", which came before, and none of the last %d records has it`, n)}
	}
	for name, c := range map[string]struct {
		// files have so many records with s, without it, and with it again.
		files [][3]int
		want  []string
	}{
		"a small file, then 100 without":         {[][3]int{{50}, {0, 100}}, note(100)},
		"a small file, then 99 without":          {[][3]int{{50}, {0, 99}}, nil},
		"99, then 1,000 without":                 {[][3]int{{99}, {0, 1000}}, note(1000)},
		"1,500, then 150 without":                {[][3]int{{1500}, {0, 150}}, note(150)},
		"s ends in the file before":              {[][3]int{{1500, 30}, {0, 100}}, note(130)},
		"the file has it at its start":           {[][3]int{{500}, {1, 900}}, nil},
		"the file has it at its end":             {[][3]int{{500}, {0, 900, 1}}, nil},
		"500, then 1,000 without in one file":    {[][3]int{{500, 1000}}, note(1000)},
		"500, then 999 without in one file":      {[][3]int{{500, 999, 1}}, nil},
		"1, then 1,500 without in one file":      {[][3]int{{1, 1500}}, note(1000)},
		"1,000 without over many small files":    {[][3]int{{7}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}, {0, 99}}, note(1000)},
		"gone, there and gone again is one note": {[][3]int{{200}, {0, 300}, {200}, {0, 2000}}, note(300)},
		"it first came when there were many":     {[][3]int{{0, 150}, {150}, {0, 150}}, note(150)},
	} {
		for _, rows := range []int{1, 7, 1000, 5000} {
			d := watching()
			var got []string
			for _, f := range c.files {
				got = append(got, stopped(d, strings.Repeat(with, f[0])+strings.Repeat(without, f[1])+strings.Repeat(with, f[2]), rows)...)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s, %d rows a batch: %q, want %q", name, rows, got, c.want)
			}
		}
	}
}

// TestColumnsThatComeLate are noticed after 1,000 records, wherever the text is cut into batches.
func TestColumnsThatComeLate(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 7, 1000, 5000} {
		d := watching()
		b := column.NewBatch(expr.Schema{{Name: "i", Type: expr.Int}, {Name: "s", Type: expr.String}})
		in := decode.Input{Text: []byte(strings.Repeat("{\"f\":1,\"i\":1}\n", 1000) + "{\"s\":\"\"}\n"), Final: true, MaxRows: rows}
		var got []string
		for in.Off < len(in.Text) {
			r := d.Decode(b, in)
			in.Off = r.Next
			for _, n := range r.Failed.Notes {
				got = append(got, n.Reason)
			}
		}
		if want := []string{`the schema names "s", which none of the first 1000 records has`}; !slices.Equal(got, want) {
			t.Errorf("%d rows a batch: %q, want %q", rows, got, want)
		}
	}
}

// watching is a decoder of the columns i and s, to which f is declared.
func watching() *decode.JSON {
	schema := expr.Schema{{Name: "i", Type: expr.Int}, {Name: "s", Type: expr.String}}
	d := decode.NewJSON(schema, time.UTC)
	d.Watch(connector.DriftReport, append(slices.Clone(schema), expr.Column{Name: "f", Type: expr.Float}))
	return d
}

// stopped decodes a file in batches of so many rows, and gives the notes of columns that came before.
func stopped(d *decode.JSON, text string, rows int) (notes []string) {
	b := column.NewBatch(expr.Schema{{Name: "i", Type: expr.Int}, {Name: "s", Type: expr.String}})
	in := decode.Input{Text: []byte(text), Final: true, MaxRows: rows}
	for in.Off < len(in.Text) {
		r := d.Decode(b, in)
		in.Off = r.Next
		for _, n := range r.Failed.Notes {
			if strings.Contains(n.Reason, "came before") {
				notes = append(notes, n.Reason)
			}
		}
	}
	return notes
}

// stoppedOf decodes the records from one up to another in so many files and batches of so many rows, and gives the notes
// of columns that came before.
func stoppedOf(from, to, files, rows int, record func(i int) string) (notes []string) {
	d := watching()
	each := max((to-from)/files, 1)
	for begin := from; begin < to; begin += each {
		var text strings.Builder
		for i := begin; i < min(begin+each, to); i++ {
			text.WriteString(record(i) + "\n")
		}
		notes = append(notes, stopped(d, text.String(), rows)...)
	}
	return notes
}
