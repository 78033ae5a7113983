//go:build !linux

package main

// limitMemory does nothing: control planes run on Linux, and elsewhere only developers' do.
func limitMemory() error { return nil }
