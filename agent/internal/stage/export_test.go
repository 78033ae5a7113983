package stage

import "runtime"

// FailAt calls fn at the named points of every commit; what it gives fails the commit there.
func FailAt(s *Stage, fn func(point string) error) {
	if fn == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&fn)
}

// AwaitBlocked returns once n commits wait for room.
func AwaitBlocked(s *Stage, n int) {
	for s.Stats().Blocked != n {
		runtime.Gosched()
	}
}

// GrowthSample is how far two looks at the growth of the outbox are apart at least.
const GrowthSample = growthSample
