// Package wire is what travels inside the tunnel: the messages, their framing, the version and the kinds of stream.
//
// It opens no connection and checks no signature. There is no network tunnel: a stream carries one of the kinds named
// here, each a typed conversation, and no kind exists that dials, forwards or runs anything. Functions are safe for
// concurrent use; one stream is written by one goroutine at a time and read by one.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"
)

//go:generate sh -c "protoc -I ../.. --plugin=protoc-gen-go=${DOLLAR}(go tool -n protoc-gen-go) --go_out=../.. --go_opt=module=github.com/outfeed/outfeed ../../protocol/wire/wire.proto"

// Version is the protocol's version, one number that rises with every change:
//
//	1 (2026-11-21): control and insights streams.
//	2 (2026-11-22): run reports count the failed, late and outside rows of each step, and carry notes.
//	3 (2026-11-22): a session's value in Welcome and Hello, rotation of keys, receipts for insights that do not come,
//	  bundles that expire, the clock beside each, the whole account of the outbox with the files that were damaged,
//	  an agent's turn, and the runs that are not over.
const Version = 3

// MinVersion is the oldest version that this program still speaks. Those before it were in no release.
const MinVersion = 3

// PatientProtocol is an application protocol that an agent offers in the outer TLS beside its own when it can as well come
// later, as one of many whose sessions have ended at once: a control plane that has much to do need not compute anything for
// it. Nobody chooses it.
const PatientProtocol = "outfeed-patient"

// MaxMessage bounds a message, in bytes, without its length prefix.
const MaxMessage = 8 << 20

// MaxBundle bounds the envelope around an agent's Bundle, in bytes. It leaves room in a message for what is beside it, so that an
// agent can be sent one that is larger, and say so. The envelope holds the bundle in base64: about 5.9 MiB of it.
const MaxBundle = MaxMessage - 64<<10

// MaxFirst bounds the first message on a control stream, in bytes, as nobody knows yet whose it is. The Hello of an agent with
// three connectors, which it describes, has 8 KB.
const MaxFirst = 32 << 10

// maxFirstElements bounds the elements of that message; it comes from anybody, and many come at once.
const maxFirstElements = 1 << 10

// FreeBody is how much of a message ReadMessageIn reads without asking for room.
const FreeBody = readStep

// maxElements bounds the repeated and nested elements of one message. An element of two bytes on the wire takes a
// hundred in memory, so the bound on bytes alone would not bound memory.
const maxElements = 1 << 15

// lengthSize is the size of the length before each message, big-endian.
const lengthSize = 4

// ErrTooBig is when a message is over MaxMessage bytes or has too many elements.
var ErrTooBig = errors.New("the message is too big")

// Kind is the kind of conversation that a stream carries.
type Kind string

// The kinds of stream. An agent opens both, one of each.
const (
	KindControl  Kind = "control"
	KindInsights Kind = "insights"
)

// Kinds lists every kind of stream that exists.
func Kinds() []Kind { return []Kind{KindControl, KindInsights} }

// The codes of a Refusal.
const (
	RefusalTokenUsed    = "token_used"
	RefusalTokenExpired = "token_expired"
	RefusalTokenUnknown = "token_unknown"
	RefusalAgentUnknown = "agent_unknown"
	RefusalAgentRevoked = "agent_revoked"
	RefusalClone        = "clone_suspected"
	RefusalLocked       = "agent_locked"
	RefusalTooMany      = "too_many"
	RefusalUnavailable  = "unavailable"
	RefusalProtocol     = "protocol"
	RefusalInternal     = "internal"
)

// The reasons of a Receipt.
const (
	ReceiptDamaged      = "damaged"
	ReceiptRestored     = "restored"
	ReceiptExpiredAge   = "expired_age"
	ReceiptExpiredBytes = "expired_bytes"
	ReceiptUnsendable   = "unsendable"
)

// NewHeader is the first message on a stream of that kind.
func NewHeader(kind Kind) *StreamHeader {
	return &StreamHeader{Version: Version, Kind: string(kind)}
}

// CheckHeader gives the kind of the stream that a header announces, or says why it is refused.
func CheckHeader(h *StreamHeader) (Kind, error) {
	if v := h.GetVersion(); v < MinVersion || v > Version {
		return "", fmt.Errorf("the peer speaks version %d of the tunnel's protocol and this program speaks %d to %d; update the older of agent and control plane", v, MinVersion, Version)
	}
	kind := Kind(h.GetKind())
	if !slices.Contains(Kinds(), kind) {
		return "", fmt.Errorf("the peer opened a stream of the kind %.40q, which does not exist; a stream is one of %q", h.GetKind(), Kinds())
	}
	return kind, nil
}

// WriteMessage writes one message with its length before it, in a single Write. Its texts become valid as in Encode.
func WriteMessage(w io.Writer, m proto.Message) error {
	size := proto.Size(m)
	if size > MaxMessage {
		return fmt.Errorf("write a %s of %d bytes, at most %d are allowed: %w", m.ProtoReflect().Descriptor().Name(), size, MaxMessage, ErrTooBig)
	}
	buf := make([]byte, lengthSize, lengthSize+size)
	buf, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(buf, m)
	if err != nil {
		buf, err = appendMessage(make([]byte, lengthSize), m)
	}
	if err != nil {
		return err
	}
	if len(buf)-lengthSize > MaxMessage {
		return fmt.Errorf("write a %s of %d bytes, at most %d are allowed: %w", m.ProtoReflect().Descriptor().Name(), len(buf)-lengthSize, MaxMessage, ErrTooBig)
	}
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-lengthSize)) //nolint:gosec // at most MaxMessage
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("send a %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}

// ReadMessage reads one message into the given one, replacing what it held. The error is io.EOF (wrapped) when the
// stream ended between two messages, and ErrTooBig when the bound is exceeded, which is seen before anything is
// allocated.
func ReadMessage(r io.Reader, into proto.Message) error {
	return read(r, into, bounds{MaxMessage, maxElements, func(int, int) error { return nil }})
}

// ReadFirst is ReadMessage for the first message of a stranger, which may have MaxFirst bytes.
func ReadFirst(r io.Reader, into proto.Message) error {
	err := read(r, into, bounds{MaxFirst, maxFirstElements, func(int, int) error { return nil }})
	if errors.Is(err, ErrTooBig) {
		err = fmt.Errorf("%w; the first message of an agent is small: if this is an outfeed-agent with many connectors, update the control plane", err)
	}
	return err
}

// ReadMessageIn is ReadMessage where memory is short: room is asked before a message takes more than FreeBody bytes, and then
// for each FreeBody bytes more. An error of room ends the reading, in the middle of the message.
func ReadMessageIn(r io.Reader, into proto.Message, room Room) error {
	return read(r, into, bounds{MaxMessage, maxElements, room})
}

// bounds are what a message may have, and who is asked for room.
type bounds struct {
	bytes, elements int
	room            Room
}

func read(r io.Reader, into proto.Message, b bounds) error {
	name := into.ProtoReflect().Descriptor().Name()
	var prefix [lengthSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return fmt.Errorf("receive a %s: %w", name, err)
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if int64(size) > int64(b.bytes) {
		return fmt.Errorf("receive a %s of %d bytes, at most %d are allowed: %w", name, size, b.bytes, ErrTooBig)
	}
	var body body
	defer body.free()
	if err := body.read(r, int(size), b.room); err != nil {
		return fmt.Errorf("receive a %s of %d bytes: %w", name, size, err)
	}
	return body.use(func(all []byte) error {
		if err := checkElements(into.ProtoReflect().Descriptor(), all, b.elements); err != nil {
			return fmt.Errorf("receive a %s: %w", name, err)
		}
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(all, into); err != nil {
			return fmt.Errorf("decode a %s: %w", name, err)
		}
		return nil
	})
}
