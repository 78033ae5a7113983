package mqtt

import (
	"context"
	"fmt"
	"io"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/internal/excerpt"
)

// batchBytes is how much text a batch takes.
const batchBytes = 4 << 20

// source reads one subscription.
type source struct {
	settings settings
	known    position
	session  *session
	closed   bool
	// announced says that a cursor was handed out since the subscription was made: with it a restart finds the session.
	announced bool
	// told says that a delivery was made since the session began: so the caller has heard that it stands.
	told     bool
	decoder  *decode.JSON
	topicCol int
	batch    *column.Batch
	messages []message
	text     []byte
	spans    []span
}

// span is where a message lies in the text of a batch.
type span struct{ topic, payload, end int }

func newSource(s settings, known position) *source {
	src := &source{
		settings: s, known: known, announced: known.topic == s.topic && known.qos == s.qos,
		decoder: decode.NewJSON(s.Schema, s.loc), topicCol: -1, batch: column.NewBatch(s.Schema),
	}
	if s.topicAs != "" {
		src.topicCol = s.Schema.Index(s.topicAs)
		src.decoder.Ignore(s.topicAs)
	}
	src.decoder.Watch(s.Drift, s.Declared)
	return src
}

// Traits says that a broker sends again what was not acknowledged, with QoS 1.
func (s *source) Traits() connector.Traits {
	return connector.Traits{Replayable: s.settings.qos > 0, AckGated: s.settings.qos > 0}
}

// Next gives the messages that are there.
func (s *source) Next(ctx context.Context) (connector.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return connector.Delivery{}, context.Cause(ctx)
		}
		if s.closed {
			return connector.Delivery{}, connector.ErrClosed
		}
		if s.session == nil {
			session, err := dial(ctx, &s.settings, &s.known)
			if err != nil {
				return connector.Delivery{}, err
			}
			s.session, s.told = session, false
			if s.announced && !session.resumed {
				s.announced = false
				s.settings.Logger.WarnContext(ctx, "the mqtt broker has lost the session; what was published meanwhile may be lost",
					"address", s.settings.address, "topic", s.settings.topic)
			}
		}
		if !s.announced {
			s.announced, s.told = true, true
			return connector.Delivery{Cursor: s.known.encode()}, nil
		}
		var err error
		s.messages, err = s.session.take(s.messages[:0], column.TargetRows, batchBytes)
		if err != nil {
			s.session.close()
			s.session = nil
			return connector.Delivery{}, at(&s.settings, err)
		}
		d, any := s.deliver()
		if any || !s.told {
			s.told = true
			return d, nil // an empty one when nothing is there yet
		}
		select {
		case <-s.session.ready:
		case <-ctx.Done():
			return connector.Delivery{}, context.Cause(ctx)
		}
	}
}

// deliver decodes the taken messages that are new. It says false when there are none.
func (s *source) deliver() (connector.Delivery, bool) {
	fresh := s.messages[:0]
	var again []uint16
	for _, m := range s.messages {
		if m.qos == 0 {
			if !m.retain || s.settings.acceptRetained {
				fresh = append(fresh, m)
			}
			continue
		}
		hash := hashOf(m.topic, m.payload)
		if a := s.known.find(m.id, hash); m.dup && a != nil {
			if a.acked {
				again = append(again, m.id) // the acknowledgement got lost
			}
			continue
		}
		if m.retain && !s.settings.acceptRetained {
			again = append(again, m.id)
			continue
		}
		s.known.add(m.id, hash, s.session.dialect.keep())
		fresh = append(fresh, m)
	}
	s.acknowledge(again)
	if len(fresh) == 0 {
		return connector.Delivery{}, false
	}
	d := s.decode(fresh)
	d.Cursor = s.known.encode()
	return d, true
}

// decode makes a batch of the messages.
func (s *source) decode(messages []message) connector.Delivery {
	s.text, s.spans = s.text[:0], s.spans[:0]
	for _, m := range messages {
		sp := span{topic: len(s.text)}
		if s.topicCol >= 0 {
			s.text = append(s.text, m.topic...)
		}
		sp.payload = len(s.text)
		s.text = append(s.text, m.payload...)
		sp.end = len(s.text)
		s.spans = append(s.spans, sp)
	}
	d := connector.Delivery{Batch: s.batch, Read: int64(len(messages))}
	s.decoder.Begin(s.batch, len(messages))
	for i, m := range messages {
		sp := s.spans[i]
		d.Bytes += int64(len(m.payload))
		if m.tooLong {
			d.Failed.Add(failure(m, fmt.Sprintf("longer than %d MiB", decode.MaxRecord>>20)))
			continue
		}
		if s.topicCol >= 0 {
			s.decoder.Preset(s.topicCol, sp.topic, sp.payload)
		}
		if err := s.decoder.Record(s.text, sp.payload, sp.end); err != nil {
			d.Failed.Add(failure(m, err.Error()))
		}
	}
	s.decoder.Finish(s.text)
	for _, note := range s.decoder.Drift(false) {
		d.Failed.Note(connector.FailedRecord{Where: "topic " + s.settings.topic, Reason: note})
	}
	return d
}

func failure(m message, reason string) connector.FailedRecord {
	return connector.FailedRecord{
		Where: "topic " + m.topic, Reason: reason, Record: excerpt.Bytes(m.payload, connector.MaxSampled),
	}
}

// Committed acknowledges the messages up to the cursor. A connection that fails meanwhile does not matter: the broker sends them
// again, and they are known.
func (s *source) Committed(_ context.Context, upTo connector.Cursor) error {
	last, err := sequence(upTo)
	if err != nil {
		return err
	}
	var ids []uint16
	for i := range s.known.arrivals {
		if a := &s.known.arrivals[i]; a.seq <= last && !a.acked {
			a.acked = true
			ids = append(ids, a.id)
		}
	}
	s.acknowledge(ids)
	return nil
}

// acknowledge sends acknowledgements. An error ends the session, which the next call of Next reports.
func (s *source) acknowledge(ids []uint16) {
	if len(ids) == 0 || s.session == nil {
		return
	}
	err := s.session.send(func(w io.Writer) error {
		for _, id := range ids {
			if err := s.session.dialect.acknowledge(w, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.session.fail(err)
	}
}

// Close ends the connection. The broker keeps the session.
func (s *source) Close() error {
	s.closed = true
	if s.session != nil {
		s.session.close()
	}
	return nil
}
