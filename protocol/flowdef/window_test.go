package flowdef

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func windowText(window, results string) string {
	return `flow: f
trigger: manual
steps:
  - id: rows
    read: x
    schema: {at: timestamp, k: string, shift: string, v: float, c: int, on: bool}
  - aggregate: {` + results + `}
    by: [k]
    window: {` + window + `}
  - insight: out
`
}

func TestWindows(t *testing.T) {
	t.Parallel()
	every := [7]bool{true, true, true, true, true, true, true}
	for text, want := range map[string]Window{
		"tumbling: 1m, late: 5s":                       {Tumbling: time.Minute, Late: 5 * time.Second},
		"tumbling: 8h, timezone: Europe/Berlin":        {Tumbling: 8 * time.Hour, Timezone: "Europe/Berlin"},
		"tumbling: 14d, timezone: UTC":                 {Tumbling: 14 * 24 * time.Hour, Timezone: "UTC"},
		"hopping: 5m, every: 1m, late: 0":              {Hopping: 5 * time.Minute, Every: time.Minute},
		"hopping: 3h, every: 1h, timezone: Asia/Tokyo": {Hopping: 3 * time.Hour, Every: time.Hour, Timezone: "Asia/Tokyo"},
		"session: 10m":                                 {Session: 10 * time.Minute},
		"session: 10m, max: 8h, timezone: Asia/Tokyo":  {Session: 10 * time.Minute, Max: 8 * time.Hour, Timezone: "Asia/Tokyo"},
		`shift: {a: "06:00-14:00"}, timezone: UTC`:     {Timezone: "UTC", Shifts: []Shift{{Name: "a", Start: 360, End: 840, Days: every}}},
		`shift: {a: "22:00-06:00"}, timezone: UTC`:     {Timezone: "UTC", Shifts: []Shift{{Name: "a", Start: 1320, End: 360, Days: every}}},
		`shift: {a: {time: "00:00-24:00", days: fri-mon}}, timezone: UTC`: {
			Timezone: "UTC", Shifts: []Shift{{Name: "a", End: 1440, Days: [7]bool{true, true, false, false, false, true, true}}},
		},
		`shift: {a: [{time: "00:00-10:00", days: "mon, wed"}, {time: "01:00-10:00", days: [tue]}]}, timezone: UTC`: {Timezone: "UTC", Shifts: []Shift{
			{Name: "a", End: 600, Days: [7]bool{1: true, 3: true}}, {Name: "a", Start: 60, End: 600, Days: [7]bool{2: true}},
		}},
	} {
		plan, err := CheckText([]byte(windowText("time: at, "+text, "n: count()")), Environment{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := *plan.Steps[1].Aggregate.Window
		got.Pos, got.Time = Pos{}, Ref{}
		for i := range got.Shifts {
			got.Shifts[i].Pos = Pos{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		names := "k window_start window_end n"
		if len(want.Shifts) > 0 {
			names = "k window_start window_end shift n"
		}
		if columns := strings.Join(plan.Steps[1].Output.Names(), " "); columns != names {
			t.Errorf("%s: the columns are %s, want %s", text, columns, names)
		}
	}
}

func TestWindowsThatAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"late: 5s":                                                       "the window has no length",
		"tumbling: 1m, session: 1m":                                      "of one kind",
		"tumbling: 1m, every: 1m":                                        "every belongs to a window with hopping",
		"tumbling: 1m, max: 1m":                                          "max belongs to a window with session",
		"tumbling: 7h, timezone: Europe/Berlin":                          "must divide a day",
		"tumbling: 36h, timezone: Europe/Berlin":                         "must divide a day",
		"tumbling: 1h, timezone: Europe/Bärlin":                          "unknown time zone",
		"tumbling: 1h, timezone: Local":                                  "unknown time zone",
		"hopping: 5m":                                                    "write every: 1m",
		"hopping: 5m, every: 2m":                                         "a multiple of every",
		"hopping: 1d, every: 1s":                                         "at most 1000 times",
		"hopping: 14h, every: 7h, timezone: UTC":                         "must divide a day",
		"session: 10m, max: 5m":                                          "not be shorter",
		"session: 10m, timezone: UTC":                                    "belongs to its max",
		`shift: {a: "06:00-14:00"}`:                                      "write timezone:",
		`shift: {}, timezone: UTC`:                                       "has no shift",
		`shift: {a: "6-14"}, timezone: UTC`:                              "must be written like",
		`shift: {a: "24:00-06:00"}, timezone: UTC`:                       "must be written like",
		`shift: {a: "06:00-24:01"}, timezone: UTC`:                       "must be written like",
		`shift: {a: {days: mon}}, timezone: UTC`:                         "has no time",
		`shift: {a: {time: "06:00-07:00", days: monday}}, timezone: UTC`: "are no days",
		`shift: {a: {time: "06:00-07:00", days: []}}, timezone: UTC`:     "has no day",
		`shift: {a: "06:00-14:00", b: "13:00-15:00"}, timezone: UTC`:     "overlap",
		`shift: {a: {time: "22:00-06:00", days: sat}, b: {time: "05:00-07:00", days: sun}}, timezone: UTC`: `"a" and "b" overlap on Sunday at 05:00`,
	} {
		_, err := CheckText([]byte(windowText("time: at, "+text, "n: count()")), Environment{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	shift := `time: at, shift: {a: "06:00-14:00"}, timezone: UTC`
	for text, want := range map[string]string{
		strings.Replace(windowText(shift, "n: count()"), "by: [k]", "by: [shift]", 1):                    `the window adds the column "shift", which is also in by`,
		windowText(shift, "shift: count()"):                                                              "there twice",
		windowText("time: at, tumbling: 1m", "q: \"quantile(v, 1.5)\""):                                  "a fraction from 0 to 1",
		windowText("time: at, tumbling: 1m", "q: \"quantile(v, v)\""):                                    "must be a constant",
		windowText("time: at, tumbling: 1m", "q: duration_where(v)"):                                     "duration_where takes (bool)",
		strings.Replace(windowText("tumbling: 1m", "q: rate(c)"), "    window: {tumbling: 1m}\n", "", 1): "rate works along a time column; give the step a window",
	} {
		if _, err := CheckText([]byte(text), Environment{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestTheWindowReferenceIsComplete(t *testing.T) {
	t.Parallel()
	var names, keys []string
	for _, e := range windowsReference() {
		names = append(names, e.Name)
		for _, k := range e.Keys {
			keys = append(keys, k.Name)
		}
		for _, example := range e.Examples {
			if _, err := Examples.Open("examples/" + example + ".yaml"); err != nil {
				t.Error(err)
			}
		}
	}
	if diff := cmp.Diff(windowKinds(), names); diff != "" {
		t.Error(diff)
	}
	for _, key := range windowKeys() {
		if !strings.Contains(strings.Join(keys, " "), key) {
			t.Errorf("no window has the key %s", key)
		}
	}
}

// TestTheOEEPageShowsItsExample holds the page and the tested definition together.
func TestTheOEEPageShowsItsExample(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/oee.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := Examples.ReadFile("examples/oee.yaml")
	if err != nil {
		t.Fatal(err)
	}
	flow, _, _ := strings.Cut(string(example), "\ntests:")
	_, flow, _ = strings.Cut(flow, "\n")
	if !strings.Contains(string(page), "```yaml\n"+flow+"\n```") {
		t.Error("docs/oee.md does not show examples/oee.yaml")
	}
	if n := strings.Count(flow, "\n"); n >= 25 {
		t.Errorf("the flow has %d lines", n)
	}
}
