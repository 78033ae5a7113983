package stage_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestTheValuesOfACommitOutliveItsMemory commits more than the writer keeps memory for, of all lengths, and then again, so
// that the second commit uses the memory of the first.
func TestTheValuesOfACommitOutliveItsMemory(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	value := func(commit byte, i int) []byte {
		seed := binary.BigEndian.AppendUint32([]byte{commit}, uint32(i)) //nolint:gosec // small
		return bytes.Repeat(seed, 1+i*i%700)
	}
	const entries = 900
	key := func(i int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(i))) } //nolint:gosec // small
	for number := byte(1); number <= 3; number++ {
		c := stage.Checkpoint{Flow: "a", Number: uint64(number)}
		// The later commits leave some entries of the one before alone.
		for i := 0; i < entries; i += int(number) {
			c.Changes = append(c.Changes, stage.Change{Step: "s", Key: key(i), Value: value(number, i)})
		}
		commit(t, st, c)
	}
	st = reopen(t, st, s)
	got, err := st.LoadFlow(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Operators["s"]) != entries {
		t.Errorf("there are %d entries, want %d", len(got.Operators["s"]), entries)
	}
	for i := range entries {
		from := byte(1)
		for number := byte(2); number <= 3; number++ {
			if i%int(number) == 0 {
				from = number
			}
		}
		if !bytes.Equal(got.Operators["s"][key(i)], value(from, i)) {
			t.Fatalf("entry %d is not that of commit %d", i, from)
		}
	}
}
