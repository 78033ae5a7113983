//go:build !linux

package agent

import "syscall"

// endWithParent asks for nothing where the system has no such thing: the next start waits for the child a little.
func endWithParent() *syscall.SysProcAttr { return nil }
