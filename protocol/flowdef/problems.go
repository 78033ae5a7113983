package flowdef

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// MaxProblems is how many problems of a definition are reported at once.
const MaxProblems = 100

// Error is one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// String is the place, the step and the message: `line 12, column 9, step "running": unknown column …`.
func (p Problem) String() string {
	var where []string
	if p.Line > 0 {
		where = append(where, fmt.Sprintf("line %d, column %d", p.Line, p.Column))
	}
	if p.Step != "" {
		where = append(where, fmt.Sprintf("step %q", p.Step))
	}
	if len(where) == 0 {
		return p.Message
	}
	return strings.Join(where, ", ") + ": " + p.Message
}

// collector gathers problems. What is found after MaxProblems is dropped, so that a hostile text cannot make the
// report, and the search for the nearest names, as large as it likes.
type collector struct{ found Problems }

func (c *collector) full() bool { return len(c.found) >= MaxProblems }

func (c *collector) add(pos Pos, step, format string, args ...any) {
	if !c.full() {
		c.found = append(c.found, Problem{Pos: pos, Step: step, Message: fmt.Sprintf(format, args...)})
	}
}

// err gives the problems in the order of the text, or nil when there is none.
func (c *collector) err() error {
	if len(c.found) == 0 {
		return nil
	}
	slices.SortStableFunc(c.found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return c.found
}
