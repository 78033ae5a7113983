package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// wallOnly gives a time or a number that has lost the monotonic reading.
var wallOnly = []string{"Unix", "UnixMicro", "UnixMilli", "UnixNano", "UTC", "Local", "Round", "Truncate", "Parse", "ParseTime", "AsTime", "Date"}

// saysWall finds a call in an expression after which only the wall clock is left of a time.
func saysWall(e ast.Expr) (found string) {
	ast.Inspect(e, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains(wallOnly, sel.Sel.Name) {
			// A duration may be rounded, and so may anything that is not compared any more.
			found = sel.Sel.Name
		}
		return found == ""
	})
	return found
}

// elapsed says whether a call measures or compares times, and gives what it compares.
func elapsed(call *ast.CallExpr) []ast.Expr {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	switch sel.Sel.Name {
	case "Since", "Until":
		return call.Args
	case "Sub", "Before", "After", "Compare":
		return append([]ast.Expr{sel.X}, call.Args...)
	}
	return nil
}

// TestElapsedTimeIsMonotonic looks for time that is measured by the wall clock in what stages, connects and runs flows: a
// clock that is set by years must let nothing expire and stop no timer. The kernel lets no test set the clock of a part of
// a machine, and Go's clock cannot be faked from outside, so the code is read instead; testing/synctest and agents' own
// time of running (stage.Settings.MaxAge) do the rest.
func TestElapsedTimeIsMonotonic(t *testing.T) {
	t.Parallel()
	looked := 0
	for _, f := range parseAll(t) {
		folder := f.folder()
		if f.isTest() || folder != "agent" && !under(folder, "agent/internal/stage") && !under(folder, "agent/internal/tunnel") &&
			!under(folder, "agent/internal/supervisor") && !under(folder, "internal/mux") && !under(folder, "internal/backoff") {
			continue
		}
		// A schedule is about the time of day, and a skew about two machines' clocks.
		if strings.HasSuffix(f.path, "supervisor/schedule.go") || strings.HasSuffix(f.path, "tunnel/skew.go") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			var compared []ast.Expr
			switch n := n.(type) {
			case *ast.CallExpr:
				compared = elapsed(n)
			case *ast.BinaryExpr:
				if slices.Contains([]token.Token{token.SUB, token.LSS, token.GTR, token.LEQ, token.GEQ}, n.Op) {
					compared = []ast.Expr{n.X, n.Y}
				}
			}
			for _, e := range compared {
				looked++
				if name := saysWall(e); name != "" {
					t.Errorf("%s measures time by the wall clock (%s): compare times of time.Now as they are, or count what has run", f.path, name)
				}
			}
			return true
		})
	}
	if looked < 20 {
		t.Errorf("only %d comparisons were looked at: the folders have moved", looked)
	}
}
