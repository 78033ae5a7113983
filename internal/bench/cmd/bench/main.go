// Command bench runs the workloads and prints the table; make bench calls it. docs/benchmarks.md describes it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	set            bench.Settings
	json           bool
	launch, stdout string
	command        []string
}

func parse(args []string, log io.Writer) (options, error) {
	full := bench.FullSize()
	o := options{set: bench.Settings{Log: log, Tunnel: bench.FullTunnel()}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(log)
	f.IntVar(&o.set.Size.Readings, "records", full.Readings, "records of W1 and W2; W3 has two fifths of them, W4 as much shorter a time")
	f.IntVar(&o.set.Rounds, "rounds", 3, "how often each engine does each job; the table shows medians")
	f.DurationVar(&o.set.TagTime, "tag-time", time.Minute, "for how long W4 runs in real time")
	f.IntVar(&o.set.Tunnel.Agents, "agents", o.set.Tunnel.Agents, "how many idle agents the gateway's memory is measured with")
	f.StringVar(&o.set.Root, "root", ".", "the repository's `FOLDER`")
	f.StringVar(&o.set.Data, "data", filepath.Join(".cache", "bench"), "`FOLDER` that keeps the workloads' data from run to run")
	only := f.String("only", "", "run these workloads only, such as w1,w4,tunnel")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.launch, "launch", "", "for the program's own use: measure the command and write to this `FILE`")
	f.StringVar(&o.stdout, "stdout", os.DevNull, "with -launch: `FILE` for what the command prints")
	if err := f.Parse(args); err != nil {
		return o, err //nolint:wrapcheck // it has said what is wrong
	}
	if o.set.TagTime < time.Second {
		return o, fmt.Errorf("-tag-time must be at least a second, not %s", o.set.TagTime)
	}
	if o.set.Tunnel.Agents < 1 {
		return o, fmt.Errorf("-agents must be at least 1, not %d", o.set.Tunnel.Agents)
	}
	if o.set.Size.Readings < 100 || o.set.Rounds < 1 {
		return o, fmt.Errorf("-records must be at least 100 and -rounds 1, not %d and %d", o.set.Size.Readings, o.set.Rounds)
	}
	o.set.Size.Production = max(1, o.set.Size.Readings/5*2)
	if *only != "" {
		o.set.Only = strings.Split(*only, ",")
	}
	o.command = f.Args()
	return o, nil
}

func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	o, err := parse(args, log)
	if err != nil {
		return err
	}
	if o.launch != "" {
		if len(o.command) == 0 {
			return fmt.Errorf("-launch %s needs a command", o.launch)
		}
		return bench.Launch(ctx, o.launch, o.stdout, o.command)
	}
	if o.set.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if o.set.Data, err = filepath.Abs(o.set.Data); err != nil {
		return fmt.Errorf("find the data's folder: %w", err)
	}
	if o.set.Temp, err = os.MkdirTemp("", "outfeed-bench-"); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(o.set.Temp) //nolint:errcheck // it lies in the system's temporary folder
	return compareAll(ctx, o, out)
}

// compareAll runs the workloads and prints what they used.
func compareAll(ctx context.Context, o options, out io.Writer) error {
	b := bench.New(o.set)
	list, err := b.Run(ctx)
	if err != nil {
		return err
	}
	tags, err := b.Tags(ctx)
	if err != nil {
		return err
	}
	tunnel, err := b.Tunnel(ctx)
	if err != nil {
		return err
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(struct { //nolint:wrapcheck // standard output's own error
			Whole  []bench.Measurement       `json:"whole"`
			Tags   []bench.TagMeasurement    `json:"tags"`
			Tunnel []bench.TunnelMeasurement `json:"tunnel"`
		}{list, tags, tunnel})
	}
	if len(list) > 0 {
		if err := bench.PrintTable(out, list); err != nil {
			return err
		}
	}
	if err := bench.PrintTags(out, tags); err != nil {
		return err
	}
	return bench.PrintTunnel(out, tunnel)
}
