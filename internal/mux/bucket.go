package mux

import "time"

// bucket lets so much through per second, and as much at once after a quiet second. It is for one goroutine at a time.
type bucket struct {
	perSecond, level float64
	at               time.Time
}

func newBucket(perSecond float64) bucket { return bucket{perSecond: perSecond, level: perSecond} }

// take takes one, if there is one.
func (b *bucket) take() bool {
	now := time.Now()
	if !b.at.IsZero() {
		b.level = min(b.perSecond, b.level+now.Sub(b.at).Seconds()*b.perSecond)
	}
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}
