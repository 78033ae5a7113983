package stage

import (
	"fmt"
	"runtime/debug"
)

// damageError is an error that says which file is damaged. It wraps ErrDamaged.
type damageError struct {
	path  string
	cause error
}

func (d *damageError) Error() string { return fmt.Sprintf("%s: %v", d.path, d.cause) }

func (d *damageError) Unwrap() error { return d.cause }

// guard runs what reads a file through its memory map. A page that cannot be read, or that leads bbolt astray, panics:
// that becomes an error. The database may be used no more after it than to be closed, and not even that when fn writes.
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &damageError{path: path, cause: fmt.Errorf("%w: using it fails with %v", ErrDamaged, p)}
		}
	}()
	return fn()
}
