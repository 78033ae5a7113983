package flowdef

import (
	"fmt"
	"strings"
)

// Error lists the problems, one a line, each with its place.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = fmt.Sprintf("%d:%d: %s", problem.Line, problem.Column, problem.Message)
	}
	return strings.Join(lines, "\n")
}
