// Command outfeed-demo runs everything on one machine: a MES database, a small plant, the control plane, an agent, three
// flows, and their insights in the terminal and in the dashboard.
//
// It uses the programs as a person would, with the same commands, and keeps everything in one folder that it empties
// when it starts. Ctrl-C stops all of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

func main() {
	// The parts are told of this program's death by the end of the thread that started them.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("outfeed-demo", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "outfeed-demo runs Outfeed, and a small plant to try it on, on this machine. Ctrl-C ends it.")
		fmt.Fprintln(flags.Output(), "\nExample:\n  outfeed-demo -bin bin -dir /tmp/my-demo -dashboard 127.0.0.1:9000\n\nFlags:")
		flags.PrintDefaults()
	}
	home := filepath.Join(os.TempDir(), fmt.Sprintf("outfeed-demo-%d", os.Getuid()))
	bin := flags.String("bin", "bin", "folder with the programs")
	dir := flags.String("dir", home, "folder for everything the demo keeps; emptied at the start")
	dashboard := flags.String("dashboard", "127.0.0.1:8480", "address of the dashboard")
	speed := flags.Float64("speed", 1, "how much faster than real time the plant works")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the command line: %w", err)
	}
	d, err := newDemo(*bin, *dir, *dashboard, *speed)
	if err != nil {
		return err
	}
	return d.run(ctx)
}
