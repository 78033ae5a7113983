package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// plan checks the text of a flow.
func plan(tb testing.TB, text string) *flowdef.Plan {
	tb.Helper()
	p, err := flowdef.CheckText([]byte(text), flowdef.Environment{})
	if err != nil {
		tb.Fatalf("the flow does not check: %v\n%s", err, text)
	}
	return p
}

func program(tb testing.TB, text string) *Program {
	tb.Helper()
	p, err := Compile(plan(tb, text))
	if err != nil {
		tb.Fatalf("Compile: %v", err)
	}
	return p
}

// table is rows in memory, column by column of a schema.
type table struct {
	schema expr.Schema
	rows   []map[string]any
}

// memory is a source over a table: batches of size rows, cursors that count rows, faults where the test wants them.
type memory struct {
	data   *table
	need   ReadNeed
	size   int
	at     int
	traits connector.Traits
	batch  *column.Batch

	// faults are errors to give instead of a batch, by the row they come before.
	faults map[int]error
	// onNext sees every call.
	onNext func(at int)

	mu        sync.Mutex
	committed []connector.Cursor
	closed    bool
}

func newMemory(need ReadNeed, from connector.Cursor, data *table, size int) *memory {
	m := &memory{data: data, need: need, size: size, traits: connector.Traits{Bounded: true, Replayable: true}}
	if from != nil {
		m.at = int(binary.BigEndian.Uint64(from)) //nolint:gosec // a row of a test
	}
	return m
}

func cursorAt(row int) connector.Cursor {
	return binary.BigEndian.AppendUint64(nil, uint64(row)) //nolint:gosec // a row of a test
}

func (m *memory) Traits() connector.Traits { return m.traits }

func (m *memory) Next(ctx context.Context) (connector.Delivery, error) {
	if m.onNext != nil {
		m.onNext(m.at)
	}
	if err := m.faults[m.at]; err != nil {
		delete(m.faults, m.at)
		return connector.Delivery{}, err
	}
	n := min(m.size, len(m.data.rows)-m.at)
	if n <= 0 {
		if m.traits.Bounded {
			return connector.Delivery{}, io.EOF
		}
		<-ctx.Done()
		return connector.Delivery{}, ctx.Err()
	}
	// Scribble over the last batch: whoever still reads it gets nonsense.
	if m.batch != nil {
		for i := range m.batch.Cols {
			c := &m.batch.Cols[i]
			for j := range c.Data {
				c.Data[j] = '#'
			}
			for j := range c.Ints {
				c.Ints[j] = -77
			}
			for j := range c.Floats {
				c.Floats[j] = -77
			}
		}
	} else {
		m.batch = column.NewBatch(m.need.Schema)
	}
	m.batch.Reset()
	var err error
	for _, row := range m.data.rows[m.at : m.at+n] {
		for i := range m.need.Schema {
			err = errors.Join(err, appendGiven(&m.batch.Cols[i], row[m.need.Schema[i].Name]))
		}
		m.batch.Len++
	}
	m.at += n
	return connector.Delivery{Batch: m.batch, Cursor: cursorAt(m.at), Read: int64(n), Bytes: int64(10 * n)}, err
}

func (m *memory) Committed(_ context.Context, upTo connector.Cursor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed = append(m.committed, upTo)
	return nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// memStore is a Store in memory. It copies, as the contract asks.
type memStore struct {
	mu       sync.Mutex
	state    State
	insights []Insight
	commits  int
	late     int64
	// fail gives the error of a commit; applied says that it took effect all the same.
	fail func(commit int) (err error, applied bool)
	// onCommit sees every commit that took effect.
	onCommit func(s *memStore)
}

func newStore() *memStore {
	return &memStore{state: State{Cursors: map[string]connector.Cursor{}, Operators: map[string]map[string][]byte{}}}
}

func (s *memStore) Load(context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cloneState(s.state), nil
}

func cloneState(s State) State {
	out := State{Cursors: maps.Clone(s.Cursors), Operators: map[string]map[string][]byte{}}
	for step, entries := range s.Operators {
		out.Operators[step] = maps.Clone(entries)
	}
	return out
}

func (s *memStore) Commit(_ context.Context, c Checkpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	if s.fail != nil {
		err, applied := s.fail(s.commits)
		if applied {
			s.apply(&c)
		}
		if err != nil {
			return err
		}
		if applied {
			return nil
		}
	}
	s.apply(&c)
	return nil
}

func (s *memStore) apply(c *Checkpoint) {
	s.late += c.Late
	for step, cursor := range c.Cursors {
		s.state.Cursors[step] = slices.Clone(cursor)
	}
	for _, ch := range c.Changes {
		entries := s.state.Operators[ch.Step]
		if entries == nil {
			entries = map[string][]byte{}
			s.state.Operators[ch.Step] = entries
		}
		if ch.Value == nil {
			delete(entries, ch.Key)
		} else {
			entries[ch.Key] = slices.Clone(ch.Value)
		}
	}
	if c.Earlier != nil {
		for in, err := range c.Earlier {
			if err != nil {
				panic(err)
			}
			in.Key, in.Values = slices.Clone(in.Key), slices.Clone(in.Values)
			s.insights = append(s.insights, in)
		}
	}
	for _, in := range c.Insights {
		in.Key, in.Values = slices.Clone(in.Key), slices.Clone(in.Values)
		s.insights = append(s.insights, in)
	}
	if s.onCommit != nil {
		s.onCommit(s)
	}
}

func (s *memStore) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return insightLines(s.insights)
}

func insightLines(list []Insight) []string {
	lines := make([]string, 0, len(list))
	for _, in := range list {
		lines = append(lines, in.Name+" "+expr.FormatTimestamp(in.Time)+" "+string(in.Key)+" "+string(in.Values))
	}
	return lines
}

// opener opens memory sources over tables by step.
func opener(tables map[string]*table, size int) func(ReadNeed, connector.Cursor) (connector.Source, error) {
	return func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		data := tables[need.Step]
		if data == nil {
			data = &table{}
		}
		return newMemory(need, from, data, size), nil
	}
}

// leftBehind counts the entries of state that are not what aggregates along time carry on to the next run.
func leftBehind(entries map[string][]byte, text string) (left int) {
	carried := 0
	for key := range entries {
		if key[0] == carryPrefix && alongTime.MatchString(text) {
			carried++
		} else if key != metaKey {
			left++
		}
	}
	if _, meta := entries[metaKey]; meta && carried == 0 {
		left++
	}
	return left
}

var alongTime = regexp.MustCompile(`(increase|rate|time_weighted_avg|duration_where)\(`)

// runBounded runs a flow over tables to its end.
func runBounded(tb testing.TB, text string, tables map[string]*table, size int) ([]string, Report) {
	tb.Helper()
	store := newStore()
	report, err := Run(tb.Context(), RunSettings{
		Program: program(tb, text), Store: store, Open: opener(tables, size), Started: time.Unix(0, 0),
	})
	if err != nil {
		tb.Fatalf("Run: %v", err)
	}
	for step, entries := range store.state.Operators {
		if left := leftBehind(entries, text); left > 0 {
			tb.Errorf("step %s left %d entries of state behind a run that ended", step, left)
		}
	}
	return store.lines(), report
}

func sameLines(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		g, w := "-", "-"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			tb.Fatalf("%s: line %d of %d is\n  %s\nwant (of %d)\n  %s", what, i+1, len(got), g, len(want), w)
		}
	}
}

// recorder is a store that shows its checkpoints.
type recorder struct {
	*memStore
	see func(Checkpoint)
}

func (r recorder) Commit(ctx context.Context, c Checkpoint) error {
	r.see(c)
	return r.memStore.Commit(ctx, c)
}

// runUntilRead runs an endless stream until its source was asked for more than there is.
func runUntilRead(tb testing.TB, set RunSettings, data *table) {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(tb.Context())
	defer cancel(nil)
	done := errors.New("all read")
	open := set.Open
	set.Open = func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		source, err := open(need, from)
		if m, ok := source.(*memory); ok && need.Role == RoleStream {
			m.onNext = func(at int) {
				if at >= len(data.rows) {
					cancel(done)
				}
			}
		}
		return source, err
	}
	if _, err := Run(ctx, set); !errors.Is(err, done) {
		tb.Fatalf("Run: %v", err)
	}
}
