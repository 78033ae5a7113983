package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// PathStep is one step into a JSON value: the member Key of an object or, where Index is not negative, an element of an
// array.
type PathStep struct {
	Key   string
	Index int
}

// maxPathSteps is far beyond what plant systems nest.
const maxPathSteps = 64

// ParsePath reads the path of json_get: names joined by dots, [n] for an element counted from 0, and ["name"] for a
// name that holds one of . [ ] or a double quote.
func ParsePath(text string) ([]PathStep, error) {
	if strings.HasPrefix(text, "$") {
		return nil, errors.New(`a path begins with the name of a member, without $: write "tool.id"`)
	}
	var path []PathStep
	rest := text
	for first := true; rest != "" || first; first = false {
		step, after, err := nextPathStep(rest, first)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", text, err)
		}
		if path = append(path, step); len(path) > maxPathSteps {
			return nil, fmt.Errorf("the path has more than %d steps", maxPathSteps)
		}
		rest = after
	}
	return path, nil
}

func nextPathStep(rest string, first bool) (step PathStep, after string, err error) {
	if strings.HasPrefix(rest, "[") {
		return bracketStep(rest[1:])
	}
	if !first {
		var dot bool
		if rest, dot = strings.CutPrefix(rest, "."); !dot {
			return PathStep{}, "", fmt.Errorf("write a dot or [ before %q", rest)
		}
	}
	end := strings.IndexAny(rest, `.[]"`)
	if end < 0 {
		end = len(rest)
	}
	if end == 0 {
		return PathStep{}, "", errors.New("a name is missing")
	}
	return PathStep{Key: rest[:end], Index: -1}, rest[end:], nil
}

func bracketStep(rest string) (step PathStep, after string, err error) {
	if strings.HasPrefix(rest, `"`) {
		return quotedStep(rest)
	}
	number, after, closed := strings.Cut(rest, "]")
	index, err := strconv.ParseUint(number, 10, 31)
	if err != nil || !closed {
		return PathStep{}, "", errors.New("between [ and ] stands the number of an element, counted from 0")
	}
	return PathStep{Index: int(index)}, after, nil
}

func quotedStep(rest string) (step PathStep, after string, err error) {
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return PathStep{}, "", errors.New(`the name after [" has no closing quote`)
	}
	key, err := strconv.Unquote(quoted)
	after, closed := strings.CutPrefix(rest[len(quoted):], "]")
	if err != nil || !closed {
		return PathStep{}, "", errors.New(`write ["name"]`)
	}
	return PathStep{Key: key, Index: -1}, after, nil
}
