//go:build !linux

package agent

// unmapProgram does nothing: elsewhere nobody bounds a process by the pages of its program.
func unmapProgram() {}
