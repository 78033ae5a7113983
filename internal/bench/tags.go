package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TagMeasurement is what W4 used in one of its two ways: past, ten minutes of data that are there at once, or real_time.
type TagMeasurement struct {
	Mode     string `json:"mode"`
	Records  int    `json:"records"`
	Insights int64  `json:"insights"`
	// CPU and Wall are of the flows alone, without the start of the process.
	CPU  time.Duration `json:"cpu_ns"`
	Wall time.Duration `json:"wall_ns"`
	// PeakBytes is of the process, over its life.
	PeakBytes int64 `json:"peak_bytes"`
}

// CoreShare is how much of one core it used on average.
func (m TagMeasurement) CoreShare() float64 { return m.CPU.Seconds() / m.Wall.Seconds() }

// tagName is W4's name in Settings.Only.
const tagName = "w4"

// Tags measures W4: the benchmark of package agent, each way in a process of its own.
func (b *Bench) Tags(ctx context.Context) ([]TagMeasurement, error) {
	if len(b.set.Only) > 0 && !slices.Contains(b.set.Only, tagName) {
		return []TagMeasurement{}, nil
	}
	b.logf("%s: 10,000 tags as 200 continuous flows: ten minutes at once, then %s in real time", tagName, b.set.TagTime)
	bin := b.scratch("agent.test")
	c := exec.CommandContext(ctx, "go", "test", "-c", "-o", bin, "./agent") //nolint:gosec // the bench itself makes the command
	c.Dir = b.set.Root
	if text, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the benchmark of package agent: %w\n%s", err, strings.TrimSpace(string(text)))
	}
	var past []TagMeasurement
	for range b.set.Rounds {
		m, err := b.tags(ctx, bin, "past")
		if err != nil {
			return nil, err
		}
		past = append(past, m)
	}
	slices.SortFunc(past, func(x, y TagMeasurement) int { return int(x.CPU - y.CPU) })
	now, err := b.tags(ctx, bin, "real_time")
	return []TagMeasurement{past[len(past)/2], now}, err
}

func (b *Bench) tags(ctx context.Context, bin, mode string) (TagMeasurement, error) {
	report := b.scratch("tags.json")
	past := max(1, int(int64(600)*int64(b.set.Size.Readings)/int64(FullSize().Readings)))
	usage, err := b.measure(ctx, b.scratch("printed.txt"), []string{
		bin, "-test.run", "^$", "-test.bench", "^BenchmarkTags$/^" + mode + "$", "-test.benchtime", "1x",
		"-tag-report", report, "-tag-past", strconv.Itoa(past), "-tag-seconds", strconv.Itoa(int(b.set.TagTime.Seconds())),
	})
	if err != nil {
		return TagMeasurement{}, err
	}
	text, err := os.ReadFile(report) //nolint:gosec // the bench itself names it
	if err != nil {
		return TagMeasurement{}, fmt.Errorf("read what %s measured: %w", tagName, err)
	}
	var list []TagMeasurement
	if err := json.Unmarshal(text, &list); err != nil {
		return TagMeasurement{}, fmt.Errorf("read what %s measured: %w", tagName, err)
	}
	if len(list) != 1 {
		return TagMeasurement{}, errors.New("the benchmark of package agent measured nothing")
	}
	list[0].PeakBytes = usage.PeakBytes
	return list[0], nil
}
