package main

import (
	"strings"
	"unsafe"
)

// hideToken gives the arguments back with memory of their own, after overwriting a token where the kernel shows this
// process's command line to everybody (/proc/PID/cmdline): os.Args is that very memory.
func hideToken(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = strings.Clone(arg)
		token, found := strings.CutPrefix(arg, "--token=")
		if !found && i > 0 && args[i-1] == "--token" {
			token, found = arg, arg != "-"
		}
		if !found || token == "" {
			continue
		}
		// The strings of os.Args are never read again: the copies are.
		shown := unsafe.Slice(unsafe.StringData(token), len(token)) //nolint:gosec // the kernel's own memory of the arguments, which is writable
		for j := range shown {
			shown[j] = '*'
		}
	}
	return out
}
