package engine

import "testing"

// windowBench is a flow over fillPress: 50 machines, a reading every 10 ms, 41 s to a batch.
func windowBench(window, results string) string {
	return benchRead + "  - aggregate: {n: count(), " + results + "}\n    by: [machine]\n    window: {time: ts, late: 5s, " + window + "}\n" +
		"  - filter: n < 0\n  - insight: out\n    key: [machine]\n"
}

func windowBenches() map[string]string {
	const moments = "a: avg(temp), m: max(vibration), s: sum(count)"
	return map[string]string{
		"tumbling":           windowBench("tumbling: 1m", moments),
		"tumbling in a zone": windowBench("tumbling: 15m, timezone: Europe/Berlin", moments),
		"hopping by 5":       windowBench("hopping: 5m, every: 1m", moments),
		"session":            windowBench("session: 10m, max: 15m", moments),
		"shift":              windowBench(`shift: {early: "06:00-14:00", late: "14:00-22:00", night: "22:00-06:00"}, timezone: Europe/Berlin`, moments),
		"median":             windowBench("tumbling: 1m", "a: median(temp)"),
		"quantile":           windowBench("tumbling: 1m", `a: "quantile(temp, 0.95)"`),
		"increase":           windowBench("tumbling: 1m", "a: increase(count)"),
		"rate":               windowBench("tumbling: 1m", "a: rate(count)"),
		"time_weighted_avg":  windowBench("tumbling: 1m", "a: time_weighted_avg(temp)"),
		"duration_where":     windowBench("tumbling: 1m", `a: duration_where(state == "RUN")`),
		"count_distinct":     windowBench("tumbling: 1m", "a: count_distinct(temp)"),
	}
}

func BenchmarkWindows(b *testing.B) {
	for name, text := range windowBenches() {
		b.Run(name, func(b *testing.B) { benchmarkStep(b, text, fillPress) })
	}
}

// TestWindowsAllocateNothingPerRecord is not parallel; see TestSteadyStateAllocatesNothing.
func TestWindowsAllocateNothingPerRecord(t *testing.T) {
	for name, text := range windowBenches() {
		step := stepper(t, text, fillPress)
		for range 150 {
			step()
		}
		if n := testing.AllocsPerRun(100, step); n > 4 {
			t.Errorf("%s: %v allocations per batch of 4096", name, n)
		}
	}
}
