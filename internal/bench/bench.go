package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Settings is what a Bench needs.
type Settings struct {
	// Root is the repository's, Data where the workloads' files are kept from run to run, Temp a folder for everything
	// else, on the same kind of disk as an agent's data directory.
	Root, Data, Temp string
	// Self is the program that Launch is called by with -launch.
	Self string
	Size Records
	// Rounds is how often each engine does each job; the table has the medians.
	Rounds int
	// TagTime is for how long W4 runs in real time.
	TagTime time.Duration
	// Tunnel is how much the tunnel is measured with.
	Tunnel TunnelSize
	// Only names the workloads to run, all when empty.
	Only []string
	// Log takes what happens on the way.
	Log io.Writer
}

// Bench compares the engines.
type Bench struct{ set Settings }

// Measurement is what one engine did with one workload: medians over the rounds.
type Measurement struct {
	Workload string `json:"workload"`
	Engine   string `json:"engine"`
	Version  string `json:"version"`
	Records  int    `json:"records"`
	Rounds   int    `json:"rounds"`
	// PerCPU and PerWall are records per second of processor time and on the wall clock.
	PerCPU  float64 `json:"records_per_cpu_second"`
	PerWall float64 `json:"records_per_wall_second"`
	// PeakBytes is the most memory that was resident.
	PeakBytes int64 `json:"peak_bytes"`
	// Problem says why there are no figures.
	Problem string `json:"problem,omitempty"`
}

// New makes a bench. It does nothing yet.
func New(set Settings) *Bench { return &Bench{set: set} }

func (b *Bench) scratch(name string) string { return filepath.Join(b.set.Temp, name) }

func (b *Bench) logf(format string, args ...any) { fmt.Fprintf(b.set.Log, format+"\n", args...) }

// Run measures W1 to W3. What an engine got wrong, or could not do, stands in its Measurement; an error means that there
// is nothing to compare.
func (b *Bench) Run(ctx context.Context) ([]Measurement, error) {
	others := []string{tagName, tunnelName}
	if len(b.set.Only) > 0 && !slices.ContainsFunc(b.set.Only, func(name string) bool { return !slices.Contains(others, name) }) {
		return []Measurement{}, nil
	}
	b.logf("making the data in %s", b.set.Data)
	loads, err := Prepare(b.set.Data, b.set.Size)
	if err != nil {
		return nil, err
	}
	loads = slices.DeleteFunc(loads, func(w Workload) bool {
		return len(b.set.Only) > 0 && !slices.Contains(b.set.Only, w.Name)
	})
	if len(loads) == 0 {
		return []Measurement{}, nil
	}
	engines, missing, err := b.engines(ctx)
	if err != nil {
		return nil, err
	}
	var out []Measurement
	for i := range loads {
		w := &loads[i]
		b.logf("%s: %s", w.Name, w.Text)
		list, err := b.workload(ctx, w, engines)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
		for _, m := range missing {
			m.Workload, m.Records = w.Name, w.Records
			out = append(out, m)
		}
	}
	return out, nil
}

// engines builds them. The scanner comes first: its result is the one that the others are held against.
func (b *Bench) engines(ctx context.Context) (all []engine, missing []Measurement, err error) {
	b.logf("building the agent, the scanner and DuckDB's bindings")
	all, err = b.scanners(ctx)
	if err != nil {
		return nil, nil, err
	}
	agent, err := b.agent(ctx)
	if err != nil {
		return nil, nil, err
	}
	all = append(all, agent)
	duck, err := b.duckdb(ctx)
	if err != nil {
		b.logf("going on without DuckDB: %v", err)
		return all, []Measurement{{Engine: "DuckDB, 2 threads", Problem: err.Error()}}, nil
	}
	return append(all, duck), nil, nil
}

// workload has every engine do the job in turn, round after round, so that what else the machine does meets all alike.
func (b *Bench) workload(ctx context.Context, w *Workload, engines []engine) ([]Measurement, error) {
	var want result
	out, uses := make([]Measurement, len(engines)), make([][]Usage, len(engines))
	for i, e := range engines {
		out[i] = Measurement{Workload: w.Name, Engine: e.name, Version: e.version, Records: w.Records, Rounds: b.set.Rounds}
	}
	for range b.set.Rounds {
		for i := range engines {
			if out[i].Problem != "" {
				continue
			}
			usage, got, err := b.once(ctx, w, &engines[i])
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if want == nil {
				if err != nil {
					return nil, err
				}
				want = got
			}
			if err == nil {
				err = compare(got, want, w.values)
			}
			if err != nil {
				out[i].Problem = err.Error()
				b.logf("%s: %s: %v", w.Name, engines[i].name, err)
			}
			uses[i] = append(uses[i], usage)
		}
	}
	for i := range out {
		if out[i].Problem == "" {
			out[i].medians(uses[i])
		}
	}
	return out, nil
}

// once has an engine do the job once.
func (b *Bench) once(ctx context.Context, w *Workload, e *engine) (Usage, result, error) {
	out, printed := b.scratch("result.jsonl"), b.scratch("printed.txt")
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Usage{}, nil, fmt.Errorf("remove the result of the run before: %w", err)
	}
	command, err := e.command(w, out)
	if err != nil {
		return Usage{}, nil, err
	}
	if e.prints {
		printed = out
	}
	usage, err := b.measure(ctx, printed, command)
	if err != nil {
		return Usage{}, nil, err
	}
	got, err := readResult(out, w)
	return usage, got, err
}

func (m *Measurement) medians(uses []Usage) {
	median := func(of func(Usage) int64) float64 {
		list := make([]int64, len(uses))
		for i, u := range uses {
			list[i] = of(u)
		}
		slices.Sort(list)
		n := len(list)
		return float64(list[(n-1)/2]+list[n/2]) / 2
	}
	perSecond := func(of func(Usage) int64) float64 {
		return float64(m.Records) / (median(of) / float64(time.Second))
	}
	m.PerCPU = perSecond(func(u Usage) int64 { return int64(u.CPU) })
	m.PerWall = perSecond(func(u Usage) int64 { return int64(u.Wall) })
	m.PeakBytes = int64(median(func(u Usage) int64 { return u.PeakBytes }))
}
