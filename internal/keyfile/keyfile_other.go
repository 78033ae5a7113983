//go:build !unix

package keyfile

import "io/fs"

// checkPrivate leaves the decision to the access list that the data directory hands down: modes mean nothing here.
func checkPrivate(Advice, string, fs.FileInfo) error { return nil }

// checkProvided leaves the decision to the access list as well.
func checkProvided(Advice, string, fs.FileInfo) error { return nil }

// checkDir leaves the decision to the access list as well.
func checkDir(string, fs.FileInfo) error { return nil }

// readable is how to let this program read a file.
func readable(string) string { return "let the account that this program runs as read it" }
