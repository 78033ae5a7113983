// Package coredump keeps a process's memory, and the secrets in it, out of core dumps and away from other processes.
//
// It changes the process that calls it and nothing else. Call it once, at the start.
package coredump
