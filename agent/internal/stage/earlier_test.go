package stage_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// many gives n payloads, and after them the error where there is one.
func many(n, size int, err error) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for i := range n {
			if !yield(fmt.Appendf(make([]byte, 0, size), "%0*d", size, i), nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

func TestACommitStreamsWhatIsTooMuchForTheMemory(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	const n, size = 10_000, 1500 // several transactions
	other := commit(t, st, stage.Checkpoint{Flow: "other", Number: 1, Insights: [][]byte{[]byte("before")}})
	c := stage.Checkpoint{
		Flow: "big", Number: 1, Cursors: map[string][]byte{"a": []byte("end")},
		Earlier: many(n, size, nil), Insights: [][]byte{[]byte("last")},
	}
	last := commit(t, st, c)
	if last != other+n+1 {
		t.Errorf("the last sequence is %d, want %d", last, other+n+1)
	}
	if again := commit(t, st, c); again != last {
		t.Errorf("the same checkpoint again ends at %d", again)
	}
	st = reopen(t, st, s)
	got := texts(readAll(t, st, 0))
	var want []string
	want = append(want, "before")
	for p, err := range many(n, size, nil) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(p))
	}
	if want = append(want, "last"); !slices.Equal(got, want) {
		t.Errorf("%d records came back, want %d in their order", len(got), len(want))
	}
	state, err := st.LoadFlow(t.Context(), "big")
	if err != nil || state.Number != 1 || string(state.Cursors["a"]) != "end" {
		t.Errorf("the flow is at %+v, %v", state, err)
	}
}

func TestACommitThatCannotBeReadLeavesNothing(t *testing.T) {
	t.Parallel()
	st := open(t, settings(t, t.TempDir()))
	broken := errors.New("the scratch file is damaged")
	c := stage.Checkpoint{Flow: "big", Number: 1, Earlier: many(100, 10, broken)}
	if _, err := st.Commit(t.Context(), c); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	// It breaks while it is written.
	reads := 0
	c.Earlier = func(yield func([]byte, error) bool) {
		reads++
		var err error
		if reads > 1 {
			err = broken
		}
		many(8_000, 1000, err)(yield)
	}
	if _, err := st.Commit(t.Context(), c); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	commit(t, st, stage.Checkpoint{Flow: "other", Number: 1, Insights: [][]byte{[]byte("only")}})
	if got := texts(readAll(t, st, 0)); !slices.Equal(got, []string{"only"}) {
		t.Errorf("the outbox has %d records", len(got))
	}
}
