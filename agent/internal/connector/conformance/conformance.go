// Package conformance holds the behaviour that every connector must show.
//
// A connector's tests call Run with a harness around the real system. It is for tests only and keeps no state.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Schema is the columns of the records that a System adds: an id, and the name that Name gives it.
func Schema() expr.Schema {
	return expr.Schema{{Name: "id", Type: expr.Int}, {Name: "name", Type: expr.String}}
}

// Name is the name of the record with that id.
func Name(id int) string { return fmt.Sprintf("n%d", id) }

// System is one system of the plant, made for one test and ended by the test's cleanup.
type System interface {
	// Settings reads the records. Run sets Resume, Schema and Logger.
	Settings() connector.SourceSettings
	// Add makes the records from id first up to, but without, end. They come after those that are there.
	Add(first, end int)
	// AddBad makes one record that cannot be read as the Schema says.
	AddBad()
	// Down makes the system unreachable, Up reachable again with everything it had.
	Down()
	Up()
}

// Harness is how to test one connector.
type Harness struct {
	Connector connector.Connector
	// New makes a system without records.
	New func(t *testing.T) System
	// Records is how many records make several batches.
	Records int
}

// patience bounds every wait of a test.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Harness){
		"Options":       options,
		"Close":         closing,
		"ReadAll":       readAll,
		"Resume":        resume,
		"Cancel":        cancelled,
		"PrunedSchema":  pruned,
		"FailedRecords": failing,
		"DownAndUp":     downAndUp,
		"Quiet":         quiet,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h)
		})
	}
}

// run is a source of a test and what it delivered.
type run struct {
	t      *testing.T
	src    connector.Source
	ids    []int
	failed int64
	read   int64
	cursor connector.Cursor
	// cursors has, by how many records were read, the cursor behind them.
	cursors []mark
}

type mark struct {
	records int
	cursor  connector.Cursor
}

func settings(s System, schema expr.Schema, resume connector.Cursor) connector.SourceSettings {
	in := s.Settings()
	in.Schema, in.Declared, in.Resume, in.Logger = schema, Schema(), resume, slog.New(slog.DiscardHandler)
	return in
}

func start(t *testing.T, h Harness, s System, from connector.Cursor) *run {
	t.Helper()
	src, err := h.Connector.NewSource(settings(s, Schema(), from))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return &run{t: t, src: src, cursor: from}
}

func (r *run) add(d connector.Delivery) {
	r.t.Helper()
	r.failed += d.Failed.Count
	r.read += d.Read
	if d.Cursor != nil {
		r.cursor = d.Cursor
	}
	if d.Batch == nil {
		return
	}
	if len(d.Batch.Cols) != len(d.Batch.Schema) {
		r.t.Fatalf("a batch has %d columns and a schema of %d", len(d.Batch.Cols), len(d.Batch.Schema))
	}
	for i := range d.Batch.Len {
		id := int(d.Batch.Cols[0].Ints[i])
		if name := string(d.Batch.Cols[1].Bytes(i)); name != Name(id) {
			r.t.Fatalf("record %d has the name %q", id, name)
		}
		r.ids = append(r.ids, id)
	}
	r.cursors = append(r.cursors, mark{len(r.ids), slices.Clone(r.cursor)})
	// A caller may do with a batch what it likes until its next call.
	for i := range d.Batch.Cols {
		c := &d.Batch.Cols[i]
		clear(c.Ints)
		c.Data = append(c.Data, "more"...)
	}
}

// until reads until n records came, or to the end of a bounded source; then after each delivery.
func (r *run) until(n int, then func()) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for len(r.ids) < n {
		d, err := r.src.Next(ctx)
		if errors.Is(err, io.EOF) && r.src.Traits().Bounded {
			return
		}
		if err != nil {
			r.t.Fatalf("after %d of %d records: %v", len(r.ids), n, err)
		}
		r.add(d)
		then()
	}
}

func (r *run) commit() {
	r.t.Helper()
	committed(r.t, r.src, r.cursor)
}

// committed tells the source of a cursor, if there is one.
func committed(t *testing.T, src connector.Source, upTo connector.Cursor) {
	t.Helper()
	if upTo == nil {
		return
	}
	if err := src.Committed(t.Context(), upTo); err != nil {
		t.Fatal(err)
	}
}

func (r *run) want(first, end int) {
	r.t.Helper()
	if len(r.ids) != end-first {
		r.t.Fatalf("%d records, want %d", len(r.ids), end-first)
	}
	for i, id := range r.ids {
		if id != first+i {
			r.t.Fatalf("record %d is the one with id %d, want %d", i, id, first+i)
		}
	}
}

// prepare makes the system, lets a following source find its place before there is anything, and adds the records.
func prepare(t *testing.T, h Harness) (System, connector.Cursor) {
	t.Helper()
	s := h.New(t)
	r := start(t, h, s, nil)
	var cursor connector.Cursor
	if r.src.Traits().AckGated {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		d, err := r.src.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r.add(d)
		r.commit()
		cursor = r.cursor
	}
	if err := r.src.Close(); err != nil {
		t.Fatal(err)
	}
	s.Add(0, h.Records)
	return s, cursor
}

func readAll(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	r := start(t, h, s, cursor)
	r.until(h.Records, r.commit)
	r.want(0, h.Records)
	if r.read != int64(h.Records) || r.failed != 0 {
		t.Fatalf("read %d, failed %d", r.read, r.failed)
	}
}

// resume goes on from cursors: from any of them when the system keeps what it had, from the committed one otherwise.
func resume(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	r := start(t, h, s, cursor)
	traits := r.src.Traits()
	if !traits.Replayable {
		return
	}
	if traits.AckGated {
		resumeCommitted(t, h, s, r)
		return
	}
	r.until(h.Records, r.commit)
	r.want(0, h.Records)
	step := max(len(r.cursors)/8, 1)
	for i := 0; i < len(r.cursors); i += step {
		m := r.cursors[i]
		again := start(t, h, s, m.cursor)
		again.until(h.Records-m.records, again.commit)
		again.want(m.records, h.Records)
		if err := again.src.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// resumeCommitted restarts after every second delivery, of which only the first was committed.
func resumeCommitted(t *testing.T, h Harness, s System, r *run) {
	t.Helper()
	done := 0
	for rounds := 0; done < h.Records; rounds++ {
		if rounds > h.Records {
			t.Fatalf("only %d of %d records after %d rounds", done, h.Records, rounds)
		}
		r.until(1, r.commit)
		committed, n := r.cursor, len(r.ids)
		r.want(done, done+n)
		done += n
		if done < h.Records {
			r.until(n+1, func() {})
		}
		if err := r.src.Close(); err != nil {
			t.Fatal(err)
		}
		r = start(t, h, s, committed)
	}
}

func cancelled(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	r := start(t, h, s, cursor)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for len(r.ids) < h.Records {
		if _, err := r.src.Next(done); !errors.Is(err, context.Canceled) {
			t.Fatalf("Next with a context that has ended gives %v", err)
		}
		before := len(r.ids)
		r.until(before+1, r.commit)
		if len(r.ids) == before {
			break
		}
	}
	r.want(0, h.Records)
	if r.src.Traits().Bounded {
		return
	}
	waiting, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	for {
		d, err := r.src.Next(waiting)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil || d.Read > 0 {
			t.Fatalf("Next waits, and gives %d records and the error %v", d.Read, err)
		}
	}
	s.Add(h.Records, h.Records+1)
	r.until(h.Records+1, r.commit)
	r.want(0, h.Records+1)
}

func pruned(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	for _, schema := range []expr.Schema{Schema()[1:], {}} {
		in := settings(s, schema, cursor)
		in.Instance += fmt.Sprint(" ", len(schema))
		src, err := h.Connector.NewSource(in)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = src.Close() })
		rows, read := 0, int64(0)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if src.Traits().AckGated {
			if _, err := src.Next(ctx); err != nil {
				t.Fatal(err)
			}
			s.Add(0, h.Records)
		}
		for rows < h.Records {
			d, err := src.Next(ctx)
			if err != nil {
				t.Fatalf("after %d rows: %v", rows, err)
			}
			read += d.Read
			if d.Batch != nil {
				if len(d.Batch.Cols) != len(schema) {
					t.Fatalf("%d columns, want %d", len(d.Batch.Cols), len(schema))
				}
				for i := 0; len(schema) > 0 && i < d.Batch.Len; i++ {
					if got := string(d.Batch.Cols[0].Bytes(i)); got != Name((rows+i)%h.Records) {
						t.Fatalf("row %d has the name %q", rows+i, got)
					}
				}
				rows += d.Batch.Len
			}
			committed(t, src, d.Cursor)
		}
		if rows != h.Records || read != int64(rows) {
			t.Fatalf("%d rows of %d records read, want %d", rows, read, h.Records)
		}
	}
}

func failing(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	s.AddBad()
	s.Add(h.Records, h.Records+1)
	r := start(t, h, s, cursor)
	var sample []connector.FailedRecord
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(r.ids) < h.Records+1 {
		d, err := r.src.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		sample = append(sample, d.Failed.Sample...)
		r.add(d)
		r.commit()
	}
	r.want(0, h.Records+1)
	if r.failed != 1 || r.read != int64(h.Records+2) || len(sample) != 1 {
		t.Fatalf("failed %d, read %d, sample %v", r.failed, r.read, sample)
	}
	if f := sample[0]; f.Where == "" || f.Reason == "" || f.Record == "" {
		t.Fatalf("the sample says too little: %+v", f)
	}
}

func downAndUp(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	s.Down()
	r := start(t, h, s, cursor)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 3 {
		_, err := r.src.Next(ctx)
		var permanent *connector.PermanentError
		if err == nil || errors.Is(err, io.EOF) || errors.As(err, &permanent) || ctx.Err() != nil {
			t.Fatalf("a system that is down gives the error %v; want one that may pass", err)
		}
	}
	s.Up()
	b := backoff.Backoff{Min: 10 * time.Millisecond, Max: 200 * time.Millisecond}
	for len(r.ids) < h.Records {
		d, err := r.src.Next(ctx)
		if ctx.Err() != nil {
			t.Fatalf("after %d records: %v", len(r.ids), err)
		}
		if err != nil {
			if err := b.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		r.add(d)
		r.commit()
	}
	r.want(0, h.Records)
}

// quiet makes sure that a source without an end says once that it is connected and has nothing: at its first start, when
// it goes on from a cursor, and after the system was away; and that nothing is lost by that.
func quiet(t *testing.T, h Harness) {
	t.Helper()
	s := h.New(t)
	r := start(t, h, s, nil)
	if r.src.Traits().Bounded {
		return
	}
	r.saysQuiet()
	s.Add(0, 3)
	r.until(3, r.commit)
	if err := r.src.Close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, h, s, r.cursor)
	r.saysQuiet()
	s.Down()
	r.untilError()
	s.Up()
	r.saysQuiet()
	s.Add(3, 6)
	r.until(3, r.commit)
	r.want(3, 6)
	if err := r.src.Close(); err != nil {
		t.Fatal(err)
	}
	s.Add(6, 9)
	r = start(t, h, s, r.cursor)
	r.until(3, r.commit)
	r.want(6, 9)
}

// saysQuiet wants one empty delivery, after errors at most, and then none.
func (r *run) saysQuiet() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	b := backoff.Backoff{Min: 10 * time.Millisecond, Max: 200 * time.Millisecond}
	d, err := r.src.Next(ctx)
	for err != nil && b.Wait(ctx) == nil {
		d, err = r.src.Next(ctx)
	}
	if err != nil || d.Read > 0 || (d.Batch != nil && d.Batch.Len > 0) {
		r.t.Fatalf("a source that is connected and has nothing gives %d records and the error %v", d.Read, err)
	}
	r.add(d)
	r.commit()
	waiting, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if d, err := r.src.Next(waiting); !errors.Is(err, context.DeadlineExceeded) {
		r.t.Fatalf("a source that has said that it has nothing gives %d records and the error %v", d.Read, err)
	}
}

// untilError reads until the source notices that its system is away.
func (r *run) untilError() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for {
		d, err := r.src.Next(ctx)
		if ctx.Err() != nil {
			r.t.Fatal("a source does not notice that its system is away")
		}
		if err != nil {
			return
		}
		r.add(d)
	}
}

func closing(t *testing.T, h Harness) {
	t.Helper()
	s, cursor := prepare(t, h)
	unused, err := h.Connector.NewSource(settings(s, Schema(), cursor))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, h, s, cursor)
	r.until(1, r.commit)
	for _, src := range []connector.Source{unused, r.src} {
		for range 2 {
			if err := src.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := src.Next(t.Context()); err == nil {
			t.Fatal("Next after Close gives a delivery")
		}
	}
}

// options checks that what is wrong with options is an OptionError that names the option.
func options(t *testing.T, h Harness) {
	t.Helper()
	good := h.New(t)
	spec := h.Connector.Spec()
	refused := func(option string, change func(*connector.SourceSettings)) {
		t.Helper()
		in := settings(good, Schema(), nil)
		in.Connection.Options, in.With = copyOf(in.Connection.Options), copyOf(in.With)
		change(&in)
		_, err := h.Connector.NewSource(in)
		var wrong *connector.OptionError
		if !errors.As(err, &wrong) || wrong.Option != option || wrong.Message == "" {
			t.Errorf("option %s: error %v", option, err)
		}
	}
	refused("nonsense", func(in *connector.SourceSettings) { in.Connection.Options["nonsense"] = "x" })
	refused("nonsense", func(in *connector.SourceSettings) { in.With["nonsense"] = "x" })
	for _, o := range spec.Options {
		if o.Required {
			refused(o.Name, func(in *connector.SourceSettings) { delete(in.Connection.Options, o.Name) })
		}
		if o.Type != flowdef.OptionString {
			refused(o.Name, func(in *connector.SourceSettings) { in.Connection.Options[o.Name] = []any{"x"} })
		}
	}
	for _, o := range spec.ReadOptions {
		if o.Required {
			refused(o.Name, func(in *connector.SourceSettings) { delete(in.With, o.Name) })
		}
		refused(o.Name, func(in *connector.SourceSettings) { in.With[o.Name] = []any{"x"} })
	}
	in := settings(good, Schema(), connector.Cursor("\xffnot a cursor"))
	if src, err := h.Connector.NewSource(in); err == nil {
		_ = src.Close()
		t.Error("a cursor that is none is accepted")
	}
}

func copyOf(m map[string]any) map[string]any {
	c := make(map[string]any, len(m)+1)
	maps.Copy(c, m)
	return c
}
