// Package bench measures the whole path of a flow beside other engines: it makes the data of the workloads, has the real
// agent, DuckDB and a hand-written scanner do the same job as child processes, compares what they found, and prints one
// table. docs/benchmarks.md says what is measured.
//
// It is for the repository's own `make bench` and no part of the product. A Bench belongs to one goroutine.
package bench
