// Package all is the one list of connectors.
//
// It holds no state and does no I/O. A new connector is one folder beside this one and one line here.
package all

import (
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
	"github.com/outfeed/outfeed/agent/internal/connectors/mqtt"
	"github.com/outfeed/outfeed/agent/internal/connectors/postgres"
)

// All lists the connectors, in the order of the documentation.
func All() []connector.Connector {
	return []connector.Connector{
		file.New(),
		mqtt.New(),
		postgres.New(),
	}
}

// Find is the connector of that kind; ok is false when there is none.
func Find(kind string) (c connector.Connector, ok bool) {
	for _, c := range All() {
		if c.Spec().Kind == kind {
			return c, true
		}
	}
	return nil, false
}
