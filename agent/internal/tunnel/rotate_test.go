package tunnel_test

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

func rotateNow() *wire.ControlDown {
	return &wire.ControlDown{Message: &wire.ControlDown_RotateNow{RotateNow: &wire.RotateNow{}}}
}

// TestRotation is asked for by the control plane; the next session shows the new key at once.
func TestRotation(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) {
		p.rotated = func(r *wire.Rotate) *wire.Rotated { return &wire.Rotated{Ed25519PublicKey: r.GetEd25519PublicKey()} }
	})
	a := newAgent(t)
	old := a.Key()
	s := settingsFor(t, p, a)
	// A wait between the sessions would end the test at its time limit.
	s.MinWait, s.MaxWait = time.Hour, time.Hour
	_, stop := run(t, s)
	<-p.statuses
	p.down <- rotateNow()
	<-p.statuses
	stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.keys) != 2 || !p.keys[0].Equal(old.Public()) || !p.keys[1].Equal(a.Key().Public()) || p.keys[0].Equal(p.keys[1]) {
		t.Errorf("%d sessions; the keys do not follow from one another", len(p.keys))
	}
	if len(p.rotates) != 1 {
		t.Errorf("%d rotations were sent", len(p.rotates))
	}
	if len(p.hellos[0].GetSession()) != 0 || len(p.hellos[1].GetSession()) != 32 {
		t.Errorf("the sessions' values are %x and %x", p.hellos[0].GetSession(), p.hellos[1].GetSession())
	}
}

// TestRotationGoesOn is one whose answer was lost: the next session brings the same keys without being asked.
func TestRotationGoesOn(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	client, stop := run(t, settingsFor(t, p, a))
	<-p.statuses
	client.Rotate()
	if up := <-p.rotate; up == nil {
		t.Fatal("no rotation came")
	}
	p.down <- &wire.ControlDown{Message: &wire.ControlDown_Refusal{Refusal: &wire.Refusal{Code: wire.RefusalUnavailable, Message: "restarting"}}}
	<-p.ended
	again := <-p.rotate
	stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ed25519.PublicKey(again.GetEd25519PublicKey()).Equal(ed25519.PublicKey(p.rotates[0].GetEd25519PublicKey())) {
		t.Error("the second rotation has other keys")
	}
}

// TestRotatedToStrangeKeys ends the session and changes nothing.
func TestRotatedToStrangeKeys(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) {
		p.rotated = func(*wire.Rotate) *wire.Rotated { return &wire.Rotated{Ed25519PublicKey: make([]byte, 32)} }
	})
	a := newAgent(t)
	old := a.Key()
	_, stop := run(t, settingsFor(t, p, a))
	<-p.statuses
	p.down <- rotateNow()
	<-p.ended
	stop()
	if !a.Key().Equal(old) {
		t.Error("the key changed")
	}
}

// TestWhyKeysWereNotChangedIsTold has the disk refuse the next keys: the session goes on, and the state says why.
func TestWhyKeysWereNotChangedIsTold(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	a.prepareFails = errors.New("no space left")
	client, stop := run(t, settingsFor(t, p, a))
	<-p.statuses
	p.down <- rotateNow()
	// What is said in order is heard in order.
	p.down <- &wire.ControlDown{Message: &wire.ControlDown_Desired{Desired: &wire.Desired{Envelope: []byte("bundle")}}}
	<-a.bundles
	if state := client.State(); state.RotationError != "no space left" || !state.Connected {
		t.Errorf("the state is %+v", state)
	}
	stop()
}

// TestNothingIsSaidBeforeTheValueIsKept holds that an agent that cannot keep the session's value says nothing in it.
func TestNothingIsSaidBeforeTheValueIsKept(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	a.keepFails = true
	a.produce(3)
	client, stop := run(t, settingsFor(t, p, a))
	<-p.ended
	<-p.ended
	stop()
	if client.State().Connected {
		t.Error("it counts as connected")
	}
	p.checkStored(0)
	select {
	case <-p.statuses:
		t.Error("a status was sent")
	default:
	}
}

// TestSkewIsTold compares the clocks.
func TestSkewIsTold(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) { p.clock = 56 * 365 * 24 * time.Hour })
	a := newAgent(t)
	client, stop := run(t, settingsFor(t, p, a))
	<-p.statuses
	if got := client.State().Skew + p.clock; got < -time.Minute || got > time.Minute {
		t.Errorf("the skew is %s, want %s", client.State().Skew, -p.clock)
	}
	// The control plane's clock was set since: what it says beside a bundle is newer.
	p.down <- &wire.ControlDown{Message: &wire.ControlDown_Desired{Desired: &wire.Desired{Envelope: []byte("bundle"), Clock: time.Now().UnixMicro()}}}
	<-a.bundles
	if got := client.State().Skew; got < -time.Minute || got > time.Minute {
		t.Errorf("the skew is %s, want none", got)
	}
	stop()
}
