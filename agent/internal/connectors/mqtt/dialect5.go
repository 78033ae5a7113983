package mqtt

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// receiveMaximum is how many messages a version 5 broker may have in flight to us.
const receiveMaximum = 256

// dialect5 is MQTT 5.
type dialect5 struct{}

func (dialect5) keep() int { return receiveMaximum }

func write5(w io.Writer, packet interface {
	WriteTo(io.Writer) (int64, error)
},
) error {
	_, err := packet.WriteTo(w)
	return err
}

func (dialect5) connect(w io.Writer, s *settings, session sessionStart) error {
	expiry := uint32(min(s.sessionExpiry/time.Second, math.MaxUint32)) //nolint:gosec // just bounded, and a duration option is positive
	receive, size := uint16(receiveMaximum), uint32(maxPacket)
	return write5(w, &packets.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: s.clientID, CleanStart: bool(session),
		KeepAlive: uint16(s.keepAlive / time.Second), //nolint:gosec // at most 18 hours
		Username:  s.username, UsernameFlag: s.username != "",
		Password: []byte(s.password.Reveal()), PasswordFlag: !s.password.Empty(),
		Properties: &packets.Properties{SessionExpiryInterval: &expiry, ReceiveMaximum: &receive, MaximumPacketSize: &size},
	})
}

func (dialect5) subscribe(w io.Writer, s *settings) error {
	const onlyIfNew, never = 1, 2 // MQTT 5, section 3.8.3.1: Retain Handling
	handling := byte(never)
	if s.acceptRetained {
		handling = onlyIfNew
	}
	return write5(w, &packets.Subscribe{
		PacketID: subscribeID, Properties: &packets.Properties{},
		Subscriptions: []packets.SubOptions{{Topic: s.topic, QoS: s.qos, RetainHandling: handling}},
	})
}

func (dialect5) unsubscribe(w io.Writer, topic string) error {
	return write5(w, &packets.Unsubscribe{PacketID: unsubscribeID, Topics: []string{topic}, Properties: &packets.Properties{}})
}

func (dialect5) acknowledge(w io.Writer, id uint16) error {
	return write5(w, &packets.Puback{PacketID: id, Properties: &packets.Properties{}})
}

func (dialect5) ping(w io.Writer) error { return write5(w, &packets.Pingreq{}) }

func (dialect5) disconnect(w io.Writer) error {
	return write5(w, &packets.Disconnect{Properties: &packets.Properties{}})
}

func (dialect5) read(r io.Reader) (event, error) {
	packet, err := packets.ReadPacket(r)
	if err != nil {
		return event{}, err //nolint:wrapcheck // the session says what was being done
	}
	switch p := packet.Content.(type) {
	case *packets.Publish:
		return event{message: &message{
			topic: p.Topic, payload: p.Payload, id: p.PacketID, qos: p.QoS, dup: p.Duplicate, retain: p.Retain,
		}}, nil
	case *packets.Connack:
		if p.ReasonCode != 0 {
			return event{closed: refused5(p)}, nil
		}
		a := accepted{sessionPresent: p.SessionPresent}
		if p.Properties != nil && p.Properties.ServerKeepAlive != nil {
			a.keepAlive = time.Duration(*p.Properties.ServerKeepAlive) * time.Second
		}
		return event{connected: &a}, nil
	case *packets.Suback:
		if len(p.Reasons) != 1 {
			return event{}, errUnexpected
		}
		return event{subscribed: &p.Reasons[0]}, nil
	case *packets.Disconnect:
		const takenOver = 0x8e
		if p.ReasonCode == takenOver {
			return event{closed: errTakenOver}, nil
		}
		return event{closed: fmt.Errorf("the broker ended the connection: %s", reasonOf(p.Reason(), p.ReasonCode))}, nil
	case *packets.Unsuback, *packets.Pingresp:
		return event{}, nil
	}
	return event{}, errUnexpected
}

func reasonOf(text string, code byte) string {
	if text == "" {
		return fmt.Sprintf("reason %#x", code)
	}
	return text
}

// refused5 says why a connect was refused, and whether trying again can help.
func refused5(p *packets.Connack) error {
	switch p.ReasonCode {
	case 0x84:
		return permanent("the broker does not speak MQTT 5; write version: 3.1.1")
	case 0x85:
		return permanent("the broker refuses the client id; give the connection another client_id")
	case 0x86, 0x87, 0x8c:
		return permanent("the broker refuses the user name or the password, or does not allow the client to connect")
	}
	return fmt.Errorf("the broker refuses the connection: %s", reasonOf(p.Reason(), p.ReasonCode))
}
