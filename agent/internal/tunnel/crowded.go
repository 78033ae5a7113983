package tunnel

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"time"
)

// firstCrowded and mostCrowded are the ceilings between which waits after a CrowdedError grow. Where all agents of a control
// plane come at once, whoever comes a second later comes in vain again, and makes it slower for the others.
const (
	firstCrowded = 8 * time.Second
	mostCrowded  = 30 * time.Second
)

// alertBusy is TLS's internal_error. It is what a control plane says that has no time for a handshake.
const alertBusy = tls.AlertError(80)

// CrowdedError is when who is there in the name of the control plane has no time: it began to answer and then closed the
// connection, or said in TLS that it cannot go on.
type CrowdedError struct{ Err error }

func (e *CrowdedError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *CrowdedError) Unwrap() error { return e.Err }

// isCrowded says whether an error of a TLS handshake, or of what comes after it, means that the other side has no time.
// answered says that it has answered before.
func isCrowded(err error, answered bool) bool {
	said, ok := errors.AsType[*net.OpError](err)
	return answered && isCut(err) || ok && said.Op == "remote error" && said.Err.Error() == alertBusy.Error()
}

// errResetOnWindows is WSAECONNRESET, which no other system has.
const errResetOnWindows = syscall.Errno(10054)

// isCut says whether the other side, or something in between, has closed the connection.
func isCut(err error) bool {
	closed := []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, errResetOnWindows}
	return slices.ContainsFunc(closed, func(end error) bool { return errors.Is(err, end) })
}
