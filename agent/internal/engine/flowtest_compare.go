package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// sides are the expected insights of a name and those that came.
type sides struct {
	name      string
	want, got []map[string]any
}

func (s *sides) differ(lines []string) string {
	return fmt.Sprintf("insight %s: expected %d, came %d\n%s", s.name, len(s.want), len(s.got), strings.Join(lines, "\n"))
}

// compareInOrder compares every expected insight with the one that came in its place; "" means that all fit.
func compareInOrder(ctx context.Context, s sides) (string, error) {
	var lines []string
	for i := range max(len(s.want), len(s.got)) {
		switch {
		case len(lines) >= maxDifferences:
			lines = append(lines, "  and perhaps more")
			return s.differ(lines), nil
		case i >= len(s.got):
			lines = append(lines, "  missing: "+show(s.want[i]))
		case i >= len(s.want):
			lines = append(lines, "  not expected: "+show(s.got[i]))
		case !fits(s.want[i], s.got[i]):
			lines = append(lines, fmt.Sprintf("  number %d differs in %s: %s", i+1, names(s.want[i], s.got[i]), show(s.want[i])))
			lines = append(lines, memberLines(s.want[i], s.got[i])...)
		}
	}
	if lines == nil {
		return "", context.Cause(ctx)
	}
	return s.differ(lines), nil
}

// compareInsights matches every expected insight with a different one that came; "" means that all fit and none is left.
func compareInsights(ctx context.Context, s sides) (string, error) {
	// Kuhn's augmenting paths: an expectation may leave members out and so fit several insights.
	owner := make([]int, len(s.got))
	for i := range owner {
		owner[i] = -1
	}
	var place func(w int, tried []bool) bool
	place = func(w int, tried []bool) bool {
		for g := range s.got {
			if tried[g] || !fits(s.want[w], s.got[g]) {
				continue
			}
			tried[g] = true
			if owner[g] < 0 || place(owner[g], tried) {
				owner[g] = w
				return true
			}
			if ctx.Err() != nil {
				return false
			}
		}
		return false
	}
	var missing []map[string]any
	tried := make([]bool, len(s.got))
	for w := range s.want {
		clear(tried)
		if !place(w, tried) {
			missing = append(missing, s.want[w])
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
	}
	var extra []map[string]any
	for g, w := range owner {
		if w < 0 {
			extra = append(extra, s.got[g])
		}
	}
	if len(missing) == 0 && len(extra) == 0 {
		return "", nil
	}
	return s.differ(differences(missing, extra)), nil
}

// maxDifferences is how many lines a difference shows.
const maxDifferences = 20

// differences shows each missing insight beside the one that came which is most like it.
func differences(missing, extra []map[string]any) []string {
	var lines []string
	for i, w := range missing {
		if len(lines) >= maxDifferences {
			return append(lines, fmt.Sprintf("  and %d more are missing", len(missing)-i))
		}
		best, most := -1, 0
		for i, g := range extra {
			if same := len(w) - len(unlike(w, g)); same > most {
				best, most = i, same
			}
		}
		if best < 0 {
			lines = append(lines, "  missing: "+show(w))
			continue
		}
		lines = append(lines, "  differs in "+names(w, extra[best])+": "+show(w))
		lines = append(lines, memberLines(w, extra[best])...)
		extra = slices.Delete(extra, best, best+1)
	}
	for i, g := range extra {
		if len(lines) >= maxDifferences {
			return append(lines, fmt.Sprintf("  and %d more came", len(extra)-i))
		}
		lines = append(lines, "  not expected: "+show(g))
	}
	return lines
}

// names are the first members in which an insight differs from what was expected.
func names(want, got map[string]any) string {
	all := unlike(want, got)
	if len(all) > maxNamed {
		return strings.Join(all[:maxNamed], ", ") + ", …"
	}
	return strings.Join(all, ", ")
}

// maxNamed is how many columns a line names, maxShown the most bytes that a difference shows of a value or an insight.
const (
	maxNamed = 8
	maxShown = 400
)

// withLength is a text that two may differ in behind what is shown of it, so one that is cut is followed by its length.
func withLength(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return fmt.Sprintf("%s (%d bytes)", excerpt.Bytes(text, maxShown), len(text))
}

// memberLines are the members in which an insight differs from what was expected.
func memberLines(want, got map[string]any) []string {
	var lines []string
	all := unlike(want, got)
	for i, member := range all {
		if i >= maxDifferences {
			return append(lines, fmt.Sprintf("    and %d more columns", len(all)-i))
		}
		came := "nothing"
		if _, there := got[member]; there {
			came = valueText(got[member])
		}
		lines = append(lines, fmt.Sprintf("    %s: expected %s, came %s", withLength(member), withLength(valueText(want[member])), withLength(came)))
	}
	return lines
}
