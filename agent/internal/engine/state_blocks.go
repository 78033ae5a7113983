package engine

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
)

const (
	// groupsPerEntry is how many groups of an aggregate share an entry. Where windows end at times of their own, as
	// sessions do, each group has one of its own.
	groupsPerEntry = 64
	// fullEntry is the length at which an entry takes no more groups, so that one change does not write too much.
	fullEntry = 8 << 10
	// bufferBytes is how much memory of a checkpoint's values is kept for the next one.
	bufferBytes = 64 << 10
)

// groupBlocks says which groups of an aggregate share an entry: a store takes a few long entries far more cheaply than
// many short ones. The groups of a block have the same window where the input is endless, and so they go together; where
// one goes before the others its place in the block stays empty. A block is numbered for memory, and its id is its name
// in the store, which is never used again.
type groupBlocks struct {
	size int
	// of is by group the block's number plus one, 0 for a group that was in no checkpoint.
	of []int32
	// members has size places for each block with the group's number, noEntry where there is none.
	members []int32
	// By block: its id, how many places were given away, how many of these still have a group, whether the entry is to
	// be written, and whether one of its groups has changed.
	ids            []uint64
	used, living   []int32
	moved, touched []bool
	// chunks is, by aggregate and block, how many entries of samples were written.
	chunks [][]int32
	free   []int32
	// open is by window the block that takes further groups.
	open    map[int64]int32
	nextID  uint64
	scratch []int32
}

func newGroupBlocks(size, accs int) groupBlocks {
	return groupBlocks{size: size, chunks: make([][]int32, accs), open: map[int64]int32{}}
}

func (k *groupBlocks) grow(n int) { k.of = growTo(k.of, n) }

// compact renumbers the groups.
func (k *groupBlocks) compact(keep []int32) {
	k.scratch = resize(k.scratch, len(k.of))
	for i, g := range keep {
		k.scratch[g] = i32(i)
	}
	for b := range k.ids {
		for i, g := range k.places(i32(b)) {
			if g != noEntry {
				k.members[b*k.size+i] = k.scratch[g]
			}
		}
	}
	k.of = compactSlice(k.of, keep)
}

// places are the block's places that were given away.
func (k *groupBlocks) places(b int32) []int32 {
	first := int(b) * k.size
	return k.members[first : first+int(k.used[b])]
}

// add makes a block without groups.
func (k *groupBlocks) add(id uint64) int32 {
	k.nextID = max(k.nextID, id+1)
	if n := len(k.free); n > 0 {
		b := k.free[n-1]
		k.free = k.free[:n-1]
		k.ids[b], k.used[b] = id, 0
		for place := range k.chunks {
			if k.chunks[place] != nil {
				k.chunks[place][b] = 0
			}
		}
		return b
	}
	b := len(k.ids)
	n := b + 1
	k.ids = append(k.ids, id)
	k.used, k.living = growTo(k.used, n), growTo(k.living, n)
	k.moved, k.touched = growTo(k.moved, n), growTo(k.touched, n)
	k.members = growTo(k.members, n*k.size)
	for place := range k.chunks {
		if k.chunks[place] != nil {
			k.chunks[place] = growTo(k.chunks[place], n)
		}
	}
	return i32(b)
}

// put gives the next place of a block to a group, noEntry for one that is gone.
func (k *groupBlocks) put(b, g int32) {
	k.members[int(b)*k.size+int(k.used[b])] = g
	k.used[b]++
	if g != noEntry {
		k.of[g] = b + 1
		k.living[b]++
	}
}

// join puts a group into a block of its window.
func (k *groupBlocks) join(g int32, window int64) {
	b, ok := k.open[window]
	if !ok {
		b = k.add(k.nextID)
	}
	k.put(b, g)
	k.offer(b, window)
}

// offer lets a block take further groups if it has places left.
func (k *groupBlocks) offer(b int32, window int64) {
	if int(k.used[b]) < k.size {
		k.open[window] = b
	} else {
		k.withdraw(b, window)
	}
}

func (k *groupBlocks) withdraw(b int32, window int64) {
	if other, ok := k.open[window]; ok && other == b {
		delete(k.open, window)
	}
}

// leave takes a group out of its block. gone says that it was the last one.
func (k *groupBlocks) leave(g int32, window int64) (b int32, gone bool) {
	b = k.of[g] - 1
	k.of[g] = 0
	places := k.places(b)
	places[slices.Index(places, g)] = noEntry
	k.living[b]--
	k.moved[b] = k.living[b] > 0
	if k.living[b] > 0 {
		return b, false
	}
	k.touched[b] = false
	k.withdraw(b, window)
	k.free = append(k.free, b)
	return b, true
}

// chunk counts an entry of samples of the block, and gives the number that it has.
func (k *groupBlocks) chunk(place int, b int32) int32 {
	if k.chunks[place] == nil {
		k.chunks[place] = make([]int32, len(k.ids))
	}
	k.chunks[place][b]++
	return k.chunks[place][b] - 1
}

// blockKey is the key of a block's entry.
func blockKey(id uint64) string { return idKey(groupPrefix, id) }

func idKey(prefix byte, id uint64) string {
	var room [1 + 8]byte
	return string(binary.BigEndian.AppendUint64(append(room[:0], prefix), id))
}

// sampleKey is the key of an entry of samples.
func sampleKey(place int, id uint64, chunk int32) string {
	var room [1 + binary.MaxVarintLen64 + 8 + 4]byte
	key := binary.AppendUvarint(append(room[:0], samplePrefix), uint64(place)) //nolint:gosec // a place in a list
	key = binary.BigEndian.AppendUint64(key, id)
	return string(binary.BigEndian.AppendUint32(key, uint32(chunk))) //nolint:gosec // counted from 0
}

// window is what the blocks of a group are told apart by. A bounded input keeps all groups to its end.
func (s *aggregateState) window(g int32) int64 {
	if w := s.agg.win; w != nil && w.span == endless {
		return s.agg.table.prefix[g]
	}
	return 0
}

// note finds the blocks that the groups that have changed are in.
func (s *aggregateState) note() {
	k := &s.blocks
	for g, changed := range s.changed {
		if !changed {
			continue
		}
		added := k.of[g] == 0
		if added {
			k.join(i32(g), s.window(i32(g)))
		}
		b := k.of[g] - 1
		k.touched[b] = true
		k.moved[b] = k.moved[b] || added || s.inGroups
	}
}

// blockChanges appends the entries of blocks and of samples that changed.
func (s *aggregateState) blockChanges(dst []StateChange) []StateChange {
	s.note()
	k := &s.blocks
	for b := range k.ids {
		if k.moved[b] {
			k.moved[b] = false
			dst = append(dst, s.blockChange(i32(b)))
		}
		if k.touched[b] {
			k.touched[b] = false
			dst = s.sampleChanges(dst, i32(b))
			for _, g := range k.places(i32(b)) {
				if g != noEntry {
					s.changed[g] = false
				}
			}
		}
	}
	return dst
}

// begin starts a value in buf.
func (s *aggregateState) begin() (start int) {
	if len(s.buf) > bufferBytes {
		s.buf = make([]byte, 0, bufferBytes+fullEntry)
	}
	start = len(s.buf)
	s.buf = append(s.buf, stateVersion)
	return start
}

// sealed ends the value that begins at start of buf.
func (s *aggregateState) sealed(start int, key string) StateChange {
	s.buf = binary.BigEndian.AppendUint32(s.buf, checksum([]byte(key), s.buf[start:]))
	return StateChange{Step: s.agg.plan.ID, Key: key, Value: s.buf[start:len(s.buf):len(s.buf)]}
}

func (s *aggregateState) blockChange(b int32) StateChange {
	k := &s.blocks
	start := s.begin()
	window := int64(0)
	for _, g := range k.places(b) {
		s.buf = putBool(s.buf, g != noEntry)
		if g == noEntry {
			continue
		}
		window = s.window(g)
		s.buf = putInt(s.buf, s.agg.table.prefix[g])
		for i := range s.agg.table.cols {
			s.buf = putCell(s.buf, &s.agg.table.cols[i], int(g))
		}
		s.buf = s.agg.encodeSession(s.buf, g)
		for _, acc := range s.agg.accs {
			if _, own := acc.(entryKeeper); !own {
				s.buf = acc.encode(s.buf, g)
			}
		}
	}
	if len(s.buf)-start > fullEntry {
		k.withdraw(b, window)
	}
	return s.sealed(start, blockKey(k.ids[b]))
}

// sampleChanges appends an entry for each aggregate that has new samples of the block's groups.
func (s *aggregateState) sampleChanges(dst []StateChange, b int32) []StateChange {
	k := &s.blocks
	for place, log := range s.samplers {
		if log == nil {
			continue
		}
		start := s.begin()
		log.beginEntry()
		for i, g := range k.places(b) {
			if g == noEntry || !s.changed[g] {
				continue
			}
			place := len(s.buf)
			if s.buf = log.encodeNew(append(s.buf, byte(i)), g); len(s.buf) == place+1 {
				s.buf = s.buf[:place]
			}
		}
		if len(s.buf) == start+1 {
			s.buf = s.buf[:start]
			continue
		}
		dst = append(dst, s.sealed(start, sampleKey(place, k.ids[b], k.chunk(place, b))))
	}
	return dst
}

// forgetBlock notes that a block's entries are to be removed.
func (s *aggregateState) forgetBlock(b int32) {
	k := &s.blocks
	n := int32(1)
	for place := range k.chunks {
		if k.chunks[place] != nil {
			n += k.chunks[place][b]
		}
	}
	s.removed = append(slices.Grow(s.removed, int(n)), StateChange{Step: s.agg.plan.ID, Key: blockKey(k.ids[b])})
	for place := range k.chunks {
		if k.chunks[place] == nil {
			continue
		}
		for chunk := range k.chunks[place][b] {
			s.removed = append(s.removed, StateChange{Step: s.agg.plan.ID, Key: sampleKey(place, k.ids[b], chunk)})
		}
	}
}

// restoreBlock reads the groups of a block, none of which is there yet.
func (s *aggregateState) restoreBlock(key string, payload []byte) error {
	if len(key) != 1+8 {
		return errCorruptState
	}
	id := binary.BigEndian.Uint64([]byte(key[1:]))
	if id == math.MaxUint64 {
		return errCorruptState
	}
	k := &s.blocks
	b := k.add(id)
	window := int64(0)
	r := reader{s: payload}
	for len(r.s) > 0 && int(k.used[b]) < k.size {
		if !r.bool() {
			if r.err != nil {
				return r.err
			}
			k.put(b, noEntry)
			continue
		}
		g, err := s.restoreGroup(&r)
		if err != nil {
			return err
		}
		k.put(b, g)
		window = s.window(g)
	}
	if len(r.s) > 0 || k.living[b] == 0 {
		return errCorruptState
	}
	s.restored[id] = b
	k.offer(b, window)
	return nil
}

// restoreGroup reads a group that must not be there yet.
func (s *aggregateState) restoreGroup(r *reader) (g int32, err error) {
	start := r.int()
	cols := make([]column.Column, len(s.types))
	for i := range cols {
		cols[i].Type = s.types[i]
		r.cell(&cols[i])
	}
	if r.err != nil {
		return 0, r.err
	}
	a := s.agg
	known := a.table.len()
	if g, err = oneKey(a.table, start, cols); err != nil || a.table.len() != known+1 {
		return 0, errCorruptState
	}
	a.growGroups(a.table.len())
	if r.s, err = a.restoreFrame(g, r.s); err != nil {
		return 0, err
	}
	for _, acc := range a.accs {
		if _, own := acc.(entryKeeper); own {
			continue
		}
		if r.s, err = acc.decode(r.s, g); err != nil {
			return 0, err
		}
	}
	return g, nil
}

// restoreSamples reads an entry of samples. The entries of a block come in their order.
func (s *aggregateState) restoreSamples(key string, payload []byte) error {
	rest := []byte(key)[1:]
	place, size := binary.Uvarint(rest)
	if size <= 0 || place >= uint64(len(s.samplers)) || s.samplers[place] == nil || len(rest) != size+8+4 {
		return errCorruptState
	}
	log, k := s.samplers[place], &s.blocks
	b, ok := s.restored[binary.BigEndian.Uint64(rest[size:])]
	if !ok || int64(binary.BigEndian.Uint32(rest[size+8:])) != int64(k.chunk(int(place), b)) { //nolint:gosec // below the number of aggregates
		return errCorruptState
	}
	places := k.places(b)
	r := reader{s: payload}
	log.beginEntry()
	for len(r.s) > 0 && r.err == nil {
		at := r.take(1)
		if int(at[0]) >= len(places) {
			return errCorruptState
		}
		log.decodeMore(&r, places[at[0]])
	}
	log.commit()
	return r.err
}
