package agent_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const longTextFlow = `flow: long
steps:
  - id: rows
    read: here
    with: {path: rows.jsonl, format: jsonl}
    schema: {LEFT}
  - id: others
    read: here
    with: {path: rows.jsonl, format: jsonl}
    schema: {a: int, s: string}
VERB
  - map: {l: length(s), h: "left(s, 6)"}
  - select: [a, l, h]
  - insight: out
    key: [h, a]
`

// writeLong writes rows with a text of so many bytes each, every text twice.
func writeLong(t *testing.T, dir string, rows, size int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "rows.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	w, text := bufio.NewWriterSize(f, 1<<20), bytes.Repeat([]byte("x"), size)
	for i := range rows {
		n := i * 7919 % rows
		fmt.Fprintf(w, "{\"a\":%d,\"s\":\"%06d%s\"}\n", n, n/2, text)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestLongTextsSpillWithinTheLimit holds that rows with long texts, which are few but large, spill and come back within the
// memory limit of the process, and come out as they do in memory.
func TestLongTextsSpillWithinTheLimit(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "outfeed-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/outfeed-agent").CombinedOutput(); err != nil { //nolint:gosec // a fixed command
		t.Fatalf("%v: %s", err, out)
	}
	const limit, most = "48MB", 64 << 10 // the kilobytes that are about the limit
	for _, size := range []struct{ rows, bytes int }{{2000, 30_000}, {600, 100_000}} {
		for _, c := range []struct{ name, left, verb string }{
			{"sort by the text", "a: int, s: string", "  - sort: [{s: desc}, a]"},
			{"sort by a number", "a: int, s: string", "  - sort: [a]"},
			{"aggregate of texts", "a: int, s: string", "  - aggregate: {s: max(s), f: first(s)}\n    by: [a]"},
			{"aggregate by text", "a: int, s: string", "  - aggregate: {a: max(a)}\n    by: [s]"},
			{"distinct", "a: int, s: string", "  - distinct: [s]"},
			{"join", "a: int", "  - join: others\n    from: rows\n    on: [a]"},
			{"full join by text", "s: string", "  - join: others\n    from: rows\n    on: [s]\n    type: full"},
		} {
			t.Run(fmt.Sprintf("%s, %d bytes", c.name, size.bytes), func(t *testing.T) {
				dir := t.TempDir()
				writeLong(t, dir, size.rows, size.bytes)
				d := definition(t, dir)
				text := strings.NewReplacer("VERB", c.verb, "LEFT", c.left).Replace(longTextFlow)
				if !strings.Contains(c.verb, "join") {
					text = withoutOthers(text)
				}
				write(t, dir, "flow.yaml", text)
				write(t, dir, "conn.yaml", string(d.Connections))
				run := func(limit string) (string, int64) {
					memory := filepath.Join(dir, "peak")
					cmd := exec.CommandContext(t.Context(), os.Args[0], measuredCommand, memory, binary, "flow", "run", filepath.Join(dir, "flow.yaml"), "--connections", filepath.Join(dir, "conn.yaml"), "--memory-limit", limit) //nolint:gosec // this program, and what was built above
					var failure bytes.Buffer
					cmd.Stderr = &failure
					out, err := cmd.Output()
					if err != nil {
						t.Fatalf("with %s: %v: %s", limit, err, failure.Bytes())
					}
					var kilobytes int64
					if text, err := os.ReadFile(memory); err != nil {
						t.Fatal(err)
					} else if _, err = fmt.Sscan(string(text), &kilobytes); err != nil {
						t.Fatal(err)
					}
					return withoutTime(string(out)), kilobytes
				}
				want, _ := run("2GB")
				got, kilobytes := run(limit)
				t.Logf("%d MiB resident", kilobytes>>10)
				if got != want || strings.Count(want, "\n") < size.rows/2 {
					t.Errorf("with %s %d lines came out, in memory %d, or others", limit, strings.Count(got, "\n"), strings.Count(want, "\n"))
				}
				if kilobytes > most {
					t.Errorf("the process took %d MiB with a limit of %s", kilobytes>>10, limit)
				}
			})
		}
	}
}

// withoutOthers takes the second source out of a flow.
func withoutOthers(text string) string {
	before, rest, _ := strings.Cut(text, "  - id: others\n")
	_, after, _ := strings.Cut(rest, "schema: {a: int, s: string}\n")
	return before + after
}

// madeTexts are steps that make texts of up to a megabyte of each of 300 short records: more than a gigabyte of a batch.
func madeTexts() map[string]string {
	return map[string]string{
		"kept": `
  - map: {t1: 'repeat(s + string(a), 10000)'}
  - map: {t2: 'concat(t1, "x")', t3: 'concat(t1, "y")', t4: 'replace(t1, "p", "qq")'}
  - map: {t5: 'upper(t4)', t6: 'pad_left(t1, 1000000)', t7: 'pad_right(t2, 1000000)'}
  - filter: 'length(t6) > 0'
  - map: {l: 'length(t3) + length(t5) + length(t6) + length(t7)', h: 'sha256(t7)'}`,
		"brief": `
  - map: {l: 'length(sha256(repeat(s, 100000))) + length(sha256(repeat(s + "1", 100000)))', h: 'sha256(repeat(s + "2", 100000))'}`,
		"grouped": `
  - aggregate: {l: 'count()', h: 'max(sha256(repeat(s + string(a), 50000)))'}
    by: [a]`,
		"sorted": `
  - map: {h: 'pad_left(string(a % 7), 1000000, s)'}
  - sort: [h, a]
  - map: {l: length(h), h: 'sha256(h)'}`,
	}
}

// TestTextsThatFlowsMakeStayWithinTheLimit holds that texts which a flow makes, each short enough for itself, take no more
// memory than the process may have, whoever makes them, and that they come out right. The system gives the process no more
// than half a gigabyte.
func TestTextsThatFlowsMakeStayWithinTheLimit(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "outfeed-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/outfeed-agent").CombinedOutput(); err != nil { //nolint:gosec // a fixed command
		t.Fatalf("%v: %s", err, out)
	}
	const rows, most = 300, 200 << 10
	for name, steps := range madeTexts() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeLong(t, dir, rows, 0)
			d := definition(t, dir)
			write(t, dir, "conn.yaml", string(d.Connections))
			write(t, dir, "flow.yaml", "flow: long\nsteps:\n  - read: here\n    with: {path: rows.jsonl, format: jsonl}\n    schema: {a: int, s: string}"+steps+
				"\n  - select: [a, l, h]\n  - insight: out\n    key: [h, a]\n")
			memory := filepath.Join(dir, "peak")
			cmd := exec.CommandContext(t.Context(), os.Args[0], measuredCommand, memory, "prlimit", "--data=500000000", //nolint:gosec // this program, and what was built above
				binary, "flow", "run", filepath.Join(dir, "flow.yaml"), "--connections", filepath.Join(dir, "conn.yaml"), "--memory-limit", "128MB")
			var failure bytes.Buffer
			cmd.Stderr = &failure
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %.2000s", err, failure.Bytes())
			}
			if lines := bytes.Count(out, []byte("\n")); lines != rows {
				t.Errorf("%d insights of %d came out: %.500s", lines, rows, failure.Bytes())
			}
			var kilobytes int64
			if text, err := os.ReadFile(memory); err != nil {
				t.Fatal(err)
			} else if _, err = fmt.Sscan(string(text), &kilobytes); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB resident", kilobytes>>10)
			if kilobytes > most {
				t.Errorf("the process took %d MiB with a limit of 128MB", kilobytes>>10)
			}
		})
	}
}
