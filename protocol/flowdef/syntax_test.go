package flowdef_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// TestSyntaxErrorsSayWhere wants the place at which the text went wrong, not the one at which what holds it begins. The
// mark ⟦ stands in front of it.
func TestSyntaxErrorsSayWhere(t *testing.T) {
	t.Parallel()
	const head = "flow: f\nsteps:\n  - id: r\n    read: a\n"
	for name, c := range map[string]struct{ text, want string }{
		"no comma in a mapping":       {head + "    schema: {a: int b⟦: int}\n", "did not find expected ',' or '}'"},
		"no comma in a list":          {head + "  - select: [a, \"b\" ⟦c]\n", "did not find expected ',' or ']'"},
		"no comma behind a mapping":   {head + "    with: {a: {b: 1} ⟦c: 2}\n", "did not find expected ',' or '}'"},
		"behind umlauts":              {head + "    with: {Öl: {ä: 1} ⟦c: 2}\n", "did not find expected ',' or '}'"},
		"in a nested list":            {head + "    with: {a: [1, [2, 3], {x: 1} ⟦y]}\n", "did not find expected ',' or ']'"},
		"on a later line":             {head + "    with: {\n      a: 1,\n      b: {c: 1}\n      ⟦d: 2,\n    }\n", "the { in line 5, column 11 is still open here"},
		"a brace that is not closed":  {head + "    schema: {a: int, b: int\n  - filter⟦: a > 1\n  - insight: i\n", "the { in line 5, column 13 is still open here"},
		"a list that is not closed":   {head + "  - select: [a, b\n  - insight⟦: i\n", "the [ in line 5, column 13 is still open here"},
		"never closed":                {head + "    schema: {a: int\n⟦", "the { in line 5, column 13 is still open here"},
		"the wrong bracket":           {head + "    schema: {a: int⟦]\n", "did not find expected ',' or '}'"},
		"a bracket too many":          {head + "    schema: {a: int}⟦}\n", "this } closes nothing"},
		"an expression of quotes":     {head + "  - {filter: \"a\" ⟦== x}\n", "a text in quotes ends here"},
		"an expression, single quote": {head + "  - {filter: 'a' ⟦== x}\n", "a text in quotes ends here"},
		"a quote that is not closed":  {head + "    with: {a: ⟦\"b}\n  - insight: i\n", "the quote that opens here is never closed"},
		"an unknown escape":           {head + "  - filter: \"m matches '^M⟦\\d'\"\n", "found unknown escape character"},
		"a colon in a text":           {head + "    description: a⟦: b\n", "mapping values are not allowed"},
		"a colon in an expression":    {head + "  - map: {a: x ⟦? 1 : 2}\n", "put an expression that holds ? and : in quotes"},
		"a tab":                       {head + "⟦\twith: {a: 1}\n", "found a tab character"},
		"an at sign":                  {head + "    with: {secret: ⟦@file}\n", "found character that cannot start any token"},
		"a percent sign":              {head + "    with: {a: ⟦%d}\n", "found character that cannot start any token"},
		"an alias":                    {head + "    with: {path: ⟦*.csv}\n", "put a text that begins with one of them in quotes"},
		"an alias of a block":         {head + "    with:\n      path: ⟦*.csv\n", "put a text that begins with one of them in quotes"},
		"outdented":                   {"flow: f\nsteps:\n  - read: c\n    schema: {t: timestamp}\n   ⟦by: [k]\n", "look at the indentation of the lines 3 to 5"},
		"in the first line":           {"flow: {a: {b} ⟦c}\n", "did not find expected ',' or '}'"},
		"another encoding":            {head + "    with: {ä: ⟦\xf6}\n", "save it in that encoding"},
		"carriage returns":            {"flow: f\r\nsteps:\r\n  - read: {a: {b: 1} ⟦c}\r\n", "did not find expected ',' or '}'"},
	} {
		before, after, _ := strings.Cut(c.text, "⟦")
		line := strings.Count(before, "\n") + 1
		column := len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1
		_, err := flowdef.Parse([]byte(before + after))
		var found flowdef.Problems
		if !errors.As(err, &found) || len(found) != 1 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p := found[0]; p.Line != line || p.Column != column || !strings.Contains(p.Message, c.want) {
			t.Errorf("%s: it says %v, not line %d, column %d: … %s", name, err, line, column, c.want)
		}
	}
}
