package main

import (
	"fmt"
	"runtime/debug"
	"syscall"
)

// testMemory is what a process that tests a definition may have, in bytes.
const testMemory = 512 << 20

// limitMemory bounds this process, so that a definition that eats memory ends it and nothing else.
func limitMemory() error {
	debug.SetMemoryLimit(testMemory / 2)
	limit := syscall.Rlimit{Cur: testMemory, Max: testMemory}
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		return fmt.Errorf("bound the memory of the tests: %w", err)
	}
	return nil
}
