package agent

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/config"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/stage"
)

// MemoryLimit is an amount of memory, written like 512MB.
type MemoryLimit = config.Bytes

// DefaultMemoryLimit is what the process uses at most when nothing is set.
const DefaultMemoryLimit = config.DefaultMemoryLimit

// Of the memory limit, Go's heap gets all but what the program itself takes: its code, the pages of the staging that are
// mapped, and what the runtime keeps outside of the heap. Of that the operators of flows hold at most two fifths; the rest is
// for batches, decoding and the garbage between two collections.
const programBytes = 24 << 20

// garbagePercent is how much the heap of an agent that runs for long grows until the next collection, as a share of what
// is in use: to collect three times as often as usual costs little processor time beside so small a heap (a third of a
// percent of a core with 200 flows, see docs/benchmarks.md).
const garbagePercent = 30

// heapLimit is how much Go's runtime may hold of the limit.
func heapLimit(limit config.Bytes) int64 { return int64(limit) - programBytes }

// keepMemorySmall lets the heap of an agent that runs for long grow less between two collections, unless GOGC says otherwise,
// and bounds its bursts, unless GOMEMLIMIT does. limit is the most that Go's runtime may hold. It gives what ends that.
func keepMemorySmall(ctx context.Context, limit int64) (stop func()) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	k := &memoryKeeper{limit: limit, set: limit, samples: memorySamples(), last: time.Now()}
	k.arm()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var looking sync.WaitGroup
	looking.Go(func() { k.run(ctx) })
	return func() {
		cancel()
		looking.Wait()
		k.stop()
	}
}

// limitMemory tells Go's runtime the limit, unless GOMEMLIMIT does, and gives the operators their share.
func limitMemory(limit config.Bytes) *engine.Memory {
	heap := heapLimit(limit)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heap)
	}
	return engine.NewMemory(heap / 5 * 2)
}

// memoryKeeper sets the runtime's memory limit after a collection to little more than what is in use then. Without it, what
// a burst needs for a moment, such as the end of a window in hundreds of flows, counts as in use at the next collection, lets
// the heap grow by a third of itself once more, and is given back over minutes. It is used by one cleanup at a time, and by its own goroutine.
type memoryKeeper struct {
	limit, set int64
	samples    []metrics.Sample
	// last is when it looked last, and credit how many collections may come early by now.
	last   time.Time
	credit float64
	// program is where the program is mapped, as it was found last.
	program []mapping
	found   time.Time
	// mu guards stopped, behind which the limit is the process's again.
	mu      sync.Mutex
	stopped bool
}

// unmapEvery is how often the pages of the program are let go of, and findEvery how often it is looked for where they
// are, which costs far more: a debugger that changes one of them is noticed then.
const (
	unmapEvery = 2 * time.Second
	findEvery  = 15 * time.Second
)

// A collection comes early while less than earlyBelow is in use, at most once in a second in the long run and maxCredit times
// in a row: a flow that makes much garbage all the time, or that holds much, is not slowed down. It comes after a growth of
// an earlyPart of what is in use, and earlySlack; after twice of that where only half of maxCredit is left, so that it lasts for
// the whole of a burst. The slack must be more than the 1 MiB below the limit at which Go's runtime collects: with less of it
// everything in use was gone through for each megabyte of a burst.
const (
	earlyBelow = 48 << 20
	earlyPart  = 24
	earlySlack = 2304 << 10
	maxCredit  = 24
	// leastStep is the least change of the limit that is worth stopping the program for a moment.
	leastStep = 256 << 10
)

// collected is what the next collection finds to be garbage.
type collected struct{ keeper *memoryKeeper }

// arm waits for the next collection.
func (k *memoryKeeper) arm() {
	runtime.AddCleanup(&collected{k}, func(k *memoryKeeper) {
		if k.look(time.Now()) {
			k.arm()
		}
	}, k)
}

// look does what is to be done after a collection; again is false behind stop.
func (k *memoryKeeper) look(now time.Time) (again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return false
	}
	k.adjust(now)
	return true
}

// run does what is to be done from time to time, until ctx ends.
func (k *memoryKeeper) run(ctx context.Context) {
	tick := time.NewTicker(unmapEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			k.lookAgain(now)
		case <-ctx.Done():
			return
		}
	}
}

// lookAgain bounds the heap anew when the last collection came too soon behind others to do so, and lets go of the program.
func (k *memoryKeeper) lookAgain(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.set == k.limit {
		k.adjust(now)
	}
	if now.Sub(k.found) >= findEvery {
		k.found, k.program = now, findProgram()
	}
	unmap(k.program)
}

func (k *memoryKeeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	debug.SetMemoryLimit(k.limit)
}

// The places of memorySamples.
const (
	sampleLive = iota
	sampleObjects
	sampleFree
	sampleReleased
	sampleTotal
)

func memorySamples() []metrics.Sample {
	return []metrics.Sample{
		sampleLive: {Name: "/gc/heap/live:bytes"}, sampleObjects: {Name: "/memory/classes/heap/objects:bytes"},
		sampleFree: {Name: "/memory/classes/heap/free:bytes"}, sampleReleased: {Name: "/memory/classes/heap/released:bytes"},
		sampleTotal: {Name: "/memory/classes/total:bytes"},
	}
}

func (k *memoryKeeper) adjust(now time.Time) {
	metrics.Read(k.samples)
	size := func(i int) int64 { return int64(k.samples[i].Value.Uint64()) } //nolint:gosec // memory is far below 2^63 bytes
	want := k.next(now, size(sampleLive), size(sampleTotal)-size(sampleObjects)-size(sampleFree)-size(sampleReleased))
	if max(want, k.set)-min(want, k.set) < leastStep {
		return
	}
	k.set = want
	debug.SetMemoryLimit(want)
}

// next is the limit when so much is in use, and other memory is taken by the runtime.
func (k *memoryKeeper) next(now time.Time, live, other int64) int64 {
	k.credit = min(maxCredit, k.credit+now.Sub(k.last).Seconds())
	k.last = now
	if live >= earlyBelow || k.credit < 1 {
		return k.limit
	}
	k.credit--
	growth := live/earlyPart + earlySlack
	if k.credit < maxCredit/2 {
		growth *= 2
	}
	return min(k.limit, live+growth+other)
}

func scratchDir(dataDir string) string {
	return filepath.Join(dataDir, stageDir, stage.ScratchName)
}
