package engine

import (
	"encoding/binary"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// What keys carry from window to window is written in blocks, as groups are: at the end of a window all keys of hundreds of
// flows have something new to carry, and where each has an entry of its own that is most of what it costs.

// sparseBlocks is how many blocks there may be however few keys are in them.
const sparseBlocks = 64

// carryKey is the key of a block's entry.
func carryKey(id uint64) string { return idKey(carryPrefix, id) }

// carryChanges appends what keys carry and have not written.
func (s *aggregateState) carryChanges(dst []StateChange) []StateChange {
	k := s.agg.keys
	if k == nil {
		return dst
	}
	blocks := &k.blocks
	for key, changed := range k.changed {
		if !changed {
			continue
		}
		k.changed[key] = false
		if blocks.of[key] == 0 {
			blocks.join(i32(key), 0)
		}
		blocks.moved[blocks.of[key]-1] = true
	}
	for b, moved := range blocks.moved {
		if moved {
			blocks.moved[b] = false
			dst = append(dst, s.carryChange(i32(b)))
		}
	}
	return dst
}

func (s *aggregateState) carryChange(b int32) StateChange {
	k := s.agg.keys
	start := s.begin()
	for _, key := range k.blocks.places(b) {
		s.buf = putBool(s.buf, key != noEntry)
		if key == noEntry {
			continue
		}
		for i := range k.table.cols {
			s.buf = putCell(s.buf, &k.table.cols[i], int(key))
		}
		for _, c := range k.carriers {
			s.buf = c.encodeCarry(s.buf, key)
		}
	}
	if len(s.buf)-start > fullEntry {
		k.blocks.withdraw(b, 0)
	}
	return s.sealed(start, carryKey(k.blocks.ids[b]))
}

// forgetCarries notes that the keys carry nothing any more.
func (s *aggregateState) forgetCarries(keys []int32) {
	if len(keys) == 0 {
		return
	}
	k := s.agg.keys
	for _, key := range keys {
		k.changed[key] = false
		if k.blocks.of[key] == 0 {
			continue
		}
		if b, gone := k.blocks.leave(key, 0); gone {
			s.forgetCarryBlock(b)
		}
	}
	if used := len(k.blocks.ids) - len(k.blocks.free); used > sparseBlocks+4*k.carrying/k.blocks.size {
		s.packCarries()
	}
}

// packCarries sees to it that what is carried is written anew, in as few blocks as it needs.
func (s *aggregateState) packCarries() {
	k := s.agg.keys
	for b, living := range k.blocks.living {
		if living > 0 {
			s.forgetCarryBlock(i32(b))
		}
	}
	next := k.blocks.nextID
	k.blocks = newGroupBlocks(k.blocks.size, 0)
	k.blocks.nextID = next
	k.blocks.grow(k.table.len())
	copy(k.changed, k.carries)
}

func (s *aggregateState) forgetCarryBlock(b int32) {
	s.removed = append(s.removed, StateChange{Step: s.agg.plan.ID, Key: carryKey(s.agg.keys.blocks.ids[b])})
}

// restoreCarries reads a block of keys, none of which is there yet.
func (s *aggregateState) restoreCarries(key string, payload []byte) error {
	k := s.agg.keys
	if k == nil || len(k.carriers) == 0 || len(key) != 1+8 {
		return errCorruptState
	}
	id := binary.BigEndian.Uint64([]byte(key[1:]))
	if id == math.MaxUint64 {
		return errCorruptState
	}
	b := k.blocks.add(id)
	r := reader{s: payload}
	for len(r.s) > 0 && int(k.blocks.used[b]) < k.blocks.size {
		entry := int32(noEntry)
		if r.bool() {
			entry = s.restoreCarry(&r)
		}
		if r.err != nil {
			return r.err
		}
		k.blocks.put(b, entry)
	}
	if len(r.s) > 0 || k.blocks.living[b] == 0 {
		return errCorruptState
	}
	k.blocks.offer(b, 0)
	return nil
}

// restoreCarry reads a key that must not be there yet, and what it carries.
func (s *aggregateState) restoreCarry(r *reader) int32 {
	k := s.agg.keys
	cols := make([]column.Column, len(s.types))
	for i := range cols {
		cols[i].Type = s.types[i]
		r.cell(&cols[i])
	}
	if r.err != nil {
		return noEntry
	}
	known := k.table.len()
	key, err := oneKey(k.table, 0, cols)
	if err != nil || k.table.len() != known+1 {
		r.err = errCorruptState
		return noEntry
	}
	k.grow()
	for _, c := range k.carriers {
		c.decodeCarry(r, key)
	}
	k.carries[key] = true
	k.carrying++
	return key
}
