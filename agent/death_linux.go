package agent

import "syscall"

// endWithParent has the system kill a child as soon as the agent is killed. Left to itself it would keep the files of the
// staging locked, for as long as the disk takes, and the next agent could not open them. The goroutine that starts the
// child must keep its thread until the child has ended, because it is the thread whose end counts.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
