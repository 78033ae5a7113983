package stage

// arena is memory for many small values that go together. What is taken from it is never given back alone, and all of it is used
// again behind reset: what waits in the journal is otherwise made anew, and left to the collector, with every fold.
type arena struct {
	chunks [][]byte
	// at is the chunk that is being filled, and before how many were used up to the last reset.
	at, before int
}

const (
	arenaChunk = 64 << 10
	// arenaLargest is up to which size a value comes out of a chunk.
	arenaLargest = arenaChunk / 8
)

// copyOf gives a copy of a value, which is never nil.
func (a *arena) copyOf(value []byte) []byte {
	n := len(value)
	if n > arenaLargest {
		return append(make([]byte, 0, n), value...)
	}
	for a.at < len(a.chunks) && cap(a.chunks[a.at])-len(a.chunks[a.at]) < n {
		a.at++
	}
	if a.at == len(a.chunks) {
		a.chunks = append(a.chunks, make([]byte, 0, arenaChunk))
	}
	c := &a.chunks[a.at]
	start := len(*c)
	*c = append(*c, value...)
	return (*c)[start:len(*c):len(*c)]
}

// reset lets it be used again, as much of it as was used since the last time and also before that: what the ends of many windows
// have needed for once goes.
func (a *arena) reset() {
	used := min(a.at+1, len(a.chunks))
	kept := min(used, max(a.before, 1))
	clear(a.chunks[kept:])
	a.chunks, a.at, a.before = a.chunks[:kept], 0, used
	for i := range a.chunks {
		a.chunks[i] = a.chunks[i][:0]
	}
}
