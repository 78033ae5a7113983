package supervisor

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/protocol/wire"
)

// store is the engine's Store for one run of a deployment.
type store struct {
	staging Staging
	dep     *Deployment
	// encode makes the outbox record of an insight.
	encode Encoder
	// large are the insights that are too large to be sent.
	large oversize
	// number is that of the last commit known to have landed.
	number uint64

	// committing is held during a commit, and for good once the run was left behind.
	committing sync.Mutex
	fenced     bool

	mu      sync.Mutex
	problem string
}

func newStore(s Settings, p *prepared, d *Deployment, encode Encoder) *store {
	return &store{staging: s.Staging, dep: d, encode: encode, large: oversize{limit: s.MaxInsight, step: p.program.InsightStep}}
}

// Load gives the state of the last commit.
func (s *store) Load(ctx context.Context) (engine.State, error) {
	stored, err := s.staging.LoadFlow(ctx, s.dep.ID)
	if err != nil {
		return engine.State{}, err
	}
	s.number = stored.Number
	state := engine.State{Cursors: map[string]connector.Cursor{}, Operators: stored.Operators}
	for step, cursor := range stored.Cursors {
		state.Cursors[step] = cursor
	}
	return state, nil
}

// Commit stores a checkpoint. Called again with the same one after an error, it uses the same number, so that the
// staging can tell whether it had landed.
func (s *store) Commit(ctx context.Context, c engine.Checkpoint) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if s.fenced {
		return fmt.Errorf("%w: the run was left behind", engine.ErrCannotCommit)
	}
	out := Checkpoint{Flow: s.dep.ID, Number: s.number + 1, Changes: c.Changes, Late: uint64(max(0, c.Late))}
	if len(c.Cursors) > 0 {
		out.Cursors = make(map[string][]byte, len(c.Cursors))
	}
	for step, cursor := range c.Cursors {
		out.Cursors[step] = cursor
	}
	s.large.begin()
	if c.Earlier != nil {
		out.Earlier = s.encodeAll(c.Earlier)
	}
	out.Insights = slices.Grow(out.Insights, len(c.Insights))
	for i := range c.Insights {
		payload, err := s.encode(&c.Insights[i])
		if err != nil {
			return fmt.Errorf("%w: %w", engine.ErrCannotCommit, err)
		}
		s.large.look(&s.large.now, &c.Insights[i], len(payload))
		out.Insights = append(out.Insights, payload)
	}
	err := s.staging.Commit(ctx, out)
	if err == nil {
		s.number++
		s.large.landed()
		s.setProblem("")
		return nil
	}
	s.setProblem(err.Error())
	return err
}

// fence keeps a run that is left behind from committing. It says false while a commit is under way.
func (s *store) fence() bool {
	if !s.committing.TryLock() {
		return false
	}
	defer s.committing.Unlock()
	s.fenced = true
	return true
}

// encodeAll encodes insights as they are asked for.
func (s *store) encodeAll(insights iter.Seq2[engine.Insight, error]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s.large.earlier = tally{}
		for in, err := range insights {
			var payload []byte
			if err == nil {
				if payload, err = s.encode(&in); err != nil {
					err = fmt.Errorf("%w: %w", engine.ErrCannotCommit, err)
				}
				s.large.look(&s.large.earlier, &in, len(payload))
			}
			if !yield(payload, err) || err != nil {
				return
			}
		}
	}
}

// recordEncoder makes outbox records as the control plane stores them.
func recordEncoder(d *Deployment) Encoder {
	return func(i *engine.Insight) ([]byte, error) {
		payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(&wire.InsightRecord{
			FlowId: d.FlowID, FlowVersion: d.Version, Name: i.Name, Time: i.Time, KeyJson: i.Key, ValuesJson: i.Values,
		})
		if err != nil {
			return nil, fmt.Errorf("the insight %s cannot be encoded: %w", i.Name, err)
		}
		return payload, nil
	}
}

func (s *store) setProblem(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = text
}

// failing says why the last commit failed, "" when it did not.
func (s *store) failing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}
