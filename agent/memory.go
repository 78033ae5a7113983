package agent

import (
	"os"
	"path/filepath"
	"runtime/debug"

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

// keepMemorySmall lets the heap grow less between two collections, unless GOGC says otherwise.
func keepMemorySmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// limitMemory tells Go's runtime the limit, unless GOMEMLIMIT does, and gives the operators their share.
func limitMemory(limit config.Bytes) *engine.Memory {
	heap := int64(limit) - programBytes
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heap)
	}
	return engine.NewMemory(heap / 5 * 2)
}

func scratchDir(dataDir string) string {
	return filepath.Join(dataDir, stageDir, stage.ScratchName)
}
