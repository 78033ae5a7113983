package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// MaxRunReports is how many run reports are kept; older ones make room for newer ones.
const MaxRunReports = 1000

// RunReport is a stored run report.
type RunReport struct {
	ID      string
	Payload []byte
}

// PutDesired stores the desired state of the agent. A serial below the highest ever stored is refused with
// ErrOlderDesired; the same serial again replaces the envelope.
func (s *Stage) PutDesired(ctx context.Context, envelope []byte, serial uint64) error {
	var older error
	r := &request{apart: true, admit: func(*files) error { return nil }}
	r.apply = func(tx *bolt.Tx, _ *meta) error {
		b := tx.Bucket([]byte(metaBucket))
		highest, err := desiredSerial(b)
		if err != nil {
			return err
		}
		if serial < highest {
			// The transaction may carry other requests, so the refusal must not fail it.
			older = fmt.Errorf("%w: its serial is %d and the stored one's is %d", ErrOlderDesired, serial, highest)
			return nil
		}
		if err := putSealed(b, []byte(desiredSerialKey), number(serial)); err != nil {
			return err
		}
		return putSealed(b, []byte(desiredKey), envelope)
	}
	if err := s.submit(ctx, r); err != nil {
		return err
	}
	return older
}

// desiredSerial is the highest serial ever stored, or 0.
func desiredSerial(b *bolt.Bucket) (uint64, error) {
	value, err := getSealed(b, []byte(desiredSerialKey))
	if errors.Is(err, errAbsent) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parseNumber(value)
}

// Desired gives the stored desired state, or ErrNone.
func (s *Stage) Desired(ctx context.Context) (envelope []byte, serial uint64, failure error) {
	failure = s.view(ctx, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(metaBucket))
		value, err := getSealed(b, []byte(desiredKey))
		if errors.Is(err, errAbsent) {
			return ErrNone
		}
		if err != nil {
			return err
		}
		envelope = bytes.Clone(value)
		serial, err = desiredSerial(b)
		return err
	})
	return envelope, serial, failure
}

// PutRunReport stores a run report, in place of an earlier one of the same id, and drops the oldest above MaxRunReports.
func (s *Stage) PutRunReport(ctx context.Context, id string, payload []byte) error {
	return s.submit(ctx, &request{
		apart: true,
		admit: func(*files) error { return nil },
		apply: func(tx *bolt.Tx, m *meta) error {
			dropped, err := putReport(tx, id, payload)
			m.droppedReports += dropped
			return err
		},
	})
}

func putReport(tx *bolt.Tx, id string, payload []byte) (dropped uint64, err error) {
	if err = deleteReport(tx, id); err != nil {
		return 0, err
	}
	reports, ids := tx.Bucket([]byte(reportsBucket)), tx.Bucket([]byte(reportIDsBucket))
	n, err := reports.NextSequence()
	if err != nil {
		return 0, fmt.Errorf("store a run report: %w", err)
	}
	key := number(n)
	value := binary.AppendUvarint(nil, uint64(len(id)))
	value = append(append(value, id...), payload...)
	if err := putSealed(reports, key, value); err != nil {
		return 0, err
	}
	if err := putSealed(ids, []byte(id), key); err != nil {
		return 0, err
	}
	return trimReports(reports, ids)
}

// trimReports drops the oldest reports. It counts by walking: there are at most MaxRunReports and a few.
func trimReports(reports, ids *bolt.Bucket) (dropped uint64, err error) {
	count := 0
	c := reports.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		count++
	}
	for ; count > MaxRunReports; count-- {
		key, sealed := reports.Cursor().First()
		if r, damaged := parseReport(key, sealed); damaged == nil {
			if err := ids.Delete([]byte(r.ID)); err != nil {
				return dropped, fmt.Errorf("drop a run report: %w", err)
			}
		}
		if err := reports.Delete(key); err != nil {
			return dropped, fmt.Errorf("drop a run report: %w", err)
		}
		dropped++
	}
	return dropped, nil
}

func parseReport(key, sealed []byte) (RunReport, error) {
	value, err := unseal(key, sealed)
	if err != nil {
		return RunReport{}, err
	}
	size, n := binary.Uvarint(value)
	if n <= 0 || size == 0 || size > uint64(len(value[n:])) {
		return RunReport{}, fmt.Errorf("%w: a run report has no id", ErrDamaged)
	}
	// What a damaged page leads to can be an entry of another bucket. Their keys are words.
	if number, err := parseNumber(key); err != nil || number>>56 != 0 {
		return RunReport{}, fmt.Errorf("%w: a run report has no number", ErrDamaged)
	}
	end := n + int(size) //nolint:gosec // bounded by len(value)
	return RunReport{ID: string(value[n:end]), Payload: bytes.Clone(value[end:])}, nil
}

// deleteReport removes the report of that id, if there is one.
func deleteReport(tx *bolt.Tx, id string) error {
	ids := tx.Bucket([]byte(reportIDsBucket))
	key, err := getSealed(ids, []byte(id))
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	if err = tx.Bucket([]byte(reportsBucket)).Delete(bytes.Clone(key)); err == nil {
		err = ids.Delete([]byte(id))
	}
	if err != nil {
		return fmt.Errorf("drop the run report %s: %w", id, err)
	}
	return nil
}

// RunReports gives up to limit stored reports, the newest first.
func (s *Stage) RunReports(ctx context.Context, limit int) ([]RunReport, error) {
	var out []RunReport
	err := s.view(ctx, func(tx *bolt.Tx) error {
		out = nil
		c := tx.Bucket([]byte(reportsBucket)).Cursor()
		for k, v := c.Last(); k != nil && len(out) < limit; k, v = c.Prev() {
			r, err := parseReport(k, v)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DropRunReports removes the reports of these ids; unknown ones are no error.
func (s *Stage) DropRunReports(ctx context.Context, ids ...string) error {
	return s.submit(ctx, &request{
		apart: true,
		admit: func(*files) error { return nil },
		apply: func(tx *bolt.Tx, _ *meta) error {
			for _, id := range ids {
				if err := deleteReport(tx, id); err != nil {
					return err
				}
			}
			return nil
		},
	})
}
