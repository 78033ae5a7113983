package stage

import "errors"

var (
	// ErrClosed is what every method gives once Close was called.
	ErrClosed = errors.New("the staging area is closed")
	// ErrLocked says that another process has the directory open.
	ErrLocked = errors.New("the staging directory is in use")
	// ErrNewerFormat says that a newer agent wrote the directory; nothing in it was changed.
	ErrNewerFormat = errors.New("the staging directory was written by a newer outfeed-agent")
	// ErrOtherOwner says that the directory is another owner's.
	ErrOtherOwner = errors.New("the staging directory is another owner's")
	// ErrDamaged says that what was read is not what was written.
	ErrDamaged = errors.New("the staged data is damaged")
	// ErrStaleCommit says that a checkpoint does not follow the flow's last one: another runner of the same flow has
	// committed since. The caller must load the flow again.
	ErrStaleCommit = errors.New("the checkpoint does not follow the flow's last one")
	// ErrBeyondEnd says that somebody acknowledged what was never produced.
	ErrBeyondEnd = errors.New("the acknowledged sequence is beyond the last one produced")
	// ErrNone says that there is no desired state yet.
	ErrNone = errors.New("there is no desired state yet")
	// ErrOlderDesired says that a desired state is older than one that was stored before.
	ErrOlderDesired = errors.New("the desired state is older than the stored one")
)
