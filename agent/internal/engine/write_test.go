package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

const resultsFlow = `
flow: results
steps:
  - id: made
    read: press
    schema: {ts: timestamp, n: int, note: string}
  - id: results
    write: mes
    with: {table: results}
  - filter: n >= 100
  - insight: high
    time: ts
`

// mes is a system that is written to. It refuses a negative n.
type mes struct {
	held    []int64
	rows    []int64
	text    int64
	faults  []error
	flushes int
	onFlush func()
	closed  int
}

func (m *mes) Write(b *column.Batch) (int64, connector.Failures) {
	for i := range b.Len {
		m.held = append(m.held, b.Cols[1].Ints[i])
		m.text += int64(b.Cols[2].Strs[i].Len)
	}
	return m.text, connector.Failures{}
}

func (m *mes) Flush(ctx context.Context) (failed connector.Failures, err error) {
	if m.flushes++; m.onFlush != nil {
		m.onFlush()
	}
	if ctx.Err() != nil {
		return failed, ctx.Err()
	}
	if len(m.faults) > 0 {
		err, m.faults = m.faults[0], m.faults[1:]
		return failed, err
	}
	for _, n := range m.held {
		if n < 0 {
			failed.Add(connector.FailedRecord{Where: "table results", Reason: "n is negative", Record: strconv.FormatInt(n, 10)})
		} else {
			m.rows = append(m.rows, n)
		}
	}
	m.held, m.text = m.held[:0], 0
	return failed, nil
}

func (m *mes) Close() error { m.closed++; return nil }

func resultsRun(tb testing.TB, text string, m *mes, store Store, ns ...int64) RunSettings {
	tb.Helper()
	data := &table{}
	for i, n := range ns {
		data.rows = append(data.rows, map[string]any{"ts": int64(i) * 1000, "n": n, "note": "x"})
	}
	return RunSettings{
		Program: program(tb, text), Store: store, Open: opener(map[string]*table{"made": data}, 2), Started: time.Unix(0, 0),
		OpenSink: func(need WriteNeed) (connector.Sink, error) {
			if names := need.Schema.Names(); strings.Join(names, " ") != "ts n note" {
				tb.Errorf("the sink gets %v", names)
			}
			return m, nil
		},
	}
}

func TestWriteIsFlushedBeforeTheCommit(t *testing.T) {
	t.Parallel()
	m, store := &mes{}, newStore()
	store.onCommit = func(s *memStore) {
		if at := s.state.Cursors["made"]; len(m.held) > 0 || len(m.rows) == 0 {
			t.Errorf("a commit of %v while %v wait", at, m.held)
		}
	}
	set := resultsRun(t, resultsFlow, m, store, 1, 200, -3, 400)
	set.CommitRows = 2
	report, err := Run(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(m.rows) != "[1 200 400]" || len(store.insights) != 2 || m.closed != 1 {
		t.Errorf("written %v, %d insights, closed %d times", m.rows, len(store.insights), m.closed)
	}
	if report.Failed != 1 || report.Sample[0].Step != "results" || !strings.Contains(report.Sample[0].Reason, "negative") {
		t.Errorf("the report says %+v", report)
	}
	if last := report.Sources[len(report.Sources)-1]; last.Step != "results" || last.Connection != "mes" || last.State != "ended" {
		t.Errorf("the report says %+v", last)
	}
}

func TestWriteAloneEndsAFlow(t *testing.T) {
	t.Parallel()
	text, _, _ := strings.Cut(resultsFlow, "  - filter")
	m := &mes{}
	if _, err := Run(t.Context(), resultsRun(t, text, m, newStore(), 1, 2)); err != nil || len(m.rows) != 2 {
		t.Errorf("%v, written %v", err, m.rows)
	}
}

func TestWriteIsRepeatedAfterACrash(t *testing.T) {
	t.Parallel()
	crash := fmt.Errorf("%w: killed", ErrCannotCommit)
	m, store := &mes{}, newStore()
	store.fail = func(commit int) (error, bool) {
		if commit == 2 {
			return crash, false
		}
		return nil, true
	}
	set := resultsRun(t, resultsFlow, m, store, 1, 2, 3, 4, 5, 6)
	set.CommitRows = 2
	if _, err := Run(t.Context(), set); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.rows); got != "[1 2 3 4 3 4 5 6]" {
		t.Errorf("written %s", got)
	}
}

func TestWriteWaitsForItsSystem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, store := &mes{faults: []error{errors.New("away"), errors.New("away")}}, newStore()
		r := NewRunner(resultsRun(t, resultsFlow, m, store, 1, 2, 3))
		failing := false
		m.onFlush = func() { failing = failing || r.Report().Sources[1].Error == "away" }
		if err := r.Run(t.Context()); err != nil || !failing || len(m.rows) != 3 || m.flushes != 3 {
			t.Errorf("%v, failing %t, written %v by %d flushes", err, failing, m.rows, m.flushes)
		}
	})
}

func TestWriteThatCannotWorkEndsTheRun(t *testing.T) {
	t.Parallel()
	m, store := &mes{faults: []error{&connector.PermanentError{Err: errors.New("no such table")}}}, newStore()
	_, err := Run(t.Context(), resultsRun(t, resultsFlow, m, store, 1, 200))
	if err == nil || strings.Count(err.Error(), "step results: connection mes: no such table") != 1 || store.commits != 0 || m.flushes != 1 {
		t.Errorf("%v, %d commits, %d flushes", err, store.commits, m.flushes)
	}
}

func TestRefusedRowStopsAFlowThatSaysSo(t *testing.T) {
	t.Parallel()
	m, store := &mes{}, newStore()
	_, err := Run(t.Context(), resultsRun(t, strings.Replace(resultsFlow, "steps:", "on_error: stop\nsteps:", 1), m, store, 1, 200, -3))
	var stopped *StoppedError
	if !errors.As(err, &stopped) || stopped.Step != "results" || store.commits != 1 {
		t.Errorf("%v, %d commits", err, store.commits)
	}
}

func TestWriteHoldsABoundedPart(t *testing.T) {
	t.Parallel()
	m := &mes{text: maxHeldBytes}
	if _, err := Run(t.Context(), resultsRun(t, resultsFlow, m, newStore(), 1, 2, 3, 4)); err != nil || m.flushes != 2 {
		t.Errorf("%v, %d flushes", err, m.flushes)
	}
}

func TestTableThroughAWriteIsWrittenOnce(t *testing.T) {
	t.Parallel()
	m := &mes{}
	text, _, _ := strings.Cut(resultsFlow, "  - filter")
	text += `
  - id: again
    read: press
    schema: {n: int}
  - join: results
    on: [n]
  - insight: joined
    time: ts
`
	set := resultsRun(t, text, m, newStore(), 1, 2)
	if _, err := Run(t.Context(), set); err != nil || fmt.Sprint(m.rows) != "[1 2]" {
		t.Errorf("%v, written %v", err, m.rows)
	}
}

// forgetful takes rows and forgets them.
type forgetful struct{ rows int64 }

func (f *forgetful) Write(b *column.Batch) (int64, connector.Failures) {
	f.rows += int64(b.Len)
	return 0, connector.Failures{}
}

func (*forgetful) Flush(context.Context) (connector.Failures, error) {
	return connector.Failures{}, nil
}
func (*forgetful) Close() error { return nil }

// BenchmarkWrite is the step alone, without its system.
func BenchmarkWrite(b *testing.B) {
	p := program(b, strings.Replace(resultsFlow, "n >= 100", "n < 0", 1))
	pipe, err := p.main.instantiate(func(int) span { return endless }, 0)
	if err != nil {
		b.Fatal(err)
	}
	pipe.writers[0].sink = &forgetful{}
	batch := column.NewBatch(p.main.reads[0].need.Schema)
	for i := range column.TargetRows {
		batch.Cols[0].AppendInt(int64(i))
		batch.Cols[1].AppendInt(int64(i))
		batch.Cols[2].AppendStr([]byte("x"))
		batch.Len++
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := pipe.sources[0].push(batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/column.TargetRows, "ns/row")
}
