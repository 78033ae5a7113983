// Package lifecycle holds what the composition roots share about starting and stopping their parts.
//
// It keeps no state and is safe for concurrent use.
package lifecycle

import "context"

// UnlessDone leaves out the error with which a part says that it was asked to end.
func UnlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return err
}
