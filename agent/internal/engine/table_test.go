package engine

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

const refreshFlow = `
flow: scrap
trigger: continuous
steps:
  - id: counts
    read: plc
    schema: {at: timestamp, ord: int}
  - id: orders
    read: mes
    refresh: 10s
    schema: {ord: int, customer: string}
  - id: joined
    join: orders
    from: counts
    on: [ord]
    type: left
  - insight: scrap
    key: [ord]
    time: at
`

// paced is an endless source that waits before each row.
type paced struct {
	*memory
	every time.Duration
}

func (p *paced) Next(ctx context.Context) (connector.Delivery, error) {
	t := time.NewTimer(p.every)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return connector.Delivery{}, ctx.Err()
	case <-t.C:
	}
	return p.memory.Next(ctx)
}

func TestATableIsReadAgainAndAFailureKeepsTheOldOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stream := &table{}
		for range 6 {
			stream.rows = append(stream.rows, map[string]any{"at": "2026-01-01", "ord": int64(1)})
		}
		var mu sync.Mutex
		loads := 0
		var runner *Runner
		ctx, cancel := context.WithTimeout(t.Context(), 65*time.Second)
		defer cancel()
		store := newStore()
		runner = NewRunner(RunSettings{
			Program: program(t, refreshFlow), Store: store,
			Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
				if need.Role == RoleStream {
					m := newMemory(need, from, stream, 1)
					m.traits.Bounded = false
					return &paced{m, 9 * time.Second}, nil // rows at 9, 18, 27, 36, 45, 54 s
				}
				mu.Lock()
				defer mu.Unlock()
				loads++ // at 0, 10, 20, 30, …
				m := newMemory(need, from, &table{rows: []map[string]any{{"ord": int64(1), "customer": "C" + strconv.Itoa(loads)}}}, 1)
				if loads == 3 {
					m.faults = map[int]error{0: &connector.PermanentError{Err: errors.New("the MES refused the password")}}
				}
				return m, nil
			},
		})
		states := make(chan string, 1)
		time.AfterFunc(25*time.Second, func() {
			s := runner.Report().Sources[1]
			states <- s.Step + " " + s.State + " " + s.Error
		})
		if err := runner.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if got := <-states; got != "orders failing the MES refused the password" {
			t.Errorf("after the failed refresh the source is %q", got)
		}
		if got := runner.Report().Sources[1]; got.State != "reading" || got.Error != "" {
			t.Errorf("in the end the source is %+v", got)
		}
		var customers []string
		for _, line := range store.lines() {
			customers = append(customers, line[strings.Index(line, `"C`)+2:strings.Index(line, `"C`)+3])
		}
		if got := strings.Join(customers, ""); got != "122456" {
			t.Errorf("the rows met the tables %s, want 122456", got)
		}
	})
}

func TestAJoinOfTwoStreamsIsRefused(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), RunSettings{
		Program: program(t, refreshFlow), Store: newStore(),
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			m := newMemory(need, from, &table{}, 1)
			m.traits.Bounded = false
			return m, nil
		},
	})
	if err == nil || !strings.Contains(err.Error(), "orders") || !strings.Contains(err.Error(), "joined") {
		t.Errorf("the error is %v", err)
	}
}

func TestFlowTests(t *testing.T) {
	t.Parallel()
	text := pressFlow + `
tests:
  - name: an idle press says nothing
    given: {readings: [{ts: "2026-01-01T00:00:00Z", machine: M1, state: IDLE, temp: 80, vibration: 0.1, count: 5, scrap: 0}]}
    expect: {press_health: []}
  - name: two presses
    given:
      readings:
        - {ts: "2026-01-01T00:00:10Z", machine: M2, state: RUN, temp: 80, vibration: 0.1, count: 5, scrap: 0}
        - {ts: "2026-01-01T00:00:20Z", machine: M1, state: RUN, temp: 70, vibration: 0.3, count: 4, scrap: 1}
    expect:
      press_health:
        - {machine: M2, n: 1, temp_avg: 80}
        - {machine: M1, window_start: "2026-01-01T00:00:00Z", yield_avg: 0.75, dev: null}
  - name: wrong
    given: {readings: [{ts: "2026-01-01T00:00:10Z", machine: M2, state: RUN, temp: 80, vibration: 0.1, count: 5, scrap: 0}]}
    expect: {press_health: [{machine: M2, n: 2}]}
`
	results, err := testFlow(t.Context(), plan(t, text), idle)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 3 || !results[0].Passed || !results[1].Passed {
		t.Fatalf("the results are %+v", results)
	}
	d := results[2].Difference
	if results[2].Passed || !strings.Contains(d, `differs in n: {machine: "M2", n: 2}`) || !strings.Contains(d, "n: expected 2, came 1") {
		t.Errorf("the difference is %s", d)
	}
}
