package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// givenLookup answers from the rows that a test gives to a lookup step. It asks no system.
type givenLookup struct {
	keys *keyTable
	side *keySide
	// rowsOf are the given rows of each key, by its entry.
	rowsOf  [][]int32
	rows    *column.Batch
	answer  *column.Batch
	entries []int32
}

func newGivenLookup(need ReadNeed, rows []map[string]any) (*givenLookup, error) {
	given, err := newGivenSource(ReadNeed{Schema: append(slices.Clip(need.Keys), need.Schema...)}, rows, 1)
	if err != nil {
		return nil, fmt.Errorf("the rows given to %s: %w", need.Step, err)
	}
	b := given.rows
	l := &givenLookup{
		keys: newKeyTable(typesOf(need.Keys, firstPositions(len(need.Keys)))), side: newKeySide(firstPositions(len(need.Keys))),
		rows:   &column.Batch{Schema: need.Schema, Len: b.Len, Cols: b.Cols[len(need.Keys):]},
		answer: column.NewBatch(need.Schema),
	}
	keys := l.side.load(b)
	entries, err := l.keys.assign(keys, nil)
	if err != nil {
		return nil, err
	}
	l.rowsOf = make([][]int32, l.keys.len())
	for i, e := range entries {
		l.rowsOf[e] = append(l.rowsOf[e], keys.rows[i])
	}
	return l, nil
}

func firstPositions(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// Fetch gives the rows that the test gives.
func (l *givenLookup) Fetch(_ context.Context, keys *column.Batch) (connector.Found, error) {
	l.answer.Reset()
	var of []int32
	l.entries = l.keys.lookup(l.side.load(keys), l.entries)
	for i, e := range l.entries {
		if e == noEntry {
			continue
		}
		for _, row := range l.rowsOf[e] {
			of = append(of, i32(i))
			l.answer.AppendRow(l.rows, int(row))
		}
	}
	return connector.Found{Rows: l.answer, Key: of}, nil
}

// Close has nothing to do.
func (*givenLookup) Close() error { return nil }

// collectingSink keeps the rows that a test's flow would write. It writes nowhere.
type collectingSink struct {
	keep  func(row map[string]any)
	guard *testGuard
	held  []map[string]any
	err   error
}

// newSink makes the sink of a write step, whose rows are compared under the step's id unless an insight has that name.
func (c *collector) newSink(need WriteNeed, plan *flowdef.Plan) connector.Sink {
	for i := range plan.Steps {
		if in := plan.Steps[i].Insight; in != nil && in.Name == need.Step {
			return &collectingSink{guard: c.guard, keep: func(map[string]any) {}}
		}
	}
	return &collectingSink{guard: c.guard, keep: func(row map[string]any) { c.insights[need.Step] = append(c.insights[need.Step], row) }}
}

// Write takes the rows as values.
func (s *collectingSink) Write(b *column.Batch) (held int64, failed connector.Failures) {
	for row := range b.Len {
		if s.err != nil {
			break
		}
		members := map[string]any{}
		text := describeRow(b, row)
		if s.err = s.guard.collected(len(text)); s.err != nil {
			break
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&members); err != nil {
			s.err = fmt.Errorf("a row to write is not JSON: %w", err)
		}
		s.held = append(s.held, members)
	}
	return 0, connector.Failures{}
}

// Flush keeps the rows.
func (s *collectingSink) Flush(context.Context) (connector.Failures, error) {
	for _, row := range s.held {
		s.keep(row)
	}
	s.held = s.held[:0]
	if s.err != nil {
		return connector.Failures{}, &connector.PermanentError{Err: s.err}
	}
	return connector.Failures{}, nil
}

// Close has nothing to do.
func (*collectingSink) Close() error { return nil }
