// Command outfeed-demo-plant is a small plant to try Outfeed on: eight presses that publish to an MQTT broker of its
// own, the MES database of their work orders, and a lathe that drops CSV files.
//
// It knows nothing of Outfeed. One goroutine owns the machines; the database has another, so that one that is away does
// not stop them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options is what a person sets.
type options struct {
	mqttListen, mqttUser, mqttPasswordFile string
	mesURL                                 string
	latheDir                               string
	seed                                   uint64
	speed                                  float64
}

const help = `outfeed-demo-plant is a small plant: eight presses on an MQTT broker, the MES database of their
work orders, and a lathe that drops CSV files. Ctrl-C ends it.

Example:
  outfeed-demo-plant -mqtt-listen 127.0.0.1:1883 -mes-url postgres://mes@127.0.0.1/mes -lathe-dir /tmp/lathe

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := start(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "outfeed-demo-plant:", err)
		stop()
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func start(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("outfeed-demo-plant", flag.ContinueOnError)
	flags.StringVar(&o.mqttListen, "mqtt-listen", "127.0.0.1:1883", "the `address` of the presses' MQTT broker")
	flags.StringVar(&o.mqttUser, "mqtt-user", "", "the `name` that the broker asks for; empty lets everyone in")
	flags.StringVar(&o.mqttPasswordFile, "mqtt-password-file", "", "the `file` with the password of that user")
	flags.StringVar(&o.mesURL, "mes-url", "", "the PostgreSQL database of the MES, as a `URL`; empty for a plant without one")
	flags.StringVar(&o.latheDir, "lathe-dir", "", "the `folder` where the lathe drops its files; empty for a plant without one")
	flags.Uint64Var(&o.seed, "seed", 1, "which plant: the same `number` gives the same machines, breakdowns and parts")
	flags.Float64Var(&o.speed, "speed", 1, "how many `times` faster than real time it works")
	flags.Usage = func() {
		_, _ = io.WriteString(flags.Output(), help)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the flags: %w", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag; --help lists them", flags.Arg(0))
	}
	if o.speed < 0.01 || o.speed > 1000 {
		return fmt.Errorf("-speed %v is out of range: write a number between 0.01 and 1000", o.speed)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return run(ctx, o, log)
}

// run works until ctx ends.
func run(ctx context.Context, o options, log *slog.Logger) (err error) {
	p := newPlant(o.seed, time.Now().UTC().Truncate(time.Second))
	if o.mesURL != "" {
		m := newMES(o.mesURL, log)
		p.orderChanged = m.changed
		p.announceOrders()
		if err := m.prepare(ctx); err != nil {
			return err
		}
		done := make(chan struct{})
		go func() { defer close(done); m.run(ctx) }()
		defer func() { <-done }()
	}
	if o.latheDir != "" {
		if err := os.MkdirAll(o.latheDir, 0o750); err != nil {
			return fmt.Errorf("make the lathe's folder: %w", err)
		}
	}
	b, err := openBroker(o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	log.InfoContext(ctx, "the plant works", "mqtt", o.mqttListen, "presses", len(p.presses), "speed", o.speed)

	tick := time.NewTicker(time.Duration(float64(time.Second) / o.speed))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := work(p, b, o.latheDir); err != nil {
			return err
		}
	}
}

// work lets a second of the plant's time pass and tells the world about it.
func work(p *plant, b *broker, latheDir string) error {
	for _, r := range p.second() {
		if err := b.publish("plant/press/"+strings.ToLower(r.Machine)+"/state", r); err != nil {
			return err
		}
	}
	if cycles := p.lathe.finished(p.now); len(cycles) > 0 && latheDir != "" {
		return dropFile(latheDir, p.now, cycles)
	}
	return nil
}
