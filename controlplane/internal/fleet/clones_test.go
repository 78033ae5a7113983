package fleet_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

// copied is a machine with a copy of another's data directory.
func copied(m *machine) *machine {
	c := *m
	c.session = bytes.Clone(m.session)
	return &c
}

// live has a machine connect, keep what came and report.
func (w *world) live(t *testing.T, m *machine) { t.Helper(); w.connect(t, m) }

func (w *world) wantLocked(t *testing.T, what string, m *machine) {
	t.Helper()
	_, err := w.hello(t, m)
	wantCode(t, what, err, fleet.AgentLocked)
}

func (w *world) unlock(t *testing.T, a fleet.Actor, keep fleet.Keep) {
	t.Helper()
	g, err := w.UnlockAgent(t.Context(), a, "press-pc", keep)
	if err != nil {
		t.Fatal(err)
	}
	if g.Lock != nil {
		t.Error("it is still locked")
	}
}

// audited counts the entries of an action.
func (w *world) audited(t *testing.T, a fleet.Actor, action string) int {
	t.Helper()
	log, err := w.Audit(t.Context(), a, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range log {
		if e.Action == action {
			n++
		}
	}
	return n
}

// TestCopiesAreNoticed copies a data directory at every moment of an agent's life; whoever of the two comes second in a way
// that one agent could not is noticed, and locks both.
func TestCopiesAreNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range map[string]struct {
		story  func(t *testing.T, a, b *machine)
		reason fleet.LockReason
	}{
		"copied while stopped, then both run": {func(t *testing.T, a, b *machine) {
			t.Helper()
			w.live(t, a)
			w.wantLocked(t, "the copy", b)
		}, fleet.LockCounter},
		"the copy runs while the original is offline": {func(t *testing.T, a, b *machine) {
			t.Helper()
			w.live(t, b)
			w.wantLocked(t, "the original", a)
		}, fleet.LockCounter},
		"the original tried often while it was offline": {func(t *testing.T, a, b *machine) {
			t.Helper()
			w.live(t, b)
			a.counter += 100
			w.wantLocked(t, "the original", a)
		}, fleet.LockSession},
		"the copy has never got beyond its welcome": {func(t *testing.T, a, b *machine) {
			t.Helper()
			if _, err := w.hello(t, b); err != nil {
				t.Fatal(err)
			}
			a.counter += 100
			w.live(t, a)
			w.wantLocked(t, "the copy", b)
		}, fleet.LockCounter},
		"a snapshot of long ago": {func(t *testing.T, a, b *machine) {
			t.Helper()
			for range 5 {
				w.live(t, a)
			}
			b.counter += 100
			w.wantLocked(t, "the snapshot", b)
		}, fleet.LockSession},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			owner := w.tenant(t, "acme")
			a := w.agent(t, owner)
			b := copied(a)
			c.story(t, a, b)
			g, err := w.Agent(t.Context(), owner, "press-pc")
			if err != nil || g.Lock == nil || g.Connected {
				t.Fatalf("the agent: %+v, %v", g, err)
			}
			if g.Lock.Reason != c.reason || g.Lock.Connected.Hostname != "press-pc" || g.Lock.Other.Address != "10.0.0.7" || g.Lock.Since.IsZero() {
				t.Errorf("the lock is %+v", *g.Lock)
			}
			w.lockedOut(t, owner, a, b)
		})
	}
}

// lockedOut checks that neither copy gets anything, and that the lock was noted once.
func (w *world) lockedOut(t *testing.T, owner fleet.Actor, a, b *machine) {
	t.Helper()
	for _, m := range []*machine{a, b, a, b} {
		w.wantLocked(t, "a copy of a locked agent", m)
		_, err := w.StoreInsights(t.Context(), m.id, insights(m.id.Agent, 1, 1))
		wantCode(t, "insights", err, fleet.AgentLocked)
		wantCode(t, "a status", w.StoreStatus(t.Context(), m.id, &wire.Status{}), fleet.AgentLocked)
		wantCode(t, "a kept value", w.Keep(t.Context(), m.id), fleet.AgentLocked)
		_, _, err = w.Bundle(t.Context(), m.id)
		wantCode(t, "a bundle", err, fleet.AgentLocked)
		wantCode(t, "a rotation", w.Rotate(t.Context(), m.id, fleet.Keys{Ed25519: m.Public}, fleet.Keys{Ed25519: make([]byte, 32), X25519: make([]byte, 32)}), fleet.AgentLocked)
	}
	_, err := w.RotateAgent(t.Context(), owner, "press-pc")
	wantCode(t, "asking for a rotation", err, fleet.Conflict)
	if n := w.audited(t, owner, "agent.lock"); n != 1 {
		t.Errorf("the lock was noted %d times", n)
	}
}

func TestTheFirstRefusalIsToldApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	a := w.agent(t, owner)
	b := copied(a)
	w.live(t, a)
	_, err := w.hello(t, b)
	if !errors.Is(err, fleet.ErrCloneNoticed) || !strings.Contains(err.Error(), "outfeed agent unlock press-pc") || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("the first refusal: %v", err)
	}
	_, err = w.hello(t, a)
	if errors.Is(err, fleet.ErrCloneNoticed) || !strings.Contains(err.Error(), `"connected"`) {
		t.Errorf("the refusal of the other one: %v", err)
	}
}

func TestUnlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, keep := range []fleet.Keep{fleet.KeepConnected, fleet.KeepOther} {
		t.Run(string(keep), func(t *testing.T) {
			t.Parallel()
			owner := w.tenant(t, "acme")
			a := w.agent(t, owner)
			for range 10 {
				w.live(t, a)
			}
			b := copied(a)
			w.live(t, a)
			w.wantLocked(t, "the copy", b)
			w.wantLocked(t, "the original", a)
			w.unlock(t, owner, keep)
			kept, lost := a, b
			if keep == fleet.KeepOther {
				kept, lost = b, a
			}
			for range 3 {
				_, err := w.hello(t, lost)
				wantCode(t, "the copy that was decided against", err, fleet.CloneSeen)
				w.live(t, kept)
			}
			lost.counter += 1000
			_, err := w.hello(t, lost)
			wantCode(t, "it again", err, fleet.CloneSeen)
			w.live(t, kept)
			if n := w.audited(t, owner, "agent.unlock"); n != 1 {
				t.Errorf("the decision was noted %d times", n)
			}
			_, err = w.UnlockAgent(t.Context(), owner, "press-pc", keep)
			wantCode(t, "unlocking twice", err, fleet.Conflict)
		})
	}
}

func TestUnlockRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	w.agent(t, owner)
	editor := owner
	editor.Role = fleet.Editor
	_, err := w.UnlockAgent(t.Context(), editor, "press-pc", fleet.KeepOther)
	wantCode(t, "an editor unlocks", err, fleet.Forbidden)
	_, err = w.RotateAgent(t.Context(), editor, "press-pc")
	wantCode(t, "an editor rotates", err, fleet.Forbidden)
	_, err = w.UnlockAgent(t.Context(), owner, "press-pc", "both")
	wantCode(t, "keeping both", err, fleet.Invalid)
	_, err = w.UnlockAgent(t.Context(), owner, "nobody", fleet.KeepOther)
	wantCode(t, "nobody", err, fleet.NotFound)
}

// TestNoFalseAlarm has one agent whose answers get lost at every place, over and over, and a control plane that is replaced
// between.
func TestNoFalseAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	m := w.agent(t, owner)
	for round := range 30 {
		begun, err := w.hello(t, m)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		switch round % 3 {
		case 0: // The control plane was killed before the welcome left, or the agent before it was kept.
			continue
		case 1: // The agent was killed after it was kept.
			m.session = begun.Value
			continue
		}
		m.session, m.id.Session = begun.Value, int64(m.counter) //nolint:gosec // small
		w.report(t, m)
	}
	if g, err := w.Agent(t.Context(), owner, "press-pc"); err != nil || g.Lock != nil {
		t.Errorf("the agent: %+v, %v", g, err)
	}
}

// TestOlderDatabase restores what the database had of an agent some sessions ago. That is no copy, and says so once; a copy
// is noticed afterwards as before, and nobody can make up a value that passes for one that was forgotten.
func TestOlderDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	m := w.agent(t, owner)
	snapshot := copied(m)
	super(t, w.db, "CREATE TABLE backup AS SELECT * FROM agents")
	for range 5 {
		w.live(t, m)
	}
	super(t, w.db, `UPDATE agents a SET counter = b.counter, session_serial = b.session_serial, session_hash = b.session_hash,
		session_before = b.session_before, session_kept = b.session_kept FROM backup b WHERE b.id = a.id`)
	super(t, w.db, "DELETE FROM agent_sessions WHERE counter > 1")
	forged := copied(m)
	forged.session[20] ^= 1
	w.live(t, m)
	w.live(t, m)
	if n := w.audited(t, owner, "agent.database_went_back"); n != 1 {
		t.Errorf("noted %d times", n)
	}
	snapshot.counter += 1000
	w.wantLocked(t, "a copy", snapshot)
	w.unlock(t, owner, fleet.KeepConnected)
	forged.counter += 1000
	forged.session[0] = 1
	w.wantLocked(t, "a value that was made up", forged)
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	m := w.agent(t, owner)
	const tooEarly, tooLate = -56 * 365 * 86_400, 70 * 365 * 86_400
	for _, c := range []struct{ clock, low, high int64 }{
		{1, -1 << 40, tooEarly},
		{4_102_444_800_000_000, tooLate, 1 << 40},
		{-1 << 63, -1 << 62, tooEarly},
		{1<<63 - 1, tooLate, 1 << 62},
	} {
		m.counter++
		h := hello(t, m.counter)
		h.Session, h.Clock = m.session, c.clock
		begun, err := w.Connect(t.Context(), m.id, fleet.Caller{Key: m.Public}, h)
		if err != nil {
			t.Fatal(err)
		}
		m.session = begun.Value
		g, err := w.Agent(t.Context(), owner, "press-pc")
		if err != nil || g.ClockSkew < c.low || g.ClockSkew > c.high {
			t.Errorf("clock %d: skew %d, %v", c.clock, g.ClockSkew, err)
		}
	}
	// A clock that was set since shows in the next status. What a status took on the way is no skew.
	year := int64((365 * 24 * time.Hour).Seconds())
	for _, c := range []struct{ after, want int64 }{{year, year}, {year - 50, year}, {-year, -year}, {0, 0}, {-50, 0}} {
		status := &wire.Status{Time: time.Now().UnixMicro() + c.after*1_000_000}
		if err := w.StoreStatus(t.Context(), m.id, status); err != nil {
			t.Fatal(err)
		}
		if g, err := w.Agent(t.Context(), owner, "press-pc"); err != nil || g.ClockSkew < c.want-5 || g.ClockSkew > c.want+5 {
			t.Errorf("a status of %d s ahead: skew %d, want %d, %v", c.after, g.ClockSkew, c.want, err)
		}
	}
}

// TestWhoTakesTheAgentsPlaceIsNoticed has a copy connect while the agent cannot: the agent has tried in vain, so that its counter
// is ahead, and the value that it shows would be good until the copy has kept the next one.
func TestWhoTakesTheAgentsPlaceIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	agent := w.agent(t, owner)
	thief := copied(agent)
	agent.counter += 3
	begun, err := w.hello(t, thief)
	if err != nil {
		t.Fatal(err)
	}
	thief.id.Session = int64(thief.counter) //nolint:gosec // small
	// What it wants to do is only done for one that has kept the value.
	if err := w.Keep(t.Context(), thief.id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.StoreInsights(t.Context(), thief.id, insights(thief.id.Agent, begun.Stored+1, 1)); err != nil {
		t.Fatal(err)
	}
	w.wantLocked(t, "the agent itself", agent)
	g, err := w.Agent(t.Context(), owner, "press-pc")
	if err != nil || g.Lock == nil || g.Lock.Reason != fleet.LockSession {
		t.Errorf("the agent: %+v, %v", g, err)
	}
}

// TestASessionThatIsOverKeepsNothing has two sessions of an agent: the older one proves nothing any more.
func TestASessionThatIsOverKeepsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.agent(t, w.tenant(t, "acme"))
	older := m.id
	if _, err := w.hello(t, m); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "an older session", w.Keep(t.Context(), older), fleet.Unavailable)
	if _, err := w.hello(t, m); err != nil {
		t.Errorf("the value before is not good any more: %v", err)
	}
}

// TestHelloThatWasHeldUp has a hello read after the agent has given it up and connected again, as when the control plane or its
// database stood still. Nobody is there any more to hear the answer, and nothing is locked.
func TestHelloThatWasHeldUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.tenant(t, "acme")
	m := w.agent(t, owner)
	m.counter++
	late := hello(t, m.counter)
	late.Session = m.session
	w.live(t, m)
	asked := 0
	_, err := w.Connect(t.Context(), m.id, fleet.Caller{Key: m.Public, Alive: func() bool { asked++; return false }}, late)
	wantCode(t, "a hello that was given up", err, fleet.Unavailable)
	w.live(t, m)
	_, err = w.Connect(t.Context(), m.id, fleet.Caller{Key: m.Public, Alive: func() bool { asked++; return true }}, late)
	wantCode(t, "a hello of one who is there", err, fleet.AgentLocked)
	if asked != 2 {
		t.Errorf("it was asked %d times whether it is there", asked)
	}
}
