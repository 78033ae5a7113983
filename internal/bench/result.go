package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"strings"
	"time"
)

// tolerance is how far two engines' floats may lie apart, because they add in different orders: relative to the value.
const tolerance = 1e-9

// result is what an engine found: the values of each group, by its key. A value that is null is NaN.
type result map[string][]float64

// readResult reads an engine's JSON lines: either flat objects, or insights as the agent prints them.
func readResult(path string, w *Workload) (result, error) {
	f, err := os.Open(path) //nolint:gosec // the bench itself names it
	if err != nil {
		return nil, fmt.Errorf("read a result: %w", err)
	}
	defer f.Close() //nolint:errcheck // it is only read
	out := result{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var row map[string]any
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return nil, fmt.Errorf("read %s: line %d is no result: %w", path, len(out)+1, err)
		}
		if row, err = flatten(row); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		key, values := make([]string, len(w.keys)), make([]float64, len(w.values))
		for i, name := range w.keys {
			key[i] = keyText(row[name])
		}
		for i, name := range w.values {
			v, ok := row[name].(float64)
			if !ok {
				v = math.NaN()
			}
			values[i] = v
		}
		k := strings.Join(key, " ")
		if out[k] != nil {
			return nil, fmt.Errorf("read %s: there are two results for %s", path, k)
		}
		out[k] = values
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return out, nil
}

// keyText is a part of a key: texts as they are, whole numbers without an exponent.
func keyText(v any) string {
	if n, ok := v.(float64); ok {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprint(v)
}

// flatten makes an insight look like the other engines' rows: key and values in one object, the window as its minute.
func flatten(row map[string]any) (map[string]any, error) {
	values, isInsight := row["values"].(map[string]any)
	if !isInsight {
		return row, nil
	}
	if key, ok := row["key"].(map[string]any); ok {
		maps.Copy(values, key)
	}
	if start, ok := values["window_start"].(string); ok {
		at, err := time.Parse(time.RFC3339Nano, start)
		if err != nil {
			return nil, fmt.Errorf("the insight's window_start: %w", err)
		}
		values["minute"] = float64(at.UnixMilli())
	}
	return values, nil
}

// compare says where a result differs from the one that is taken as right.
func compare(got, want result, names []string) error {
	if len(got) != len(want) {
		return fmt.Errorf("it found %d groups instead of %d", len(got), len(want))
	}
	for key, w := range want {
		g := got[key]
		if g == nil {
			return fmt.Errorf("it did not find the group %s", key)
		}
		for i := range w {
			if !alike(g[i], w[i]) {
				return fmt.Errorf("its %s of %s is %v instead of %v", names[i], key, g[i], w[i])
			}
		}
	}
	return nil
}

// alike compares whole numbers exactly and others within the tolerance.
func alike(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return math.IsNaN(a) && math.IsNaN(b)
	case a == math.Trunc(a) && b == math.Trunc(b):
		return a == b
	}
	return math.Abs(a-b) <= tolerance*math.Max(math.Abs(a), math.Abs(b))
}
