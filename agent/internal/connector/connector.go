// Package connector is the contract between the flow engine and the systems of the plant.
//
// A connector is one kind of connection (file, mqtt, postgres). It never knows a flow, the staging or the tunnel.
package connector

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Connector is one kind of connection. It is stateless and safe for concurrent use.
type Connector interface {
	// Spec describes the options; it is constant.
	Spec() flowdef.ConnectorSpec
	// NewSource checks the settings and prepares a source. It does no I/O. What is wrong with the settings is an
	// *OptionError.
	NewSource(SourceSettings) (Source, error)
}

// Connection is how to reach one plant system.
type Connection struct {
	// Name is what flows call it.
	Name string
	Kind string
	// Options are the values as written in CONN.yaml or by the control plane (strings, int64, float64, bools), without the secret ones.
	Options map[string]any
	// Secrets are the values of the options of type secret.
	Secrets map[string]secret.String
}

// SourceSettings is everything a source needs.
type SourceSettings struct {
	Connection Connection
	// With is the read step's options.
	With map[string]any
	// Schema is the columns to deliver. Columns that nothing downstream reads are already left out of it.
	Schema expr.Schema
	// Declared is the whole schema as it was written, in its order, for records whose columns are known by position
	// alone. Nil means that it is the same as Schema.
	Declared expr.Schema
	// Drift is what to do where the records and the declared schema differ. A connector whose system names the columns of
	// every read need not look at it.
	Drift Drift
	// Instance is a stable name of agent, flow and step, for what a system keeps per consumer (an MQTT client id).
	Instance string
	// Resume is the last committed cursor, nil at the first start.
	Resume Cursor
	Logger *slog.Logger
}

// Drift is what becomes of records whose members or columns are not those of the declared schema.
type Drift uint8

const (
	// DriftIgnore passes over what the schema does not name; what it names and the record lacks is null. Where columns are
	// found by a header, one that is to be delivered and not in it is a PermanentError, for it mostly is a misspelt name.
	DriftIgnore Drift = iota
	// DriftReport passes over both, and notes each difference once in Failures.Notes.
	DriftReport
	// DriftFail fails a record that has what the schema does not name. It is a PermanentError that a header and the schema
	// differ, and that a source has ended in none of whose records a column of the schema was.
	DriftFail
)

// Cursor is a position in a source that survives a restart. Only the source can read it; its encoding is versioned by the source.
type Cursor []byte

// Source delivers batches. It belongs to one goroutine, and may have its own goroutines behind it, which end with Close.
//
// Reading with the cursor of a delivery gives exactly what came after that delivery, in the same order, as far as the
// system can replay (Traits.Replayable).
type Source interface {
	// Traits says what to expect of it; it is constant after NewSource.
	Traits() Traits
	// Next blocks until there is a batch, the source has ended (io.EOF) or ctx is done (its error). A context that ends
	// loses nothing: the next call goes on. An error that is not a *PermanentError may pass: the caller calls Next again
	// after a backoff, and the source connects anew by itself.
	//
	// A source without an end that has connected, at first or anew, and has nothing to give yet says so with one empty
	// Delivery: only that tells a quiet system from one that does not answer.
	Next(ctx context.Context) (Delivery, error)
	// Committed says that everything up to the cursor is durable, so that the system may forget it (an MQTT
	// acknowledgement). It is called from the goroutine that calls Next, never while Next runs.
	Committed(ctx context.Context, upTo Cursor) error
	// Close ends the source, whether or not it was used, and waits for its goroutines. It is safe twice.
	Close() error
}

// Traits is what the engine must know of a source.
type Traits struct {
	// Bounded sources end with io.EOF; the others follow what is new.
	Bounded bool
	// Replayable sources deliver again what was not committed.
	Replayable bool
	// AckGated sources stop delivering until Committed, so the engine commits as soon as nothing more is ready.
	AckGated bool
}

// Delivery is one batch and the position behind it.
type Delivery struct {
	// Batch is the rows, of SourceSettings.Schema. It is valid, and may be changed by the caller, until the next call of
	// Next or Close. It can be nil or empty, when records failed or when only the cursor moved.
	Batch *column.Batch
	// Cursor is the position after the batch; nil where it has not moved, as in an empty Delivery.
	Cursor Cursor
	// Failed counts the records of this span that could not be read, with a sample.
	Failed Failures
	// Read counts the records of this span, failed ones included, and Bytes their size.
	Read, Bytes int64
}

// MaxSamples is how many failing records a Failures keeps.
const MaxSamples = 5

// Failures counts failing records and keeps the first few.
type Failures struct {
	Count  int64
	Sample []FailedRecord
	// Notes are what was noticed without a record having failed, such as a difference from the schema: at most MaxNotes.
	Notes []FailedRecord
}

// MaxSampled is how many bytes of a record a FailedRecord keeps.
const MaxSampled = 256

// MaxNotes is how many notes a Failures keeps.
const MaxNotes = 64

// Note keeps a note while there is room.
func (f *Failures) Note(r FailedRecord) {
	if len(f.Notes) < MaxNotes {
		f.Notes = append(f.Notes, r)
	}
}

// FailedRecord is one record that could not be used.
type FailedRecord struct {
	// Where names file and line, topic, or table and key.
	Where string
	// Reason says what is wrong with it.
	Reason string
	// Record is the start of the record's text, at most MaxSampled bytes.
	Record string
}

// Add counts a failure and keeps it while there is room.
func (f *Failures) Add(r FailedRecord) {
	f.Count++
	if len(f.Sample) < MaxSamples {
		r.Record = excerpt.Bytes(r.Record, MaxSampled)
		f.Sample = append(f.Sample, r)
	}
}

// Merge adds the failures of g.
func (f *Failures) Merge(g Failures) {
	f.Count += g.Count
	f.Sample = append(f.Sample, g.Sample[:min(len(g.Sample), MaxSamples-len(f.Sample))]...)
	for _, n := range g.Notes {
		f.Note(n)
	}
}

// OptionError says which option of a connection or of a read is wrong.
type OptionError struct {
	// Option is its name, Message what is wrong and what to write; it goes on from the option's name.
	Option, Message string
}

func (e *OptionError) Error() string { return fmt.Sprintf("option %q %s", e.Option, e.Message) }

// PermanentError wraps an error that will not pass by trying again: a missing table, a refused password.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// Clock tells the time, so that tests can set it.
type Clock func() time.Time
