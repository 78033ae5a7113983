package stage

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// damageError is an error that says which file is damaged. It wraps ErrDamaged.
type damageError struct {
	path  string
	cause error
}

func (d *damageError) Error() string { return fmt.Sprintf("%s: %v", d.path, d.cause) }

func (d *damageError) Unwrap() error { return d.cause }

// guard runs what reads a file through its memory map. A page that cannot be read, or that leads bbolt astray, panics:
// that becomes an error, and fell is told.
func guard(path string, fell *atomic.Bool, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			fell.Store(true)
			err = &damageError{path: path, cause: fmt.Errorf("%w: using it fails with %v", ErrDamaged, p)}
		}
	}()
	return fn()
}

// database is an open bbolt file whose damage gives errors and not panics, as far as they can be caught.
type database struct {
	*bolt.DB
	path string
	// heads is the file once more, to look at its heads: bbolt would fault on them with its locks held.
	heads *pageFile
	// fell says that a panic has ended a transaction. bbolt may hold locks for ever then, so the database is not even closed:
	// a few damaged files that stay mapped cost less than a process that hangs.
	fell atomic.Bool
	// barred says that it is to be verified before it is used again.
	barred atomic.Bool
}

// openDatabase opens a file to read and write.
func openDatabase(path string, mmapBytes int) (*database, error) {
	d := &database{path: path}
	err := guard(path, &d.fell, func() (err error) {
		d.DB, err = openReadWrite(path, mmapBytes)
		return err
	})
	if err != nil {
		return nil, err
	}
	if d.heads, _, err = openPages(path); err != nil {
		return nil, errors.Join(err, d.DB.Close())
	}
	return d, nil
}

// check looks whether the file still has a head.
func (d *database) check() error {
	if d.fell.Load() {
		return &damageError{path: d.path, cause: damaged("using it has failed before")}
	}
	if d.barred.Load() {
		return &damageError{path: d.path, cause: damaged("it waits to be verified")}
	}
	_, first := d.heads.head(0)
	_, second := d.heads.head(d.heads.pageSize)
	if !first && !second {
		return &damageError{path: d.path, cause: damaged("it has no valid head")}
	}
	return nil
}

// View is that of bbolt.
func (d *database) View(fn func(*bolt.Tx) error) error {
	if err := d.check(); err != nil {
		return err
	}
	return guard(d.path, &d.fell, func() error { return d.DB.View(fn) })
}

// Update is that of bbolt.
func (d *database) Update(fn func(*bolt.Tx) error) error {
	if err := d.check(); err != nil {
		return err
	}
	return guard(d.path, &d.fell, func() error { return d.DB.Update(fn) })
}

// Close closes the file, unless that could wait for ever.
func (d *database) Close() error {
	err := d.heads.close()
	if d.fell.Load() {
		return err
	}
	if closeErr := d.DB.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close %s: %w", d.path, closeErr))
	}
	return err
}
