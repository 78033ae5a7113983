package stage_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// model is what a stage should hold, as plain maps.
type model struct {
	number  map[string]uint64
	cursors map[string]map[string]string
	entries map[string]map[string]string
	outbox  []string
	acked   uint64
}

func TestTheStageDoesWhatPlainMapsDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		s := stage.Settings{Dir: dir, MinFreeBytes: 1}
		// Some checkpoints fit into it, some fill it, and some are too large for it.
		stage.JournalBytes(&s, 160<<10)
		st := openModel(t, rt, s)
		defer func() {
			closeModel(rt, st)
			checkFiles(t, dir)
		}()
		m := model{number: map[string]uint64{}, cursors: map[string]map[string]string{}, entries: map[string]map[string]string{}}
		flows := rapid.SampledFrom([]string{"a", "b", "c"})
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) { m.commit(t, rt, st, flows.Draw(rt, "flow")) },
			"drop": func(rt *rapid.T) {
				flow := flows.Draw(rt, "flow")
				if err := st.DropFlow(t.Context(), flow); err != nil {
					rt.Fatal(err)
				}
				delete(m.number, flow)
				delete(m.cursors, flow)
				delete(m.entries, flow)
			},
			"acknowledge": func(rt *rapid.T) {
				upTo := rapid.Uint64Range(0, uint64(len(m.outbox))).Draw(rt, "up to")
				if err := st.Acknowledge(t.Context(), upTo); err != nil {
					rt.Fatal(err)
				}
				m.acked = max(m.acked, upTo)
			},
			"crash": func(rt *rapid.T) {
				st = crashModel(t, rt, st, s)
				// An acknowledgement is durable with the next commit.
				if got := st.Stats().Acknowledged; got <= m.acked {
					m.acked = got
				}
			},
			"restart": func(rt *rapid.T) {
				closeModel(rt, st)
				st = openModel(t, rt, s)
			},
			"": func(rt *rapid.T) { m.compare(t, rt, st) },
		})
	})
}

func openModel(t *testing.T, rt *rapid.T, s stage.Settings) *stage.Stage {
	t.Helper()
	st, err := stage.Open(t.Context(), s)
	if err != nil {
		rt.Fatal(err)
	}
	return st
}

// crashModel goes on with what the directory has at this moment, as after a killed process.
func crashModel(t *testing.T, rt *rapid.T, st *stage.Stage, s stage.Settings) *stage.Stage {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(s.Dir)); err != nil {
		rt.Fatal(err)
	}
	closeModel(rt, st)
	if err := errors.Join(os.RemoveAll(s.Dir), os.Rename(copied, s.Dir)); err != nil {
		rt.Fatal(err)
	}
	return openModel(t, rt, s)
}

func closeModel(rt *rapid.T, st *stage.Stage) {
	if err := st.Close(); err != nil {
		rt.Error(err)
	}
}

func (m *model) commit(t *testing.T, rt *rapid.T, st *stage.Stage, flow string) {
	t.Helper()
	c := stage.Checkpoint{Flow: flow, Number: m.number[flow] + 1, Cursors: map[string][]byte{}}
	if m.cursors[flow] == nil {
		m.cursors[flow], m.entries[flow] = map[string]string{}, map[string]string{}
	}
	for k, v := range rapid.MapOfN(rapid.SampledFrom([]string{"r1", "r2"}), rapid.String(), 0, 2).Draw(rt, "cursors") {
		c.Cursors[k] = []byte(v)
		m.cursors[flow][k] = v
	}
	for range rapid.IntRange(0, 4).Draw(rt, "changes") {
		change := stage.Change{Step: rapid.SampledFrom([]string{"s", "st"}).Draw(rt, "step"), Key: rapid.SampledFrom([]string{"", "k", "tk"}).Draw(rt, "key")}
		name := fmt.Sprintf("%q %q", change.Step, change.Key)
		if rapid.Bool().Draw(rt, "set") {
			change.Value = append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 9000).Draw(rt, "value")...)
			m.entries[flow][name] = string(change.Value)
		} else {
			delete(m.entries[flow], name)
		}
		c.Changes = append(c.Changes, change)
	}
	size := rapid.SampledFrom([]int{0, 10, 70_000}).Draw(rt, "size")
	for range rapid.IntRange(0, 12).Draw(rt, "insights") {
		p := fmt.Sprintf("%s %*d", flow, size, len(m.outbox))
		c.Insights = append(c.Insights, []byte(p))
		m.outbox = append(m.outbox, p)
	}
	last, err := st.Commit(t.Context(), c)
	if err != nil || last != uint64(len(m.outbox)) {
		rt.Fatalf("Commit gave %d, %v, want %d", last, err, len(m.outbox))
	}
	m.number[flow] = c.Number
}

func (m *model) compare(t *testing.T, rt *rapid.T, st *stage.Stage) {
	t.Helper()
	flows, err := st.Flows(t.Context())
	if err != nil || !slices.Equal(flows, slices.Sorted(maps.Keys(m.number))) {
		rt.Fatalf("the flows are %v, %v, want %v", flows, err, m.number)
	}
	for flow := range m.number {
		got, err := st.LoadFlow(t.Context(), flow)
		if err != nil {
			rt.Fatal(err)
		}
		cursors, entries := map[string]string{}, map[string]string{}
		for k, v := range got.Cursors {
			cursors[k] = string(v)
		}
		for step, e := range got.Operators {
			for k, v := range e {
				entries[fmt.Sprintf("%q %q", step, k)] = string(v)
			}
		}
		if got.Number != m.number[flow] || !maps.Equal(cursors, m.cursors[flow]) || !maps.Equal(entries, m.entries[flow]) {
			rt.Fatalf("flow %s is %+v", flow, got)
		}
	}
	waiting := m.outbox[m.acked:]
	if got := texts(readAll(t, st, m.acked)); !slices.Equal(got, waiting) {
		rt.Fatalf("the outbox has %d records, want %d", len(got), len(waiting))
	}
	bytes := uint64(0)
	for _, p := range waiting {
		bytes += uint64(len(p)) + 16
	}
	stats := st.Stats()
	if stats.Produced != uint64(len(m.outbox)) || stats.Acknowledged != m.acked || stats.WaitingBytes != bytes || stats.Lost != 0 {
		rt.Fatalf("stats are %+v, want %d waiting bytes", stats, bytes)
	}
}
