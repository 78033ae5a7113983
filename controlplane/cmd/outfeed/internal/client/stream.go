package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// maxEvent bounds one line of the event stream, in bytes.
	maxEvent = 16 << 20
	// silence is how long a stream may be silent: three heartbeats of the server.
	silence = 45 * time.Second
)

// Event is one server-sent event.
type Event struct {
	Name string
	Data []byte
}

// errSilent says that a stream fell silent, which is how a lost connection shows.
var errSilent = errors.New("the event stream fell silent")

// Stream is an open event stream.
type Stream struct {
	body   io.Closer
	events *decoder
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// Follow opens the event stream. What happens from now on comes from its Next. The caller closes it.
func (c *Client) Follow(ctx context.Context) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(silence, func() { cancel(errSilent) })
	response, err := c.open(ctx, http.MethodGet, "/events", nil) //nolint:bodyclose // Stream.Close closes it
	if err != nil {
		timer.Stop()
		cancel(err)
		return nil, err
	}
	alive := readerFunc(func(p []byte) (int, error) {
		n, err := response.Body.Read(p)
		if n > 0 {
			timer.Reset(silence)
		}
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		return n, err
	})
	return &Stream{body: response.Body, events: newDecoder(alive), cancel: cancel, timer: timer}, nil
}

// Next waits for the next event. io.EOF says that the server ended the stream.
func (s *Stream) Next() (Event, error) { return s.events.next() }

// Close ends the stream.
func (s *Stream) Close() {
	s.timer.Stop()
	s.cancel(io.EOF)
	_ = s.body.Close() // nothing is lost with what was not read
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// decoder reads the format of server-sent events (HTML standard, section 9.2.6) as far as the API uses it: the fields
// event and data.
type decoder struct{ lines *bufio.Scanner }

func newDecoder(r io.Reader) *decoder {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	return &decoder{lines: lines}
}

func (d *decoder) next() (Event, error) {
	var e Event
	var data []byte
	for d.lines.Scan() {
		line := d.lines.Bytes()
		if len(line) == 0 {
			if data == nil {
				e = Event{}
				continue
			}
			e.Data = bytes.TrimSuffix(data, []byte("\n"))
			return e, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.Name = string(value)
		case "data":
			if len(data)+len(value) > maxEvent {
				return Event{}, fmt.Errorf("an event is larger than %d bytes", maxEvent)
			}
			data = append(append(data, value...), '\n')
		}
	}
	if err := d.lines.Err(); err != nil {
		return Event{}, fmt.Errorf("read the event stream: %w", err)
	}
	return Event{}, io.EOF
}
