package tunnel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"
)

// Where all agents of a control plane come at once, whoever comes a second later comes in vain again, and makes it slower for
// the others. An agent that is told so by the control plane itself comes back at any time within crowdedSpread: of 10,000
// agents, as many in a second as can be let in. After a connection that was closed, which can have other reasons, the waits
// grow from crowdedFirst to that.
const (
	crowdedFirst  = 8 * time.Second
	crowdedSpread = 45 * time.Second
	// longestTurn bounds the turn that a control plane gives out. An agent whose turn is behind shortestTurn is one of many.
	longestTurn  = time.Minute
	shortestTurn = time.Second
)

// comeback is how an agent comes back after a session: as one of many, if there are many. It lets itself be told once to come
// later. Then it insists: what makes the crowd may be somebody else's connections.
type comeback struct {
	// turn is the agent's, and at is when that is.
	turn time.Duration
	at   time.Time
	// told is that it was told since then that there is no time.
	told bool
}

func (c *comeback) patient() bool { return c.turn > shortestTurn && !c.told }

func (c *comeback) note(err error) {
	busy, ok := errors.AsType[*CrowdedError](err)
	c.told = c.told || ok && busy.Told
}

// errBusy is TLS's internal_error. It is what a control plane says that has no time for a handshake.
const errBusy = tls.AlertError(80)

// CrowdedError is when who is there in the name of the control plane has no time: it began to answer and then closed the
// connection, or said in TLS that it cannot go on.
type CrowdedError struct {
	Err error
	// Told is that it said so.
	Told bool
}

func (e *CrowdedError) Error() string {
	if e.Told {
		return fmt.Sprintf("the control plane, or what is in front of it, has no time for this connection now (%v): it is busy or restarting; "+
			"the agent comes back by itself, and what its flows produce waits here", e.Err)
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *CrowdedError) Unwrap() error { return e.Err }

// crowded makes an error a CrowdedError when it means that the other side has no time, and gives nil when it does not. It is
// that of a TLS handshake, or of what comes after it, and cause what it came from. answered says that there was an answer
// before.
func crowded(err, cause error, answered bool) error {
	said, ok := errors.AsType[*net.OpError](cause)
	told := ok && said.Op == "remote error" && said.Err.Error() == errBusy.Error()
	if told || answered && isCut(cause) {
		return &CrowdedError{Err: err, Told: told}
	}
	return nil
}

// first is the ceiling of the first wait after it.
func (e *CrowdedError) first() time.Duration {
	if e.Told {
		return crowdedSpread
	}
	return crowdedFirst
}

// inCrowd says whether a try failed as tries do when all the agents of a control plane come at once.
func inCrowd(err error) bool {
	_, busy := errors.AsType[*CrowdedError](err)
	_, unreached := errors.AsType[*UnreachedError](err)
	return busy || unreached && isCut(err)
}

// errResetOnWindows is WSAECONNRESET, which no other system has.
const errResetOnWindows = syscall.Errno(10054)

// isCut says whether the other side, or something in between, has closed the connection.
func isCut(err error) bool {
	closed := []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, errResetOnWindows}
	return slices.ContainsFunc(closed, func(end error) bool { return errors.Is(err, end) })
}
