package engine

import (
	"slices"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// driftOf is a read's word for what becomes of records that differ from its schema.
func driftOf(word string) connector.Drift {
	switch word {
	case flowdef.DriftReport:
		return connector.DriftReport
	case flowdef.DriftFail:
		return connector.DriftFail
	}
	return connector.DriftIgnore
}

// maxNoted is how many different notes of a step are kept.
const maxNoted = 64

// note puts what a source has noticed into the sample, each thing once: several decoders may notice the same.
func (c *stepCounts) note(notes []connector.FailedRecord) {
	for _, n := range notes {
		if len(c.noted) >= maxNoted || slices.Contains(c.noted, n.Reason) {
			continue
		}
		c.noted = append(c.noted, n.Reason)
		if len(*c.sample) < maxSamples {
			*c.sample = append(*c.sample, FailedRecord{Step: c.step, FailedRecord: n, Note: true})
		}
	}
}
