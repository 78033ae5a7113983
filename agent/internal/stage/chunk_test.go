package stage

import (
	"bytes"
	"testing"
)

// FuzzChunk reads any bytes as a chunk: it must not fail on them, and must never serve a record that was not written.
func FuzzChunk(f *testing.F) {
	c := newChunk(5, 7, 100, 6, 0)
	written := [][]byte{[]byte("one"), nil, bytes.Repeat([]byte("x"), 300)}
	for _, p := range written {
		c.add(p)
	}
	c.seal()
	f.Add(number(7), c.value)
	f.Add(number(8), c.value)
	f.Add(number(7), c.value[:len(c.value)-1])
	f.Add([]byte{}, []byte{})
	f.Add(number(1), make([]byte, chunkHeaderBytes))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		h, err := parseChunk(5, key, value)
		if err != nil {
			return
		}
		next := h.first
		eachRecord(h, value, func(seq uint64, payload []byte, ok bool) bool {
			if seq != next {
				t.Fatalf("record %d follows %d", seq, next-1)
			}
			next++
			if ok && len(payload) > len(value) {
				t.Fatal("a record is longer than its chunk")
			}
			return true
		})
		if next != h.last()+1 {
			t.Errorf("%d records of %d", next-h.first, h.count)
		}
	})
}

// FuzzSealed reads any bytes as the values of state.db.
func FuzzSealed(f *testing.F) {
	f.Add([]byte("key"), seal([]byte("key"), []byte("value")))
	f.Add([]byte("key"), seal([]byte("other"), mark{number: 1}.encode()))
	f.Add(operatorKey("step", "key"), []byte{})
	f.Fuzz(func(_ *testing.T, key, value []byte) {
		if plain, err := unseal(key, value); err == nil {
			_, _ = parseMark(plain)
			_, _ = parseNumber(plain)
		}
		_, _, _ = parseOperatorKey(key)
		_, _ = parseReport(key, value)
	})
}

func TestADamagedLengthHidesOnlyItsRecord(t *testing.T) {
	t.Parallel()
	c := newChunk(5, 1, 0, 0, 0)
	for _, p := range []string{"a", "b", "c"} {
		c.add([]byte(p))
	}
	c.seal()
	c.value[chunkHeaderBytes+frameHeaderBytes+1+3] = 0xff
	h, err := parseChunk(5, number(1), c.value)
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	eachRecord(h, c.value, func(_ uint64, _ []byte, ok bool) bool {
		got = append(got, ok)
		return true
	})
	if len(got) != 3 || !got[0] || got[1] || !got[2] {
		t.Errorf("the records are readable: %v, want all but the second", got)
	}
}
