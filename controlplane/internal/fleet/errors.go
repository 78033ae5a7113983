package fleet

import "errors"

// Code is what kind of error it is, for machines. httpapi maps it to a status and the gateway to a refusal, each in one place.
type Code string

// The codes.
const (
	Invalid      Code = "invalid"
	NotFound     Code = "not_found"
	Conflict     Code = "conflict"
	Unauthorized Code = "unauthorized"
	Forbidden    Code = "forbidden"
	TokenUsed    Code = "token_used"
	TokenExpired Code = "token_expired"
	TokenUnknown Code = "token_unknown"
	AgentRevoked Code = "agent_revoked"
	AgentUnknown Code = "agent_unknown"
	CloneSeen    Code = "clone_suspected"
	AgentLocked  Code = "agent_locked"
	Unavailable  Code = "unavailable"
	Internal     Code = "internal"
)

// Error is an error that a person is meant to read.
type Error struct {
	Code Code
	// Message says what happened, where and what to do.
	Message string
	// Err is the cause, which people do not see.
	Err error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf finds the code of an error; Internal when it has none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
