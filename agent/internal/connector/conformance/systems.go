package conformance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/backoff"
)

// Outage is a system of the plant that can be away.
type Outage interface {
	// Down makes the system unreachable, Up reachable again with everything it had.
	Down()
	Up()
}

// LookupSystem is a system that is looked up, made for one test and ended by the test's cleanup.
type LookupSystem interface {
	Outage
	// LookupSettings look up by the int column id. RunLookup sets Keys, Schema and Logger.
	LookupSettings() connector.LookupSettings
	// Add makes the rows from id first up to, but without, end, with the name that Name gives them.
	Add(first, end int)
}

// RunLookup runs the suite of lookups.
func RunLookup(t *testing.T, c connector.Connector, newSystem func(*testing.T) LookupSystem) {
	t.Helper()
	lookuper, ok := c.(connector.Lookuper)
	if !ok || len(c.Spec().LookupOptions) == 0 {
		t.Fatal("the connector looks nothing up, or its spec has no options for it")
	}
	open := func(t *testing.T, s LookupSystem) connector.Lookup {
		t.Helper()
		l, err := lookuper.NewLookup(lookupSettings(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeTwice(t, l.Close) })
		return l
	}
	t.Run("Options", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		for _, spoil := range []func(*connector.LookupSettings){
			func(in *connector.LookupSettings) { in.With["nonsense"] = "x" },
			func(in *connector.LookupSettings) { in.Connection.Options["nonsense"] = "x" },
		} {
			in := lookupSettings(s)
			spoil(&in)
			_, err := lookuper.NewLookup(in)
			refusedOption(t, err)
		}
	})
	t.Run("Fetch", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		s.Add(0, 5000)
		l := open(t, s)
		for range 3 {
			fetch(t, l, 2000, 6000, 5000)
		}
		fetch(t, l, 7000, 7010, 5000)
	})
	t.Run("Cancel", func(t *testing.T) {
		t.Parallel()
		l := open(t, newSystem(t))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Fetch(ctx, idBatch(0, 1)); err == nil {
			t.Error("a context that has ended is not heeded")
		}
	})
	t.Run("DownAndUp", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		s.Add(0, 10)
		l := open(t, s)
		fetch(t, l, 0, 20, 10)
		s.Down()
		awayThenBack(t, s, func(ctx context.Context) error {
			_, err := l.Fetch(ctx, idBatch(0, 1))
			return err
		})
		fetch(t, l, 0, 20, 10)
	})
}

func lookupSettings(s LookupSystem) connector.LookupSettings {
	in := s.LookupSettings()
	in.Connection.Options, in.With = maps.Clone(in.Connection.Options), copyOf(in.With)
	in.Keys, in.Schema, in.Logger = Schema()[:1], Schema()[1:], slog.New(slog.DiscardHandler)
	return in
}

// idBatch is a batch of ids.
func idBatch(first, end int) *column.Batch {
	b := column.NewBatch(Schema()[:1])
	for id := first; id < end; id++ {
		b.Cols[0].AppendInt(int64(id))
		b.Len++
	}
	return b
}

// fetch asks for ids, of which those below known are there.
func fetch(t *testing.T, l connector.Lookup, first, end, known int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, err := l.Fetch(ctx, idBatch(first, end))
	if err != nil {
		t.Fatal(err)
	}
	if want := max(0, min(end, known)-first); len(found.Key) != want || found.Rows.Len != want || len(found.Unreadable) > 0 {
		t.Fatalf("%d rows for %d keys, want %d", found.Rows.Len, len(found.Key), want)
	}
	for i, key := range found.Key {
		if name := string(found.Rows.Cols[0].Bytes(i)); name != Name(first+int(key)) {
			t.Fatalf("the id %d has the name %q", first+int(key), name)
		}
	}
}

// SinkSystem is a system that is written to, made for one test and ended by the test's cleanup.
type SinkSystem interface {
	Outage
	// SinkSettings write rows of Schema. RunSink sets Schema and Logger.
	SinkSettings() connector.SinkSettings
	// Written is the ids that the system has, in the order in which they were written.
	Written() []int
}

// RunSink runs the suite of sinks.
func RunSink(t *testing.T, c connector.Connector, newSystem func(*testing.T) SinkSystem) {
	t.Helper()
	sinker, ok := c.(connector.Sinker)
	if !ok || len(c.Spec().WriteOptions) == 0 {
		t.Fatal("the connector writes nothing, or its spec has no options for it")
	}
	open := func(t *testing.T, s SinkSystem) connector.Sink {
		t.Helper()
		sink, err := sinker.NewSink(sinkSettings(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeTwice(t, sink.Close) })
		return sink
	}
	t.Run("Options", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		for _, spoil := range []func(*connector.SinkSettings){
			func(in *connector.SinkSettings) { in.With["nonsense"] = "x" },
			func(in *connector.SinkSettings) { in.Connection.Options["nonsense"] = "x" },
		} {
			in := sinkSettings(s)
			spoil(&in)
			_, err := sinker.NewSink(in)
			refusedOption(t, err)
		}
	})
	t.Run("Write", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		sink := open(t, s)
		flush(t, sink) // nothing waits
		put(t, sink, 0, 3000)
		put(t, sink, 3000, 5000)
		flush(t, sink)
		put(t, sink, 5000, 5001)
		flush(t, sink)
		flush(t, sink)
		wrote(t, s, 5001)
	})
	t.Run("CloseForgets", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		sink := open(t, s)
		put(t, sink, 0, 1)
		closeTwice(t, sink.Close)
		wrote(t, s, 0)
	})
	t.Run("DownAndUp", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		sink := open(t, s)
		put(t, sink, 0, 10)
		flush(t, sink)
		s.Down()
		put(t, sink, 10, 20)
		awayThenBack(t, s, func(ctx context.Context) error {
			_, err := sink.Flush(ctx)
			return err
		})
		put(t, sink, 20, 30)
		flush(t, sink)
		wrote(t, s, 30)
	})
}

func sinkSettings(s SinkSystem) connector.SinkSettings {
	in := s.SinkSettings()
	in.Connection.Options, in.With = maps.Clone(in.Connection.Options), copyOf(in.With)
	in.Schema, in.Logger = Schema(), slog.New(slog.DiscardHandler)
	return in
}

// put hands rows over and then scribbles over their memory, as the engine uses it again.
func put(t *testing.T, sink connector.Sink, first, end int) {
	t.Helper()
	b := column.NewBatch(Schema())
	for id := first; id < end; id++ {
		b.Cols[0].AppendInt(int64(id))
		b.Cols[1].AppendStr([]byte(Name(id)))
		b.Len++
	}
	held, failed := sink.Write(b)
	if held <= 0 || failed.Count > 0 {
		t.Fatalf("%d bytes wait, %d rows failed", held, failed.Count)
	}
	clear(b.Cols[0].Ints)
	clear(b.Cols[1].Data)
}

func flush(t *testing.T, sink connector.Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if failed, err := sink.Flush(ctx); err != nil || failed.Count > 0 {
		t.Fatalf("%d rows failed: %v", failed.Count, err)
	}
}

// wrote holds that the system has every id below n at least once.
func wrote(t *testing.T, s SinkSystem, n int) {
	t.Helper()
	ids := s.Written()
	slices.Sort(ids)
	want := make([]int, n)
	for i := range want {
		want[i] = i
	}
	if ids = slices.Compact(ids); !slices.Equal(ids, want) {
		t.Fatalf("the system has %d of %d rows", len(ids), n)
	}
}

// awayThenBack holds that a call fails while the system is down, in a way that can pass, and works when it is up again.
func awayThenBack(t *testing.T, s Outage, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := call(ctx)
	if _, permanent := errors.AsType[*connector.PermanentError](err); err == nil || permanent || ctx.Err() != nil {
		t.Fatalf("a system that is away gives %v", err)
	}
	s.Up()
	wait := backoff.Backoff{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond}
	for err = call(ctx); err != nil; err = call(ctx) {
		if wait.Wait(ctx) != nil {
			t.Fatalf("a system that is back gives %v", err)
		}
	}
}

func closeTwice(t *testing.T, end func() error) {
	t.Helper()
	for i := range 2 {
		if err := end(); err != nil {
			t.Error(fmt.Errorf("close, time %d: %w", i+1, err))
		}
	}
}

func refusedOption(t *testing.T, err error) {
	t.Helper()
	wrong, ok := errors.AsType[*connector.OptionError](err)
	if !ok || wrong.Option != "nonsense" || wrong.Message == "" {
		t.Errorf("an unknown option gives %v", err)
	}
}
