package engine

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// stretch is a span of time, both ends included.
type stretch struct{ from, to time.Time }

func (s stretch) has(t time.Time) bool { return !t.Before(s.from) && !t.After(s.to) }

func between(tb testing.TB, texts ...string) []stretch {
	tb.Helper()
	list := make([]stretch, 0, len(texts)/2)
	for pair := range slices.Chunk(texts, 2) {
		var ends [2]time.Time
		for i, text := range pair {
			at, err := time.Parse("2006-01-02 15:04", text)
			if err != nil {
				tb.Fatal(err)
			}
			ends[i] = at
		}
		list = append(list, stretch{ends[0], ends[1]})
	}
	return list
}

// machineTemperature is the recording of a real machine, with the windows in which its labels say that it was not well;
// ok is false where the recording is not at hand.
func machineTemperature(tb testing.TB) (data *table, windows []stretch, ok bool) {
	tb.Helper()
	for _, up := range []string{"../../../..", "../../../../.."} { // beside the repository, or beside the folder of a worktree
		file, err := os.Open(filepath.Join(filepath.FromSlash(up), "shared", "data", "machine-temperature.csv"))
		if err != nil {
			continue
		}
		records, err := csv.NewReader(file).ReadAll()
		if err = errors.Join(err, file.Close()); err != nil {
			tb.Fatal(err)
		}
		data = &table{}
		for _, r := range records[1:] {
			value, err := strconv.ParseFloat(r[1], 64)
			if err != nil {
				tb.Fatal(err)
			}
			data.rows = append(data.rows, map[string]any{"timestamp": r[0], "value": value})
		}
		return data, between(tb,
			"2013-12-10 06:25", "2013-12-12 05:35", "2013-12-15 17:50", "2013-12-17 17:00",
			"2014-01-27 14:20", "2014-01-29 13:30", "2014-02-07 14:55", "2014-02-09 14:05"), true
	}
	return nil, nil, false
}

// madeTemperature is a course like that of the recording: a machine that wanders about 86 with the shifts, pauses for an
// hour now and then, and four times goes cold for long.
func madeTemperature(tb testing.TB) (data *table, windows []stretch) {
	tb.Helper()
	windows = between(tb,
		"2026-01-10 06:00", "2026-01-11 06:00", "2026-01-16 20:00", "2026-01-17 12:00",
		"2026-02-27 14:00", "2026-02-28 02:00", "2026-03-05 15:00", "2026-03-07 12:00")
	rng := rand.New(rand.NewPCG(86, 1)) //nolint:gosec // test data
	data = &table{}
	at, drift, temp := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), 0.0, 86.0
	for i := range 20_000 {
		drift = 0.999*drift + 0.3*rng.NormFloat64()
		want := 86 + drift + 4*math.Sin(float64(i)/46)
		if i%1500 > 1488 { // an hour
			want = 45
		}
		for _, w := range windows {
			if w.has(at) {
				want = 40
			}
		}
		temp += 0.2*(want-temp) + 0.5*rng.NormFloat64()
		data.rows = append(data.rows, map[string]any{"timestamp": at, "value": temp})
		at = at.Add(5 * time.Minute)
	}
	return data, windows
}

// template is the documented definition that watches a machine's temperature.
func template(tb testing.TB) string {
	tb.Helper()
	text, err := flowdef.Examples.ReadFile("examples/machine-temperature.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// alarm is an event of the template; to is zero while it lasts.
type alarm struct{ from, to time.Time }

// alarms runs the template over the rows as they came and gives its events.
func alarms(tb testing.TB, text string, data *table) []alarm {
	tb.Helper()
	store := newStore()
	endlessRun(tb, text, data, 512, store)
	var list []alarm
	for _, in := range store.insights {
		var values struct {
			State string     `json:"event_state"`
			End   *time.Time `json:"event_end"`
		}
		if err := json.Unmarshal(in.Values, &values); err != nil {
			tb.Fatal(err)
		}
		if values.State == flowdef.EventOpen {
			list = append(list, alarm{from: time.UnixMicro(in.Time).UTC()})
		} else {
			list[len(list)-1].to = *values.End
		}
	}
	return list
}

// judge says how many windows have an alarm, and how many alarms belong to none. An alarm belongs to a window that in
// says it does.
func judge(list []alarm, windows []stretch, in func(alarm, stretch) bool) (hit, others int) {
	found := make([]bool, len(windows))
	for _, a := range list {
		inside := false
		for i, w := range windows {
			if in(a, w) {
				found[i], inside = true, true
			}
		}
		if !inside {
			others++
		}
	}
	for _, f := range found {
		if f {
			hit++
		}
	}
	return hit, others
}

// begins is the strict reading: the alarm begins in the window.
func begins(a alarm, w stretch) bool { return w.has(a.from) }

// overlaps is the one of a person on shift: the alarm is there at some time in the window.
func overlaps(a alarm, w stretch) bool {
	return !a.from.After(w.to) && (a.to.IsZero() || !a.to.Before(w.from))
}

func TestTheTemplateFindsWhatWasPlanted(t *testing.T) {
	t.Parallel()
	data, windows := madeTemperature(t)
	list := alarms(t, template(t), data)
	if hit, others := judge(list, windows, overlaps); hit != len(windows) || others > 6 {
		t.Errorf("found %d of %d planted anomalies and %d others: %v", hit, len(windows), others, list)
	}
}

// TestTheTemplateOnTheRecording holds what docs/detect.md says: all four labelled windows and at most six other alarms,
// and that this does not hang by the exact numbers.
func TestTheTemplateOnTheRecording(t *testing.T) {
	t.Parallel()
	data, windows, ok := machineTemperature(t)
	if !ok {
		data, windows = madeTemperature(t)
	}
	const settings = "ewma: {above: 3, half_life: 6h, over: 14d, clear: 1.5, direction: down}"
	text := template(t)
	if !strings.Contains(text, settings) {
		t.Fatal("the template has changed; change this test and docs/detect.md with it")
	}
	list := alarms(t, text, data)
	for name, in := range map[string]func(alarm, stretch) bool{"begin in": begins, "overlap": overlaps} {
		if hit, others := judge(list, windows, in); ok && (hit != len(windows) || others > 4) {
			t.Errorf("the alarms %s %d of %d windows, and there are %d others: %v", name, hit, len(windows), others, list)
		}
	}
	for _, neighbour := range []string{
		"ewma: {above: 2.75, half_life: 6h, over: 14d, clear: 1.5, direction: down}",
		"ewma: {above: 3.25, half_life: 6h, over: 14d, clear: 1.5, direction: down}",
		"ewma: {above: 3, half_life: 5h, over: 14d, clear: 1.5, direction: down}",
		"ewma: {above: 3, half_life: 8h, over: 14d, clear: 1.5, direction: down}",
		"ewma: {above: 3, half_life: 6h, over: 10d, clear: 1.5, direction: down}",
		"ewma: {above: 3, half_life: 6h, over: 21d, clear: 1.5, direction: down}",
		"ewma: {above: 3, half_life: 6h, over: 14d, clear: 1, direction: down}",
		"ewma: {above: 3, half_life: 6h, over: 14d, clear: 2, direction: down}",
		"threshold: {below: 55, clear: 80, for: 2h}", "threshold: {below: 56, clear: 80, for: 2h}", "threshold: {below: 60, clear: 80, for: 2h}",
		"threshold: {below: 56, clear: 80, for: 1h}", "threshold: {below: 56, clear: 80, for: 4h}",
	} {
		list := alarms(t, strings.Replace(text, settings, neighbour, 1), data)
		hit, others := judge(list, windows, overlaps)
		t.Logf("%s: %d of %d windows, %d other alarms", neighbour, hit, len(windows), others)
		if ok && (hit != len(windows) || others > 6) {
			t.Errorf("%s: %d of %d windows, %d other alarms: %v", neighbour, hit, len(windows), others, list)
		}
	}
}

// drawing is the variable that asks TestDrawTheRecording for docs/images/machine-temperature.svg.
const drawing = "OUTFEED_DRAW"

// TestDrawTheRecording draws the course with the template's alarms. With OUTFEED_DRAW=1 and the recording at hand it
// writes the picture of docs/detect.md; otherwise it only holds that a picture comes out.
func TestDrawTheRecording(t *testing.T) {
	t.Parallel()
	data, windows, real := machineTemperature(t)
	if !real {
		data, windows = madeTemperature(t)
	}
	svg := draw(t, data, windows, alarms(t, template(t), data))
	if len(svg) < 2000 || len(svg) > 60_000 {
		t.Errorf("the picture has %d bytes", len(svg))
	}
	if real && os.Getenv(drawing) != "" {
		if err := os.WriteFile(filepath.FromSlash("../../../docs/images/machine-temperature.svg"), []byte(svg), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// draw makes an SVG of the course, each two hours as a line from its least to its greatest value, above the windows
// (light) and the alarms (bars below).
func draw(tb testing.TB, data *table, windows []stretch, list []alarm) string {
	tb.Helper()
	const width, height, bottom = 960.0, 300.0, 250.0
	first, last := rowTime(tb, data.rows[0]), rowTime(tb, data.rows[len(data.rows)-1])
	x := func(t time.Time) float64 {
		return 40 + (width-50)*float64(t.Sub(first))/float64(last.Sub(first))
	}
	y := func(v float64) float64 { return bottom - v*2.2 }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="#fff"/>`+"\n", width, height)
	for _, w := range windows {
		fmt.Fprintf(&b, `<rect x="%.1f" y="10" width="%.1f" height="240" fill="#f6c9a8"/>`+"\n", x(w.from), x(w.to)-x(w.from))
	}
	for _, v := range []float64{0, 25, 50, 75, 100} {
		fmt.Fprintf(&b, `<path d="M40 %.1fH%g" stroke="#ddd"/><text x="34" y="%.1f" text-anchor="end">%g</text>`+"\n", y(v), width-10, y(v)+4, v)
	}
	b.WriteString(`<path fill="none" stroke="#235" d="`)
	for i := 0; i < len(data.rows); i += 24 {
		low, high := math.Inf(1), math.Inf(-1)
		for _, row := range data.rows[i:min(i+24, len(data.rows))] {
			v, _ := row["value"].(float64)
			low, high = min(low, v), max(high, v)
		}
		fmt.Fprintf(&b, "M%.1f %.1fV%.1f", x(rowTime(tb, data.rows[i])), y(low)+0.5, y(high)-0.5)
	}
	b.WriteString(`"/>` + "\n")
	for _, a := range list {
		to := a.to
		if to.IsZero() {
			to = last
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="256" width="%.1f" height="10" fill="#b33"/>`+"\n", x(a.from), max(x(to)-x(a.from), 1.5))
	}
	for _, day := range []time.Time{first, first.Add(last.Sub(first) / 2), last} {
		fmt.Fprintf(&b, `<text x="%.1f" y="284" text-anchor="middle">%s</text>`+"\n", min(max(x(day), 70), width-40), day.Format(time.DateOnly))
	}
	fmt.Fprintf(&b, `<text x="%g" y="296" text-anchor="middle">line: temperature; shaded: labelled windows; bars: alarms of the template</text>`+"\n</svg>\n", width/2)
	return b.String()
}

func rowTime(tb testing.TB, row map[string]any) time.Time {
	tb.Helper()
	switch v := row["timestamp"].(type) {
	case time.Time:
		return v
	case string:
		at, err := time.Parse(time.DateTime, v)
		if err != nil {
			tb.Fatal(err)
		}
		return at
	}
	tb.Fatalf("the row %v has no time", row)
	return time.Time{}
}
