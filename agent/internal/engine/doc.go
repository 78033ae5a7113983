// Package engine compiles checked flows and runs them on column batches.
//
// It knows no concrete connector, no staging and no tunnel: sources come through connector.Source, durability through
// Store. A Program is immutable and may be run many times at once; a run is one goroutine that owns its operators.
package engine
