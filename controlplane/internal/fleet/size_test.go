package fleet_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/wire"
)

// largest is the size of a definition at most.
const largest = 1 << 20

// large publishes a flow that reads the press, with a text of that size, and gives its name.
func (w *world) large(t *testing.T, a fleet.Actor, name string, size int) string {
	t.Helper()
	text := strings.Replace(hot, "hot-presses", name, 1)
	text += "#" + strings.Repeat("x", size-len(text)-2) + "\n"
	if _, _, err := w.ApplyFlow(t.Context(), a, text); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(t.Context(), a, name, 0); err != nil {
		t.Fatal(err)
	}
	return name
}

// sent is how large an agent's bundle is, with as many flows, at that serial.
func (w *world) sent(t *testing.T, m *machine) (size, flows int, serial uint64) {
	t.Helper()
	envelope, serial, err := w.Bundle(t.Context(), m.id)
	if err != nil {
		t.Fatal(err)
	}
	return len(envelope), len(open(t, envelope, w.bundleKey).GetFlows()), serial
}

// tooLarge checks a refusal, which names the agent and the bound.
func tooLarge(t *testing.T, what string, err error) {
	t.Helper()
	wantCode(t, what, err, fleet.Invalid)
	if e, ok := errors.AsType[*fleet.Error](err); !ok || !strings.Contains(e.Message, `"press-pc"`) ||
		!strings.Contains(e.Message, strconv.Itoa(wire.MaxBundle)) || !strings.Contains(e.Message, "fewer or smaller flows") {
		t.Errorf("%s: the error is %v", what, err)
	}
}

// TestAnAgentGetsNoMoreThanCanBeSent deploys ten flows of the greatest size.
func TestAnAgentGetsNoMoreThanCanBeSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	if err := w.Undeploy(ctx, p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	var deployed []string
	for n := range 10 {
		name := w.large(t, p.owner, fmt.Sprintf("large-%d", n), largest)
		_, _, before := w.sent(t, p.agent)
		_, err := w.Deploy(ctx, p.owner, name, 0, []string{"press-pc"})
		size, flows, serial := w.sent(t, p.agent)
		if size > wire.MaxBundle {
			t.Fatalf("a bundle of %d bytes, at most %d", size, wire.MaxBundle)
		}
		if err == nil {
			deployed = append(deployed, name)
			continue
		}
		tooLarge(t, name, err)
		f, ferr := w.Flow(ctx, p.owner, name)
		if ferr != nil || len(f.Deployments) != 0 || serial != before || flows != len(deployed) {
			t.Errorf("after a refusal serial %d instead of %d, %d flows instead of %d, %+v, %v", serial, before, flows, len(deployed), f.Deployments, ferr)
		}
	}
	// Ten of 1 MiB are 13.3 MiB as they are sent; a sixth does not fit.
	if len(deployed) != 5 {
		t.Errorf("%d flows are deployed: %v", len(deployed), deployed)
	}
	// What was deployed can be deployed again, and a smaller one fits beside them.
	for _, name := range []string{deployed[0], w.large(t, p.owner, "small", 10_000)} {
		if _, err := w.Deploy(ctx, p.owner, name, 0, []string{"press-pc"}); err != nil {
			t.Error(err)
		}
	}
	// A version that has grown does not fit, and the one before goes on.
	w.large(t, p.owner, "small", largest)
	_, err := w.Deploy(ctx, p.owner, "small", 2, []string{"press-pc"})
	tooLarge(t, "a version that has grown", err)
	if f, err := w.Flow(ctx, p.owner, "small"); err != nil || len(f.Deployments) != 1 || f.Deployments[0].Version != 1 {
		t.Errorf("got %+v, %v", f.Deployments, err)
	}
	w.growingConnection(t, p)
}

// growingConnection makes the connection larger than there is room for, by a secret and by an option.
func (w *world) growingConnection(t *testing.T, p *plant) {
	t.Helper()
	size, _, before := w.sent(t, p.agent)
	room := (wire.MaxBundle - size) / 4 * 3
	changed := press()
	changed.Secrets["password"] = secret.New(strings.Repeat("x", room))
	_, err := w.ApplyConnection(t.Context(), p.owner, changed)
	tooLarge(t, "a secret that has grown", err)
	changed = press()
	changed.Options["host"] = strings.Repeat("x", room)
	_, err = w.ApplyConnection(t.Context(), p.owner, changed)
	tooLarge(t, "an option that has grown", err)
	c, err := w.Connection(t.Context(), p.owner, "press")
	if _, _, serial := w.sent(t, p.agent); err != nil || serial != before || c.Options["host"] != "10.0.0.1" {
		t.Errorf("serial %d instead of %d, %+v, %v", serial, before, c.Options, err)
	}
	// Nearly all the room can be used: the bound goes by what is sent.
	changed = press()
	changed.Secrets["password"] = secret.New(strings.Repeat("x", room-10_000))
	if _, err := w.ApplyConnection(t.Context(), p.owner, changed); err != nil {
		t.Fatal(err)
	}
	if size, _, _ := w.sent(t, p.agent); size > wire.MaxBundle || size < wire.MaxBundle-20_000 {
		t.Errorf("a bundle of %d bytes", size)
	}
}

// TestAnAgentThatHasMoreThanCanBeSentIsToldOfAsThat has a row of before anybody asked.
func TestAnAgentThatHasMoreThanCanBeSentIsToldOfAsThat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	refused := func(want bool) {
		t.Helper()
		one, err := w.Agent(ctx, p.owner, "press-pc")
		brief, briefErr := w.BriefAgent(ctx, p.owner, "press-pc")
		page, pageErr := w.Agents(ctx, p.owner, fleet.AgentFilter{})
		if err := errors.Join(err, briefErr, pageErr); err != nil {
			t.Fatal(err)
		}
		for what, g := range map[string]fleet.Agent{"one": one, "brief": brief, "listed": page.Agents[0]} {
			if got := g.Status.BundleError; strings.Contains(got, "(too_large)") != want {
				t.Errorf("%s: the agent says %q", what, got)
			}
		}
	}
	refused(false)
	conn, err := sql.Open("pgx", w.db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = conn.ExecContext(ctx, "UPDATE flow_versions SET definition = definition || '#' || repeat('x', 7000000)"); err == nil {
		_, err = conn.ExecContext(ctx, "UPDATE agents SET desired = desired + 1")
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	if size, _, _ := w.sent(t, p.agent); size <= wire.MaxBundle {
		t.Fatalf("a bundle of %d bytes", size)
	}
	refused(true)
	w.report(t, p.agent) // its own report does not hide it
	refused(true)
	if err := w.Undeploy(ctx, p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	refused(false)
}
