package main

import (
	"os"
	"runtime/debug"
)

// garbagePercent has the garbage collected twice as often as Go programs usually do: much of what a connection costs while it
// is made is garbage a moment later, and what crowds of connections may cost is bounded.
const garbagePercent = 50

// collectOften sets that, unless the environment says otherwise.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}
