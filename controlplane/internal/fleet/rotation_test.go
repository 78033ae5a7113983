package fleet_test

import (
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/seal"
)

func (m *machine) keys() fleet.Keys {
	return fleet.Keys{Ed25519: m.Public, X25519: m.Sealing.PublicKey().Bytes()}
}

// TestRotation goes through a rotation and loses the answer of each step once, as when either side is killed there: at
// every moment the key that the agent has works.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	m := p.agent
	old := copied(m)
	next := newMachine(t)
	if _, err := w.RotateAgent(t.Context(), p.owner, "press-pc"); err != nil {
		t.Fatal(err)
	}
	wanted := func(want bool) {
		t.Helper()
		if got, err := w.RotationWanted(t.Context(), m.id); err != nil || got != want {
			t.Errorf("a rotation is wanted: %v, %v, want %v", got, err, want)
		}
		begun, err := w.hello(t, m)
		if err != nil || begun.Rotate != want {
			t.Errorf("the hello asks for a rotation: %v, %v, want %v", begun.Rotate, err, want)
		}
		m.session = begun.Value
	}
	wanted(true)
	for range 2 {
		if err := w.Rotate(t.Context(), m.id, m.keys(), next.keys()); err != nil {
			t.Fatal(err)
		}
		// The answer is lost; the present key is still good.
		wanted(true)
		w.opens(t, p, m)
	}
	// The agent has swapped its keys. The first welcome after that is lost.
	m.Public, m.Sealing = next.Public, next.Sealing
	before := w.bundle(t, m).GetSerial()
	if _, err := w.hello(t, m); err != nil {
		t.Fatal(err)
	}
	wanted(false)
	w.live(t, m)
	w.opens(t, p, m)
	if after := w.bundle(t, m).GetSerial(); after != before+1 {
		t.Errorf("the serial went from %d to %d, want one more: what is sealed to the new key is sent again", before, after)
	}
	g, err := w.Agent(t.Context(), p.owner, "press-pc")
	if err != nil || g.Fingerprint != seal.Fingerprint(next.Public) || g.Rotated.IsZero() || !g.RotationAsked.IsZero() {
		t.Errorf("the agent: %+v, %v", g, err)
	}
	if n := w.audited(t, p.owner, "agent.rotate"); n != 1 {
		t.Errorf("the change was noted %d times", n)
	}
	// Whoever shows the key that was given up has a copy from before.
	old.counter += 1000
	w.wantLocked(t, "the old key", old)
	_, err = w.UnlockAgent(t.Context(), p.owner, "press-pc", fleet.KeepOther)
	wantCode(t, "keeping a copy with a key that was given up", err, fleet.Conflict)
	w.unlock(t, p.owner, fleet.KeepConnected)
	w.live(t, m)
	_, err = w.hello(t, old)
	wantCode(t, "the copy again", err, fleet.CloneSeen)
}

// opens checks that the agent's secret opens with its key.
func (w *world) opens(t *testing.T, p *plant, m *machine) {
	t.Helper()
	b := w.bundle(t, m)
	to := seal.SecretContext{Tenant: string(m.id.Tenant), Agent: string(m.id.Agent), Connection: string(p.connection.ID), Field: "password"}
	plain, err := seal.OpenSealed(m.Sealing, to, b.GetConnections()[0].GetSealedSecrets()["password"])
	if err != nil || string(plain) != "hunter2" {
		t.Errorf("the secret is %q, %v", plain, err)
	}
}

func TestRotationRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	m, other := w.agent(t, owner), w.agent(t, owner)
	next := newMachine(t)
	for name, c := range map[string]struct {
		present, next fleet.Keys
		code          fleet.Code
	}{
		"a short key":           {m.keys(), fleet.Keys{Ed25519: next.Public[:31], X25519: next.Public}, fleet.Invalid},
		"its own key":           {m.keys(), m.keys(), fleet.Conflict},
		"another agent's key":   {m.keys(), other.keys(), fleet.Conflict},
		"another's session key": {other.keys(), next.keys(), fleet.Conflict},
	} {
		wantCode(t, name, w.Rotate(t.Context(), m.id, c.present, c.next), c.code)
	}
	// Other next keys take the place of those that were not shown yet.
	for range 2 {
		next = newMachine(t)
		if err := w.Rotate(t.Context(), m.id, m.keys(), next.keys()); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "another agent's next key", w.Rotate(t.Context(), other.id, other.keys(), next.keys()), fleet.Conflict)
	if err := w.RevokeAgent(t.Context(), owner, string(m.id.Agent)); err != nil {
		t.Fatal(err)
	}
	_, err := w.RotateAgent(t.Context(), owner, string(m.id.Agent))
	wantCode(t, "a revoked agent is asked", err, fleet.Conflict)
	wantCode(t, "a revoked agent rotates", w.Rotate(t.Context(), m.id, m.keys(), next.keys()), fleet.AgentRevoked)
}
