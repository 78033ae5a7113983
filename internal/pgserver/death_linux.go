package pgserver

import "syscall"

// endWithParent has the system shut the server down, fast but cleanly, when its parent is killed.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGINT }
