package fleet_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/fleet/fleettest"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestMain(m *testing.M) { fleettest.Main(m) }

// world is a control plane's domain on a database of its own.
type world struct {
	*fleet.Service
	db        *pgtest.DB
	bundleKey ed25519.PublicKey
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newReplica(t, pgtest.New(t), "replica-1")
}

// newReplica starts a Service for any number of tenants.
func newReplica(t *testing.T, db *pgtest.DB, name string) *world {
	t.Helper()
	return startReplica(t, db, name, fleet.ManyTenants)
}

// startReplica starts a Service on a database; several share one as the replicas of a control plane do.
func startReplica(t *testing.T, db *pgtest.DB, name string, tenancy fleet.Tenancy) *world {
	t.Helper()
	return &world{
		Service: fleettest.Start(t, db, fleet.Settings{Replica: name, Tenancy: tenancy, Tester: tester{}}),
		db:      db, bundleKey: fleettest.PublicKey(t),
	}
}

// tenant makes a tenant and gives its owner.
func (w *world) tenant(t *testing.T, name string) fleet.Actor {
	t.Helper()
	owner, _ := fleettest.Tenant(t, w.Service, name)
	return owner
}

// machine is what an agent has.
type machine struct {
	fleettest.Machine
	id      fleet.AgentIdentity
	counter uint64
	// session is the value of the last welcome that was kept.
	session []byte
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	return &machine{Machine: fleettest.NewMachine(t)}
}

func (w *world) token(t *testing.T, a fleet.Actor) seal.Token {
	t.Helper()
	return fleettest.Token(t, w.Service, a, map[string]string{"site": "berlin"})
}

// agent enrols a machine and connects it.
func (w *world) agent(t *testing.T, a fleet.Actor) *machine {
	t.Helper()
	m := newMachine(t)
	m.id = m.Enroll(t, w.Service, w.token(t, a))
	w.connect(t, m)
	return m
}

// connect begins the machine's next session, which it reports from, and gives the stored sequence.
func (w *world) connect(t *testing.T, m *machine) uint64 {
	t.Helper()
	begun, err := w.hello(t, m)
	if err != nil {
		t.Fatal(err)
	}
	m.session, m.id.Session = begun.Value, int64(m.counter) //nolint:gosec // small
	w.report(t, m)
	return begun.Stored
}

// hello says a machine's next hello, of whose answer the machine has seen nothing yet.
func (w *world) hello(t *testing.T, m *machine) (fleet.Session, error) {
	t.Helper()
	m.counter++
	h := hello(t, m.counter)
	h.Session = m.session
	return w.Connect(t.Context(), m.id, fleet.Caller{Key: m.Public, Address: "10.0.0.7"}, h)
}

// report sends a status, before which the machine has kept the session's value.
func (w *world) report(t *testing.T, m *machine) {
	t.Helper()
	if err := w.Keep(t.Context(), m.id); err != nil {
		t.Fatal(err)
	}
	if err := w.StoreStatus(t.Context(), m.id, &wire.Status{}); err != nil {
		t.Fatal(err)
	}
}

func hello(t *testing.T, counter uint64) *wire.Hello {
	t.Helper()
	spec, err := json.Marshal(flowdef.ConnectorSpec{
		Kind: "mqtt", Title: "MQTT",
		Options: []flowdef.Option{
			{Name: "host", Type: flowdef.OptionString, Required: true},
			{Name: "port", Type: flowdef.OptionInt, Min: 1, Max: 65535},
			{Name: "password", Type: flowdef.OptionSecret},
		},
		ReadOptions:  []flowdef.Option{{Name: "topic", Type: flowdef.OptionString, Required: true}},
		WriteOptions: []flowdef.Option{{Name: "topic", Type: flowdef.OptionString, Required: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Hello{
		Host: &wire.Host{Hostname: "press-pc", Os: "linux", Arch: "amd64", AgentVersion: "v2"}, Counter: counter, ConnectorSpecs: [][]byte{spec},
	}
}

// press is a connection; hot and hotter are two texts of one flow that reads it.
func press() fleet.Connection {
	return fleet.Connection{
		Name: "press", Kind: "mqtt", Options: map[string]any{"host": "10.0.0.1", "port": float64(1883)},
		Secrets: map[string]secret.String{"password": secret.New("hunter2")},
	}
}

const hot = `flow: hot-presses
description: Presses that run hot
trigger: continuous
steps:
  - id: readings
    read: press
    with: {topic: plant/press}
    schema: {ts: timestamp, machine: string, temp: float}
  - filter: temp > 60
  - insight: hot
    key: [machine]
    time: ts
`

const hotter = hot + "# hotter\n"

// plant is a tenant with an agent that runs the flow.
type plant struct {
	owner      fleet.Actor
	agent      *machine
	connection fleet.Connection
	flow       fleet.Flow
	deployment fleet.Deployment
}

func (w *world) plant(t *testing.T, name string) *plant {
	t.Helper()
	p := &plant{owner: w.tenant(t, name)}
	p.agent = w.agent(t, p.owner)
	var err error
	if p.connection, err = w.ApplyConnection(t.Context(), p.owner, press()); err != nil {
		t.Fatal(err)
	}
	if p.flow, _, err = w.ApplyFlow(t.Context(), p.owner, hot); err != nil {
		t.Fatal(err)
	}
	if _, err = w.Publish(t.Context(), p.owner, "hot-presses", 0); err != nil {
		t.Fatal(err)
	}
	deployed, err := w.Deploy(t.Context(), p.owner, "hot-presses", 0, []string{"press-pc"})
	if err != nil {
		t.Fatal(err)
	}
	if len(deployed) != 1 {
		t.Fatalf("deployed on %d agents", len(deployed))
	}
	p.deployment = deployed[0]
	return p
}

// insights makes n insights from a sequence on.
func insights(flow fleet.ID, first uint64, n int) *wire.InsightsUp {
	up := &wire.InsightsUp{FirstSeq: first}
	for i := range n {
		seq := int64(first) + int64(i) //nolint:gosec // small
		up.Insights = append(up.Insights, &wire.InsightRecord{
			FlowId: string(flow), FlowVersion: 1, Name: "hot", Time: 1_700_000_000_000_000 + seq*1_000_000,
			KeyJson: []byte(`{"machine":"M1"}`), ValuesJson: []byte(`{"temp": 71.50}`),
		})
	}
	return up
}

func wantCode(t *testing.T, what string, err error, code fleet.Code) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: it went through, want %s", what, code)
	} else if got := fleet.CodeOf(err); got != code {
		t.Errorf("%s: got %s (%v), want %s", what, got, err, code)
	}
}

// bundle opens the agent's bundle.
func (w *world) bundle(t *testing.T, m *machine) *wire.Bundle {
	t.Helper()
	envelope, serial, err := w.Bundle(t.Context(), m.id)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, envelope, w.bundleKey)
	if b.GetSerial() != serial {
		t.Errorf("the bundle says serial %d and the call %d", b.GetSerial(), serial)
	}
	return b
}

// tester finds the tests wrong, and cannot run those endless, whose name says so. The agent's engine, which judges in earnest, is tried end to end.
type tester struct{}

// TestFlow gives a result for each test.
func (tester) TestFlow(_ context.Context, definition string) ([]fleet.FlowTest, error) {
	flow, err := flowdef.Parse([]byte(definition))
	if err != nil {
		return nil, err
	}
	var out []fleet.FlowTest
	for i := range flow.Tests {
		if strings.Contains(flow.Tests[i].Name, "endless") {
			return nil, &fleet.Error{Code: fleet.Invalid, Message: "the tests took too long"}
		}
		r := fleet.FlowTest{Name: flow.Tests[i].Name, Passed: !strings.Contains(flow.Tests[i].Name, "wrong")}
		if !r.Passed {
			r.Difference = "insight hot: expected 1, came 0"
		}
		out = append(out, r)
	}
	return out, nil
}
