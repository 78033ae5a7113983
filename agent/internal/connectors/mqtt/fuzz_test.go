package mqtt

import (
	"bufio"
	"bytes"
	"testing"
)

// FuzzPackets holds that nothing that a broker sends makes the reader fall over.
func FuzzPackets(f *testing.F) {
	f.Add([]byte("\x20\x03\x00\x00\x00"), true)                                      // connected
	f.Add([]byte("\x20\x02\x00\x05"), false)                                         // refused
	f.Add([]byte("\x32\x0a\x00\x03a/b\x00\x01\x00{}\x90\x04\x00\x01\x00\x01"), true) // a message, subscribed
	f.Add([]byte("\x3b\x09\x00\x03a/b\x00\x01{}"), false)
	f.Add([]byte("\x32\xff\xff\xff\x7f\x00\x03a/b\x00\x01"), false) // too long
	f.Fuzz(func(t *testing.T, text []byte, five bool) {
		version := version311
		if five {
			version = version5
		}
		c := &session{dialect: newDialect(version), reader: bufio.NewReader(bytes.NewReader(text))}
		for range 1000 {
			e, err := c.next()
			if err != nil {
				return
			}
			if e.message != nil && len(e.message.payload) > len(text) {
				t.Fatalf("a payload of %d bytes from %d", len(e.message.payload), len(text))
			}
		}
	})
}

// FuzzCursor holds that a cursor that is read means the same when it is written again.
func FuzzCursor(f *testing.F) {
	p := position{topic: "plant/#", qos: 1}
	p.add(7, 8, 2)
	p.add(9, 10, 2)
	f.Add([]byte(p.encode()))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := decodeCursor(text)
		if err != nil || len(text) == 0 {
			return
		}
		again, err := decodeCursor(p.encode())
		if err != nil || again.seq != p.seq || again.topic != p.topic || len(again.arrivals) != len(p.arrivals) {
			t.Fatalf("%+v became %+v, error %v", p, again, err)
		}
		for _, a := range p.arrivals {
			again.find(a.id, a.hash)
		}
	})
}
