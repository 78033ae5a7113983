// Command host serves a gateway over a domain in memory, for tests and benchmarks. It ends when its standard input does.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/outfeed/outfeed/controlplane/internal/gateway/gatewaytest"
	"github.com/outfeed/outfeed/internal/source"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, stop, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
}

// garbagePercent is the control plane's.
const garbagePercent = 50

func run(ctx context.Context, stop func(), args []string) error {
	debug.SetGCPercent(garbagePercent)
	s := gatewaytest.Settings{Log: slog.New(slog.DiscardHandler)}
	f := flag.NewFlagSet("host", flag.ContinueOnError)
	f.StringVar(&s.Dir, "dir", ".", "`FOLDER` that keeps the keys")
	f.StringVar(&s.Address, "listen", "127.0.0.1:0", "`ADDRESS` to listen on")
	f.IntVar(&s.AdmitPerSecond, "admit", 0, "connections to admit per second; 0 for the gateway's default")
	f.DurationVar(&s.RushLasts, "rush", 0, "how long after its start many agents may come at once; 0 for the gateway's default")
	proxies := f.String("trusted-proxies", "", "`ADDRESSES` that are believed when they say for whom they speak")
	verbose := f.Bool("verbose", false, "log to standard error")
	if err := f.Parse(args); err != nil {
		return err //nolint:wrapcheck // it has said what is wrong
	}
	var err error
	if s.Proxies, err = source.ParseProxies(*proxies); err != nil {
		return err
	}
	if *verbose {
		s.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	// Whoever started it is gone when this ends; the process then ends without waiting for it.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return gatewaytest.Run(ctx, s, func(r gatewaytest.Ready) error {
		return json.NewEncoder(os.Stdout).Encode(r)
	})
}
