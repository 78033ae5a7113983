package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/outfeed/outfeed/internal/backoff"
)

// FlowState is what a flow resumes from.
type FlowState struct {
	// Number is that of the flow's last commit, 0 when there was none.
	Number uint64
	// Cursors are by source.
	Cursors map[string][]byte
	// Operators are the entries of every operator's state, by step and key.
	Operators map[string]map[string][]byte
}

// LoadFlow gives the state of the flow's last commit; a flow that never committed has an empty one. It waits for
// what is still under way for the flow.
func (s *Stage) LoadFlow(ctx context.Context, flow string) (FlowState, error) {
	var st FlowState
	err := s.awaitSettled(ctx, flow)
	if err == nil {
		err = s.view(ctx, func(tx *bolt.Tx) error {
			st = FlowState{Cursors: map[string][]byte{}, Operators: map[string]map[string][]byte{}}
			if b := tx.Bucket([]byte(flowsBucket)).Bucket([]byte(flow)); b != nil {
				if err := st.read(flow, b); err != nil {
					return err
				}
			}
			if later := s.pending.flows[flow]; later != nil {
				return later.overlay(&st)
			}
			return nil
		})
	}
	if err != nil {
		return FlowState{}, fmt.Errorf("load the state of flow %s: %w", flow, err)
	}
	return st, nil
}

// settledWait and settledTries bound how long a flow waits to be told what a failed commit has left.
const (
	settledWait  = 100 * time.Millisecond
	settledTries = 50
)

// awaitSettled returns once nothing is under way for the flow. After a failed commit that takes as long as the writer needs
// to find out what has landed, which a disk that stays broken must not make endless.
func (s *Stage) awaitSettled(ctx context.Context, flow string) (err error) {
	for range settledTries {
		// The writer takes this one behind a commit of the flow whose caller no longer waits.
		err = s.submit(ctx, &request{flow: flow, admit: func(*files) error { return errDone }})
		if err == nil || s.isUnsettled() == nil || backoff.Sleep(ctx, settledWait) != nil {
			return err
		}
	}
	return err
}

func (st *FlowState) read(flow string, b *bolt.Bucket) error {
	value, err := getSealed(b, []byte(markKey))
	if err != nil {
		return err
	}
	m, err := parseMark(value)
	if err != nil {
		return err
	}
	st.Number = m.number
	content := emptyContent(flow)
	err = eachSealed(b.Bucket([]byte(cursorsBucket)), func(key, value []byte) error {
		content += contentPart(cursorPart, sumOf(key, value))
		st.Cursors[string(key)] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return err
	}
	err = eachSealed(b.Bucket([]byte(operatorsBucket)), func(key, value []byte) error {
		content += contentPart(operatorPart, sumOf(key, value))
		step, entry, err := parseOperatorKey(key)
		if err != nil {
			return err
		}
		entries := st.Operators[step]
		if entries == nil {
			entries = map[string][]byte{}
			st.Operators[step] = entries
		}
		entries[entry] = append([]byte{}, value...)
		return nil
	})
	if err == nil && content != m.content {
		err = fmt.Errorf("%w: the entries are not those of commit %d", ErrDamaged, m.number)
	}
	return err
}

// eachSealed calls fn for every entry of a bucket.
func eachSealed(b *bolt.Bucket, fn func(key, value []byte) error) error {
	if b == nil {
		return fmt.Errorf("%w: a bucket is missing", ErrDamaged)
	}
	err := b.ForEach(func(key, sealed []byte) error {
		if sealed == nil {
			return fmt.Errorf("%w: the bucket %q is where an entry should be", ErrDamaged, key)
		}
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		return fn(key, value)
	})
	if err != nil {
		return fmt.Errorf("read the entries: %w", err)
	}
	return nil
}

// DropFlow forgets a flow's state. Its insights stay in the outbox. Dropping what is not there is no error.
func (s *Stage) DropFlow(ctx context.Context, flow string) error {
	return s.submit(ctx, &request{
		flow: flow,
		admit: func(f *files) error {
			if _, ok := f.marks[flow]; !ok {
				return errDone
			}
			return nil
		},
		apply: func(tx *bolt.Tx, next *meta) error {
			next.markSum -= s.markBefore(flow).part(flow)
			err := tx.Bucket([]byte(flowsBucket)).DeleteBucket([]byte(flow))
			if err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
				return fmt.Errorf("drop the state of flow %s: %w", flow, err)
			}
			return nil
		},
		landed: func(f *files) { delete(f.marks, flow) },
	})
}

// Flows gives the keys of all flows that have a state, sorted.
func (s *Stage) Flows(ctx context.Context) ([]string, error) {
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil {
		return nil, s.unavailableLocked()
	}
	return slices.Sorted(maps.Keys(s.files.marks)), nil
}
