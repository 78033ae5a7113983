package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

// The last resort against a flow that takes memory which nobody counts: when what is in use of the heap comes near the
// limit, the flow that is known to hold the most is ended.

const (
	// pressureEvery is how often the heap is looked at.
	pressureEvery = 200 * time.Millisecond
	// pressureAt is the share of Go's memory limit above which memory is about to run out.
	pressureAt = 0.9
	// pressureRest is how many looks the heap gets to shrink after a flow was ended.
	pressureRest = 10
)

// pressure watches the heap.
type pressure struct {
	supervisor *supervisor.Supervisor
	log        *slog.Logger
	sample     []metrics.Sample
	rest       int
}

func newPressure(s *supervisor.Supervisor, log *slog.Logger) *pressure {
	return &pressure{supervisor: s, log: log, sample: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
}

// run looks until ctx ends.
func (p *pressure) run(ctx context.Context) error {
	tick := time.NewTicker(pressureEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.look(ctx, debug.SetMemoryLimit(-1))
		case <-ctx.Done():
			return nil
		}
	}
}

// look ends the largest flow when what is left after a collection is still too much. What is garbage of it is known only
// after one, which is cheap beside running out of memory.
func (p *pressure) look(ctx context.Context, limit int64) {
	if p.rest > 0 {
		p.rest--
	}
	most := uint64(float64(limit) * pressureAt)
	if limit == math.MaxInt64 || p.rest > 0 || p.heap() < most {
		return
	}
	runtime.GC()
	heap := p.heap()
	p.rest = pressureRest
	if heap < most {
		return
	}
	cause := fmt.Errorf("the agent uses %d MiB of the %d MiB of memory that there are for all flows, and this flow holds the most; make it hold less, or raise memory_limit", heap>>20, limit>>20)
	if flow := p.supervisor.EndLargest(cause); flow != "" {
		p.log.ErrorContext(ctx, "memory is about to run out, so the flow that holds the most is ended", slog.String("flow", flow), slog.Uint64("heap_bytes", heap), slog.Int64("limit_bytes", limit))
	}
}

func (p *pressure) heap() uint64 {
	metrics.Read(p.sample)
	return p.sample[0].Value.Uint64()
}
