package expr_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/expr"
)

const pageFile = "../../docs/flows.md"

// tables writes the tables of the page that follow from lists, by the heading of their first column.
func tables() map[string]string {
	var functions, units, layouts strings.Builder
	for _, f := range expr.Functions() {
		var calls []string
		for i := range f.Signatures {
			s := &f.Signatures[i]
			calls = append(calls, "`"+f.Name+s.String()+"` "+s.Result.String())
		}
		fmt.Fprintf(&functions, "| %s | %s | `%s` is `%s` |\n", strings.Join(calls, "<br>"), f.Help, f.Example, f.Result)
	}
	for _, q := range expr.Quantities() {
		var list []string
		for _, u := range q.Units {
			text := "`" + u.Name + "`"
			if u.Name != q.Base {
				text += " " + u.Factor
			}
			if u.Offset != "" {
				text += " from " + u.Offset
			}
			list = append(list, text)
		}
		fmt.Fprintf(&units, "| %s | `%s` | %s |\n", q.Name, q.Base, strings.Join(list, ", "))
	}
	for _, p := range expr.LayoutParts() {
		read := ""
		if p.Readable {
			read = "yes"
		}
		fmt.Fprintf(&layouts, "| `%s` | %s | %s |\n", p.Code, p.Help, read)
	}
	return map[string]string{
		"\n| call | what | example |\n|---|---|---|\n":                        functions.String(),
		"\n| quantity | base | units, counted in the base |\n|---|---|---|\n": units.String(),
		"\n| part | what | read by `parse_time` |\n|---|---|---|\n":           layouts.String(),
	}
}

// TestThePageHasTheTables compares docs/flows.md with the lists; with -update it writes the tables there.
func TestThePageHasTheTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for heading, want := range tables() {
		before, after, found := strings.Cut(page, heading)
		if !found {
			t.Fatalf("%s has no table %q", pageFile, heading)
		}
		got, rest, _ := strings.Cut(after, "\n\n")
		if got+"\n" != want {
			page = before + heading + want + "\n" + rest
			if !*update {
				t.Errorf("the table %s of %s is old; run go test ./protocol/expr -run TestThePageHasTheTables -update", strings.TrimSpace(heading), pageFile)
			}
		}
	}
	if *update {
		if err = os.WriteFile(pageFile, []byte(page), 0o600); err != nil { //nolint:gosec // the path is a constant
			t.Fatal(err)
		}
	}
}

var update = flag.Bool("update", false, "write the tables of the documentation")
