//go:build unix && !linux

package pgserver

import "syscall"

// endWithParent does nothing where the system has no such signal; the next start stops what was left behind.
func endWithParent(*syscall.SysProcAttr) {}
