//go:build !linux

package stage

// unmapPages does nothing: elsewhere nobody bounds a process by the pages of files that it has mapped.
func (*database) unmapPages() error { return nil }
