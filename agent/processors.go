package agent

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/outfeed/outfeed/agent/internal/engine"
)

// An agent with little to do lets Go use one processor. Where there are more, each timer that ends and each flow that goes on
// wakes another thread to look for work, and puts it to sleep again: with 200 flows that is a good part of what they cost.
const (
	// processorsEvery is how often the work is looked at: about as long a burst has to wait for the other processors.
	processorsEvery = 250 * time.Millisecond
	// muchWork is the share of a processor from which on all are used, littleWork that below which, for calmLooks looks in a
	// row, one is enough.
	muchWork   = 0.6
	littleWork = 0.3
	calmLooks  = 12
)

// processors is how many processors Go may use.
type processors struct {
	// used is how long the processors have worked for the process. all lets Go use all of them, one a single one.
	used     func() (time.Duration, error)
	all, one func()

	few      bool
	calm     int
	last     time.Time
	lastUsed time.Duration
}

func newProcessors() *processors {
	return &processors{used: engine.ProcessorTime, all: runtime.SetDefaultGOMAXPROCS, one: func() { runtime.GOMAXPROCS(1) }}
}

// run looks until ctx ends, and leaves Go all processors. It does nothing where GOMAXPROCS says how many there are.
func (p *processors) run(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return nil
	}
	tick := time.NewTicker(processorsEvery)
	defer tick.Stop()
	defer p.useAll()
	for {
		select {
		case <-tick.C:
			p.look(time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// look compares the work since the last look with the time since then.
func (p *processors) look(now time.Time) {
	used, err := p.used()
	if err != nil {
		p.useAll()
		return
	}
	past, work := now.Sub(p.last), used-p.lastUsed
	first := p.last.IsZero()
	p.last, p.lastUsed = now, used
	if first || past <= 0 {
		return
	}
	switch share := float64(work) / float64(past); {
	case share >= muchWork:
		p.useAll()
	case share >= littleWork:
		p.calm = 0
	default:
		p.calm++
	}
	if p.calm >= calmLooks && !p.few {
		p.few = true
		p.one()
	}
}

func (p *processors) useAll() {
	p.calm = 0
	if p.few {
		p.few = false
		p.all()
	}
}
