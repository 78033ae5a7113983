package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/internal/backoff"
)

func TestNextStaysUnderTheCeiling(t *testing.T) {
	t.Parallel()
	b := backoff.Backoff{Min: time.Second, Max: 8 * time.Second}
	for i, ceiling := range []time.Duration{1, 2, 4, 8, 8, 8} {
		if d := b.Next(); d < 0 || d >= ceiling*time.Second {
			t.Errorf("wait %d is %v, want less than %d s", i, d, ceiling)
		}
	}
	b.Reset()
	if d := b.Next(); d >= time.Second {
		t.Errorf("after Reset the wait is %v, want less than 1 s", d)
	}
}

func TestNextNeverOverflows(t *testing.T) {
	t.Parallel()
	var b backoff.Backoff
	for range 200 {
		if d := b.Next(); d < 0 || d >= 5*time.Minute {
			t.Fatalf("wait %v is outside 0 to 5 min", d)
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("stopping")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		start := time.Now()
		if err := backoff.Sleep(ctx, time.Hour); !errors.Is(err, cause) {
			t.Errorf("Sleep gave %v, want the cause", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Sleep took %v, want 1 s", d)
		}
	})
}
