package supervisor

import (
	"fmt"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/internal/excerpt"
)

// maxOversizeSamples is how many insights that are too large the reports of a run describe.
const maxOversizeSamples = 20

// oversize counts the insights of a run that are too large to be sent. The staging sets them aside and goes on; the run's
// reports tell which step made them, and how large they were.
type oversize struct {
	// limit is the largest that an insight may be, in bytes; 0 counts nothing.
	limit int
	// step names the step of an insight.
	step func(insight string) string

	// earlier and now are those of the commit under way, which may be gone through more than once.
	earlier, now tally

	mu sync.Mutex
	// all are those of the commits that have landed.
	all tally
}

// tally is a count by step, and a few of those that were counted.
type tally struct {
	steps  map[string]int64
	sample []engine.FailedRecord
}

// begin begins a commit.
func (o *oversize) begin() { o.earlier, o.now = tally{}, tally{} }

// look counts an insight that is too large.
func (o *oversize) look(t *tally, in *engine.Insight, size int) {
	if o.limit == 0 || size <= o.limit {
		return
	}
	step := in.Name
	if o.step != nil {
		step = o.step(in.Name)
	}
	if t.steps == nil {
		t.steps = map[string]int64{}
	}
	t.steps[step]++
	if len(t.sample) == maxOversizeSamples {
		return
	}
	t.sample = append(t.sample, engine.FailedRecord{Step: step, FailedRecord: connector.FailedRecord{
		Where:  "step " + step,
		Reason: fmt.Sprintf("an insight %s has %d bytes, and at most %d can be sent: it is set aside and counts as lost; keep less in it, for example with a select or an aggregate step before it", in.Name, size, o.limit),
		Record: excerpt.Bytes(in.Key, connector.MaxSampled),
	}})
}

// landed takes over what the commit has counted.
func (o *oversize) landed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range []*tally{&o.earlier, &o.now} {
		for step, n := range t.steps {
			if o.all.steps == nil {
				o.all.steps = map[string]int64{}
			}
			o.all.steps[step] += n
		}
		o.all.sample = append(o.all.sample, t.sample[:min(len(t.sample), maxOversizeSamples-len(o.all.sample))]...)
	}
	o.begin()
}

// addTo adds them to a report, as failures of their steps, and gives some of them.
func (o *oversize) addTo(r *engine.Report) []engine.FailedRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range r.Steps {
		n := o.all.steps[r.Steps[i].Step]
		r.Steps[i].Failed += n
		r.Failed += n
	}
	return o.all.sample
}
