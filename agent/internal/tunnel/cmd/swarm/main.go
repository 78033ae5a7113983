// Command swarm runs the tunnels of many agents, each with a key of its own and nothing to say, for tests and benchmarks.
// It ends when its standard input does.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, stop, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "swarm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stop func(), args []string) error {
	s := tunnel.Settings{Host: &wire.Host{}, Log: slog.New(slog.DiscardHandler)}
	f := flag.NewFlagSet("swarm", flag.ContinueOnError)
	f.StringVar(&s.Link.URL, "url", "", "the control plane's `ADDRESS`")
	f.StringVar(&s.Link.CAFile, "ca", "", "`FILE` with the certificate to trust")
	f.StringVar(&s.Fingerprint, "fingerprint", "", "the control plane's fingerprint")
	agents := f.Int("agents", 1, "how many agents to run")
	perSecond := f.Int("start", 500, "how many agents to start per second")
	verbose := f.Bool("verbose", false, "log to standard error")
	if err := f.Parse(args); err != nil {
		return err //nolint:wrapcheck // it has said what is wrong
	}
	if *verbose {
		s.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s.Link.Proxy = secret.New("none")
	// Whoever started it is gone when this ends; the process then ends without waiting for it.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var all sync.WaitGroup
	defer all.Wait()
	for range *agents {
		client, err := agent(s)
		if err != nil {
			stop()
			return err
		}
		all.Go(func() { _ = client.Run(ctx) }) // it ends with ctx, without an error
		if backoff.Sleep(ctx, time.Second/time.Duration(*perSecond)) != nil {
			return nil
		}
	}
	return nil
}

func agent(s tunnel.Settings) (*tunnel.Client, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	q := &quiet{key: key, never: make(chan struct{})}
	s.Identity, s.Bundles, s.Reporter, s.Outbox, s.Reports = q, q, q, q, q
	return tunnel.New(s)
}

// quiet is an agent that has nothing to say.
type quiet struct {
	key     ed25519.PrivateKey
	counter atomic.Uint64
	never   chan struct{}

	mu      sync.Mutex
	session []byte
}

func (q *quiet) Key() ed25519.PrivateKey { return q.key }

func (q *quiet) Session() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.session
}

func (q *quiet) KeepSession(value []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.session = value
	return nil
}

// errNoRotation is because nobody asks these agents for new keys.
var errNoRotation = errors.New("this agent does not change its keys")

func (*quiet) PrepareKeys() (tunnel.NextKeys, error) { return tunnel.NextKeys{}, errNoRotation }
func (*quiet) PreparedKeys() (tunnel.NextKeys, bool) { return tunnel.NextKeys{}, false }
func (*quiet) SwapKeys(ed25519.PublicKey) error      { return errNoRotation }
func (*quiet) GiveUp(uint64)                         {}

func (q *quiet) NextCounter() (uint64, error)            { return q.counter.Add(1), nil }
func (*quiet) ApplyBundle(context.Context, []byte) error { return nil }
func (*quiet) DesiredSerial() uint64                     { return 0 }
func (*quiet) Status() *wire.Status                      { return &wire.Status{} }
func (q *quiet) StatusChanged() <-chan struct{}          { return q.never }
func (*quiet) Acknowledge(context.Context, uint64) error { return nil }
func (q *quiet) OutboxChanged() <-chan struct{}          { return q.never }
func (*quiet) DropReports(context.Context, uint64) error { return nil }
func (q *quiet) ReportsChanged() <-chan struct{}         { return q.never }

func (*quiet) Reconcile(_ context.Context, stored uint64, _ *uint64) (uint64, error) {
	return stored, nil
}

func (*quiet) ReadOutbox(context.Context, uint64, int, int) ([]tunnel.Record, error) {
	return []tunnel.Record{}, nil
}

func (*quiet) ReadReports(context.Context, uint64, int) ([]tunnel.Report, error) {
	return []tunnel.Report{}, nil
}
