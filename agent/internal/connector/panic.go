package connector

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a panic that was caught. It says what happened, and Stack where, for whoever mends it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("internal error, please report it: %v", e.Value)
}

// Catch turns a panic into an error. It must be deferred. Every goroutine that a flow starts defers it, and hands the
// error to the one that waits for it, because a panic that nobody catches ends the agent and with it all other flows.
func Catch(err *error) {
	if p := recover(); p != nil {
		*err = caught(p)
	}
}

// caught keeps the stack of a panic that was caught in one goroutine and goes on in another.
func caught(p any) error {
	if e, ok := p.(*PanicError); ok {
		return e
	}
	return &PanicError{Value: p, Stack: debug.Stack()}
}

// Guard calls fn and gives its panic as a *PermanentError: what a source does after one is unknown.
func Guard(fn func()) error {
	var err error
	func() {
		defer Catch(&err)
		fn()
	}()
	if err != nil {
		return &PermanentError{Err: err}
	}
	return nil
}
