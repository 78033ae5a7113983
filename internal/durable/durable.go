// Package durable makes what was done to a directory last over a power cut.
//
// It keeps no state and is safe for concurrent use.
package durable
