package gatewaytest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Frames of HTTP/2 (RFC 9113, 6) and their flags.
const (
	h2Data         = 0
	h2Headers      = 1
	h2Priority     = 2
	h2Reset        = 3
	h2Settings     = 4
	h2Ping         = 6
	h2Window       = 8
	h2Continuation = 9

	h2EndStream  = 1
	h2EndHeaders = 4
)

// h2Frame writes a frame.
func h2Frame(kind, flags byte, stream uint32, payload []byte) []byte {
	out := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags} //nolint:gosec // as wanted
	return append(binary.BigEndian.AppendUint32(out, stream), payload...)
}

// h2Literal is a field that is not kept (RFC 7541, 6.2.2); index 0 has a name of its own.
func h2Literal(index byte, name, value string) []byte {
	out := []byte{index}
	if index == 0 {
		out = append(append(out, byte(len(name))), name...) //nolint:gosec // it is short
	}
	return append(append(out, byte(len(value))), value...) //nolint:gosec // it is short
}

// h2Request is a request's fields: 0x82 is GET, 0x83 POST and 0x87 https.
func h2Request(method byte, path string) []byte {
	return slices.Concat([]byte{method, 0x87}, h2Literal(4, "", path), h2Literal(1, "", "h"))
}

// h2Begin is a client's first flight: it lets no stream send anything.
func h2Begin() []byte {
	return append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), h2Frame(h2Settings, 0, 0, []byte{0, 4, 0, 0, 0, 0})...)
}

// h2Odd is the id of a client's stream.
func h2Odd(n int) uint32 { return uint32(2*n + 1) } //nolint:gosec // it is small

// h2Many asks for the same so many times.
func h2Many(path string, n int) []byte {
	var all []byte
	for i := range n {
		all = append(all, h2Frame(h2Headers, h2EndStream|h2EndHeaders, h2Odd(i), h2Request(0x82, path))...)
	}
	return all
}

// h2Answers says whether an attacker takes what is answered.
type h2Answers int

const (
	h2Unread h2Answers = iota
	h2Read
)

// h2Siege says something with HTTP/2, and then one thing again and again, each time with other streams. With a nil again it
// gives a sign of life each second.
func h2Siege(answers h2Answers, begin []byte, again func(n int) []byte) func(context.Context, dialer) error {
	return func(ctx context.Context, dial dialer) error {
		dial.config = dial.config.Clone()
		dial.config.NextProtos = []string{"h2"}
		conn, err := dial.tls(ctx)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		var reading sync.WaitGroup
		defer reading.Wait()
		defer conn.Close() //nolint:errcheck // it is over, and ends the reading
		if answers == h2Read {
			reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
		}
		if _, err = conn.Write(slices.Concat(h2Begin(), begin)); err != nil {
			return err
		}
		if again != nil {
			for n := 0; ; n++ {
				if _, err = conn.Write(again(n)); err != nil {
					return err
				}
			}
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for ctx.Err() == nil && err == nil {
			select {
			case <-tick.C:
				_, err = conn.Write(h2Frame(h2Window, 0, 0, []byte{0, 0, 0, 1}))
			case <-ctx.Done():
			}
		}
		return err
	}
}

// h2Same is the same thing again and again.
func h2Same(all []byte) func(int) []byte { return func(int) []byte { return all } }

// h2Block is how many requests, or frames, one piece of an attack has.
const h2Block = 100

// rapidReset asks and takes it back.
func rapidReset(n int) []byte {
	var all []byte
	for i := range h2Block {
		id := h2Odd(n*h2Block + i)
		all = append(all, h2Frame(h2Headers, h2EndStream|h2EndHeaders, id, h2Request(0x82, "/api/v1/openapi.json"))...)
		all = append(all, h2Frame(h2Reset, 0, id, []byte{0, 0, 0, 8})...)
	}
	return all
}

// headerBombs are requests of some hundred bytes whose fields unpack to as much as is taken: one field of 3 KB is kept, and
// repeated.
func headerBombs(n int) []byte {
	const size = 3000
	large := strings.Repeat("x", size)
	kept := append([]byte{0x40, 1, 'b', 0x7f}, binary.AppendUvarint(nil, size-0x7f)...)
	var all []byte
	for i := range 4 {
		fields := slices.Concat(h2Request(0x82, "/healthz"), kept, []byte(large), bytes.Repeat([]byte{0xbe}, 2000))
		all = append(all, h2Frame(h2Headers, h2EndStream|h2EndHeaders, h2Odd(4*n+i), fields)...)
	}
	return all
}

// h2Kinds are what attackers do with HTTP/2. None has credentials.
func h2Kinds() map[string]func(context.Context, dialer) error {
	const document = "/api/v1/openapi.json"
	one := h2Frame(h2Headers, h2EndStream|h2EndHeaders, h2Odd(0), h2Request(0x82, document))
	post := h2Frame(h2Headers, h2EndHeaders, h2Odd(0), h2Request(0x83, "/api/v1/session"))
	return map[string]func(context.Context, dialer) error{
		"h2 unread answers":       h2Siege(h2Unread, h2Many(document, h2Block), nil),
		"h2 unread small answers": h2Siege(h2Unread, h2Many("/healthz", h2Block), nil),
		"h2 unread tunnels":       h2Siege(h2Unread, h2Many("/tunnel/v1", h2Block), nil),
		"h2 unread refusals":      h2Siege(h2Unread, headerBombs(0), headerBombs),
		"h2 header bombs":         h2Siege(h2Read, nil, headerBombs),
		"h2 rapid resets":         h2Siege(h2Read, nil, rapidReset),
		"h2 unread rapid resets":  h2Siege(h2Unread, nil, rapidReset),
		"h2 endless headers": h2Siege(h2Read, h2Frame(h2Headers, h2EndStream, h2Odd(0), h2Request(0x82, document)),
			h2Same(bytes.Repeat(h2Frame(h2Continuation, 0, h2Odd(0), h2Literal(0, "x", "y")), h2Block))),
		"h2 settings":       h2Siege(h2Unread, nil, h2Same(bytes.Repeat(h2Frame(h2Settings, 0, 0, []byte{0, 4, 0, 0, 0, 1}), h2Block))),
		"h2 pings":          h2Siege(h2Unread, nil, h2Same(bytes.Repeat(h2Frame(h2Ping, 0, 0, make([]byte, 8)), h2Block))),
		"h2 priorities":     h2Siege(h2Read, nil, h2Same(bytes.Repeat(h2Frame(h2Priority, 0, 1, make([]byte, 5)), h2Block))),
		"h2 window updates": h2Siege(h2Read, one, h2Same(bytes.Repeat(h2Frame(h2Window, 0, h2Odd(0), []byte{0, 0, 0, 1}), h2Block))),
		"h2 empty bodies":   h2Siege(h2Read, post, h2Same(bytes.Repeat(h2Frame(h2Data, 0, h2Odd(0), nil), h2Block))),
	}
}

// TestStreams has attackers with HTTP/2, from one address and from many. Honest clients are served in time, and the memory
// stays within bounds.
func TestStreams(t *testing.T) {
	inTurn(t)
	attackers, lasts, what := 100, time.Second, []string{"h2 unread answers", "h2 rapid resets", "h2 pings"}
	if *long {
		attackers, lasts, what = 500, 10*time.Second, slices.Sorted(maps.Keys(h2Kinds()))
	}
	for _, kind := range what {
		for _, sources := range []int{1, 50} {
			t.Run(fmt.Sprintf("%s from %d", kind, sources), func(t *testing.T) {
				h := startHost(t, t.TempDir())
				h.besieged(t, siege{Kind: kind, Attackers: attackers, Sources: sources, Pause: back}, h.probes(), lasts)
			})
		}
	}
}
