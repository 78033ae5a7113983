package mqtt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connector/conformance"
	"github.com/outfeed/outfeed/agent/internal/connectors/mqtt"
	"github.com/outfeed/outfeed/protocol/expr"
)

func newSink(t *testing.T, options, with map[string]any) (connector.Sink, error) {
	t.Helper()
	c, ok := mqtt.New().(connector.Sinker)
	if !ok {
		t.Fatal("the connector writes nothing")
	}
	return c.NewSink(connector.SinkSettings{
		Connection: connector.Connection{Name: "out", Kind: "mqtt", Options: options}, With: with, Instance: t.Name(),
		Schema: expr.Schema{{Name: "n", Type: expr.Int}},
	})
}

func numbers(first, end int) *column.Batch {
	b := column.NewBatch(expr.Schema{{Name: "n", Type: expr.Int}})
	for n := first; n < end; n++ {
		b.Cols[0].AppendInt(int64(n))
		b.Len++
	}
	return b
}

// subscribed gives what arrives at a topic.
func subscribed(t *testing.T, b *broker, topic string) <-chan string {
	t.Helper()
	arrived := make(chan string, 1000)
	c := b.publisher()
	token := c.Subscribe(topic, 1, func(_ paho.Client, m paho.Message) { arrived <- string(m.Payload()) })
	if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	return arrived
}

func receive(t *testing.T, from <-chan string, first, end int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := first; n < end; n++ {
		select {
		case got := <-from:
			if want := fmt.Sprintf(`{"n":%d}`, n); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("message %d does not come", n)
		}
	}
}

func TestSinkPublishes(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, "")
			through := startProxy(t, b.address)
			s, err := newSink(t, map[string]any{"address": through.address, "version": version}, map[string]any{"topic": "plant/results"})
			if err != nil {
				t.Fatal(err)
			}
			arrived := subscribed(t, b, "plant/#")
			flush := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				failed, err := s.Flush(ctx)
				if failed.Count > 0 {
					t.Errorf("%+v", failed)
				}
				return err
			}
			s.Write(numbers(0, 100))
			if err := flush(); err != nil {
				t.Fatal(err)
			}
			receive(t, arrived, 0, 100)
			through.cut() // a kept connection that is cut is made again
			s.Write(numbers(100, 103))
			if err := flush(); err != nil {
				t.Fatal(err)
			}
			receive(t, arrived, 100, 103)
			through.away.Store(true)
			through.cut()
			s.Write(numbers(103, 105))
			if err := flush(); err == nil {
				t.Error("a broker that is away takes messages")
			}
			through.away.Store(false)
			if err := flush(); err != nil {
				t.Fatal(err)
			}
			receive(t, arrived, 103, 105)
			through.deaf.Store(true)
			s.Write(numbers(0, 1))
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := s.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a broker that does not answer gives %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSinkWithoutTheRightToPublish(t *testing.T) {
	t.Parallel()
	acl := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(acl, []byte("topic read plant/#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, "allow_anonymous true\nacl_file "+acl)
	s, err := newSink(t, map[string]any{"address": b.address}, map[string]any{"topic": "plant/results"})
	if err != nil {
		t.Fatal(err)
	}
	s.Write(numbers(0, 3))
	_, err = s.Flush(t.Context())
	var permanent *connector.PermanentError
	if !errors.As(err, &permanent) || !strings.Contains(err.Error(), "plant/results") {
		t.Errorf("got %v", err)
	}
}

func TestSinkRefusesOptions(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"", "a/+/b", "a/#", "$SYS/x"} {
		_, err := newSink(t, map[string]any{"address": "localhost"}, map[string]any{"topic": topic})
		var wrong *connector.OptionError
		if !errors.As(err, &wrong) || wrong.Option != "topic" {
			t.Errorf("topic %q gives %v", topic, err)
		}
	}
}

// listener is a broker that is published to, and what arrived there.
type listener struct {
	t       *testing.T
	through *proxy
	arrived <-chan string
	marker  paho.Client
}

func (l *listener) SinkSettings() connector.SinkSettings {
	return connector.SinkSettings{
		Connection: connector.Connection{Name: "out", Kind: "mqtt", Options: map[string]any{"address": l.through.address}},
		With:       map[string]any{"topic": "plant/results"}, Instance: l.t.Name(),
	}
}

func (l *listener) Down() { l.through.away.Store(true); l.through.cut() }
func (l *listener) Up()   { l.through.away.Store(false) }

// Written lists what came before a mark that is published now.
func (l *listener) Written() []int {
	publish(l.t, l.marker, "plant/results", "mark")
	var ids []int
	for text := range l.arrived {
		if text == "mark" {
			return ids
		}
		var row struct{ ID int }
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			l.t.Fatal(err)
		}
		ids = append(ids, row.ID)
	}
	return ids
}

func TestSinkConformance(t *testing.T) {
	t.Parallel()
	conformance.RunSink(t, mqtt.New(), func(t *testing.T) conformance.SinkSystem {
		t.Helper()
		b := startBroker(t, "allow_anonymous true\nmax_queued_messages 0")
		l := &listener{t: t, through: startProxy(t, b.address)}
		arrived := make(chan string, 10_000)
		l.arrived, l.marker = arrived, b.publisher()
		token := l.marker.Subscribe("plant/#", 1, func(_ paho.Client, m paho.Message) { arrived <- string(m.Payload()) })
		if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
		return l
	})
}
