//go:build !linux

package socket

import "syscall"

// flowOf knows nothing: the figures are Linux's.
func flowOf(syscall.Conn) (Flow, bool) { return Flow{}, false }

// await does not wait.
func await(syscall.Conn) {}

// canTry says that a read that does not wait is not to be had.
const canTry = false

// tryRead is not called.
func tryRead(syscall.RawConn, []byte) (int, error) { return 0, ErrNothingYet }
