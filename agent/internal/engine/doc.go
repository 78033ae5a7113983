// Package engine compiles checked flows and runs them on column batches.
//
// It knows no concrete connector, no staging and no tunnel: sources, lookups and sinks come through package connector,
// durability and scratch files through Store and Scratch. A Program is immutable and may be run many times at once; a run
// is one goroutine that owns its operators, and a goroutine for each source.
//
// Where what lives:
//
//   - compile.go makes a Program of a plan and the operators of a run; refine.go and kernels*.go the expressions.
//   - run.go, pump.go, table.go, systems.go and hold.go are a run: its sources, tables, lookups and sinks, and its commits.
//   - operator.go says what an operator is; filter.go, project.go, insight.go, join*.go, aggregate*.go, streamjoin*.go,
//     detect*.go and verb_*.go are the operators, each verb in files of its name.
//   - window*.go cuts time; hashtable.go, ledger.go and seen.go find rows by key.
//   - state*.go and codec.go are what survives a restart; memory.go, resources.go, rowstore.go and spill*.go hold
//     rows within the memory limit.
//   - flowtest*.go runs the tests of a definition.
package engine
