package gateway_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// TestACopyCutsBothSessions holds that the hello of a copy ends the session that lives, and that neither comes in again.
func TestACopyCutsBothSessions(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	first := s.visit(key)
	if w := first.connect(7); string(w.GetSession()) != "value-7" {
		t.Errorf("the session's value is %q", w.GetSession())
	}
	if agent.address != "127.0.0.1" {
		t.Errorf("the address is %q", agent.address)
	}
	copied := s.visit(key)
	copied.hello(7)
	copied.refused(wire.RefusalLocked)
	first.refused(wire.RefusalLocked)
	again := s.visit(key)
	again.hello(100)
	again.refused(wire.RefusalLocked)
	if n := s.metric("outfeed_gateway_agents_locked_total"); n != 1 {
		t.Errorf("%v agents count as locked", n)
	}
}

// TestWhetherAHelloIsStillWaitedFor holds hellos up: one is given up in the meantime, the other is not.
func TestWhetherAHelloIsStillWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.domain.hold = make(chan struct{})
	public, key := newKey(t)
	s.domain.known(public)
	given, waiting := s.visit(key), s.visit(key)
	given.hello(1)
	waiting.hello(2)
	s.domain.wait(func() bool { return s.domain.held == 2 })
	if err := given.streams.Close(); err != nil {
		t.Fatal(err)
	}
	close(s.domain.hold)
	if waiting.hear().GetWelcome() == nil {
		t.Error("no welcome came")
	}
	s.domain.wait(func() bool { return s.domain.givenUp == 1 })
}

// TestNothingComesBeforeTheValueIsKept has a copy that shows a good value and then keeps to itself, as one would that wants to
// stay unnoticed: it gets no flows and no new keys, and whatever it says is taken for a proof that it has kept the value.
func TestNothingComesBeforeTheValueIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	silent := s.visit(key)
	silent.hello(1)
	if silent.hear().GetWelcome() == nil {
		t.Fatal("no welcome came")
	}
	// A change is no reason to tell it anything, and a revocation is what it is told first.
	s.domain.deploy(agent, "bundle-2")
	s.domain.revoke(agent)
	if got := silent.hear(); got.GetRefusal().GetCode() != wire.RefusalAgentRevoked {
		t.Errorf("who has said nothing was told %v", got)
	}
	if agent.kept != 0 {
		t.Error("a value counts as kept of which nothing was heard")
	}

	public, key = newKey(t)
	agent = s.domain.known(public)
	eager := s.visit(key)
	eager.hello(1)
	if eager.hear().GetWelcome() == nil {
		t.Fatal("no welcome came")
	}
	insights := eager.open(wire.NewHeader(wire.KindInsights))
	eager.say(insights, batch(1, 3))
	s.domain.wait(func() bool { return agent.kept == 1 && len(agent.stored) == 3 })
	// Where another session has begun, nothing is taken of this one.
	public, key = newKey(t)
	agent = s.domain.known(public)
	late := s.visit(key)
	late.hello(1)
	if late.hear().GetWelcome() == nil {
		t.Fatal("no welcome came")
	}
	s.domain.order("Keep", failure(fleet.AgentLocked, "this agent is locked"))
	insights = late.open(wire.NewHeader(wire.KindInsights))
	late.say(insights, batch(1, 3))
	late.refused(wire.RefusalLocked)
	s.domain.checkStored(agent, 0)
}

// hearRotate reads on until the agent is asked for new keys.
func (v *visitor) hearRotate() {
	v.t.Helper()
	for v.hear().GetRotateNow() == nil {
	}
}

// rotation is what an agent says of its next keys.
func (v *visitor) rotation(agent fleet.ID, next ed25519.PrivateKey) *wire.Rotate {
	v.t.Helper()
	public, receive := ed25519.PublicKey(next[ed25519.SeedSize:]), bytes.Repeat([]byte{3}, 32)
	message, err := seal.RotateMessage(&v.inner, string(agent), public, receive)
	if err != nil {
		v.t.Fatal(err)
	}
	return &wire.Rotate{Ed25519PublicKey: public, X25519PublicKey: receive, Signature: ed25519.Sign(next, message)}
}

func (v *visitor) sayRotate(r *wire.Rotate) {
	v.t.Helper()
	v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Rotate{Rotate: r}})
}

func TestRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	s.domain.rotate(agent)
	v.hearRotate()
	_, next := newKey(t)
	for range 2 {
		v.sayRotate(v.rotation(agent.id, next))
		rotated := v.hear().GetRotated()
		if !bytes.Equal(rotated.GetEd25519PublicKey(), next[ed25519.SeedSize:]) {
			t.Fatalf("the answer is %v", rotated)
		}
	}
	// Each of the two keys is good, and a session is asked from its beginning while a rotation is wanted.
	for n, k := range []ed25519.PrivateKey{key, next} {
		again := s.visit(k)
		again.hello(uint64(n) + 2)
		again.keeps()
		again.hearRotate()
	}
}

// TestStrangeRotations is of keys that the agent does not have, of another session, and for another agent.
func TestStrangeRotations(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	counter := uint64(0)
	_, next := newKey(t)
	connect := func() *visitor {
		v := s.visit(key)
		counter++
		v.connect(counter)
		return v
	}
	recorded := connect().rotation(agent.id, next)
	for name, make := range map[string]func(v *visitor) *wire.Rotate{
		"recorded":      func(*visitor) *wire.Rotate { return recorded },
		"other agent":   func(v *visitor) *wire.Rotate { return v.rotation("agent-9", next) },
		"no signature":  func(v *visitor) *wire.Rotate { r := v.rotation(agent.id, next); r.Signature = nil; return r },
		"another's key": func(v *visitor) *wire.Rotate { r := v.rotation(agent.id, next); r.Ed25519PublicKey = public; return r },
		"other sealing": func(v *visitor) *wire.Rotate { r := v.rotation(agent.id, next); r.X25519PublicKey[0]++; return r },
		"short key": func(v *visitor) *wire.Rotate {
			r := v.rotation(agent.id, next)
			r.Ed25519PublicKey = public[:31]
			return r
		},
		"nothing at all": func(*visitor) *wire.Rotate { return &wire.Rotate{} },
	} {
		v := connect()
		v.sayRotate(make(v))
		v.refused(wire.RefusalProtocol)
		if agent.next.Ed25519 != nil {
			t.Errorf("%s: the keys were taken", name)
		}
	}
}
