package wire

import (
	"errors"
	"io"
	"sync"
)

const (
	// firstStep is how much is allocated on the word of a length prefix alone; more only as it arrives.
	firstStep = 8 << 10
	// readStep is up to where nobody is asked for room, and how much is asked for at a time from there on.
	readStep = 64 << 10
)

// Room is asked when a message takes more memory, and may wait: for how much more, with how much is still to come after that.
type Room func(more, left int) error

type piece [readStep]byte

// pieces keeps what large messages were read into until the next garbage collections: while many come, they would leave more
// garbage than they need.
var pieces = sync.Pool{New: func() any { return new(piece) }} //nolint:gochecknoglobals // a pool holds no state

// whole holds a large message while it is decoded, one at a time, in one piece as the decoder wants it: so the large messages
// that are not complete need no more than what has come of them, and those that are not twice as much.
var whole = newAssembly() //nolint:gochecknoglobals // it holds nothing between two messages

// assembly puts one large message together at a time.
type assembly struct {
	turn chan struct{}
	pool sync.Pool
}

func newAssembly() *assembly { return &assembly{turn: make(chan struct{}, 1)} }

// body is the bytes of one message while it is read.
type body struct {
	// start is the first of them, and rest what follows, of which have bytes are there.
	start []byte
	rest  []*piece
	have  int
}

// read reads size bytes, allocating no faster than they arrive.
func (b *body) read(r io.Reader, size int, room Room) error {
	b.start = make([]byte, min(size, firstStep))
	for b.have < size {
		into := b.next(size)
		if into == nil {
			if err := b.grow(size, room); err != nil {
				return err
			}
			continue
		}
		n, err := io.ReadFull(r, into)
		b.have += n
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err //nolint:wrapcheck // the caller wraps it
		}
	}
	return nil
}

// next is where more goes; nil when there is no place for it.
func (b *body) next(size int) []byte {
	if b.have < len(b.start) {
		return b.start[b.have:]
	}
	at := b.have - len(b.start)
	if at == len(b.rest)*readStep {
		return nil
	}
	return b.rest[at/readStep][at%readStep : min(readStep, size-b.have+at%readStep)]
}

// grow makes place for more.
func (b *body) grow(size int, room Room) error {
	if len(b.start) < readStep {
		b.start = append(make([]byte, 0, min(2*b.have, size)), b.start...)
		b.start = b.start[:cap(b.start)]
		return nil
	}
	more := min(readStep, size-b.have)
	if err := room(more, size-b.have-more); err != nil {
		return err
	}
	p, ok := pieces.Get().(*piece)
	if !ok {
		p = new(piece)
	}
	b.rest = append(b.rest, p)
	return nil
}

// use calls f with all that was read, of which f must keep nothing.
func (b *body) use(f func(all []byte) error) error {
	if len(b.rest) == 0 {
		return f(b.start)
	}
	whole.turn <- struct{}{}
	defer func() { <-whole.turn }()
	buf, ok := whole.pool.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	defer whole.pool.Put(buf)
	if cap(*buf) < b.have {
		*buf = make([]byte, 0, b.have)
	}
	*buf = append((*buf)[:0], b.start...)
	for _, p := range b.rest {
		*buf = append(*buf, p[:min(readStep, b.have-len(*buf))]...)
	}
	b.free()
	return f(*buf)
}

// free gives back what was read.
func (b *body) free() {
	for _, p := range b.rest {
		pieces.Put(p)
	}
	b.start, b.rest = nil, nil
}
