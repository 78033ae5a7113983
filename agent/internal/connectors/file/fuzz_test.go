package file

import (
	"maps"
	"testing"
)

// FuzzCursor holds that a cursor that is read means the same when it is written again.
func FuzzCursor(f *testing.F) {
	es := entries{5: {id: 5, offset: 2000, line: 7, headLen: headBytes, head: 99, modified: 123}, 6: {id: 6, line: 1}}
	f.Add([]byte(es.encode()))
	f.Add(es[5].append(es.encode()))
	f.Fuzz(func(t *testing.T, text []byte) {
		es, err := decodeCursor(text)
		if err != nil {
			return
		}
		again, err := decodeCursor(es.encode())
		if err != nil || !maps.Equal(es, again) {
			t.Fatalf("%v became %v, error %v", es, again, err)
		}
	})
}
