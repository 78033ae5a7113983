package mqtt

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/internal/excerpt"
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
			failed.Add(connector.FailedRecord{Where: "topic " + w.topic, Reason: fmt.Sprintf("the message would have %d bytes; the most is %d", n, decode.MaxRecord), Record: excerpt.Bytes(w.texts[before:], connector.MaxSampled)})
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

// exchange sends all that waits, and takes the acknowledgements, which lag behind by a window at the most. What is sent next tells the
// broker's system that the last ones came: one that gathers small packets waits for that.
func (w *sink) exchange(ctx context.Context) error {
	out := bufio.NewWriter(w.conn.conn)
	var open window
	for sent, acknowledged := 0, 0; acknowledged < len(w.held); acknowledged++ {
		for id := open.free(); id > 0 && sent < len(w.held); id = open.free() {
			if err := w.send(out, id, w.message(sent)); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			sent++
			open[id-1] = sent
		}
		if w.conn.reader.Buffered() == 0 {
			if err := w.flush(ctx, out); err != nil {
				return err
			}
		}
		if err := w.await(&open); err != nil {
			return err
		}
	}
	return nil
}

// window has, for each packet id from 1 on, the number of the message that waits under it for its acknowledgement, counted from
// 1; 0 for an id that is free.
type window [publishWindow]int

// free gives a packet id, 0 when all are in use.
func (o *window) free() uint16 {
	return uint16(slices.Index(o[:], 0) + 1) //nolint:gosec // it is small
}

// message is the nth that waits, from 0 on.
func (w *sink) message(n int) []byte {
	begin := 0
	if n > 0 {
		begin = w.held[n-1]
	}
	return w.texts[begin:w.held[n]]
}

// flush sends what is gathered, and gives the broker time anew.
func (w *sink) flush(ctx context.Context, out *bufio.Writer) error {
	if err := w.conn.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return fmt.Errorf("set the deadline: %w", err)
	}
	if ctx.Err() != nil { // the deadline of its end may just have been overwritten
		return context.Cause(ctx)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

func (w *sink) send(out io.Writer, id uint16, payload []byte) error {
	if w.version == version311 {
		return write311(out, &packets.PublishPacket{
			FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Qos: 1, Retain: w.retain},
			TopicName:   w.topic, MessageID: id, Payload: payload,
		})
	}
	return write5(out, &packets5.Publish{
		Topic: w.topic, PacketID: id, QoS: 1, Retain: w.retain, Payload: payload, Properties: &packets5.Properties{},
	})
}

// await takes one acknowledgement.
func (w *sink) await(open *window) error {
	id, reason, err := w.acknowledgement()
	if err != nil {
		return fmt.Errorf("wait for the broker's acknowledgement: %w", err)
	}
	if id < 1 || id > publishWindow || open[id-1] == 0 {
		return errUnexpected
	}
	message := w.message(open[id-1] - 1)
	open[id-1] = 0
	if err := w.judge(reason); err != nil {
		return err
	}
	if reason >= refusedGrant {
		w.rejected.Add(connector.FailedRecord{
			Where: "topic " + w.topic, Reason: fmt.Sprintf("the broker refuses the message (reason %#x)", reason), Record: excerpt.Bytes(message, connector.MaxSampled),
		})
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
