package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/engine"
)

// holdFor is how long a run that ends by itself goes on before its first commit. What a kill repeats is never more, and
// the state of its operators need not be staged when it ends sooner.
const holdFor = 5 * time.Minute

// Encoder appends the outbox payload of an insight. It must give the same bytes for the same insight. It is used by many
// goroutines.
type Encoder func(dst []byte, in *engine.Insight) ([]byte, error)

// RunOnce runs one deployment once, whatever its trigger says, to the end of its sources or of ctx. It is for a person
// who tries a flow out: nothing is retried but the sources, and nothing is reported.
func RunOnce(ctx context.Context, s Settings, d Deployment, encode Encoder) (engine.Report, error) {
	p, err := prepare(s, d)
	if err != nil {
		return engine.Report{}, err
	}
	set := p.runSettings(s)
	st := newStore(s, p, &d, func() Encoder { return encode })
	st.payloads = &sync.Pool{}
	set.Store, set.Logger = st, s.Logger
	runner := engine.NewRunner(set)
	err = runner.Run(ctx)
	report := runner.Report()
	report.Sample = append(report.Sample, st.large.addTo(&report)...)
	return report, err
}

// Check says what a run of the deployment would refuse before it reads anything: the definition, and the settings of
// every source. It does no I/O.
func Check(s Settings, d Deployment) error {
	_, err := prepare(s, d)
	return err
}
