package flowdef

import "embed"

// Entry is a part of the language as the documentation shows it: what docs/flows.md is generated from.
type Entry struct {
	// Name is the word in a definition; Help says what it does, in a few sentences of Markdown.
	Name, Help string
	// Keys are what is written in it or beside it.
	Keys []Key
	// Examples name files in examples/: definitions whose own tests show what comes out.
	Examples []string
}

// Key is a key of a step, a window or a rule.
type Key struct{ Name, Help string }

// Examples are the definitions that the documentation shows. Each has tests, which the engine's tests run.
//
//go:embed examples/*.yaml
var Examples embed.FS
