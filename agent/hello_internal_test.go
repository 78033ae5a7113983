package agent

import (
	"crypto/ed25519"
	"encoding/json"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// TestHelloFits measures the hello of this agent, which describes all its connectors: control planes of the same version take
// wire.MaxFirst bytes of somebody whom they do not know yet, and those of agents that are newer should fit as well.
func TestHelloFits(t *testing.T) {
	t.Parallel()
	hello := &wire.Hello{
		Host: host(), Counter: math.MaxInt64, Signature: make([]byte, ed25519.SignatureSize), DesiredSerial: math.MaxInt64,
		Clock: math.MaxInt64, Session: make([]byte, 32),
	}
	for _, spec := range specs() {
		encoded, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		hello.ConnectorSpecs = append(hello.ConnectorSpecs, encoded)
	}
	size := proto.Size(&wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: hello}})
	t.Logf("the hello has %d bytes of %d", size, wire.MaxFirst)
	if 2*size > wire.MaxFirst {
		t.Errorf("the hello has %d bytes, more than half of the %d of wire.MaxFirst: raise that two releases before more connectors come", size, wire.MaxFirst)
	}
}
