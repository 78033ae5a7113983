//go:build collide

package engine

// hashMask leaves so few bits of a key's hash that most tests have keys of the same hash. Every operator must do without
// a difference.
const hashMask uint64 = 0xfff0_0000_0000_0003
