package engine

import (
	"crypto/sha256"
	"encoding/binary"
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
	// names are the keys of the groups' entries, made once; buf has the values of one checkpoint, which are of no use to
	// anyone when the next one is made.
	names    []string
	key, buf []byte
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
	s.changed, s.ringed, s.names = growTo(s.changed, n), growTo(s.ringed, n), growTo(s.names, n)
}

// keyOf is the key of an entry of a group, valid until the next call.
func (s *detectState) keyOf(prefix byte, g int32) []byte {
	s.key = append(s.key[:0], prefix)
	for i := range s.det.table.cols {
		s.key = putCell(s.key, &s.det.table.cols[i], int(g))
	}
	return s.key
}

// changes appends what changed since the last call.
func (s *detectState) changes(dst []StateChange) []StateChange {
	step := s.det.plan.ID
	dst = append(dst, s.removed...)
	s.removed, s.buf = s.removed[:0], s.buf[:0]
	for i, changed := range s.changed {
		if !changed {
			continue
		}
		s.changed[i] = false
		g := i32(i)
		key := s.keyOf(groupPrefix, g)
		if s.names[g] == "" {
			s.names[g] = string(key)
		}
		start := len(s.buf)
		s.buf = s.det.method.encode(putInt(append(s.buf, stateVersion), s.det.last[g]), g)
		dst = append(dst, StateChange{Step: step, Key: s.names[g], Value: s.sealed(start, key)})
		if s.rings != nil && s.rings.ringMoved(g) {
			dst = s.ringChange(dst, g)
		}
	}
	return s.metaChange(dst)
}

// sealed ends the value that begins at start of buf.
func (s *detectState) sealed(start int, key []byte) []byte {
	s.buf = binary.BigEndian.AppendUint32(s.buf, checksum(key, s.buf[start:]))
	return s.buf[start:len(s.buf):len(s.buf)]
}

func (s *detectState) ringChange(dst []StateChange, g int32) []StateChange {
	key := s.keyOf(ringPrefix, g)
	start := len(s.buf)
	s.buf = s.rings.encodeRing(append(s.buf, stateVersion), g)
	change := StateChange{Step: s.det.plan.ID, Key: string(key)}
	switch {
	case len(s.buf) > start+1:
		change.Value = s.sealed(start, key)
	case !s.ringed[g]:
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
		if err = s.restoreEntry(key, payload); err != nil {
			return err
		}
	}
	return nil
}

func (s *detectState) restoreEntry(key string, payload []byte) error {
	if key == "" {
		return errCorruptState
	}
	known := s.det.table.len()
	g, err := s.group(key[1:])
	switch {
	case err != nil:
		return err
	case key[0] == groupPrefix && s.det.table.len() == known+1:
		return s.restoreGroup(g, payload)
	case key[0] == ringPrefix && s.det.table.len() == known && s.rings != nil && !s.ringed[g]:
		return s.restoreRing(g, payload)
	}
	return errCorruptState
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
