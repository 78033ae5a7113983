package connector

import (
	"context"
	"log/slog"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// Lookuper is a connector whose systems can be asked for rows by key. Its spec has lookup options.
type Lookuper interface {
	// NewLookup checks the settings and prepares a lookup. It does no I/O. What is wrong with the settings is an
	// *OptionError.
	NewLookup(LookupSettings) (Lookup, error)
}

// LookupSettings is everything a lookup needs.
type LookupSettings struct {
	Connection Connection
	// With is the lookup step's options.
	With map[string]any
	// Keys is the columns of the system that the keys are compared with. None is of type json.
	Keys expr.Schema
	// Schema is the columns to give. Columns that nothing downstream reads are already left out of it, so it can be empty.
	Schema expr.Schema
	Logger *slog.Logger
}

// Lookup answers questions by key. It belongs to one goroutine.
type Lookup interface {
	// Fetch asks for the rows of the keys: a batch of LookupSettings.Keys, without nulls, whose rows differ from one
	// another. What it gives is valid until the next call of Fetch or Close. It only reads, and ends promptly when ctx
	// does.
	//
	// An error that is not a *PermanentError may pass: the caller asks again after a backoff, and the lookup connects anew
	// by itself.
	Fetch(ctx context.Context, keys *column.Batch) (Found, error)
	// Close ends the lookup, whether or not it was used. It is safe twice.
	Close() error
}

// Found is what a lookup found.
type Found struct {
	// Rows is the rows of LookupSettings.Schema, in any order, and Key the row of the keys that each belongs to. A key that
	// is not in it was not found; one that is in it twice has several rows.
	Rows *column.Batch
	Key  []int32
	// Unreadable says of keys, by their row, why their row cannot be used.
	Unreadable map[int32]string
}
