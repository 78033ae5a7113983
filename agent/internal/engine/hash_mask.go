//go:build !collide

package engine

import "math"

// hashMask is which bits of a key's hash count: all of them, but in tests with the build tag collide.
const hashMask uint64 = math.MaxUint64
