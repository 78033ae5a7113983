package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// nameServer is a DNS server that answers as a test wants.
type nameServer struct {
	conn net.PacketConn

	mu sync.Mutex
	// records are the addresses by name; a name that is not there does not exist.
	records map[string][]string
	// answer is how it answers; deaf6 keeps it from answering questions for IPv6.
	answer  answer
	deaf6   bool
	delay   time.Duration
	asked   int
	pending sync.WaitGroup
	closed  chan struct{}
}

type answer int

const (
	answers answer = iota
	fails
	silent
)

// newNameServer listens on port 53 of an address.
func newNameServer(t *testing.T, address string, records map[string][]string) *nameServer {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", net.JoinHostPort(address, "53"))
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, records: records, closed: make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(s.serve)
	t.Cleanup(func() {
		close(s.closed)
		conn.Close() //nolint:errcheck // ends serve
		serving.Wait()
		s.pending.Wait()
	})
	return s
}

func (s *nameServer) change(how func(*nameServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how(s)
}

func (s *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		reply, after := s.reply(append([]byte(nil), buffer[:n]...))
		if reply == nil {
			continue
		}
		s.pending.Go(func() {
			timer := time.NewTimer(after)
			defer timer.Stop()
			select {
			case <-s.closed:
			case <-timer.C:
				s.conn.WriteTo(reply, from) //nolint:errcheck // who asked may be gone
			}
		})
	}
}

// reply answers one question; nil for no answer. https://www.rfc-editor.org/rfc/rfc1035#section-4
func (s *nameServer) reply(q []byte) ([]byte, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if len(q) < 17 || s.answer == silent {
		return nil, 0
	}
	var labels []string
	at := 12
	for q[at] != 0 && at+int(q[at])+5 < len(q) {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	end := at + 5
	kind := binary.BigEndian.Uint16(q[at+1:])
	out := append([]byte(nil), q[:end]...)
	// A response, recursion available, one question and nothing else yet.
	out[2], out[3] = 0x81, 0x80
	copy(out[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	const typeA, typeAAAA = 1, 28
	if s.deaf6 && kind == typeAAAA {
		return nil, 0
	}
	addresses, known := s.records[strings.ToLower(strings.Join(labels, "."))]
	switch {
	case s.answer == fails:
		out[3] |= 2
	case !known:
		out[3] |= 3
	}
	for _, text := range addresses {
		a := netip.MustParseAddr(text)
		if s.answer == fails || (a.Is4() && kind != typeA) || (a.Is6() && kind != typeAAAA) {
			continue
		}
		out[7]++
		out = append(out, 0xc0, 12, q[at+1], q[at+2], 0, 1, 0, 0, 0, 0, 0, byte(a.BitLen()/8)) //nolint:gosec // 4 or 16
		out = append(out, a.AsSlice()...)
	}
	return out, s.delay
}
