package stage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// fuzzID is the id of the segments that are fuzzed.
const fuzzID = segmentID(7)

// fuzzFile gives a segment and a state as bytes, to be changed by the fuzzer.
func fuzzFile(f *testing.F) (segmentFile, state []byte) {
	f.Helper()
	dir := f.TempDir()
	name := segmentName{path: filepath.Join(dir, "outbox-00000000000000000001-0000000000000007.db"), first: 1, id: fuzzID}
	seg, err := createNamed(name, func(tx *bolt.Tx) error {
		w := &chunkWriter{bucket: tx.Bucket([]byte(recordsBucket)), id: fuzzID}
		for seq := uint64(1); seq < 40; seq++ {
			if err := w.add(seq, bytes.Repeat([]byte{byte(seq)}, 150)); err != nil {
				return err
			}
		}
		return w.flush()
	})
	if err == nil {
		err = seg.db.Close()
	}
	path := filepath.Join(dir, stateName)
	err = errors.Join(err, createDatabase(path, func(tx *bolt.Tx) error {
		if err := createStateBuckets(tx); err != nil {
			return err
		}
		m := meta{produced: 39, acknowledged: 3}
		c := Checkpoint{Flow: "a", Cursors: map[string][]byte{"r": []byte("1")}, Changes: []Change{{Step: "s", Key: "k", Value: make([]byte, 3000)}}}
		mk := mark{number: 1, lastSeq: 39}
		if err := c.put(tx, &sealer{}, &mk, sortChanges(c.Changes)); err != nil {
			return err
		}
		m.markSum = mk.part("a")
		return m.put(tx, &sealer{}, nil)
	}))
	segmentFile, readErr := os.ReadFile(name.path)
	state, stateErr := os.ReadFile(path)
	if err = errors.Join(err, readErr, stateErr); err != nil {
		f.Fatal(err)
	}
	return segmentFile, state
}

// FuzzSalvage salvages any bytes, as a segment and as a state. Whatever is in them, it ends, takes little memory, and what
// it makes is whole; and what Verify calls whole loses nothing.
func FuzzSalvage(f *testing.F) {
	segmentFile, state := fuzzFile(f)
	f.Add(segmentFile)
	f.Add(state)
	f.Add(segmentFile[:9000])
	f.Add(append(bytes.Clone(state[8192:]), segmentFile[:4096]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, base := range []string{"outbox-00000000000000000001-0000000000000007.db", stateName} {
			fuzzOne(t, filepath.Join(t.TempDir(), base), b)
		}
	})
}

func fuzzOne(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	became := path
	if name, ok := parseSegmentName(path); ok {
		became = name.successor().path
	}
	whole := Verify(path) == nil
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	// Only 39 records were ever written, so a file that has all of them has no gap up to there.
	if err := Salvage(path, became+newSuffix, 39); err != nil {
		t.Fatalf("Salvage: %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20+100*uint64(len(b)) {
		t.Errorf("the salvage of %d bytes took %d bytes of memory", len(b), took)
	}
	if err := os.Rename(became+newSuffix, became); err != nil {
		t.Fatal(err)
	}
	if err := Verify(became); err != nil {
		t.Errorf("what was salvaged is damaged: %v", err)
	}
	name, ok := parseSegmentName(became)
	if !ok {
		return
	}
	seg, err := openSegment(name, 39)
	if err != nil {
		t.Fatal(err)
	}
	err = seg.read(1, func(seq uint64, payload []byte, ok bool) bool {
		if !ok || !bytes.Equal(payload, bytes.Repeat([]byte{byte(seq)}, 150)) { //nolint:gosec // below 40
			t.Errorf("record %d is wrong", seq)
		}
		return true
	})
	if whole && bytes.Contains(b, []byte(recordsBucket)) && seg.lostBetween(1, 39) != 0 && seg.lostBetween(1, 39) != 39 {
		t.Errorf("a whole file loses %d records", seg.lostBetween(1, 39))
	}
	if err := errors.Join(err, seg.db.Close()); err != nil {
		t.Error(err)
	}
}
