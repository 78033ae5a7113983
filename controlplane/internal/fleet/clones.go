package fleet

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// keptRefusedSessions is how many copies that an owner decided against are remembered of one agent.
	keptRefusedSessions = 64

	// A session value is its serial (big-endian), random bytes, and an authentication code under a key of the control
	// plane. The code tells a value of this control plane that its database does not know, because an older backup of it
	// was restored, from anything that somebody made up.
	valueSerial = 8
	valueRandom = 8
	valueCode   = 16
	valueSize   = valueSerial + valueRandom + valueCode
)

// finding is what a hello shows.
type finding int

const (
	// helloGood is one of the agent itself, helloRestored one of an agent whose newest sessions this database has forgotten.
	helloGood finding = iota
	helloRestored
	// helloRefused is of a copy that an owner decided against, helloLocked of either copy before that.
	helloRefused
	helloLocked
	// helloCopy is of a copy.
	helloCopy
)

// Connect records a session, or locks the agent.
func (s *Service) Connect(ctx context.Context, id AgentIdentity, from Caller, h *wire.Hello) (Session, error) {
	n, err := newSession(id, from, h)
	if err != nil {
		return Session{}, err
	}
	n.Replica = s.replica
	out, refused, err := s.connect(ctx, id, from, hello{n, h.GetSession(), suspicious})
	if err == nil && refused != nil && errors.Is(refused, errSuspected) {
		// Whoever is there now, after another hello was accepted, is not the agent that said that one. It is asked outside of
		// the transaction, and the second look finds the same or what has happened since.
		if from.Alive != nil && !from.Alive() {
			return Session{}, fail(Unavailable, "this connection was given up before its hello was read")
		}
		out, refused, err = s.connect(ctx, id, from, hello{n, h.GetSession(), certain})
	}
	if err == nil && refused != nil {
		err = refused
	}
	return out, err
}

// certainty is whether a hello that looks like a copy's locks the agent.
type certainty int

const (
	suspicious certainty = iota
	certain
)

// hello is one as it was read, with the session's value that it shows.
type hello struct {
	NewSession
	value []byte
	certainty
}

// errSuspected is the cause of a refusal that has locked nothing yet.
var errSuspected = errors.New("the hello looks like a copy's")

// connect is Connect in one transaction. What it refuses is kept, unlike an error.
func (s *Service) connect(ctx context.Context, id AgentIdentity, from Caller, h hello) (out Session, refused *Error, err error) {
	err = s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		out, refused = Session{}, nil
		st, err := tx.LockConnect(ctx, id.Agent)
		switch {
		case errors.Is(err, ErrNoRow):
			return agentUnknown()
		case err != nil:
			return err
		case st.Revoked:
			return agentRevoked()
		}
		fingerprint := seal.Fingerprint(from.Key)
		found, reason := s.judge(id, st, h.NewSession, heard{value: h.value, fingerprint: fingerprint})
		switch found {
		case helloRefused:
			refused = copyRefused()
			return nil
		case helloLocked:
			refused, err = noteLocked(ctx, tx, id, st, h.NewSession)
			return err
		case helloCopy:
			if h.certainty == suspicious {
				refused = &Error{Code: AgentLocked, Message: "this looks like a copy of the agent", Err: errSuspected}
				return nil
			}
			refused, err = lockCopies(ctx, tx, id, st, sighting{h.NewSession, reason})
			return err
		case helloGood, helloRestored:
		}
		out, err = s.begin(ctx, tx, st, beginning{h.NewSession, id, restoredSerial(found, h.value)})
		if err != nil || fingerprint == st.Fingerprint {
			return err
		}
		out.Rotate = false
		return adopt(ctx, tx, id, st)
	})
	return out, refused, err
}

// newSession reads a hello.
func newSession(id AgentIdentity, from Caller, h *wire.Hello) (NewSession, error) {
	const longestAddress = 100
	if h.GetCounter() == 0 || h.GetCounter() > math.MaxInt64 || h.GetDesiredSerial() > math.MaxInt64 {
		return NewSession{}, fail(Invalid, "the agent sent an impossible connect counter or serial: update outfeed-agent")
	}
	specs, kinds, err := connectorSpecs(h.GetConnectorSpecs())
	if err != nil {
		return NewSession{}, err
	}
	n := NewSession{
		Agent: id.Agent, Counter: int64(h.GetCounter()), Host: hostInfo(h.GetHost()), Address: clean(from.Address, longestAddress), //nolint:gosec // bounded above
		Applied: int64(h.GetDesiredSerial()), Connectors: specs, Kinds: kinds, Before: hashOf(string(h.GetSession())), //nolint:gosec // bounded above
	}
	if h.GetClock() != 0 {
		n.Skew = skewOf(h.GetClock())
	}
	return n, nil
}

// skewOf is how far an agent's clock, in UTC microseconds, is before this one: in whole seconds, without an overflow whatever
// the agent says.
func skewOf(clock int64) int64 { return clock/1_000_000 - time.Now().Unix() }

// heard is what a hello shows beside its counter: the session's value, and the fingerprint of the key.
type heard struct {
	value       []byte
	fingerprint string
}

// judge says what a hello shows, and for a copy how.
func (s *Service) judge(id AgentIdentity, st ConnectState, n NewSession, h heard) (finding, LockReason) {
	isShown := func(hash []byte) bool { return bytes.Equal(hash, n.Before) }
	switch {
	case slices.ContainsFunc(st.Refused, isShown):
		return helloRefused, ""
	case st.Lock != nil:
		return helloLocked, ""
	case h.fingerprint != st.Fingerprint && h.fingerprint != st.NextFingerprint:
		return helloCopy, LockKey
	case n.Counter <= st.Counter:
		return helloCopy, LockCounter
	case isShown(sessionOr(st.Session)), !st.Kept && isShown(sessionOr(st.Before)):
		return helloGood, ""
	case s.serialOf(id, h.value) > st.Serial:
		return helloRestored, ""
	default:
		return helloCopy, LockSession
	}
}

// sessionOr is what an agent without a session shows: nothing.
func sessionOr(hash []byte) []byte {
	if hash == nil {
		return hashOf("")
	}
	return hash
}

// restoredSerial is the serial of a value that this database has forgotten, or 0.
func restoredSerial(f finding, value []byte) int64 {
	if f != helloRestored {
		return 0
	}
	return int64(binary.BigEndian.Uint64(value)) //nolint:gosec // serialOf has checked it
}

// beginning is a hello of the agent itself.
type beginning struct {
	NewSession
	id AgentIdentity
	// restored is the serial of the value that it shows where this database has forgotten it, or 0.
	restored int64
}

// begin records the session of the agent itself.
func (s *Service) begin(ctx context.Context, tx Tx, st ConnectState, b beginning) (Session, error) {
	n, id, restored := b.NewSession, b.id, b.restored
	n.Serial = max(st.Serial, restored) + 1
	value, err := s.sessionValue(id, n.Serial)
	if err != nil {
		return Session{}, err
	}
	n.Session = hashOf(string(value))
	lost, err := tx.BeginSession(ctx, n)
	if err != nil {
		return Session{}, err
	}
	if err := tellAgent(ctx, tx, id); err != nil {
		return Session{}, err
	}
	out := Session{Stored: uint64(st.StoredSeq), Lost: uint64(lost), Value: value, Rotate: st.RotationAsked} //nolint:gosec // never negative
	if restored == 0 {
		return out, nil
	}
	return out, audit(ctx, tx, agentActor(id, st.Name), object{"agent", id.Agent, st.Name},
		what{"database_went_back", map[string]any{"session": restored, "known": st.Serial}})
}

// Keep records that the session's value was kept.
func (s *Service) Keep(ctx context.Context, id AgentIdentity) error {
	return s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		st, err := tx.LockConnect(ctx, id.Agent)
		if _, err = agentState(st.AgentState, err); err != nil {
			return err
		}
		switch {
		case st.Counter != id.Session:
			return fail(Unavailable, "another session of this agent has begun")
		case st.Kept:
			return nil
		}
		return tx.MarkKept(ctx, id.Agent)
	})
}

// sighting is a hello that only a copy can have sent.
type sighting struct {
	NewSession
	reason LockReason
}

// lockCopies keeps both copies out from now on.
func lockCopies(ctx context.Context, tx Tx, id AgentIdentity, st ConnectState, seen sighting) (*Error, error) {
	before, err := tx.LastSession(ctx, id.Agent)
	if err != nil && !errors.Is(err, ErrNoRow) {
		return nil, err
	}
	st.Lock = &AgentLock{Since: time.Now().UTC(), Reason: seen.reason, Connected: before, Other: sideOf(seen.NewSession)}
	if err := tx.SetLock(ctx, id.Agent, *st.Lock, seen.Before); err != nil {
		return nil, err
	}
	if err := notifyAgents(ctx, tx, id.Workspace, []ID{id.Agent}); err != nil {
		return nil, err
	}
	refused := agentLocked(st.AgentState, KeepOther)
	refused.Err = ErrCloneNoticed
	return refused, audit(ctx, tx, agentActor(id, st.Name), object{"agent", id.Agent, st.Name},
		what{"lock", map[string]any{"reason": seen.reason, "connected": st.Lock.Connected, "other": st.Lock.Other}})
}

// noteLocked keeps what a copy of a locked agent shows, so that an owner sees both as they are.
func noteLocked(ctx context.Context, tx Tx, id AgentIdentity, st ConnectState, n NewSession) (*Error, error) {
	l := *st.Lock
	side := KeepConnected
	switch {
	case bytes.Equal(n.Before, st.OtherSession):
		side, l.Other = KeepOther, sideOf(n)
	case bytes.Equal(n.Before, sessionOr(st.Session)):
		l.Connected = sideOf(n)
		if err := tx.MarkKept(ctx, id.Agent); err != nil {
			return nil, err
		}
	case bytes.Equal(n.Before, sessionOr(st.Before)):
		l.Connected = sideOf(n)
	default:
		// A third copy. It is kept out like the two, and shows itself again after the decision.
		return agentLocked(st.AgentState, ""), nil
	}
	refused := agentLocked(st.AgentState, side)
	if err := tx.SetLock(ctx, id.Agent, l, st.OtherSession); err != nil {
		return nil, err
	}
	return refused, tellAgent(ctx, tx, id)
}

func sideOf(n NewSession) LockSide {
	return LockSide{Hostname: n.Host.Hostname, Address: n.Address, Seen: time.Now().UTC(), Counter: n.Counter}
}

func agentActor(id AgentIdentity, name string) Actor {
	return Actor{Kind: "agent", Ref: id.Agent, Name: name}
}

// tellAgent tells that a listing of the agent changed.
func tellAgent(ctx context.Context, tx Tx, id AgentIdentity) error {
	return tx.Notify(ctx, Notice{Event: Event{Kind: "agent", ID: id.Agent}, Workspace: id.Workspace})
}

// agentLocked tells a copy of a locked agent, and which of the two it is where that is known.
func agentLocked(st AgentState, side Keep) *Error {
	who := ""
	if side != "" {
		who = fmt.Sprintf(" This is the copy %q.", side)
	}
	return fail(AgentLocked, "this agent is locked, because two copies of its data directory have connected: %s and then %s."+
		" It may also be an older one that was restored from a backup or a snapshot.%s What waits here stays."+
		" An owner of the workspace decides which one goes on: `outfeed agent show %s`, then `outfeed agent unlock %s --keep connected` or `--keep other`",
		sideText(st.Lock.Connected), sideText(st.Lock.Other), who, st.Name, st.Name)
}

func sideText(l LockSide) string {
	if l.Hostname == "" {
		return "one that is not known any more"
	}
	return fmt.Sprintf("%s from %s (%s, connect %d)", l.Hostname, l.Address, l.Seen.Format(time.RFC3339), l.Counter)
}

func copyRefused() *Error {
	return fail(CloneSeen, "an owner of the workspace has decided for another copy of this agent, so this one is refused for good: stop it."+
		" If this machine shall be an agent too, enrol it with a new token and an empty --data-dir (what waits in the old one stays there and is not sent)")
}

// whyOut says why an agent's session is none any more.
func whyOut(ctx context.Context, tx Tx, agent ID) error {
	if _, err := agentState(tx.AgentState(ctx, agent)); err != nil {
		return err
	}
	return agentRevoked()
}

// UnlockAgent decides between two copies.
func (s *Service) UnlockAgent(ctx context.Context, a Actor, ref string, keep Keep) (out Agent, err error) {
	if err := require(a, Owner); err != nil {
		return Agent{}, err
	}
	if keep != KeepConnected && keep != KeepOther {
		return Agent{}, fail(Invalid, "keep is %q; it must be %q or %q", keep, KeepConnected, KeepOther)
	}
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		g, err := tx.AgentByRef(ctx, a.Workspace, ref)
		if err != nil {
			return found(err, "agent", ref)
		}
		st, err := tx.LockConnect(ctx, g.ID)
		if err != nil {
			return err
		}
		if st.Lock == nil {
			return fail(Conflict, "the agent %q is not locked", g.Name)
		}
		if keep == KeepOther && st.Lock.Reason == LockKey {
			return fail(Conflict, "the other copy of the agent %q has a key that was given up in a rotation, so it cannot go on: keep the one that is connected, or revoke the agent and enrol that machine anew", g.Name)
		}
		if err := tx.Unlock(ctx, g.ID, decided(st, keep)); err != nil {
			return err
		}
		if err := notifyAgents(ctx, tx, a.Workspace, []ID{g.ID}); err != nil {
			return err
		}
		if out, err = tx.AgentByRef(ctx, a.Workspace, string(g.ID)); err != nil {
			return err
		}
		return audit(ctx, tx, a, object{"agent", g.ID, g.Name},
			what{"unlock", map[string]any{"keep": keep, "connected": st.Lock.Connected, "other": st.Lock.Other}})
	})
	return out, err
}

// decided is what hellos are held against after a decision: what the kept copy shows is good, what the other one shows is
// refused. What both can show stays good, since it says nothing about who shows it.
func decided(st ConnectState, keep Keep) ConnectMemory {
	connected := [][]byte{sessionOr(st.Session)}
	if !st.Kept {
		connected = append(connected, sessionOr(st.Before))
	}
	other := [][]byte{st.OtherSession}
	out, refused, kept := st.ConnectMemory, other, connected
	if keep == KeepOther {
		refused, kept = connected, other
		out.Counter, out.Session, out.Before, out.Kept = st.Lock.Other.Counter, st.OtherSession, nil, true
	}
	for _, value := range refused {
		if !slices.ContainsFunc(kept, func(k []byte) bool { return bytes.Equal(k, value) }) {
			out.Refused = append(out.Refused, value)
		}
	}
	out.Refused = out.Refused[max(0, len(out.Refused)-keptRefusedSessions):]
	return out
}

// sessionValue makes a value. It can be used once, and tells nobody anything.
func (s *Service) sessionValue(id AgentIdentity, serial int64) ([]byte, error) {
	value := binary.BigEndian.AppendUint64(make([]byte, 0, valueSize), uint64(serial)) //nolint:gosec // never negative
	random := make([]byte, valueRandom)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("make a session's value: %w", err)
	}
	value = append(value, random...)
	return append(value, s.valueCode(id, value)...), nil
}

// serialOf is the serial of a value that this control plane has made for the agent; 0 for any other.
func (s *Service) serialOf(id AgentIdentity, value []byte) int64 {
	if len(value) != valueSize {
		return 0
	}
	body, code := value[:valueSerial+valueRandom], value[valueSerial+valueRandom:]
	if !hmac.Equal(code, s.valueCode(id, body)) {
		return 0
	}
	return int64(binary.BigEndian.Uint64(body)) //nolint:gosec // as it was made
}

// valueCode binds a value to its agent. Its key comes from the key that signs bundles, which every replica has.
func (s *Service) valueCode(id AgentIdentity, body []byte) []byte {
	derive := hmac.New(sha256.New, s.bundleKey.Seed())
	derive.Write([]byte("outfeed-session-value-v1"))
	code := hmac.New(sha256.New, derive.Sum(nil))
	code.Write([]byte(string(id.Tenant) + "/" + string(id.Agent) + "/"))
	code.Write(body)
	return code.Sum(nil)[:valueCode]
}
