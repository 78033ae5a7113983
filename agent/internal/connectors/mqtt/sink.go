package mqtt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

const (
	// publishWindow is how many messages may be without an acknowledgement.
	publishWindow = 16
	// answerTimeout bounds the wait for an acknowledgement.
	answerTimeout = 10 * time.Second
)

func writeOptions() []flowdef.Option {
	return []flowdef.Option{
		{Name: "topic", Type: flowdef.OptionString, Required: true, Help: "The topic to publish to; every row is one message, a JSON object."},
		{Name: "retain", Type: flowdef.OptionBool, Default: "false", Help: "Whether the broker keeps the last message for those who subscribe later."},
	}
}

// sink publishes rows with QoS 1 on a connection of its own, which it keeps. It has no goroutines.
type sink struct {
	settings
	retain bool
	// held are the messages that wait, and texts what they consist of.
	held  []int
	texts []byte
	conn  *session
	// rejected is what the broker refused of the messages under way.
	rejected connector.Failures
}

// NewSink checks the settings.
func (c mqttConnector) NewSink(in connector.SinkSettings) (connector.Sink, error) {
	conn, err := connector.ParseOptions(c.Spec().Options, in.Connection.Options, in.Connection.Secrets)
	if err != nil {
		return nil, err
	}
	with, err := connector.ParseOptions(writeOptions(), in.With, nil)
	if err != nil {
		return nil, err
	}
	s := settings{
		SourceSettings: connector.SourceSettings{Connection: in.Connection, With: in.With, Logger: in.Logger},
		version:        conn.String("version"),
		username:       conn.String("username"),
		password:       conn.Secret("password"),
		clientID:       conn.String("client_id"),
		caFile:         conn.String("ca_file"),
		keepAlive:      conn.Duration("keep_alive"),
		topic:          with.String("topic"),
	}
	if err := s.parseAddress(conn.String("address")); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if strings.ContainsAny(s.topic, "+#") || strings.HasPrefix(s.topic, "$") {
		return nil, &connector.OptionError{Option: "topic", Message: "must be one topic such as plant/results, without + and # and not beginning with $"}
	}
	if s.clientID == "" {
		sum := sha256.Sum256([]byte(in.Instance + "/write"))
		s.clientID = "outfeed-" + hex.EncodeToString(sum[:])[:15]
	}
	s.keepAlive = 0 // nothing pings between two commits; a connection that the broker ends is made again
	return &sink{settings: s, retain: with.Bool("retain")}, nil
}

// Write makes the messages.
func (w *sink) Write(b *column.Batch) (held int64, failed connector.Failures) {
	for row := range b.Len {
		before := len(w.texts)
		w.texts = connector.AppendRowJSON(w.texts, b, row)
		if n := len(w.texts) - before; n > decode.MaxRecord {
			failed.Add(connector.FailedRecord{Where: "topic " + w.topic, Reason: fmt.Sprintf("the message would have %d bytes; the most is %d", n, decode.MaxRecord), Record: string(w.texts[before : before+256])})
			w.texts = w.texts[:before]
			continue
		}
		w.held = append(w.held, len(w.texts))
	}
	return int64(len(w.texts)), failed
}

// Flush publishes what waits. A kept connection that turns out to be cut is replaced without a word.
func (w *sink) Flush(ctx context.Context) (connector.Failures, error) {
	if len(w.held) == 0 {
		return connector.Failures{}, nil
	}
	kept := w.conn != nil
	err := w.publish(ctx)
	if err != nil && kept && ctx.Err() == nil {
		err = w.publish(ctx)
	}
	if err != nil {
		return connector.Failures{}, err
	}
	w.held, w.texts = w.held[:0], w.texts[:0]
	failed := w.rejected
	w.rejected = connector.Failures{}
	return failed, nil
}

// publish sends all that waits and has it acknowledged.
func (w *sink) publish(ctx context.Context) (err error) {
	w.rejected = connector.Failures{}
	if w.conn == nil {
		if w.conn, err = greet(ctx, &w.settings, func(c *session) error { return c.connect(newSession) }); err != nil {
			return err
		}
	}
	conn := w.conn.conn
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // reads and writes then fail
	err = w.exchange(ctx)
	if !release() && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // it failed already
		w.conn = nil
		return at(&w.settings, err)
	}
	return nil
}

// exchange sends a window of messages at a time and waits for its acknowledgements.
func (w *sink) exchange(ctx context.Context) error {
	start := 0
	for first := 0; first < len(w.held); first += publishWindow {
		window := w.held[first:min(first+publishWindow, len(w.held))]
		if err := w.conn.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return fmt.Errorf("set the deadline: %w", err)
		}
		if ctx.Err() != nil { // the deadline of its end may just have been overwritten
			return context.Cause(ctx)
		}
		from := start
		for i, end := range window {
			if err := w.send(uint16(i+1), w.texts[start:end]); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			start = end
		}
		if err := w.await(window, from); err != nil {
			return err
		}
	}
	return nil
}

func (w *sink) send(id uint16, payload []byte) error {
	if w.version == version311 {
		return write311(w.conn.conn, &packets.PublishPacket{
			FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Qos: 1, Retain: w.retain},
			TopicName:   w.topic, MessageID: id, Payload: payload,
		})
	}
	return write5(w.conn.conn, &packets5.Publish{
		Topic: w.topic, PacketID: id, QoS: 1, Retain: w.retain, Payload: payload, Properties: &packets5.Properties{},
	})
}

// await reads the acknowledgements of a window, whose texts begin at from.
func (w *sink) await(window []int, from int) error {
	var seen [publishWindow]bool
	for range window {
		id, reason, err := w.acknowledgement()
		if err != nil {
			return fmt.Errorf("wait for the broker's acknowledgement: %w", err)
		}
		if id < 1 || int(id) > len(window) || seen[id-1] {
			return errUnexpected
		}
		seen[id-1] = true
		if err := w.judge(reason); err != nil {
			return err
		}
		if reason >= refusedGrant {
			begin := from
			if id > 1 {
				begin = window[id-2]
			}
			w.rejected.Add(connector.FailedRecord{
				Where: "topic " + w.topic, Reason: fmt.Sprintf("the broker refuses the message (reason %#x)", reason), Record: string(w.texts[begin:min(window[id-1], begin+256)]),
			})
		}
	}
	return nil
}

// judge says which refusals are not about one message. The reasons are those of MQTT 5, section 3.4.2.1.
func (w *sink) judge(reason byte) error {
	const unspecified, implementation, notAuthorized, topicInvalid, quota = 0x80, 0x83, 0x87, 0x90, 0x97
	switch reason {
	case notAuthorized:
		return permanent("the client %s may not publish to %s; ask for the right to write that topic", w.clientID, w.topic)
	case topicInvalid:
		return permanent("the broker does not take the topic %s", w.topic)
	case unspecified, implementation, quota:
		return fmt.Errorf("the broker does not take the message now: reason %#x", reason)
	}
	return nil
}

// acknowledgement reads packets up to the next acknowledgement.
func (w *sink) acknowledgement() (id uint16, reason byte, err error) {
	for {
		size, _, err := w.conn.peekSize()
		if err != nil {
			return 0, 0, err
		}
		if size > maxPacket {
			return 0, 0, errUnexpected
		}
		if w.version == version311 {
			packet, err := packets.ReadPacket(w.conn.reader)
			if err != nil {
				return 0, 0, err //nolint:wrapcheck // the caller says what was being done
			}
			ack, ok := packet.(*packets.PubackPacket)
			if !ok {
				return 0, 0, errUnexpected
			}
			return ack.MessageID, 0, nil
		}
		packet, err := packets5.ReadPacket(w.conn.reader)
		if err != nil {
			return 0, 0, err //nolint:wrapcheck // the caller says what was being done
		}
		switch p := packet.Content.(type) {
		case *packets5.Puback:
			return p.PacketID, p.ReasonCode, nil
		case *packets5.Disconnect:
			return 0, 0, fmt.Errorf("the broker ended the connection: %s", reasonOf(p.Reason(), p.ReasonCode))
		case *packets5.Pingresp:
		default:
			return 0, 0, errUnexpected
		}
	}
}

// Close ends the connection and forgets what waits.
func (w *sink) Close() error {
	w.held, w.texts = nil, nil
	if w.conn == nil {
		return nil
	}
	_ = w.conn.conn.SetDeadline(time.Now().Add(writeTimeout)) // it is closed next
	_ = w.conn.dialect.disconnect(w.conn.conn)                // the broker notices the end as well
	err := w.conn.conn.Close()
	w.conn = nil
	if err != nil {
		return fmt.Errorf("close the connection to the MQTT broker: %w", err)
	}
	return nil
}
