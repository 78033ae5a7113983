package agent

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

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
// and gives memory back to the system soon, unless GOMEMLIMIT says when. limit is the most that Go's runtime may hold.
func keepMemorySmall(limit int64) (stop func()) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	k := &memoryKeeper{limit: limit, set: limit, samples: []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/total:bytes"},
	}}
	k.arm()
	return func() {}
}

// limitMemory tells Go's runtime the limit, unless GOMEMLIMIT does, and gives the operators their share.
func limitMemory(limit config.Bytes) *engine.Memory {
	heap := heapLimit(limit)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heap)
	}
	return engine.NewMemory(heap / 5 * 2)
}

// memoryKeeper sets the runtime's memory limit after every collection to somewhat more than what is in use then. Without it
// a burst, such as the end of a window in hundreds of flows, leaves pages behind that the runtime gives back over minutes.
// It is used by one cleanup at a time.
type memoryKeeper struct {
	limit, set int64
	samples    []metrics.Sample
}

// collected is what the next collection finds to be garbage.
type collected struct{ keeper *memoryKeeper }

// arm waits for the next collection.
func (k *memoryKeeper) arm() {
	runtime.AddCleanup(&collected{k}, func(k *memoryKeeper) {
		k.adjust()
		k.arm()
	}, k)
}

const (
	keptPercent = 25
	keptSlack   = 2 << 20
	// keptStep is the least change of the limit that is worth stopping the program for.
	keptStep = 1 << 20
)

func (k *memoryKeeper) adjust() {
	metrics.Read(k.samples)
	var v [5]int64
	for i := range v {
		v[i] = int64(min(k.samples[i].Value.Uint64(), math.MaxInt64)) //nolint:gosec // bounded
	}
	live, other := v[0], v[4]-v[1]-v[2]-v[3]
	want := min(k.limit, live+live*keptPercent/100+other+keptSlack)
	if want > k.set-keptStep && want < k.set+keptStep {
		return
	}
	k.set = want
	debug.SetMemoryLimit(want)
}

func scratchDir(dataDir string) string {
	return filepath.Join(dataDir, stageDir, stage.ScratchName)
}
