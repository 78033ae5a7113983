package file

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// cursorVersion is the first byte of a cursor.
const cursorVersion = 1

// headBytes is how much of a file's beginning tells it from another that took over its place.
const headBytes = 1024

// entry is how far a file has been read. An entry takes about 35 bytes of the cursor and stays while its file exists.
type entry struct {
	// id is the file's number in its file system, or a hash of its path where there is none.
	id uint64
	// offset is where the next record starts, line which line that is, counted from one.
	offset, line int64
	// head is the hash of the first headLen bytes, of those that were read.
	headLen int64
	head    uint64
	// modified is the time of change, in nanoseconds, at which the file had nothing more to read; 0 when not known.
	modified int64
}

// entries is by id.
type entries map[uint64]entry

func hashOf(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// append writes the entry at the end of a cursor.
func (e entry) append(out []byte) []byte {
	out = binary.LittleEndian.AppendUint64(out, e.id)
	out = binary.LittleEndian.AppendUint64(out, e.head)
	for _, v := range []int64{e.offset, e.line, e.headLen, e.modified} {
		out = binary.AppendVarint(out, v)
	}
	return out
}

// encode writes a cursor. The order of ids makes equal entries equal bytes.
func (es entries) encode() connector.Cursor {
	out := make([]byte, 1, 1+len(es)*40)
	out[0] = cursorVersion
	for _, e := range slices.SortedFunc(maps.Values(es), func(a, b entry) int { return cmp.Compare(a.id, b.id) }) {
		out = e.append(out)
	}
	return out
}

var errCursor = errors.New("the saved position of the file source is not readable; the agent that saved it may be newer, or its staging is damaged")

// decodeCursor reads a cursor; nil gives no entries. Of two entries of one file the last counts.
func decodeCursor(c connector.Cursor) (entries, error) {
	es := make(entries)
	if len(c) == 0 {
		return es, nil
	}
	if c[0] != cursorVersion {
		return nil, errCursor
	}
	for r := bytes.NewReader(c[1:]); r.Len() > 0; {
		var e entry
		var fixed [16]byte
		if n, err := r.Read(fixed[:]); err != nil || n < len(fixed) {
			return nil, errCursor
		}
		e.id, e.head = binary.LittleEndian.Uint64(fixed[:]), binary.LittleEndian.Uint64(fixed[8:])
		for _, v := range []*int64{&e.offset, &e.line, &e.headLen, &e.modified} {
			n, err := binary.ReadVarint(r)
			if err != nil {
				return nil, errCursor
			}
			*v = n
		}
		if e.offset < 0 || e.line < 0 || e.headLen < 0 || e.headLen > headBytes || e.headLen > e.offset {
			return nil, errCursor
		}
		es[e.id] = e
	}
	return es, nil
}
