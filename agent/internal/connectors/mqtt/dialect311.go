package mqtt

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// keep311 is how many arrivals are remembered for a 3.1.1 broker, which does not say how many it may have in flight;
// brokers have 10 to 100 unless they were told otherwise.
const keep311 = 1024

// dialect311 is MQTT 3.1.1.
type dialect311 struct{}

func (dialect311) keep() int { return keep311 }

func write311(w io.Writer, packet packets.ControlPacket) error {
	return packet.Write(w) //nolint:wrapcheck // the session says what was being done
}

func (dialect311) connect(w io.Writer, s *settings, session sessionStart) error {
	return write311(w, &packets.ConnectPacket{
		FixedHeader:  packets.FixedHeader{MessageType: packets.Connect},
		ProtocolName: "MQTT", ProtocolVersion: 4, ClientIdentifier: s.clientID, CleanSession: bool(session),
		Keepalive: uint16(s.keepAlive / time.Second), //nolint:gosec // at most 18 hours
		Username:  s.username, UsernameFlag: s.username != "",
		Password: []byte(s.password.Reveal()), PasswordFlag: !s.password.Empty(),
	})
}

func (dialect311) subscribe(w io.Writer, s *settings) error {
	return write311(w, &packets.SubscribePacket{
		FixedHeader: packets.FixedHeader{MessageType: packets.Subscribe, Qos: 1},
		MessageID:   subscribeID, Topics: []string{s.topic}, Qoss: []byte{s.qos},
	})
}

func (dialect311) unsubscribe(w io.Writer, topic string) error {
	return write311(w, &packets.UnsubscribePacket{
		FixedHeader: packets.FixedHeader{MessageType: packets.Unsubscribe, Qos: 1},
		MessageID:   unsubscribeID, Topics: []string{topic},
	})
}

func (dialect311) acknowledge(w io.Writer, id uint16) error {
	return write311(w, &packets.PubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Puback}, MessageID: id})
}

func (dialect311) ping(w io.Writer) error {
	return write311(w, &packets.PingreqPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Pingreq}})
}

func (dialect311) disconnect(w io.Writer) error {
	return write311(w, &packets.DisconnectPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Disconnect}})
}

func (dialect311) read(r io.Reader) (event, error) {
	packet, err := packets.ReadPacket(r)
	if err != nil {
		return event{}, err //nolint:wrapcheck // the session says what was being done
	}
	switch p := packet.(type) {
	case *packets.PublishPacket:
		return event{message: &message{
			topic: p.TopicName, payload: p.Payload, id: p.MessageID, qos: p.Qos, dup: p.Dup, retain: p.Retain,
		}}, nil
	case *packets.ConnackPacket:
		if p.ReturnCode != packets.Accepted {
			return event{closed: refused311(p.ReturnCode)}, nil
		}
		return event{connected: &accepted{sessionPresent: p.SessionPresent}}, nil
	case *packets.SubackPacket:
		if len(p.ReturnCodes) != 1 {
			return event{}, errUnexpected
		}
		return event{subscribed: &p.ReturnCodes[0]}, nil
	case *packets.UnsubackPacket, *packets.PingrespPacket:
		return event{}, nil
	}
	return event{}, errUnexpected
}

// refused311 says why a connect was refused, and whether trying again can help.
func refused311(code byte) error {
	switch code {
	case packets.ErrRefusedBadProtocolVersion:
		return permanent("the broker does not speak MQTT 3.1.1; write version: 5")
	case packets.ErrRefusedIDRejected:
		return permanent("the broker refuses the client id; give the connection another client_id")
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return permanent("the broker refuses the user name or the password, or does not allow the client to connect")
	case packets.ErrRefusedServerUnavailable:
		return errors.New("the broker is not available at the moment")
	}
	return fmt.Errorf("the broker refuses the connection: reason %#x", code)
}
