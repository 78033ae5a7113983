package engine

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The entries of a detect step: one for what all groups share, one for each block of groups, and one for the complete
// parts of a group's baseline, which change far less often than the rest. Most groups have a new reading in every
// commit, and a store takes a few long entries far more cheaply than many short ones.
//
// Groups keep their numbers over a restart: the blocks are read in their order, and a ring's key is its group's number,
// behind those of all blocks.
const (
	ringPrefix  = 'r'
	groupBlock  = 32
	numberBytes = 4
)

// ringKeeper is a scorer or a method with complete parts of baselines.
type ringKeeper interface {
	ringMoved(g int32) bool
	encodeRing(dst []byte, g int32) []byte
	decodeRing(r *reader, g int32)
}

// detectState is what a detector has to tell the store.
type detectState struct {
	det   *detector
	types []expr.Type
	meta  stepMeta
	rings ringKeeper

	// changed says which groups' entries changed since the last checkpoint, ringed which groups have a ring entry.
	changed, ringed []bool
	removed         []StateChange
	// names are the keys of the blocks' entries, made once; buf has the values of one checkpoint, which are of no use to
	// anyone when the next one is made.
	names []string
	buf   []byte
}

func (s *detectState) init(d *detector, types []expr.Type) {
	s.det, s.types = d, types
	s.meta = newStepMeta(d.plan.ID, describeDetector(d))
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
	for block := len(s.names); block*groupBlock < n; block++ {
		s.names = append(s.names, numberedKey(groupPrefix, block))
	}
}

// numberedKey is a key whose order is that of the numbers.
func numberedKey(prefix byte, n int) string {
	return string(binary.BigEndian.AppendUint32([]byte{prefix}, uint32(n))) //nolint:gosec // the groups are numbered by int32
}

// changes appends what changed since the last call.
func (s *detectState) changes(dst []StateChange) []StateChange {
	dst = append(dst, s.removed...)
	s.removed, s.buf = s.removed[:0], s.buf[:0]
	for block, name := range s.names {
		first, end := block*groupBlock, min((block+1)*groupBlock, len(s.changed))
		if !slices.Contains(s.changed[first:end], true) {
			continue
		}
		start := len(s.buf)
		s.buf = append(s.buf, stateVersion)
		for g := first; g < end; g++ {
			for i := range s.det.table.cols {
				s.buf = putCell(s.buf, &s.det.table.cols[i], g)
			}
			s.buf = s.det.method.encode(putInt(s.buf, s.det.last[g]), i32(g))
		}
		dst = append(dst, StateChange{Step: s.det.plan.ID, Key: name, Value: s.sealed(start, name)})
		for g := first; g < end; g++ {
			if s.changed[g] && s.rings != nil && s.rings.ringMoved(i32(g)) {
				dst = s.ringChange(dst, i32(g))
			}
		}
		clear(s.changed[first:end])
	}
	return s.metaChange(dst)
}

// sealed ends the value that begins at start of buf.
func (s *detectState) sealed(start int, key string) []byte {
	s.buf = binary.BigEndian.AppendUint32(s.buf, checksum([]byte(key), s.buf[start:]))
	return s.buf[start:len(s.buf):len(s.buf)]
}

func (s *detectState) ringChange(dst []StateChange, g int32) []StateChange {
	key := numberedKey(ringPrefix, int(g))
	start := len(s.buf)
	s.buf = s.rings.encodeRing(append(s.buf, stateVersion), g)
	change := StateChange{Step: s.det.plan.ID, Key: key}
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
	if len(s.det.last) == 0 {
		return dst
	}
	return s.meta.changes(dst, s.det.counts.lateTotal)
}

// discard notes that all entries are to be removed.
func (s *detectState) discard(entries map[string][]byte) {
	s.removed = append(s.removed, discardAll(s.det.plan.ID, entries)...)
}

// restore reads the entries of the last checkpoint into a detector that has seen nothing.
func (s *detectState) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	if err := s.meta.restore(entries, &s.det.counts.lateTotal); err != nil {
		return err
	}
	return restoreEntries(entries, s.restoreEntry) // the groups before their rings
}

// restoreEntry reads a block or a ring. The blocks come in their order, each full but the last.
func (s *detectState) restoreEntry(key string, payload []byte) error {
	if len(key) != 1+numberBytes {
		return errCorruptState
	}
	known := s.det.table.len()
	n := int64(binary.BigEndian.Uint32([]byte(key[1:])))
	r := reader{s: payload}
	switch {
	case key[0] == groupPrefix && n*groupBlock == int64(known):
		for range groupBlock {
			if len(r.s) > 0 && r.err == nil {
				s.restoreGroup(&r)
			}
		}
	case key[0] == ringPrefix && n < int64(known) && s.rings != nil && !s.ringed[n]:
		s.rings.decodeRing(&r, int32(n)) //nolint:gosec // below the number of groups
		s.ringed[n] = true
	default:
		return errCorruptState
	}
	if r.err != nil || len(r.s) > 0 {
		return errCorruptState
	}
	return nil
}

// restoreGroup reads a group that must not be there yet.
func (s *detectState) restoreGroup(r *reader) {
	cols := make([]column.Column, len(s.types))
	for i := range cols {
		cols[i].Type = s.types[i]
		r.cell(&cols[i])
	}
	if r.err != nil {
		return
	}
	known := s.det.table.len()
	g, err := oneKey(s.det.table, 0, cols)
	if err != nil || s.det.table.len() != known+1 {
		r.err = errCorruptState
		return
	}
	s.det.grow(known + 1)
	s.det.last[g] = r.int()
	s.det.newest = max(s.det.newest, s.det.last[g])
	s.det.method.decode(r, g)
}
