package connector

import (
	"context"
	"log/slog"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// Sinker is a connector whose systems can be written to. Its spec has write options.
type Sinker interface {
	// NewSink checks the settings and prepares a sink. It does no I/O. What is wrong with the settings is an *OptionError.
	NewSink(SinkSettings) (Sink, error)
}

// SinkSettings is everything a sink needs.
type SinkSettings struct {
	Connection Connection
	// With is the write step's options.
	With map[string]any
	// Schema is the columns of the rows.
	Schema expr.Schema
	// Instance is a stable name of agent, flow and step, for what a system keeps per client (an MQTT client id).
	Instance string
	Logger   *slog.Logger
}

// Sink writes rows into a system of the plant. It belongs to one goroutine.
//
// Every row arrives at least once: the engine commits what it has read only after Flush succeeded, so a row that was
// written and not committed is written again after a crash. Where the system puts a row in the place of an earlier one
// of the same key, the effect is that of once.
type Sink interface {
	// Write takes a copy of the rows, in their order, and gives about how many bytes wait for Flush. It does no I/O. Rows
	// that can never be written are counted as failed here or in Flush.
	Write(b *column.Batch) (held int64, failed Failures)
	// Flush writes what waits, in the order of Write. After nil the system has all of it, apart from the rows that failed:
	// those that the system refuses for what they hold, as a constraint does. After an error the rows still wait, and the
	// outcome of those under way is unknown; unless it is a *PermanentError it may pass, and the caller calls again after
	// a backoff.
	Flush(ctx context.Context) (failed Failures, err error)
	// Close ends the sink, whether or not it was used, and forgets what waits. It is safe twice.
	Close() error
}
