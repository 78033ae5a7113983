package stage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestSalvageTellsFlowsApart lets the list of flows lead to each other's pages, as a page of an earlier moment can. Neither
// flow may go on with what the other had.
func TestSalvageTellsFlowsApart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), stateName)
	names := []string{"flow-one", "flow-two"}
	err := createDatabase(path, func(tx *bolt.Tx) error {
		m := meta{}
		err := createStateBuckets(tx)
		for i, name := range names {
			mk := mark{number: 3}
			c := Checkpoint{Flow: name, Changes: []Change{{Step: "s", Key: "k", Value: bytes.Repeat([]byte{byte(i)}, 5000)}}}
			err = errors.Join(err, c.put(tx, &sealer{}, &mk, sortChanges(c.Changes)))
			m.markSum += mk.part(name)
		}
		return errors.Join(err, m.put(tx, &sealer{}, nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(path); err != nil {
		t.Fatalf("before it is damaged: %v", err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Behind a bucket's name is its head, with the page that it begins on.
	const head = 16
	first, second := bytes.Index(file, []byte(names[0])), bytes.Index(file, []byte(names[1]))
	if second-first != len(names[0])+head {
		t.Fatalf("the flows are at %d and %d", first, second)
	}
	a, b := file[first+len(names[0]):][:head], file[second+len(names[1]):][:head]
	swapped := slices.Clone(a)
	copy(a, b)
	copy(b, swapped)
	if err := os.WriteFile(path, file, 0o600); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	if err := Verify(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("it is found to be %v", err)
	}
	target := filepath.Join(t.TempDir(), stateName)
	if err := salvageState(path, target); err != nil {
		t.Fatal(err)
	}
	f := &files{}
	if err := f.loadState(target); err != nil {
		t.Fatal(err)
	}
	defer f.close() //nolint:errcheck // nothing was written
	if anew := f.restored.StartedAnew; len(f.marks) != 0 || !slices.Contains(anew, names[0]) || !slices.Contains(anew, names[1]) {
		t.Errorf("flows that go on: %v; that start anew: %v", f.marks, f.restored.StartedAnew)
	}
}

// TestWhatASegmentHasLostStaysLost notes that records behind the last one are missing, and opens the file again.
func TestWhatASegmentHasLostStaysLost(t *testing.T) {
	t.Parallel()
	name := segmentName{path: filepath.Join(t.TempDir(), "outbox-00000000000000000001-0000000000000007.db"), first: 1, id: 7}
	seg, err := createNamed(name, func(tx *bolt.Tx) error {
		w := &chunkWriter{bucket: tx.Bucket([]byte(recordsBucket)), id: name.id}
		return errors.Join(w.add(1, []byte("one")), w.add(2, []byte("two")), w.flush())
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, upTo := range []uint64{1, 8, 5} {
		if err := seg.loseUpTo(upTo); err != nil {
			t.Fatal(err)
		}
	}
	if err := seg.db.Close(); err != nil {
		t.Fatal(err)
	}
	if seg, err = openSegment(name, 8); err != nil {
		t.Fatal(err)
	}
	defer seg.db.Close() //nolint:errcheck // nothing was written
	if seg.last != 8 || seg.lostBetween(1, 8) != 6 || seg.isLost(2) || !seg.isLost(3) {
		t.Errorf("it ends at %d and %v are lost", seg.last, seg.lost)
	}
}
