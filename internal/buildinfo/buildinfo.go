// Package buildinfo tells which build is running.
//
// It reads what the Go linker recorded and is safe for concurrent use.
package buildinfo

import "runtime/debug"

// Version is the module's version with the commit behind it, like "0.1.0 (4f2a9c1)".
func Version() string {
	commit := ""
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			commit = s.Value[:7]
		}
	}
	if commit == "" {
		return release
	}
	return release + " (" + commit + ")"
}

// release is the version in CHANGELOG.md that this tree is going to be.
const release = "0.1.0"
