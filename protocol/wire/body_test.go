package wire_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// TestReadMessageIn reads messages of all sizes: each asks for room for what it has beyond the first part, piece by piece, and
// is read as it was written.
func TestReadMessageIn(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 8 << 10, wire.FreeBody - 4, wire.FreeBody - 3, wire.FreeBody, 2*wire.FreeBody - 4, 2 * wire.FreeBody, 1_000_003, wire.MaxMessage - 8} {
		sent := &wire.Desired{Envelope: make([]byte, size)}
		for i := range sent.GetEnvelope() {
			sent.Envelope[i] = byte(i * 7 >> 3)
		}
		var framed bytes.Buffer
		if err := wire.WriteMessage(&framed, sent); err != nil {
			t.Fatal(err)
		}
		whole := proto.Size(sent)
		given := 0
		got := &wire.Desired{}
		err := wire.ReadMessageIn(iotest.HalfReader(&framed), got, func(more, left int) error {
			given += more
			if more <= 0 || more > wire.FreeBody || given+left != whole-wire.FreeBody {
				t.Errorf("of %d bytes %d more are asked for, with %d left", whole, more, left)
			}
			return nil
		})
		if err != nil || !proto.Equal(got, sent) || given != max(0, whole-wire.FreeBody) {
			t.Errorf("a message of %d bytes: %v, after %d were asked for", whole, err, given)
		}
	}
}

// TestNoRoom ends a message for which there is no memory, before it takes any.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	r := prefixed(wire.MaxMessage, make([]byte, wire.MaxMessage))
	if err := wire.ReadMessageIn(r, &wire.InsightsUp{}, func(int, int) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if n, _ := io.Copy(io.Discard, r); n != wire.MaxMessage-wire.FreeBody {
		t.Errorf("%d bytes are left", n)
	}
}

// TestReadFirst has less room for whoever is not known yet, and says what to do.
func TestReadFirst(t *testing.T) {
	t.Parallel()
	hello := func(specs int, size int) *bytes.Buffer {
		h := &wire.Hello{}
		for range specs {
			h.ConnectorSpecs = append(h.ConnectorSpecs, make([]byte, size))
		}
		var framed bytes.Buffer
		if err := wire.WriteMessage(&framed, &wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: h}}); err != nil {
			t.Fatal(err)
		}
		return &framed
	}
	if err := wire.ReadFirst(hello(30, 1000), &wire.ControlUp{}); err != nil {
		t.Error(err)
	}
	for name, message := range map[string]*bytes.Buffer{"its bytes": hello(33, 1000), "its elements": hello(1100, 0)} {
		err := wire.ReadFirst(message, &wire.ControlUp{})
		if !errors.Is(err, wire.ErrTooBig) || !strings.Contains(err.Error(), "update the control plane") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
