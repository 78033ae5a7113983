package coredump

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Disable has the kernel write no core of this process, and lets no other process of the same user look into its memory
// or its environment. The limit goes to the children of this process too.
func Disable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep this process's memory from being dumped: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
