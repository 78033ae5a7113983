package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir does nothing: NTFS journals names, and Windows cannot flush a directory. What this package renames is on the
// disk already when it returns.
func SyncDir(string) error { return nil }

// rename gives a file a name that another one may have.
func rename(from, to string) error {
	return move(from, to, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH)
}

// name gives a file a name that must be free, and takes the one away that it had, also when it fails. It needs no hard
// links, which FAT does not have.
func name(from, to string) error {
	if err := move(from, to, windows.MOVEFILE_WRITE_THROUGH); err != nil {
		return errors.Join(err, os.Remove(from))
	}
	return nil
}

func move(from, to string, flags uint32) error {
	old, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	next, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	if err := windows.MoveFileEx(old, next, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
