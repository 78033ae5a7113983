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
	// encode makes the outbox records of insights; encoder makes another one, for another goroutine.
	encode  Encoder
	encoder func() Encoder
	// payloads has *payloadBuffer. The insights of a moment are encoded into memory that flows share, because most of them make
	// many at a time at the end of a window, and then few or none for long.
	payloads *sync.Pool
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

func newStore(s Settings, p *prepared, d *Deployment, encoder func() Encoder) *store {
	return &store{staging: s.Staging, dep: d, encode: encoder(), encoder: encoder, large: oversize{limit: s.MaxInsight, step: p.program.InsightStep}}
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
	buf, err := s.encodeNow(c.Insights)
	if err != nil {
		return err
	}
	out.Insights = buf.list
	err = s.staging.Commit(ctx, out)
	if err == nil {
		buf.release(s.payloads)
		s.number++
		s.large.landed()
		s.setProblem("")
		return nil
	}
	s.setProblem(err.Error())
	return err
}

// payloadBuffer is the payloads of one commit, which lie in data.
type payloadBuffer struct {
	data []byte
	list [][]byte
}

const (
	// payloadMore is about what a payload is longer than the parts of its insight.
	payloadMore = 96
	// keptPayloads is up to which size a buffer is used again.
	keptPayloads = 64 << 10
)

// encodeNow encodes the insights of a commit.
func (s *store) encodeNow(insights []engine.Insight) (buf *payloadBuffer, err error) {
	if len(insights) == 0 {
		return &payloadBuffer{}, nil
	}
	buf, _ = s.payloads.Get().(*payloadBuffer)
	if buf == nil {
		buf = &payloadBuffer{}
	}
	size := 0
	for i := range insights {
		size += len(insights[i].Key) + len(insights[i].Values) + payloadMore
	}
	buf.data, buf.list = slices.Grow(buf.data[:0], size), slices.Grow(buf.list[:0], len(insights))
	for i := range insights {
		start := len(buf.data)
		if buf.data, err = s.encode(buf.data, &insights[i]); err != nil {
			return nil, fmt.Errorf("%w: %w", engine.ErrCannotCommit, err)
		}
		payload := buf.data[start:len(buf.data):len(buf.data)]
		s.large.look(&s.large.now, &insights[i], len(payload))
		buf.list = append(buf.list, payload)
	}
	return buf, nil
}

// release lets another commit use the memory. It is for a commit that has landed: one that has not may still be under way.
func (b *payloadBuffer) release(to *sync.Pool) {
	if cap(b.data) > 0 && cap(b.data) <= keptPayloads {
		clear(b.list)
		to.Put(b)
	}
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
		encode := s.encoder() // the staging may go through them while another commit is tried
		s.large.earlier = tally{}
		for in, err := range insights {
			var payload []byte
			if err == nil {
				if payload, err = encode(nil, &in); err != nil {
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

// recordEncoder makes outbox records as the control plane stores them, in one goroutine at a time.
func recordEncoder(d *Deployment) Encoder {
	record := &wire.InsightRecord{}
	return func(dst []byte, i *engine.Insight) ([]byte, error) {
		record.FlowId, record.FlowVersion, record.Name = d.FlowID, d.Version, i.Name
		record.Time, record.KeyJson, record.ValuesJson = i.Time, i.Key, i.Values
		payload, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, record)
		record.KeyJson, record.ValuesJson = nil, nil // they belong to the run
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
