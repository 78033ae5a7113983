package engine

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

const twoStreamsFlow = `
flow: two
trigger: continuous
steps:
  - id: left
    read: a
    schema: {n: int}
  - id: right
    read: a
    schema: {n: int}
  - union: [left, right]
  - filter: n >= 0
  - insight: out
    key: [n]
`

// TestSourcesWorkOneAfterTheOther has two sources deliver at the same time: every row arrives, and the operators, which are
// not made for two goroutines, are used by one at a time (what the race detector sees).
func TestSourcesWorkOneAfterTheOther(t *testing.T) {
	t.Parallel()
	const rows = 20_000
	data := &table{}
	for i := range rows {
		data.rows = append(data.rows, map[string]any{"n": int64(i)})
	}
	store := newStore()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := Run(ctx, RunSettings{
		Program: program(t, twoStreamsFlow), Store: store, CommitEvery: time.Millisecond,
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			source := newMemory(need, from, data, 10)
			source.traits.Bounded = false
			return &ending{memory: source, rows: rows}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Read != 2*rows || len(store.insights) != 2*rows {
		t.Errorf("%d rows were read and %d insights made, want %d", report.Read, len(store.insights), 2*rows)
	}
}

// ending is a stream that ends after all.
type ending struct {
	*memory
	rows int
}

func (e *ending) Next(ctx context.Context) (connector.Delivery, error) {
	if e.at == e.rows {
		return connector.Delivery{}, io.EOF
	}
	return e.memory.Next(ctx)
}

// TestNothingIsDoneAfterAFailure has one source fail for good while another one delivers: nothing is processed or committed
// after Run has returned, and its error is the failure.
func TestNothingIsDoneAfterAFailure(t *testing.T) {
	t.Parallel()
	data := &table{}
	for i := range 50_000 {
		data.rows = append(data.rows, map[string]any{"n": int64(i)})
	}
	failure := &connector.PermanentError{Err: errors.New("the tag is not there")}
	store := newStore()
	var over, after atomic.Bool
	store.onCommit = func(*memStore) {
		if over.Load() {
			after.Store(true)
		}
	}
	report, err := Run(t.Context(), RunSettings{
		Program: program(t, twoStreamsFlow), Store: store, CommitEvery: time.Millisecond,
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			source := newMemory(need, from, data, 1)
			source.traits.Bounded = false
			if need.Step == "right" {
				source.faults = map[int]error{500: failure}
			}
			return source, nil
		},
	})
	over.Store(true)
	if !errors.Is(err, failure) {
		t.Errorf("the run ended with %v", err)
	}
	if int64(len(store.insights)) != report.Insights {
		t.Errorf("%d insights are stored and %d reported", len(store.insights), report.Insights)
	}
	if after.Load() {
		t.Error("a commit came after the end of the run")
	}
}
