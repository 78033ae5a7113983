package gateway

import (
	"testing"
	"time"
)

// TestTurns gives out more turns than there are, and has agents come and go.
func TestTurns(t *testing.T) {
	t.Parallel()
	const rate = 200
	turns := newTurns(rate)
	var each [turnsWithin]int
	take := func() int {
		second := turns.take()
		each[second]++
		return second
	}
	for n := range 10_000 {
		if second := take(); second != n/(rate*9/10) {
			t.Fatalf("agent %d has second %d", n, second)
		}
	}
	// An agent that goes makes room for one that comes.
	for range 100 {
		turns.give(3)
		each[3]--
	}
	turns.give(noTurn)
	for range 100 {
		if second := take(); second != 3 {
			t.Fatalf("the next one has second %d", second)
		}
	}
	for range 10_000 {
		take()
	}
	for second, taken := range each {
		if taken < 20_000/turnsWithin || taken > 20_000/turnsWithin+1 {
			t.Errorf("of 20,000 agents %d have second %d", taken, second)
		}
	}
	if wait := at(7); wait < 7*time.Second || wait >= 8*time.Second {
		t.Errorf("second 7 is %s", wait)
	}
	if small := newTurns(1); small.take() != 0 || small.take() != 1 {
		t.Error("one a second is not one a second")
	}
}

// TestSpread tells agents when to come back after a stop: at their turns, or later where there are more than turns.
func TestSpread(t *testing.T) {
	t.Parallel()
	g := &Gateway{turns: newTurns(100), perSecond: 100, parting: turnsWithin * 90}
	if wait := g.spread(42 * time.Second); wait != 42*time.Second {
		t.Errorf("the agent is to come after %s", wait)
	}
	g.parting = 100_000
	var longest time.Duration
	for range 100 {
		longest = max(longest, g.spread(42*time.Second))
	}
	if longest < 10*time.Minute || longest > 21*time.Minute {
		t.Errorf("of 100,000 agents the last is to come after %s", longest)
	}
}
