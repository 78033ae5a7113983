package agent

import (
	"errors"
	"testing"
	"time"
)

// TestOneProcessorIsEnoughForLittleWork holds that one is used when there was little to do for a while, that all are back
// with the first look that sees much, and that they stay while nothing is known.
func TestOneProcessorIsEnoughForLittleWork(t *testing.T) {
	t.Parallel()
	now, used, one := time.Now(), time.Duration(0), false
	var problem error
	p := &processors{
		used: func() (time.Duration, error) { return used, problem },
		all:  func() { one = false }, one: func() { one = true },
	}
	look := func(share float64, times int) {
		for range times {
			now = now.Add(processorsEvery)
			used += time.Duration(share * float64(processorsEvery))
			p.look(now)
		}
	}
	for _, step := range []struct {
		name  string
		share float64
		times int
		want  bool
	}{
		{"the first look knows nothing", 0, 1, false},
		{"not long enough", 0.05, calmLooks - 1, false},
		{"long enough", 0.05, 1, true},
		{"some work", 0.5, 100, true},
		{"much work", 0.9, 1, false},
		{"more than one has", 1.8, 100, false},
		{"some work again", 0.5, 100, false},
		{"a pause that is too short", 0, calmLooks - 1, false},
		{"and more work", 0.4, 1, false},
		{"a pause", 0, calmLooks, true},
	} {
		if look(step.share, step.times); one != step.want {
			t.Fatalf("%s: one processor is %t, want %t", step.name, one, step.want)
		}
	}
	problem = errors.New("the system does not tell")
	if look(0, 1); one {
		t.Error("one processor stays although nothing is known")
	}
}
