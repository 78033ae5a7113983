//go:build !linux

package stage

import bolt "go.etcd.io/bbolt"

// unmapPages does nothing: elsewhere nobody bounds a process by the pages of files that it has mapped.
func unmapPages(*bolt.Tx) {}
