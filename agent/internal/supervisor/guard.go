package supervisor

import (
	"context"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// guarded keeps a panic in a source from ending the agent: the engine calls sources in goroutines of its own.
type guarded struct{ source connector.Source }

func newGuarded(open func() (connector.Source, error)) (source connector.Source, err error) {
	defer connector.Catch(&err)
	inner, err := open()
	if err != nil {
		return nil, err
	}
	return &guarded{source: inner}, nil
}

func (g *guarded) Traits() connector.Traits { return g.source.Traits() }

// Next ends the run when the source panics: what a source does afterwards is unknown.
func (g *guarded) Next(ctx context.Context) (d connector.Delivery, err error) {
	var caught error
	defer func() {
		if caught != nil {
			err = &connector.PermanentError{Err: caught}
		}
	}()
	defer connector.Catch(&caught)
	return g.source.Next(ctx)
}

func (g *guarded) Committed(ctx context.Context, upTo connector.Cursor) (err error) {
	defer connector.Catch(&err)
	return g.source.Committed(ctx, upTo)
}

func (g *guarded) Close() (err error) {
	defer connector.Catch(&err)
	return g.source.Close()
}

// guardedLookup does for a lookup what guarded does for a source: a table is read again in a goroutine of the engine's.
// Sinks are called only by the goroutine of the run, where the engine catches panics.
type guardedLookup struct{ lookup connector.Lookup }

func newGuardedLookup(open func() (connector.Lookup, error)) (lookup connector.Lookup, err error) {
	defer connector.Catch(&err)
	inner, err := open()
	if err != nil {
		return nil, err
	}
	return &guardedLookup{lookup: inner}, nil
}

func (g *guardedLookup) Fetch(ctx context.Context, keys *column.Batch) (found connector.Found, err error) {
	var caught error
	defer func() {
		if caught != nil {
			err = &connector.PermanentError{Err: caught}
		}
	}()
	defer connector.Catch(&caught)
	return g.lookup.Fetch(ctx, keys)
}

func (g *guardedLookup) Close() (err error) {
	defer connector.Catch(&err)
	return g.lookup.Close()
}
