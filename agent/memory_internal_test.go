package agent

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// TestTheHeapIsBoundedWhileItIsSmallAndSeldomCollected holds that a small heap is collected early, for as long as that is
// seldom, and that a large one and one with much garbage have the whole limit.
func TestTheHeapIsBoundedWhileItIsSmallAndSeldomCollected(t *testing.T) {
	t.Parallel()
	const limit, live, other = 400 << 20, 16 << 20, 10 << 20
	now := time.Now()
	k := &memoryKeeper{limit: limit, last: now}
	if got := k.next(now, live, other); got != limit {
		t.Errorf("at once the limit is %d", got)
	}
	const growth = live/earlyPart + earlySlack
	for range 3 {
		now = now.Add(time.Second)
		if got := k.next(now, live, other); got != live+2*growth+other {
			t.Errorf("after a second the limit is %d, want %d", got, live+2*growth+other)
		}
	}
	now = now.Add(time.Hour)
	burst, before := 0, int64(0)
	for i := range 1000 {
		now = now.Add(10 * time.Millisecond)
		got := k.next(now, live, other)
		if i == 0 && got != live+growth+other {
			t.Errorf("after an hour the limit is %d, want %d", got, live+growth+other)
		}
		if got < limit {
			burst++
		}
		if got < before && i <= maxCredit {
			t.Errorf("the limit falls from %d to %d in the middle of a burst", before, got)
		}
		before = got
	}
	if burst < maxCredit || burst > maxCredit+10 {
		t.Errorf("of 1,000 collections in ten seconds %d came early, want about %d", burst, maxCredit+10)
	}
	now = now.Add(time.Hour)
	if got := k.next(now, earlyBelow, other); got != limit {
		t.Errorf("with much in use the limit is %d", got)
	}
	if got := (&memoryKeeper{limit: live}).next(now, live, other); got != live {
		t.Errorf("the limit is %d, above what the process may use", got)
	}
}

// BenchmarkGarbageBesideALargeHeap makes garbage as fast as it can beside 100 MB that are in use: to keep the heap small must
// not cost what is large anything. With GOMEMLIMIT=1GiB nothing keeps it.
func BenchmarkGarbageBesideALargeHeap(b *testing.B) {
	for _, size := range []int{20 << 20, 100 << 20} {
		b.Run(fmt.Sprint(size>>20, "MiB"), func(b *testing.B) {
			defer keepMemorySmall(b.Context(), heapLimit(512<<20))()
			live := make([][]byte, size/1024)
			for i := range live {
				live[i] = make([]byte, 1024)
			}
			b.SetBytes(1024)
			n := 0
			for b.Loop() {
				n++
				live[n%len(live)] = make([]byte, 1024)
			}
			runtime.KeepAlive(live)
		})
	}
}
