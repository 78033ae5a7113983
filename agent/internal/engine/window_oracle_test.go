package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// The oracle of windows: it knows all rows, labels time minute by minute, and computes every group on its own.

const windowFlow = `
flow: f
trigger: %s
steps:
  - id: rows
    read: x
    schema: {at: timestamp, k: string, v: float, c: int, on: bool}
  - id: agg
    aggregate: {n: count(), s: sum(c), med: median(v), q: "quantile(v, 0.9)", inc: increase(c), finc: increase(v), rate: rate(c), twa: time_weighted_avg(v), dur: duration_where(on), d: count_distinct(c), lo: min(v), fst: first(c), lst: last(c), sd: stddev(v)}
    by: [k]
    window: {time: at, %s}
  - insight: out
    key: [k]
`

type windowRow struct {
	at int64
	k  string
	v  *float64
	c  *int64
	on *bool
}

type oracleWindow struct {
	start, end int64
	shift      string
}

// labelled gives the runs of minutes of one label around a time as windows; the label "" is no window.
func labelled(loc *time.Location, label func(local time.Time) string) func(t int64) []oracleWindow {
	const minute = int64(60e6)
	known := map[int64]string{}
	at := func(m int64) string {
		l, ok := known[m]
		if !ok {
			l = label(time.UnixMicro(m * minute).In(loc))
			known[m] = l
		}
		return l
	}
	return func(t int64) []oracleWindow {
		m := floorMod(t, minute)
		first := (t - m) / minute
		l := at(first)
		if l == "" {
			return nil
		}
		last := first + 1
		for at(first-1) == l {
			first--
		}
		for at(last) == l {
			last++
		}
		name, _, _ := strings.Cut(l, "|")
		return []oracleWindow{{first * minute, last * minute, name}}
	}
}

type windowCase struct {
	name, text string
	windows    func(t int64) []oracleWindow
	// session is the gap of a session, which needs all rows.
	session, limit int64
}

func windowCases(tb testing.TB) []windowCase {
	tb.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		tb.Fatal(err)
	}
	hour := int64(3600e6)
	hops := func(size, every int64) func(t int64) []oracleWindow {
		return func(t int64) (list []oracleWindow) {
			for s := t - floorMod(t, every) - size + every; s <= t; s += every {
				list = append(list, oracleWindow{start: s, end: s + size})
			}
			return list
		}
	}
	night := func(l time.Time) string {
		date := l.Format("2006-01-02")
		switch h := l.Hour(); {
		case h >= 22:
			return "night|" + date
		case h < 6:
			// The day of a night is the one it begins on; 12 hours before six it was that day whatever the clock did.
			return "night|" + l.Add(-12*time.Hour).Format("2006-01-02")
		case h < 14:
			return "early|" + date
		}
		return "late|" + date
	}
	weekdays := func(l time.Time) string {
		name := night(l)
		_, date, _ := strings.Cut(name, "|")
		day, parseErr := time.Parse("2006-01-02", date)
		if parseErr != nil {
			tb.Error(parseErr)
		}
		if d := day.Weekday(); (d == time.Saturday || d == time.Sunday) && !strings.HasPrefix(name, "night") {
			return ""
		}
		return name
	}
	return []windowCase{
		{name: "tumbling", text: "tumbling: 1h", windows: hops(hour, hour)},
		{name: "hopping", text: "hopping: 3h, every: 1h", windows: hops(3*hour, hour)},
		{name: "days", text: "tumbling: 1d, timezone: Europe/Berlin", windows: labelled(berlin, func(l time.Time) string { return "|" + l.Format("2006-01-02") })},
		{name: "eight hours", text: "tumbling: 8h, timezone: Europe/Berlin", windows: labelled(berlin, func(l time.Time) string {
			return fmt.Sprintf("|%s %d", l.Format("2006-01-02"), l.Hour()/8)
		})},
		{name: "two hours", text: "tumbling: 2h, timezone: Europe/Berlin", windows: labelled(berlin, func(l time.Time) string {
			return fmt.Sprintf("|%s %d", l.Format("2006-01-02"), l.Hour()/2)
		})},
		{name: "quarters", text: "tumbling: 15m, timezone: Europe/Berlin", windows: labelled(berlin, func(l time.Time) string {
			return fmt.Sprintf("|%s %d", l.Format("2006-01-02 15 -07"), l.Minute()/15)
		})},
		{
			name: "shifts", text: `shift: {early: "06:00-14:00", late: "14:00-22:00", night: "22:00-06:00"}, timezone: Europe/Berlin`,
			windows: labelled(berlin, night),
		},
		{
			name: "shifts on weekdays", windows: labelled(berlin, weekdays),
			text: `shift: {early: {time: "06:00-14:00", days: mon-fri}, late: {time: "14:00-22:00", days: [mon-wed, thu, fri]}, night: "22:00-06:00"}, timezone: Europe/Berlin`,
		},
		{name: "session", text: "session: 20m", session: hour / 3, limit: math.MaxInt64},
		{name: "session with max", text: "session: 20m, max: 2h", session: hour / 3, limit: 2 * hour},
	}
}

// oracleGroups gives the rows of every window and key.
func oracleGroups(c *windowCase, rows []windowRow) map[oracleWindow]map[string][]windowRow {
	groups := map[oracleWindow]map[string][]windowRow{}
	add := func(w oracleWindow, r windowRow) {
		if groups[w] == nil {
			groups[w] = map[string][]windowRow{}
		}
		groups[w][r.k] = append(groups[w][r.k], r)
	}
	if c.session == 0 {
		for _, r := range rows {
			for _, w := range c.windows(r.at) {
				add(w, r)
			}
		}
		return groups
	}
	byKey := map[string][]windowRow{}
	for _, r := range rows {
		byKey[r.k] = append(byKey[r.k], r)
	}
	for _, list := range byKey {
		sort.SliceStable(list, func(i, j int) bool { return list[i].at < list[j].at })
		for i := 0; i < len(list); {
			j, cell := i+1, list[i].at/c.limit
			for j < len(list) && list[j].at-list[j-1].at < c.session && list[j].at/c.limit == cell {
				j++
			}
			w := oracleWindow{start: list[i].at, end: list[j-1].at + c.session}
			if c.limit < math.MaxInt64 {
				w.end = min(w.end, (cell+1)*c.limit)
			}
			for _, r := range list[i:j] {
				add(w, r)
			}
			i = j
		}
	}
	return groups
}

// oracleReadings are the readings of a window in order, with the last one before it at its start.
func oracleReadings(all []windowRow, k string, w oracleWindow, value func(windowRow) (float64, bool)) (at []int64, v []float64) {
	type reading struct {
		at int64
		v  float64
	}
	var before, within []reading
	for _, r := range all {
		x, ok := value(r)
		if !ok || r.k != k || r.at >= w.end {
			continue
		}
		if r.at < w.start {
			before = append(before, reading{r.at, x})
		} else {
			within = append(within, reading{r.at, x})
		}
	}
	less := func(list []reading) func(i, j int) bool {
		return func(i, j int) bool { return list[i].at < list[j].at }
	}
	sort.SliceStable(before, less(before)) // of equal times the order of arrival stays
	sort.SliceStable(within, less(within))
	if n := len(before); n > 0 && w.start-before[n-1].at <= maxCarryAge {
		within = append([]reading{{w.start, before[n-1].v}}, within...)
	}
	for _, r := range within {
		at, v = append(at, r.at), append(v, r.v)
	}
	return at, v
}

func oracleTimed(all []windowRow, k string, w oracleWindow) map[string]any {
	out := map[string]any{"inc": nil, "finc": nil, "rate": nil, "twa": nil, "dur": nil}
	rise := func(v []float64) (sum float64) {
		for i := 1; i < len(v); i++ {
			if v[i] >= v[i-1] {
				sum += v[i] - v[i-1]
			} else {
				sum += math.Max(v[i], 0)
			}
		}
		return sum
	}
	at, v := oracleReadings(all, k, w, func(r windowRow) (float64, bool) {
		if r.c == nil {
			return 0, false
		}
		return float64(*r.c), true
	})
	if len(at) > 0 {
		out["inc"], out["rate"] = rise(v), rise(v)/(float64(w.end-at[0])/1e6)
	}
	at, v = oracleReadings(all, k, w, func(r windowRow) (float64, bool) {
		if r.v == nil {
			return 0, false
		}
		return *r.v, true
	})
	if len(at) > 0 {
		area := 0.0
		for i, x := range v {
			until := w.end
			if i+1 < len(at) {
				until = at[i+1]
			}
			area += x * float64(until-at[i])
		}
		out["finc"], out["twa"] = rise(v), area/float64(w.end-at[0])
	}
	at, v = oracleReadings(all, k, w, func(r windowRow) (float64, bool) {
		if r.on == nil {
			return 0, false
		}
		if *r.on {
			return 1, true
		}
		return 0, true
	})
	if len(at) > 0 {
		area := 0.0
		for i, x := range v {
			until := w.end
			if i+1 < len(at) {
				until = at[i+1]
			}
			area += x * float64(until-at[i])
		}
		out["dur"] = area / 1e6
	}
	return out
}

func oracleValues(rows []windowRow) map[string]any {
	out := map[string]any{"n": float64(len(rows)), "s": nil, "med": nil, "q": nil, "lo": nil, "sd": nil}
	var values, counts []float64
	for _, r := range rows {
		if r.v != nil {
			values = append(values, *r.v)
		}
		if r.c != nil {
			counts = append(counts, float64(*r.c))
		}
	}
	if len(counts) > 0 {
		sum := 0.0
		for _, v := range counts {
			sum += v
		}
		out["s"] = sum
	}
	slices.Sort(counts)
	out["d"] = float64(len(slices.Compact(counts)))
	slices.Sort(values)
	if n := len(values); n > 0 {
		at := func(p float64) float64 {
			x := p * float64(n-1)
			lo, hi := values[int(math.Floor(x))], values[int(math.Ceil(x))]
			return lo + (x-math.Floor(x))*(hi-lo)
		}
		out["med"], out["q"], out["lo"] = at(0.5), at(0.9), values[0]
		mean, squares := 0.0, 0.0
		for _, v := range values {
			mean += v / float64(n)
		}
		for _, v := range values {
			squares += (v - mean) * (v - mean)
		}
		if n > 1 {
			out["sd"] = math.Sqrt(squares / float64(n-1))
		}
	}
	return out
}

// windowRows are rows around a clock change, out of order, with nulls, ties and resets of the counter.
func windowRows(base time.Time, n int, seed uint64) (rows []windowRow, data *table) {
	rng := rand.New(rand.NewPCG(seed, 9)) //nolint:gosec // test data
	data = &table{}
	count := int64(0)
	for range n {
		r := windowRow{at: base.UnixMicro() + rng.Int64N(40*3600)*1e6, k: fmt.Sprintf("k%d", rng.IntN(3))}
		if len(rows) > 0 && rng.IntN(4) == 0 {
			twin := rows[rng.IntN(len(rows))]
			r.at, r.k = twin.at, twin.k
		}
		row := map[string]any{"at": time.UnixMicro(r.at).UTC(), "k": r.k}
		if count += rng.Int64N(5); rng.IntN(20) == 0 {
			count = rng.Int64N(3)
		}
		if rng.IntN(8) > 0 {
			v := float64(rng.IntN(80)) / 4
			r.v, row["v"] = &v, v
		}
		if rng.IntN(8) > 0 {
			c := count
			r.c, row["c"] = &c, c
		}
		if rng.IntN(8) > 0 {
			on := rng.IntN(2) == 0
			r.on, row["on"] = &on, on
		}
		rows, data.rows = append(rows, r), append(data.rows, row)
	}
	return rows, data
}

func TestWindowsAgreeWithTheOracle(t *testing.T) {
	t.Parallel()
	for _, c := range windowCases(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(12) {
				base := time.Date(2026, 3, 28, 10, 0, 0, 0, time.UTC) // the clock goes forward on the 29th
				if seed%2 == 1 {
					base = time.Date(2026, 10, 24, 10, 0, 0, 0, time.UTC) // and back on the 25th
				}
				rows, data := windowRows(base, 10+int(seed)*40, seed)
				got, report := runBounded(t, fmt.Sprintf(windowFlow, "manual", c.text), map[string]*table{"rows": data}, 50)
				checkWindows(t, &c, rows, got)
				outside := int64(0)
				if c.session == 0 {
					for _, r := range rows {
						if len(c.windows(r.at)) == 0 {
							outside++
						}
					}
				}
				if report.Failed+report.Late > 0 || report.Steps[1].Outside != outside {
					t.Fatalf("seed %d: %d failed, %d late, %d outside, want %d outside", seed, report.Failed, report.Late, report.Steps[1].Outside, outside)
				}
			}
		})
	}
}

func checkWindows(t *testing.T, c *windowCase, rows []windowRow, got []string) {
	t.Helper()
	type group struct {
		w oracleWindow
		k string
	}
	var order []group
	groups := oracleGroups(c, rows)
	for w, byKey := range groups {
		for k := range byKey {
			order = append(order, group{w, k})
		}
	}
	sort.Slice(order, func(i, j int) bool {
		return order[i].w.start < order[j].w.start || order[i].w.start == order[j].w.start && order[i].k < order[j].k
	})
	if len(got) != len(order) {
		t.Fatalf("%d insights, want %d", len(got), len(order))
	}
	for i, g := range order {
		want := oracleValues(groups[g.w][g.k])
		maps.Copy(want, oracleTimed(rows, g.k, g.w))
		want["window_start"], want["window_end"] = string(column.AppendTimeText(nil, g.w.start)), string(column.AppendTimeText(nil, g.w.end))
		if g.w.shift != "" {
			want["shift"] = g.w.shift
		}
		parts := strings.SplitN(got[i], " ", 4)
		var values map[string]any
		if err := json.Unmarshal([]byte(parts[3]), &values); err != nil {
			t.Fatal(err)
		}
		if parts[2] != `{"k":"`+g.k+`"}` {
			t.Fatalf("insight %d is of %s, want %s", i, parts[2], g.k)
		}
		for name, w := range want {
			v := values[name]
			if wf, ok := w.(float64); ok {
				vf, isFloat := v.(float64)
				if !isFloat || math.Abs(vf-wf) > 1e-9*math.Max(1, math.Abs(wf)) {
					t.Fatalf("insight %d: %s is %v, want %v\n%s", i, name, v, w, got[i])
				}
			} else if v != w {
				t.Fatalf("insight %d: %s is %v, want %v\n%s", i, name, v, w, got[i])
			}
		}
	}
}
