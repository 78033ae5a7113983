// Command link measures the layers of the tunnel beside plain TLS: one process serves, another measures.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/outfeed/outfeed/controlplane/internal/gateway/gatewaytest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, stop, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stop func(), args []string) (err error) {
	f := flag.NewFlagSet("link", flag.ContinueOnError)
	dir := f.String("dir", ".", "`FOLDER` that keeps the keys")
	links := f.String("links", "", "measure these `LINKS`, which the serving process printed; without it, serve until standard input ends")
	plain := f.Bool("plain", false, "measure plain TLS instead of the tunnel")
	idle := f.Int("idle", 0, "measure what so many idle connections of plain TLS cost, and nothing else")
	echoes := f.Int("echoes", 20_000, "how many messages go to and fro")
	bytes := f.Int64("bytes", 1<<30, "how many bytes go up")
	profile := f.String("cpuprofile", "", "write a profile of the processor time to this `FILE`")
	if err = f.Parse(args); err != nil {
		return err //nolint:wrapcheck // it has said what is wrong
	}
	if *profile != "" {
		out, createErr := os.Create(*profile)
		if createErr != nil {
			return fmt.Errorf("profile: %w", createErr)
		}
		if err = pprof.StartCPUProfile(out); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, out.Close())
		}()
	}
	print := json.NewEncoder(os.Stdout)
	if *links == "" {
		// Whoever started it is gone when this ends; the process then ends without waiting for it.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
		return gatewaytest.ServeLinks(ctx, *dir, func(l gatewaytest.Links) error { return print.Encode(l) })
	}
	var l gatewaytest.Links
	if err = json.Unmarshal([]byte(*links), &l); err != nil {
		return fmt.Errorf("-links: %w", err)
	}
	if *idle > 0 {
		resident, collected, idleErr := gatewaytest.IdlePlain(ctx, *dir, l, *idle)
		if idleErr != nil {
			return idleErr
		}
		return print.Encode(map[string]int64{"resident": resident, "collected": collected}) //nolint:wrapcheck // standard output's own error
	}
	measure := gatewaytest.MeasureTunnel
	if *plain {
		measure = gatewaytest.MeasurePlain
	}
	figures, err := measure(ctx, *dir, l, *echoes, *bytes)
	if err != nil {
		return err
	}
	return print.Encode(figures) //nolint:wrapcheck // as above
}
