package sqloracle

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// cut says how a run gets its input: batches of up to size rows, and an error that ends the run before a row of its own
// choice; the next run goes on from what was committed.
type cut struct {
	*rand.Rand
	size int
	// breaks is how many times the run is ended and begun anew.
	breaks int
}

// errBreak ends a run.
var errBreak = errors.New("the test ends the run here")

// source gives the rows of a table.
type source struct {
	table *table
	need  engine.ReadNeed
	cut   *cut
	at    int
	batch *column.Batch
}

func (s *source) Traits() connector.Traits {
	return connector.Traits{Bounded: true, Replayable: true}
}

func (s *source) Next(context.Context) (connector.Delivery, error) {
	if s.at >= len(s.table.Rows) {
		return connector.Delivery{}, io.EOF
	}
	if s.cut.breaks > 0 && s.cut.IntN(3) == 0 {
		s.cut.breaks--
		return connector.Delivery{}, &connector.PermanentError{Err: errBreak}
	}
	n := min(1+s.cut.IntN(s.cut.size), len(s.table.Rows)-s.at)
	s.batch = column.NewBatch(s.need.Schema)
	for _, row := range s.table.Rows[s.at : s.at+n] {
		for i, c := range s.need.Schema {
			put(&s.batch.Cols[i], row[s.table.Schema.Index(c.Name)])
		}
		s.batch.Len++
	}
	s.at += n
	return connector.Delivery{Batch: s.batch, Cursor: binary.AppendUvarint(nil, uint64(s.at)), Read: int64(n)}, nil //nolint:gosec // a row number
}

func put(c *column.Column, v any) {
	switch v := v.(type) {
	case nil:
		c.AppendNull()
	case bool:
		c.AppendBool(v)
	case int64:
		c.AppendInt(v)
	case float64:
		c.AppendFloat(v)
	case string:
		c.AppendStr([]byte(v))
	}
}

func (*source) Committed(context.Context, connector.Cursor) error { return nil }
func (*source) Close() error                                      { return nil }

// store keeps what a run commits.
type store struct {
	cursors   map[string]connector.Cursor
	operators map[string]map[string][]byte
	lines     []string
}

func newStore() *store {
	return &store{cursors: map[string]connector.Cursor{}, operators: map[string]map[string][]byte{}}
}

func (s *store) Load(context.Context) (engine.State, error) {
	state := engine.State{Cursors: maps.Clone(s.cursors), Operators: map[string]map[string][]byte{}}
	for step, entries := range s.operators {
		state.Operators[step] = maps.Clone(entries)
	}
	return state, nil
}

func (s *store) Commit(_ context.Context, c engine.Checkpoint) error {
	maps.Copy(s.cursors, c.Cursors)
	for _, change := range c.Changes {
		if s.operators[change.Step] == nil {
			s.operators[change.Step] = map[string][]byte{}
		}
		if change.Value == nil {
			delete(s.operators[change.Step], change.Key)
		} else {
			s.operators[change.Step][change.Key] = bytes.Clone(change.Value)
		}
	}
	for i := range c.Insights {
		s.lines = append(s.lines, string(c.Insights[i].Values))
	}
	return nil
}

// here runs the flow in the engine and gives the insights' values, a JSON object a line.
func (c *testCase) here(ctx context.Context, by *cut) ([]string, error) {
	plan, err := flowdef.CheckText([]byte(c.Flow), flowdef.Environment{})
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	program, err := engine.Compile(plan)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	kept := newStore()
	for {
		report, err := engine.Run(ctx, engine.RunSettings{
			Program: program, Store: kept, Started: time.Unix(0, 0), CommitRows: int64(by.size),
			Open: func(need engine.ReadNeed, from connector.Cursor) (connector.Source, error) {
				at, _ := binary.Uvarint(from)
				return &source{table: c.table(need.Connection), need: need, cut: by, at: int(at)}, nil //nolint:gosec // a row number
			},
		})
		if errors.Is(err, errBreak) {
			continue
		}
		if err == nil && report.Late > 0 {
			err = fmt.Errorf("%d rows came late in a run that ends", report.Late)
		}
		return kept.lines, err
	}
}

func (c *testCase) table(name string) *table {
	for _, t := range c.Tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// decodeLines reads insights into rows of the case's columns.
func (c *testCase) decodeLines(lines []string) ([][]any, error) {
	var out [][]any
	for _, line := range lines {
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		var members map[string]any
		if err := d.Decode(&members); err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		row := make([]any, len(c.Schema))
		for i, col := range c.Schema {
			v, there := members[col.Name]
			if !there {
				return nil, fmt.Errorf("%s has no %q", line, col.Name)
			}
			row[i] = fromJSON(v, col.Type)
		}
		out = append(out, row)
	}
	return out, nil
}

func fromJSON(v any, t expr.Type) any {
	switch n := v.(type) {
	case json.Number:
		if t == expr.Int {
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
		f, err := n.Float64()
		if err != nil {
			return err
		}
		return f
	case string:
		if t == expr.Float {
			return map[string]float64{"NaN": nan, "Infinity": infinity, "-Infinity": -infinity}[n]
		}
	}
	return v
}
