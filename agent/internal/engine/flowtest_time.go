package engine

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// testTime is the processor time of all tests of a definition together. It is far more than they need, and the same
	// whatever else the machine does.
	testTime = 10 * time.Second
	// testWall bounds the time by the clock, for a machine that hardly lets them run.
	testWall = 60 * time.Second
	// testLook is how often the processor time is looked at.
	testLook = 50 * time.Millisecond
)

var (
	errTestTime = fmt.Errorf("the tests of the flow take more than %s of processor time together, so this one was ended; give them fewer rows", testTime)
	errTestWall = fmt.Errorf("the tests of the flow have not ended within %s, so this one was ended; try again when the machine has less to do, or give them fewer rows", testWall)
)

// withinTestTime bounds the tests of a definition in time. used tells the processor time of the process, which runs
// nothing else meanwhile. The tests are over when end returns.
func withinTestTime(ctx context.Context, used func() (time.Duration, error)) (bounded context.Context, end func(), err error) {
	before, err := used()
	if err != nil {
		return nil, nil, fmt.Errorf("ask how much processor time the tests of the flow take: %w", err)
	}
	wall, stopWall := context.WithTimeoutCause(ctx, testWall, errTestWall)
	inner, cancel := context.WithCancelCause(wall)
	var wg sync.WaitGroup
	wg.Go(func() {
		look := time.NewTicker(testLook)
		defer look.Stop()
		for {
			select {
			case <-inner.Done():
				return
			case <-look.C:
			}
			if now, err := used(); err == nil && now-before > testTime {
				cancel(errTestTime)
			}
		}
	})
	return inner, func() {
		cancel(nil)
		wg.Wait()
		stopWall()
	}, nil
}
