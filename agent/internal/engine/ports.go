package engine

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// ErrCannotCommit is wrapped by what Store.Commit gives when the same checkpoint can never be stored. The run then ends
// with it, and the next one begins with what is stored.
var ErrCannotCommit = errors.New("the checkpoint cannot be stored")

// Store keeps what a run must not lose. One run uses it from one goroutine.
type Store interface {
	// Load gives the state of the last commit; the zero State at the first start.
	Load(ctx context.Context) (State, error)
	// Commit makes a checkpoint durable as a whole. After an error its outcome is unknown, and the same checkpoint is
	// committed again, unless the error wraps ErrCannotCommit. It keeps no reference to the checkpoint after it returns,
	// except when ctx ended: then it may still be reading it, and the run changes nothing in it any more.
	Commit(ctx context.Context, c Checkpoint) error
}

// State is what a run resumes from.
type State struct {
	// Cursors are by the id of the read step.
	Cursors map[string]connector.Cursor
	// Operators are the entries of every operator's state, by step id and key.
	Operators map[string]map[string][]byte
}

// Checkpoint is what changed since the one before.
type Checkpoint struct {
	// Cursors are those that moved.
	Cursors map[string]connector.Cursor
	// Changes are the operator entries that changed, in order.
	Changes []StateChange
	// Earlier are the insights before Insights, of a run that has held its commit; nil for none. It can be gone through
	// again and again; what it gives is valid until its next, and after an error it ends.
	Earlier iter.Seq2[Insight, error]
	// Insights are those produced, in order.
	Insights []Insight
	// Late is how many rows came too late since the last checkpoint.
	Late int64
}

// empty says whether there is nothing to commit.
func (c *Checkpoint) empty() bool {
	return len(c.Cursors) == 0 && len(c.Changes) == 0 && len(c.Insights) == 0 && c.Earlier == nil && c.Late == 0
}

// StateChange sets one entry of an operator's state, or removes it when Value is nil.
type StateChange struct {
	Step, Key string
	Value     []byte
}

// Insight is one record that an insight step produced.
type Insight struct {
	Name string
	// Time is UTC microseconds.
	Time int64
	// Key and Values are JSON objects, their members in the order of the definition.
	Key, Values []byte
}

// Report is what a run did so far. Counters only rise.
type Report struct {
	Read, Bytes, Failed, Late, Insights int64
	// Steps has rows in and out, in the plan's order.
	Steps []StepCount
	// Sample is the first failing records, and the first notes of sources.
	Sample []FailedRecord
	// Sources is how each read step is doing, then each lookup and each write step.
	Sources []SourceReport
}

// StepCount is how many rows went into a step and came out, came late, and failed. For a read step, In counts records.
type StepCount struct {
	Step                  string
	In, Out, Late, Failed int64
	// Outside is the rows of a shift window that were outside of every shift.
	Outside int64
	// LateTotal is Late since the step's state began, over restarts.
	LateTotal int64
}

// FailedRecord is a record that failed in a step, or what its source noticed.
type FailedRecord struct {
	Step string
	connector.FailedRecord
	// Note says that nothing failed: the source noticed something about the records.
	Note bool
}

// SourceReport is the state of one read, lookup or write step.
type SourceReport struct {
	Step, Connection string
	// State is connecting, reading, failing or ended; Error says why it is failing.
	State, Error string
	// LastRecord is when the last record came, UTC microseconds, 0 for never.
	LastRecord int64
}

// Scratch gives files for what does not fit in memory. It is used by many goroutines at once.
type Scratch interface {
	// Create makes an empty file. Its error says what to do when the disk is full.
	Create() (ScratchFile, error)
}

// ScratchFile is a file that nobody else sees and that lives no longer than the process. One goroutine uses it.
type ScratchFile interface {
	// Writer appends. Its error says what to do when the disk is full.
	io.Writer
	// ReaderAt reads what was written.
	io.ReaderAt
	// Closer removes the file.
	io.Closer
}
