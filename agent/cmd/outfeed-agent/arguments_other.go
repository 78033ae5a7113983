//go:build !linux

package main

// hideToken gives the arguments back: other systems show a command line to its own user and to administrators.
func hideToken(args []string) []string { return args }
