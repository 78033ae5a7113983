// Package flowdef is the definition of a flow: its types, parser, JSON Schema, type checker and egress manifest.
//
// The control plane and the agent check a definition with this same code. It does no I/O, knows no wire message, and
// is safe for concurrent use.
package flowdef
