package gateway

import "time"

// complainEvery is how often a line about the same goes into the log.
const complainEvery = time.Minute

// complaints keeps what an agent sends again and again from filling the log: of each kind one line a minute. The zero value is
// ready. It is for one goroutine at a time.
type complaints struct{ of map[complaint]*complained }

// complaint is what a line is about: what was refused, and the code of the reason, so that there are few.
type complaint struct{ what, code string }

// complained is when the last line went into the log, and how many were left out since.
type complained struct {
	at   time.Time
	left uint64
}

// due says whether it is time for a line, and how many were left out before it.
func (c *complaints) due(about complaint, now time.Time) (left uint64, due bool) {
	if c.of == nil {
		c.of = map[complaint]*complained{}
	}
	before := c.of[about]
	switch {
	case before == nil:
		c.of[about] = &complained{at: now}
		return 0, true
	case now.Sub(before.at) < complainEvery:
		before.left++
		return 0, false
	}
	left = before.left
	*before = complained{at: now}
	return left, true
}
