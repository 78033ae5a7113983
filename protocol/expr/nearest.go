package expr

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// maxNameCompared is how many characters a name may have to be compared with others; a longer one has no neighbour.
const maxNameCompared = 64

// maxNamesListed is how many valid names a message lists where none is near.
const maxNamesListed = 12

// Nearest is the valid name that name was probably meant to be: the one with the fewest inserted, left-out, changed or
// swapped characters, letter case aside, as long as those are at most a third of either length and three, or the first that begins with name or
// that name begins with, or of which one is an abbreviation of the other. ok is false when there is none. Of equally near names the first wins.
func Nearest(name string, valid []string) (nearest string, ok bool) {
	want := []rune(strings.ToLower(name))
	if len(want) > maxNameCompared {
		return "", false
	}
	best := min((len(want)+2)/3, 3) + 1
	if len(want) < 2 {
		best = 1 // another letter is another name
	}
	for _, v := range valid {
		if len(v) > utf8.UTFMax*maxNameCompared {
			continue
		}
		have := []rune(strings.ToLower(v))
		limit := min(best, (len(have)+2)/3+1)
		if d := distance(want, have, limit); d < limit {
			best, nearest, ok = d, v, true
		}
	}
	if ok {
		return nearest, true
	}
	for _, v := range valid {
		if len(name) >= 2 && len(v) >= 2 && (hasPrefixFold(v, name) || hasPrefixFold(name, v)) {
			return v, true
		}
	}
	for _, v := range valid {
		if abbreviates(name, v) || abbreviates(v, name) {
			return v, true
		}
	}
	return "", false
}

// abbreviates says whether short, of three letters or more, is the first letter of long and others of it in their order,
// as avg is of average.
func abbreviates(short, long string) bool {
	short, long = strings.ToLower(short), strings.ToLower(long)
	if len(short) < 3 || len(long) < len(short) || len(long) > utf8.UTFMax*maxNameCompared || short[0] != long[0] {
		return false
	}
	for _, c := range []byte(long) {
		if short != "" && c == short[0] {
			short = short[1:]
		}
	}
	return short == ""
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// distance is the optimal string alignment distance of a and b, or limit when it is at least that.
func distance(a, b []rune, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}

// Unknown is the message for a name that is not among the valid ones: it says what kind of name it is ("column"), and
// the nearest valid one or, where none is near, which there are.
func Unknown(kind, name string, valid []string) string {
	message := fmt.Sprintf("unknown %s %q", kind, excerpt.Of(name))
	if nearest, ok := Nearest(name, valid); ok {
		return fmt.Sprintf("%s; did you mean %q?", message, nearest)
	}
	if len(valid) == 0 {
		return message + "; there is none"
	}
	return message + "; " + listed("there is", valid)
}

// listed writes the valid names behind a verb, not all of them where they are many.
func listed(verb string, valid []string) string {
	list := slices.Clone(valid[:min(len(valid), maxNamesListed)])
	if len(valid) > len(list) {
		list = append(list, "…")
	}
	return verb + " " + strings.Join(list, ", ")
}
