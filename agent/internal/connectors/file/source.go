package file

import (
	"context"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// maxWorkers bounds the goroutines that decode one file: one more core than that gains little, since everything that
// follows is done by one goroutine.
const maxWorkers = 4

// piecesFor is how many pieces of files are in memory: one being used, one ready, one being read, and with several
// workers one being decoded by each of them.
func piecesFor(workers int) int {
	if workers == 1 {
		return 3
	}
	return workers + 3
}

// buffer is the text of a piece and the batches that refer to it.
type buffer struct {
	text    []byte
	batches []*column.Batch
	work    work
}

type (
	piece = connector.Piece[buffer]
	ahead = connector.Ahead[buffer]
)

// room gives the buffer n bytes and lets go of one that a very long record made large.
func (b *buffer) room(n int) []byte {
	if cap(b.text) < n || cap(b.text) > max(n, 4*chunkBytes) {
		b.text = make([]byte, n)
	}
	return b.text[:n]
}

// batch is the i-th batch of the piece.
func (b *buffer) batch(i int) *column.Batch {
	if i == len(b.batches) {
		b.batches = append(b.batches, &column.Batch{})
	}
	return b.batches[i]
}

// source is what a caller reads from; the reader is behind it.
type source struct {
	*ahead
	traits connector.Traits
}

func newSource(s settings, known entries, workers int) *source {
	r := newReader(s, known, workers)
	return &source{
		ahead:  connector.NewAhead(piecesFor(workers), r.run),
		traits: connector.Traits{Bounded: !s.follow, Replayable: true},
	}
}

// Traits says that files can always be read again.
func (s *source) Traits() connector.Traits { return s.traits }

// Committed has nothing to do: files stay.
func (s *source) Committed(context.Context, connector.Cursor) error { return nil }
