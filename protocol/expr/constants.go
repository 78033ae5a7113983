package expr

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// constantCheck checks the constants among the arguments of a call.
type constantCheck func(c *checker, args []*Node) error

// both makes one check of two.
func both(first, second constantCheck) constantCheck {
	return func(c *checker, args []*Node) error {
		if err := first(c, args); err != nil {
			return err
		}
		return second(c, args)
	}
}

// constantAt checks the text at a position, if the call has so many arguments.
func constantAt(i int, function string, check func(text string) error) constantCheck {
	return func(_ *checker, args []*Node) error {
		if i >= len(args) {
			return nil
		}
		if err := check(args[i].Value.Str); err != nil {
			return errorAt(args[i].Pos, "%s: %s", function, err)
		}
		return nil
	}
}

func checkDecimals(_ *checker, args []*Node) error {
	if len(args) == 2 && (args[1].Value.Int < 0 || args[1].Value.Int > 15) {
		return errorAt(args[1].Pos, "round keeps 0 to 15 decimals, not %d", args[1].Value.Int)
	}
	return nil
}

func checkPath(text string) error {
	_, err := ParsePath(text)
	return err
}

// zoneAt checks the time zone at a position, if the call has so many arguments.
func zoneAt(i int) constantCheck {
	return func(_ *checker, args []*Node) error {
		if i >= len(args) {
			return nil
		}
		if _, err := LoadZone(args[i].Value.Str); err != nil {
			return errorAt(args[i].Pos, "%s", err)
		}
		return nil
	}
}

// zoneOf is the checked time zone among the rest of a call's arguments; UTC when there is none.
func zoneOf(rest []*Node) *time.Location {
	if len(rest) > 0 {
		if loc, err := LoadZone(rest[0].Value.Str); err == nil {
			return loc
		}
	}
	return time.UTC
}

func checkTimeUnit(text string) error {
	_, err := ParseTimeUnit(text)
	return err
}

func checkClockUnit(text string) error {
	_, err := ParseClockUnit(text)
	return err
}

func checkAddTime(_ *checker, args []*Node) error {
	last := args[len(args)-1]
	var err error
	if len(args) == 3 {
		_, err = ParseClockUnit(last.Value.Str)
	} else {
		_, err = ParseSpan(last.Value.Str)
	}
	if err != nil {
		return errorAt(last.Pos, "add_time: %s", err)
	}
	return nil
}

func checkLayout(text string) error {
	_, err := ParseLayout(text)
	return err
}

func checkParseLayout(text string) error {
	layout, err := ParseLayout(text)
	if err != nil {
		return err
	}
	return layout.readable()
}

func checkUnits(_ *checker, args []*Node) error {
	from, ok := findUnit(args[1].Value.Str)
	if !ok {
		return errorAt(args[1].Pos, "%s", Unknown("unit", args[1].Value.Str, unitNames("")))
	}
	name := args[2].Value.Str
	to, ok := findUnit(name)
	switch {
	case !ok:
		return errorAt(args[2].Pos, "%s", Unknown("unit of "+from.quantity, name, unitNames(from.quantity)))
	case to.quantity != from.quantity:
		return errorAt(args[2].Pos, "%q is a unit of %s and %q one of %s; %s",
			args[1].Value.Str, from.quantity, name, to.quantity, listed("there is", unitNames(from.quantity)))
	}
	return nil
}

func checkExtract(c *checker, args []*Node) error {
	names, err := c.pattern(args[1].Value.Str)
	if err != nil {
		return errorAt(args[1].Pos, "the pattern of regex_extract %s", err)
	}
	groups := len(names) - 1
	if len(args) == 3 && (args[2].Value.Int < 0 || args[2].Value.Int > int64(groups)) {
		return errorAt(args[2].Pos, "the pattern has %d groups; %d is none of them (0 is the whole match)", groups, args[2].Value.Int)
	}
	return nil
}

// GroupReference is a place of a replacement that stands for a group of the pattern, by its number or name, or with the
// Name $ for a dollar sign.
type GroupReference struct {
	Start, End int
	Name       string
}

// GroupReferences finds the places in the replacement of regex_replace that stand for something else: $1, ${1}, ${name}
// and $$. A dollar sign with nothing of that behind it has an empty Name.
func GroupReferences(replacement string) []GroupReference {
	var list []GroupReference
	for at := 0; at < len(replacement); at++ {
		if replacement[at] != '$' {
			continue
		}
		r := GroupReference{Start: at, End: at + 1}
		rest := replacement[at+1:]
		if rest != "" && rest[0] == '$' {
			r.Name, r.End = "$", at+2
		} else if inside, _, closed := strings.Cut(strings.TrimPrefix(rest, "{"), "}"); closed && rest[0] == '{' {
			r.Name, r.End = inside, at+3+len(inside)
		} else {
			word := 0
			for word < len(rest) && isWordByte(rest[word]) {
				word++
			}
			r.Name, r.End = rest[:word], at+1+word
		}
		list = append(list, r)
		at = r.End - 1
	}
	return list
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func checkReplace(c *checker, args []*Node) error {
	names, err := c.pattern(args[1].Value.Str)
	if err != nil {
		return errorAt(args[1].Pos, "the pattern of regex_replace %s", err)
	}
	valid := map[string]bool{"$": true}
	for i, name := range names {
		valid[strconv.Itoa(i)] = true
		if name != "" {
			valid[name] = true
		}
	}
	text := args[2].Value.Str
	for _, r := range GroupReferences(text) {
		if !valid[r.Name] {
			return errorAt(args[2].Pos, "the pattern has no group for %s; write ${1} for the first group, and $$ for a dollar sign", quote(excerpt.Of(text[r.Start:r.End])))
		}
	}
	return nil
}

// maxPattern is the most characters that the patterns of an expression may match one by one, their counted repetitions
// written out; it keeps the compiled patterns under a few megabytes. maxPatterns is the same for all expressions of a
// definition.
const (
	maxPattern  = 10_000
	maxPatterns = 100_000
)

// Patterns counts what the patterns of several expressions take together. The zero value is ready. It belongs to one
// goroutine.
type Patterns struct {
	size  int
	known map[string]patternShape
}

// patternShape is what a check needs of a pattern: the names of its groups, of which the first is the whole match, and
// its patternSize.
type patternShape struct {
	groups []string
	size   int
}

// pattern parses a pattern and does not compile it, which is dear and up to what runs it.
func (c *checker) pattern(pattern string) (groups []string, err error) {
	shape, err := c.patterns.shape(pattern)
	if err != nil {
		return nil, err
	}
	if c.patternSize += shape.size; c.patternSize > maxPattern {
		return nil, fmt.Errorf("is too large: its repetitions written out match more than %d characters", maxPattern)
	}
	if c.patterns.size += shape.size; c.patterns.size > maxPatterns {
		return nil, fmt.Errorf("is too large: with the others of the flow, its repetitions written out match more than %d characters", maxPatterns)
	}
	return shape.groups, nil
}

func (p *Patterns) shape(pattern string) (patternShape, error) {
	if shape, ok := p.known[pattern]; ok {
		return shape, nil
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if e, ok := errors.AsType[*syntax.Error](err); ok {
		return patternShape{}, fmt.Errorf("is not RE2 syntax: %s: %s", e.Code, e.Expr)
	}
	if err != nil {
		return patternShape{}, fmt.Errorf("is not RE2 syntax: %w", err)
	}
	shape := patternShape{groups: tree.CapNames(), size: patternSize(tree)}
	if p.known == nil {
		p.known = map[string]patternShape{}
	}
	p.known[pattern] = shape
	return shape, nil
}

func patternSize(tree *syntax.Regexp) int {
	size := max(1, len(tree.Rune))
	for _, sub := range tree.Sub {
		size = min(size+patternSize(sub), maxPattern+1)
	}
	if tree.Op == syntax.OpRepeat {
		size = min(size*max(1, tree.Min, tree.Max), maxPattern+1)
	}
	return size
}
