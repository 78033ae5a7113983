package mqtt_test

import (
	"fmt"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connector/conformance"
	"github.com/outfeed/outfeed/agent/internal/connectors/mqtt"
)

// topicSystem is a broker with one topic.
type topicSystem struct {
	*broker
	via     *proxy
	version any
}

func (s *topicSystem) Settings() connector.SourceSettings {
	return connector.SourceSettings{
		Connection: connector.Connection{Name: "plc", Kind: "mqtt", Options: map[string]any{"address": s.via.address, "version": s.version}},
		With:       map[string]any{"topic": "plant/state"}, Instance: s.t.Name(),
	}
}

func (s *topicSystem) publishAll(payloads ...string) {
	p := s.publisher()
	for _, payload := range payloads {
		publish(s.t, p, "plant/state", payload)
	}
	p.Disconnect(100)
}

func (s *topicSystem) Add(first, end int) {
	var payloads []string
	for id := first; id < end; id++ {
		payloads = append(payloads, fmt.Sprintf(`{"id":%d,"name":%q}`, id, conformance.Name(id)))
	}
	s.publishAll(payloads...)
}

func (s *topicSystem) AddBad() { s.publishAll("nonsense") }

func (s *topicSystem) Down() { s.via.away.Store(true); s.via.cut() }
func (s *topicSystem) Up()   { s.via.away.Store(false) }

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, version := range []any{int64(5), "3.1.1"} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			conformance.Run(t, conformance.Harness{
				Connector: mqtt.New(), Records: 60,
				New: func(t *testing.T) conformance.System {
					t.Helper()
					b := startBroker(t, "")
					return &topicSystem{broker: b, via: startProxy(t, b.address), version: version}
				},
			})
		})
	}
}
