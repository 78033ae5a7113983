package stage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestChangesAreStoredInTheOrderOfTheirKeys guards against the square cost of adding keys to bbolt in any other order.
func TestChangesAreStoredInTheOrderOfTheirKeys(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	var changes []Change
	want := map[string]*Change{}
	for i := range 5000 {
		c := Change{Step: fmt.Sprintf("step%d", rng.IntN(12)), Key: strconv.Itoa(rng.IntN(300))}
		if rng.IntN(3) > 0 {
			c.Value = fmt.Append(nil, i)
		}
		changes = append(changes, c)
	}
	for i := range changes {
		want[string(operatorKey(changes[i].Step, changes[i].Key))] = &changes[i]
	}
	entries := sortChanges(changes)
	if len(entries) != len(want) {
		t.Errorf("%d entries for %d keys", len(entries), len(want))
	}
	for i, e := range entries {
		if i > 0 && bytes.Compare(entries[i-1].key, e.key) >= 0 {
			t.Fatalf("the key %q comes after %q", e.key, entries[i-1].key)
		}
		if e.change != want[string(e.key)] {
			t.Errorf("the key %q gets %q, and its last value is %q", e.key, e.change.Value, want[string(e.key)].Value)
		}
	}
}

func sortChanges(changes []Change) []entry { return new(commitBuffer).sortChanges(changes) }
