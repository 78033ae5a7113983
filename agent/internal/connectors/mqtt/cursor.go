package mqtt

import (
	"encoding/binary"
	"errors"
	"hash/fnv"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// cursorVersion is the first byte of a cursor.
const cursorVersion = 1

// arrival is a message that was delivered and that the broker may send again: it may not have seen the acknowledgement.
type arrival struct {
	// seq counts the messages of this source.
	seq uint64
	// id is the packet id, hash that of topic and payload.
	id   uint16
	hash uint64
	// acked says that an acknowledgement was sent in this process.
	acked bool
}

// position is what a cursor holds: which subscription it belongs to and the latest arrivals, oldest first.
//
// A broker handles acknowledgements in the order of its messages, so what it may send again is among the latest ones, as
// many as it may have in flight.
type position struct {
	topic    string
	qos      byte
	seq      uint64
	arrivals []arrival
}

func hashOf(topic string, payload []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(topic))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(payload)
	return h.Sum64()
}

// find is the latest arrival with the packet id, nil when there is none or it was another message.
func (p *position) find(id uint16, hash uint64) *arrival {
	for i := len(p.arrivals) - 1; i >= 0; i-- {
		if a := &p.arrivals[i]; a.id == id {
			if a.hash != hash {
				return nil
			}
			return a
		}
	}
	return nil
}

// add notes a message that is being delivered, and forgets the oldest that were acknowledged beyond the newest keep.
func (p *position) add(id uint16, hash uint64, keep int) {
	p.seq++
	drop := 0
	for len(p.arrivals)-drop >= keep && p.arrivals[drop].acked {
		drop++
	}
	if drop > 0 {
		p.arrivals = append(p.arrivals[:0], p.arrivals[drop:]...)
	}
	p.arrivals = append(p.arrivals, arrival{seq: p.seq, id: id, hash: hash})
}

func (p *position) encode() connector.Cursor {
	out := make([]byte, 0, 32+len(p.topic)+10*len(p.arrivals))
	out = append(out, cursorVersion, p.qos)
	out = binary.AppendUvarint(out, p.seq)
	out = binary.AppendUvarint(out, uint64(len(p.topic)))
	out = append(out, p.topic...)
	for _, a := range p.arrivals {
		out = binary.LittleEndian.AppendUint16(out, a.id)
		out = binary.LittleEndian.AppendUint64(out, a.hash)
	}
	return out
}

var errCursor = errors.New("the saved position of the MQTT source is not readable; the agent that saved it may be newer, or its staging is damaged")

// decodeCursor reads a cursor; nil gives the position of a first start. Its arrivals count as committed: that is when
// a cursor is saved.
func decodeCursor(c connector.Cursor) (position, error) {
	if len(c) == 0 {
		return position{}, nil
	}
	if len(c) < 2 || c[0] != cursorVersion {
		return position{}, errCursor
	}
	p := position{qos: c[1]}
	rest := c[2:]
	seq, n := binary.Uvarint(rest)
	if n <= 0 {
		return position{}, errCursor
	}
	p.seq, rest = seq, rest[n:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size == 0 || size > uint64(len(rest)-n) { //nolint:gosec // not negative: n bytes were read from it
		return position{}, errCursor
	}
	p.topic, rest = string(rest[n:n+int(size)]), rest[n+int(size):] //nolint:gosec // not more than the cursor has
	if len(rest)%10 != 0 || uint64(len(rest)/10) > p.seq {
		return position{}, errCursor
	}
	first := p.seq - uint64(len(rest)/10) + 1
	for i := 0; len(rest) > 0; i++ {
		p.arrivals = append(p.arrivals, arrival{
			seq: first + uint64(i),
			id:  binary.LittleEndian.Uint16(rest), hash: binary.LittleEndian.Uint64(rest[2:]), acked: true,
		})
		rest = rest[10:]
	}
	return p, nil
}

// sequence is the number of the last message of a cursor.
func sequence(c connector.Cursor) (uint64, error) {
	p, err := decodeCursor(c)
	return p.seq, err
}
