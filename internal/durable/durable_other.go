//go:build !unix

package durable

// SyncDir does nothing: NTFS journals names, and Windows cannot flush a directory.
func SyncDir(string) error { return nil }
