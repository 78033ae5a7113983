package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

// errReplaced is why a session ends when its agent has opened another.
var errReplaced = errors.New("the agent has opened a newer session")

// refusal is an error that the agent is told before its session ends.
type refusal struct {
	code, message string
	after         time.Duration
	err           error
}

func (r *refusal) Error() string {
	text := "refused (" + r.code + "): " + r.message
	if r.err != nil {
		text += ": " + r.err.Error()
	}
	return text
}

func (r *refusal) Unwrap() error { return r.err }

// breach is what is said to a peer that does not keep to the protocol.
func breach(message string) error { return &refusal{code: wire.RefusalProtocol, message: message} }

// refuse makes of a domain's error what the agent is told. The cause stays here, in the log.
func refuse(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	r := &refusal{code: refusalCode(fleet.CodeOf(err)), message: "something went wrong in the control plane; its log says more", err: err}
	if e, ok := errors.AsType[*fleet.Error](err); ok {
		r.message = e.Message
		r.err = e.Err
	}
	return r
}

// refusalCode is the one place where a domain's code becomes a word of the wire.
func refusalCode(code fleet.Code) string {
	switch code {
	case fleet.TokenUsed:
		return wire.RefusalTokenUsed
	case fleet.TokenExpired:
		return wire.RefusalTokenExpired
	case fleet.TokenUnknown:
		return wire.RefusalTokenUnknown
	case fleet.AgentRevoked:
		return wire.RefusalAgentRevoked
	case fleet.AgentUnknown, fleet.Unauthorized, fleet.Forbidden:
		return wire.RefusalAgentUnknown
	case fleet.CloneSeen:
		return wire.RefusalClone
	case fleet.AgentLocked:
		return wire.RefusalLocked
	case fleet.Unavailable:
		return wire.RefusalUnavailable
	case fleet.Invalid, fleet.NotFound, fleet.Conflict:
		return wire.RefusalProtocol
	case fleet.Internal:
		return wire.RefusalInternal
	default:
		return wire.RefusalInternal
	}
}

// passing says whether an error may be gone at the next try: the database was away, or something unforeseen happened.
func passing(err error) bool {
	code := fleet.CodeOf(err)
	return code == fleet.Unavailable || code == fleet.Internal
}

// fatal says whether an error means that the agent may not be connected at all.
func fatal(err error) bool {
	switch refusalCode(fleet.CodeOf(err)) {
	case wire.RefusalAgentRevoked, wire.RefusalAgentUnknown, wire.RefusalClone, wire.RefusalLocked:
		return true
	default:
		return false
	}
}
