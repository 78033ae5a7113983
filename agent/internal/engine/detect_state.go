package engine

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The entries of a detect step: one for what all groups share, one for each group, and one for the complete parts of a
// group's baseline, which change far less often than the rest. The parts' key sorts behind the group's.
const ringPrefix = 'r'

// ringKeeper is a scorer or a method with complete parts of baselines.
type ringKeeper interface {
	ringMoved(g int32) bool
	encodeRing(dst []byte, g int32) []byte
	decodeRing(r *reader, g int32)
}

// detectState is what a detector has to tell the store.
type detectState struct {
	det         *detector
	types       []expr.Type
	fingerprint [fingerprintSz]byte
	rings       ringKeeper

	// changed says which groups' entries changed since the last checkpoint, ringed which groups have a ring entry.
	changed, ringed []bool
	removed         []StateChange
	metaSaved       string
}

func (s *detectState) init(d *detector, types []expr.Type) {
	s.det, s.types = d, types
	sum := sha256.Sum256([]byte(describeDetector(d)))
	copy(s.fingerprint[:], sum[:])
	e, ok := d.method.(*events)
	if !ok {
		return
	}
	if c, isCUSUM := e.scorer.(*cusum); isCUSUM && !c.learned() {
		return
	}
	if r, hasRings := e.scorer.(ringKeeper); hasRings {
		s.rings = r
	}
}

// describeDetector is the definition as far as the meaning of its state goes.
func describeDetector(d *detector) string {
	var b strings.Builder
	for i, pos := range d.by {
		fmt.Fprintf(&b, "by %d %s;", pos, d.table.cols[i].Type)
	}
	fmt.Fprintf(&b, "time %d;", d.timeCol)
	if n := d.plan.DetectPlan.Value; n != nil {
		describeNode(&b, n)
	}
	b.WriteString(d.method.describe())
	return b.String()
}

func (s *detectState) grow(n int) {
	s.changed, s.ringed = growTo(s.changed, n), growTo(s.ringed, n)
}

// key is the key of an entry of a group.
func (s *detectState) key(prefix byte, g int32) []byte {
	dst := []byte{prefix}
	for i := range s.det.table.cols {
		dst = putCell(dst, &s.det.table.cols[i], int(g))
	}
	return dst
}

// changes appends what changed since the last call.
func (s *detectState) changes(dst []StateChange) []StateChange {
	step := s.det.plan.ID
	dst = append(dst, s.removed...)
	s.removed = s.removed[:0]
	for i, changed := range s.changed {
		if !changed {
			continue
		}
		s.changed[i] = false
		g := i32(i)
		key := s.key(groupPrefix, g)
		value := s.det.method.encode(putInt([]byte{stateVersion}, s.det.last[g]), g)
		dst = append(dst, StateChange{Step: step, Key: string(key), Value: seal(value, key)})
		if s.rings != nil && s.rings.ringMoved(g) {
			dst = s.ringChange(dst, g)
		}
	}
	return s.metaChange(dst)
}

func (s *detectState) ringChange(dst []StateChange, g int32) []StateChange {
	key := s.key(ringPrefix, g)
	value := s.rings.encodeRing([]byte{stateVersion}, g)
	change := StateChange{Step: s.det.plan.ID, Key: string(key)}
	if len(value) > 1 {
		change.Value = seal(value, key)
	} else if !s.ringed[g] {
		return dst
	}
	s.ringed[g] = change.Value != nil
	return append(dst, change)
}

func (s *detectState) metaChange(dst []StateChange) []StateChange {
	value := append([]byte{stateVersion}, s.fingerprint[:]...)
	value = seal(putInt(value, s.det.counts.lateTotal), []byte(metaKey))
	if string(value) == s.metaSaved || len(s.det.last) == 0 {
		return dst
	}
	s.metaSaved = string(value)
	return append(dst, StateChange{Step: s.det.plan.ID, Key: metaKey, Value: value})
}

// discard notes that all entries are to be removed.
func (s *detectState) discard(entries map[string][]byte) {
	for _, key := range sortedKeys(entries) {
		s.removed = append(s.removed, StateChange{Step: s.det.plan.ID, Key: key})
	}
}

// restore reads the entries of the last checkpoint into a detector that has seen nothing.
func (s *detectState) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	if err := s.restoreMeta(entries[metaKey]); err != nil {
		return err
	}
	for _, key := range sortedKeys(entries) { // the groups before their rings
		if key == metaKey {
			continue
		}
		payload, err := unseal(key, entries[key])
		if err != nil {
			return err
		}
		if key == "" {
			return errCorruptState
		}
		known := s.det.table.len()
		g, err := s.group(key[1:])
		switch {
		case err != nil:
		case key[0] == groupPrefix && s.det.table.len() == known+1:
			err = s.restoreGroup(g, payload)
		case key[0] == ringPrefix && s.det.table.len() == known && s.rings != nil && !s.ringed[g]:
			err = s.restoreRing(g, payload)
		default:
			err = errCorruptState
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *detectState) restoreMeta(value []byte) error {
	payload, err := unseal(metaKey, value)
	if err != nil {
		return err
	}
	r := reader{s: payload}
	if string(r.take(fingerprintSz)) != string(s.fingerprint[:]) {
		return errOtherDefinition
	}
	late := r.int()
	if r.err != nil || len(r.s) > 0 {
		return errCorruptState
	}
	s.det.counts.lateTotal, s.metaSaved = late, string(value)
	return nil
}

// group looks up or adds the group of a key.
func (s *detectState) group(key string) (int32, error) {
	r := reader{s: []byte(key)}
	cols := make([]column.Column, len(s.types))
	for i := range cols {
		cols[i].Type = s.types[i]
		r.cell(&cols[i])
	}
	if r.err != nil || len(r.s) > 0 {
		return 0, errCorruptState
	}
	return oneKey(s.det.table, 0, cols)
}

func (s *detectState) restoreGroup(g int32, payload []byte) error {
	s.det.grow(s.det.table.len())
	r := reader{s: payload}
	s.det.last[g] = r.int()
	s.det.method.decode(&r, g)
	if r.err != nil || len(r.s) > 0 || s.det.last[g] == noTime {
		return errCorruptState
	}
	return nil
}

func (s *detectState) restoreRing(g int32, payload []byte) error {
	r := reader{s: payload}
	s.rings.decodeRing(&r, g)
	if r.err != nil {
		return errCorruptState
	}
	s.ringed[g] = true
	return nil
}
