package mqtt

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// message is a publication that arrived.
type message struct {
	topic   string
	payload []byte
	id      uint16
	qos     byte
	dup     bool
	retain  bool
	// tooLong says that the payload was longer than the limit and was passed over.
	tooLong bool
}

// event is a packet from the broker that matters: one of the pointers is set, or none for an answer to a ping.
type event struct {
	connected  *accepted
	subscribed *byte
	message    *message
	// closed says why the broker ends the connection.
	closed error
}

// accepted is the broker's answer to a connect.
type accepted struct {
	// sessionPresent says that the broker kept the session from before.
	sessionPresent bool
	// keepAlive is the broker's own, 0 when it takes ours.
	keepAlive time.Duration
}

// dialect writes and reads the packets of one version of the protocol.
type dialect interface {
	connect(w io.Writer, s *settings, session sessionStart) error
	subscribe(w io.Writer, s *settings) error
	unsubscribe(w io.Writer, topic string) error
	acknowledge(w io.Writer, id uint16) error
	ping(w io.Writer) error
	disconnect(w io.Writer) error
	read(r io.Reader) (event, error)
	// keep is how many arrivals to remember: what the broker may have in flight.
	keep() int
}

// sessionStart says whether to go on with the session that the broker has.
type sessionStart bool

const (
	newSession  sessionStart = true
	sameSession sessionStart = false
)

func newDialect(version string) dialect {
	if version == version311 {
		return dialect311{}
	}
	return dialect5{}
}

// subscribeID and unsubscribeID are the packet ids of the two packets that a source sends with one.
const (
	subscribeID   = 1
	unsubscribeID = 2
)

// refusedGrant is the answer to a subscription that the broker does not allow.
const refusedGrant = 0x80

// checkGrant reads the answer to a subscription.
func checkGrant(s *settings, granted byte) error {
	switch {
	case granted >= refusedGrant:
		return permanent("the broker at %s refuses to let the client %s subscribe to %s (reason %#x); ask for the right to read that topic", s.address, s.clientID, s.topic, granted)
	case granted < s.qos:
		return permanent("the broker at %s gives %s with QoS 0 only, which may lose messages; write qos: 0 to accept that", s.address, s.topic)
	}
	return nil
}

func permanent(format string, args ...any) error {
	return &connector.PermanentError{Err: fmt.Errorf(format, args...)} //nolint:err113 // the text is for a person
}

var errUnexpected = errors.New("the broker sent a packet that is not allowed here")
