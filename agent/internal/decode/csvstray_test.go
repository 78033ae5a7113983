package decode_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

func TestCSVStrayQuotes(t *testing.T) {
	t.Parallel()
	const (
		open  = "a quote is opened and never closed"
		stray = "a quote is opened and never closed: the next one, on a later line, has text behind it"
	)
	tests := []struct {
		name, text     string
		rows, failures []string
	}{
		{"the next quote opens a field", "\"oops,1\n2,3\n\"4\",5\n", []string{"2|3", "4|5"}, []string{"f:1 " + stray + " <\"oops,1>"}},
		{"in the second field", "1,\"oops\n2,3\n\"4\",5\n", []string{"2|3", "4|5"}, []string{"f:1 " + stray + " <1,\"oops>"}},
		{"the next quote is an inch", "\"oops,1\n2,3\n5\" pipe,5\n", []string{"2|3", "5\" pipe|5"}, []string{"f:1 " + stray + " <\"oops,1>"}},
		{"CRLF", "\"oops,1\r\n2,3\r\n\"4\",5\r\n", []string{"2|3", "4|5"}, []string{"f:1 " + stray + " <\"oops,1\r>"}},
		{"an empty field in between", "\"oops,1\n\"\",3\n\"4\",5\n", []string{"|3", "4|5"}, []string{"f:1 " + stray + " <\"oops,1>"}},
		{"two of them", "\"oops,1\n2,3\n\"more,4\n5,6\n\"7\",8\n", []string{"2|3", "5|6", "7|8"}, []string{"f:1 " + stray + " <\"oops,1>", "f:3 " + stray + " <\"more,4>"}},
		{"closed as if it were meant so, then not", "\"oops,1\n2,3\n4,\",\"\n5,6\n\"7\",8\n", []string{"2|3", "4|,", "5|6", "7|8"}, []string{"f:1 " + stray + " <\"oops,1>"}},
		{"never closed behind a field that is", "\"oops,1\n2,3\n4,\",\"\n5,6\n", []string{"2|3", "4|,", "5|6"}, []string{"f:1 " + open + " <\"oops,1>"}},
		// RFC 4180 has this as one record, so it is one.
		{"a field of several lines", "\"a\n2,3\n\",1\n4,5\n", []string{"a\n2,3\n|1", "4|5"}, nil},
		{"text behind a quote on the same line", "\"a\nb\",\"c\"d\n4,5\n", []string{"4|5"}, []string{"f:1 there is text after the closing quote of a field <\"a\nb\",\"c\"d>"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for size := 1; size <= len(tt.text); size++ {
				rows, failures, _ := decodeAll(newTexts(), texts, tt.text, size)
				for i := range rows {
					rows[i] = strings.Replace(rows[i], " | ", "|", 1)
				}
				if !slices.Equal(rows, tt.rows) || !slices.Equal(failures, tt.failures) {
					t.Fatalf("by %d bytes: rows %q, failures %q\nwant %q, %q", size, rows, failures, tt.rows, tt.failures)
				}
			}
		})
	}
}

var texts = expr.Schema{{Name: "s", Type: expr.String}, {Name: "t", Type: expr.String}}

func newTexts() *decode.CSV { return decode.NewCSV(texts, texts.Names(), ',', time.UTC) }

// plainly says where the records of a text start and which of them have quotes that do not come out right. It is the
// rule itself, without regard to time: a record whose quotes do not come out right is its first line.
func plainly(text string) (starts []int, strays map[int]bool) {
	strays = make(map[int]bool)
	for p := 0; p < len(text); {
		starts = append(starts, p)
		next, good := plainRecord(text, p)
		if !good {
			strays[p] = true
			next = len(text)
			if n := strings.IndexByte(text[p:], '\n'); n >= 0 {
				next = p + n + 1
			}
		}
		p = next
	}
	return append(starts, len(text)), strays
}

func plainRecord(text string, p int) (next int, good bool) {
	for {
		if p < len(text) && text[p] == '"' {
			start := p
			for p++; ; p++ {
				if p >= len(text) {
					return 0, false
				}
				if text[p] == '"' {
					if p+1 == len(text) || text[p+1] != '"' {
						break
					}
					p++
				}
			}
			p++
			rest := text[p:]
			closed := rest == "" || rest == "\r" || rest[0] == ',' || rest[0] == '\n' || strings.HasPrefix(rest, "\r\n")
			if !closed && strings.Contains(text[start:p], "\n") {
				return 0, false
			}
		}
		for p < len(text) && text[p] != ',' && text[p] != '\n' {
			p++
		}
		if p == len(text) {
			return p, true
		}
		p++
		if text[p-1] == '\n' {
			return p, true
		}
	}
}

// checkStrays holds decoding, in pieces of any size, and cutting against the rule.
func checkStrays(t *testing.T, text string, size int) {
	t.Helper()
	starts, strays := plainly(text)
	type outcome struct{ rows, failures []string }
	var want outcome
	for i, start := range starts[:len(starts)-1] {
		record := text[start:starts[i+1]]
		if strays[start] {
			want.failures = append(want.failures, fmt.Sprintf("f:%d", 1+strings.Count(text[:start], "\n")))
			continue
		}
		// One record alone is either a row, a failure or nothing.
		rows, failures, _ := decodeAll(newTexts(), texts, record, len(record)+1)
		want.rows = append(want.rows, rows...)
		if len(failures) > 0 {
			want.failures = append(want.failures, fmt.Sprintf("f:%d", 1+strings.Count(text[:start], "\n")))
		}
	}
	for _, size := range []int{size, len(text) + 1} {
		var got outcome
		got.rows, got.failures, _ = decodeAll(newTexts(), texts, text, size)
		for i, f := range got.failures {
			got.failures[i], _, _ = strings.Cut(f, " ")
		}
		kept := min(len(want.failures), 5)
		if !slices.Equal(got.rows, want.rows) || len(got.failures) < kept || !slices.Equal(got.failures[:kept], want.failures[:kept]) {
			t.Fatalf("%q by %d: rows %q, failed %q, want %q, %q", text, size, got.rows, got.failures, want.rows, want.failures)
		}
	}
	for end := range len(text) + 1 {
		cut, sure := decode.CutCSV([]byte(text[:end]), 0, ',', false)
		if !sure {
			continue
		}
		if !slices.Contains(starts, cut) {
			t.Fatalf("%q: of the first %d bytes cut at %d, records start at %d", text, end, cut, starts)
		}
		b := column.NewBatch(texts)
		if r := newTexts().Decode(b, decode.Input{Text: []byte(text[:cut]), MaxRows: len(text) + 1}); r.Next != cut || !slices.Equal(cells(b), want.rows[:b.Len]) {
			t.Fatalf("%q: of the first %d bytes cut at %d, decoded to %d: %q, want %q", text, end, cut, r.Next, cells(b), want.rows)
		}
	}
}

// FuzzCSVStrayQuotes holds the reader against the rule for quotes, written plainly.
func FuzzCSVStrayQuotes(f *testing.F) {
	f.Add("\"oops,1\n2,3\n\"4\",5\n", 3)
	f.Add("\"oops,1\n2,3\n4,\",\"\n\"\",6\r\n\"7\",8", 1)
	f.Add("a\",\"b\na\",\"b\na\",\"b\n", 5)
	f.Fuzz(func(t *testing.T, text string, size int) {
		checkStrays(t, text[:min(len(text), 200)], max(size&0x3f, 1))
	})
}

// TestCSVStrayQuotesAtRandom does the same with texts of little but quotes and line ends.
func TestCSVStrayQuotesAtRandom(t *testing.T) {
	t.Parallel()
	r := random(t)
	rounds := 3_000
	if *long {
		rounds = 2_000_000
	}
	for range rounds {
		var text strings.Builder
		for range r.IntN(25) {
			text.WriteString(pick(r, []string{`"`, `"`, `""`, ",", ",", "\n", "\n", "\r\n", "x", `","`, "x,y\n", "\"a\nb\",c\n"}))
		}
		checkStrays(t, text.String(), 1+r.IntN(30))
	}
}

// TestCSVStrayQuotesTakeLinearTime decodes texts that would take hours if every line of a record that went astray were
// read to its end again: the test's own time limit is what it fails by.
func TestCSVStrayQuotesTakeLinearTime(t *testing.T) {
	t.Parallel()
	// A record within the pattern's quotes goes on to the end.
	for _, line := range []string{"\"x,1\n", "a\",\"b\n", "a\",\"\n", ",\",\n", "\",\"\n", "\"\"\"\n", "\"\"x\n", "1,\"\n", "x\",\"y\n1,2\n"} {
		for name, end := range map[string]string{"open": "", "stray": "\"x\"y\n", "closed": "\"\n"} {
			t.Run(strconv.Quote(line)+" "+name, func(t *testing.T) {
				t.Parallel()
				size := decode.MaxRecord / 8
				if line == "a\",\"b\n" {
					size *= 10 // this one's records are too long as well
				}
				text := "\"" + strings.Repeat(line, size/len(line)) + end
				rows, read := 0, int64(0)
				b, in := column.NewBatch(texts), decode.Input{Text: []byte(text), Final: true, MaxRows: 1 << 16, Line: 1}
				for in.Off < len(text) {
					res := newTexts().Decode(b, in)
					if res.Next <= in.Off {
						t.Fatal("it stands still")
					}
					in.Off, in.Line = res.Next, res.Line
					rows, read = rows+b.Len, read+res.Read
				}
				if lines := int64(strings.Count(text, "\n")) + 1; in.Line < lines || in.Line > lines+1 || read > lines || int64(rows) > read {
					t.Errorf("%d rows of %d records, up to line %d of %d", rows, read, in.Line, lines)
				}
				_, _ = decode.CutCSV([]byte(text[:min(len(text), decode.MaxRecord)]), 0, ',', false)
			})
		}
	}
}

// TestCSVStrayQuoteFarFromTheNext has the good records between a stray quote and the next one, at every size of batch.
func TestCSVStrayQuoteFarFromTheNext(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // tests that can be repeated
	text, want := judged(100_000)
	for range 5 {
		got := decodePieces(newTexts(), texts, text, func() int { return r.IntN(1 << 18) }, func() int { return 1 + r.IntN(9000) })
		if len(got.rows) != want || got.failed != 1 {
			t.Fatalf("%d rows and %d failed, want %d and 1", len(got.rows), got.failed, want)
		}
	}
}

// judged is a file with a stray quote near its start and a field in quotes near its end, and how many rows it has.
func judged(records int) (text string, rows int) {
	var b strings.Builder
	for i := range records {
		switch i {
		case 5:
			b.WriteString("\"5,5\n")
		case records * 9 / 10:
			fmt.Fprintf(&b, "\"n%d\",%d\n", i, i)
		default:
			fmt.Fprintf(&b, "n%d,%d\n", i, i)
		}
	}
	return b.String(), records - 1
}
