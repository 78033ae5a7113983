// Package stage keeps what the agent must not lose: source cursors, operator state, the outbox of insights, the desired
// state and the run reports. It is the only user of bbolt, and it knows nothing of flows, of messages or of the network.
//
// A Stage may be used by any number of goroutines. One goroutine, which Open starts and Close waits for, does all the
// writing and merges what waits at the same time into one pair of transactions. What is on the disk, and in which order
// it gets there, is told in docs/staging.md.
package stage
