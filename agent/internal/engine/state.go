package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The keys of an aggregate's entries begin with what they are. Groups are written in blocks, under the block's id; samples
// at every commit, under the aggregate's place, the block's id and a number. A value's key is the aggregate's place, the
// group's key (its window's start and its grouping values) and the value; what keys carry from window to window is in blocks
// of its own, under their ids.
const (
	metaKey       = "m"
	groupPrefix   = 'g'
	valuePrefix   = 'v'
	samplePrefix  = 's'
	carryPrefix   = 'c'
	fingerprintSz = 16
)

// keptRemovals is for how many removals the memory is kept: the end of a window has many, and then none come for long.
const keptRemovals = 8

// errOtherDefinition says that saved state belongs to another definition of the step.
var errOtherDefinition = errors.New("the step's definition has changed")

// aggregateState is what an aggregate has to tell the store: which groups changed since the last checkpoint and which
// entries are to be removed.
type aggregateState struct {
	agg         *aggregate
	types       []expr.Type
	fingerprint [fingerprintSz]byte

	changed []bool
	blocks  groupBlocks
	// samplers are the aggregates whose state is a log of samples, nil for the others. inGroups says that the entry of a
	// group changes with its rows.
	samplers []sampler
	inGroups bool
	removed  []StateChange
	// metaSaved is the meta entry of the last checkpoint.
	metaSaved string
	ended     bool
	key, part []byte
	// buf has the values of one checkpoint, which are of no use to anyone when the next one is made.
	buf []byte
	// restored are the blocks by their ids while state is read.
	restored map[uint64]int32
}

func (s *aggregateState) init(a *aggregate, types []expr.Type) {
	s.agg, s.types = a, types
	sum := sha256.Sum256([]byte(describeAggregate(a)))
	copy(s.fingerprint[:], sum[:])
	s.blocks = newGroupBlocks(a.perEntry(), len(a.accs))
	s.inGroups = a.sessions != nil
	for _, acc := range a.accs {
		log, _ := acc.(sampler)
		_, own := acc.(entryKeeper)
		s.samplers, s.inGroups = append(s.samplers, log), s.inGroups || !own
	}
}

// describeAggregate is the definition as far as the meaning of its state goes.
func describeAggregate(a *aggregate) string {
	var b strings.Builder
	out := a.plan.Output
	for i, pos := range a.by {
		fmt.Fprintf(&b, "by %d %s %q;", pos, out[i].Type, out[i].Name)
	}
	if a.win != nil {
		fmt.Fprintf(&b, "window %s %d;", describeWindow(a.plan.Aggregate.Window), a.timeCol)
	}
	for i := range a.plan.Aggregates {
		call := &a.plan.Aggregates[i]
		fmt.Fprintf(&b, "%q=%s(", call.Name, call.Func)
		if call.Arg != nil {
			describeNode(&b, call.Arg)
		}
		for _, p := range call.Params {
			fmt.Fprintf(&b, ",%v", p)
		}
		fmt.Fprintf(&b, ")%s;", call.Result)
	}
	if a.carries() {
		b.WriteString("carried in blocks;")
	}
	return b.String()
}

func describeNode(b *strings.Builder, n *expr.Node) {
	fmt.Fprintf(b, "(%d %s %q", n.Op, n.Type, n.Name)
	if n.Op == expr.OpLiteral {
		fmt.Fprintf(b, " %s %t %d %v %q", n.Value.Type, n.Value.Bool, n.Value.Int, n.Value.Float, n.Value.Str)
	}
	for _, a := range n.Args {
		describeNode(b, a)
	}
	b.WriteByte(')')
}

func (s *aggregateState) grow(n int) {
	s.changed = growTo(s.changed, n)
	s.blocks.grow(n)
}

func (s *aggregateState) compact(keep []int32) {
	s.changed = compactSlice(s.changed, keep)
	s.blocks.compact(keep)
}

// groupKey appends the key of a group.
func (s *aggregateState) groupKey(dst []byte, g int32) []byte {
	t := s.agg.table
	dst = putInt(dst, t.prefix[g])
	for i := range t.cols {
		dst = putCell(dst, &t.cols[i], int(g))
	}
	return dst
}

// valueKey appends the key of one value of count_distinct.
func (s *aggregateState) valueKey(dst []byte, place int, d *distinctAcc, entry int32) []byte {
	dst = binary.AppendUvarint(append(dst, valuePrefix), uint64(place)) //nolint:gosec // a place in a list
	s.part = s.groupKey(s.part[:0], i32(int(d.table.prefix[entry])))
	return putCell(putText(dst, s.part), &d.table.cols[0], int(entry))
}

// forget notes that the groups are gone: what the store has of them is to be removed.
func (s *aggregateState) forget(groups []int32) {
	for _, g := range groups {
		s.changed[g] = false
		if s.blocks.of[g] == 0 {
			continue
		}
		for place, acc := range s.agg.accs {
			if d, ok := acc.(*distinctAcc); ok {
				s.forgetValues(place, d, g)
			}
		}
		if b, gone := s.blocks.leave(g, s.window(g)); gone {
			s.forgetBlock(b)
		}
	}
}

func (s *aggregateState) forgetValues(place int, d *distinctAcc, g int32) {
	for e := d.head[g] - 1; e >= 0; e = d.next[e] - 1 {
		if int(e) < d.committed {
			s.key = s.valueKey(s.key[:0], place, d, e)
			s.removed = append(s.removed, StateChange{Step: s.agg.plan.ID, Key: string(s.key)})
		}
	}
}

// end is for the end of a bounded input. It leaves behind what keys carry to the next run, a bounded number, and nothing
// else.
func (s *aggregateState) end() {
	if s.agg.carries() {
		s.forgetCarries(s.agg.keys.evict())
	}
	s.ended = !s.agg.carries() || s.agg.keys.carrying == 0
}

// changes appends what changed since the last call.
func (s *aggregateState) changes(dst []StateChange) []StateChange {
	dst = append(dst, s.removed...)
	if s.removed = s.removed[:0]; cap(s.removed) > keptRemovals {
		s.removed = nil
	}
	s.buf = s.buf[:0]
	dst = s.blockChanges(dst)
	for place, acc := range s.agg.accs {
		switch acc := acc.(type) {
		case *distinctAcc:
			dst = s.valueChanges(dst, place, acc)
		case sampler:
			acc.commit()
		}
	}
	return s.metaChange(s.carryChanges(dst))
}

func (s *aggregateState) valueChanges(dst []StateChange, place int, d *distinctAcc) []StateChange {
	for e := d.committed; e < d.table.len(); e++ {
		if s.agg.dead[d.table.prefix[e]] {
			continue
		}
		key := s.valueKey(nil, place, d, i32(e))
		dst = append(dst, StateChange{Step: s.agg.plan.ID, Key: string(key), Value: seal([]byte{stateVersion}, key)})
	}
	d.committed = d.table.len()
	return dst
}

func (s *aggregateState) metaChange(dst []StateChange) []StateChange {
	if s.ended {
		if s.metaSaved != "" {
			s.metaSaved = ""
			dst = append(dst, StateChange{Step: s.agg.plan.ID, Key: metaKey})
		}
		return dst
	}
	s.part = append(append(s.part[:0], stateVersion), s.fingerprint[:]...)
	s.part = putInt(s.part, s.agg.counts.lateTotal)
	if w := s.agg.win; w != nil {
		s.part = putInt(putBool(s.part, w.seen), w.newest)
	}
	s.part = sealMeta(s.part)
	if string(s.part) == s.metaSaved {
		return dst
	}
	s.metaSaved = string(s.part)
	s.buf = append(s.buf, s.part...)
	value := s.buf[len(s.buf)-len(s.part) : len(s.buf) : len(s.buf)]
	return append(dst, StateChange{Step: s.agg.plan.ID, Key: metaKey, Value: value})
}

// discard notes that all entries are to be removed.
func (s *aggregateState) discard(entries map[string][]byte) {
	s.removed = append(s.removed, discardAll(s.agg.plan.ID, entries)...)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// restore reads the entries of the last checkpoint into an aggregate that has seen nothing. errOtherDefinition means
// that they are of another definition, and then nothing was read.
func (s *aggregateState) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	if err := s.restoreMeta(entries[metaKey]); err != nil {
		return err
	}
	s.restored = map[uint64]int32{}
	defer func() { s.restored = nil }()
	// The keys sort the groups before their samples and values.
	return restoreEntries(entries, s.restoreEntry)
}

func (s *aggregateState) restoreEntry(key string, payload []byte) error {
	if key == "" {
		return errCorruptState
	}
	switch key[0] {
	case groupPrefix:
		return s.restoreBlock(key, payload)
	case samplePrefix:
		return s.restoreSamples(key, payload)
	case carryPrefix:
		return s.restoreCarries(key, payload)
	case valuePrefix:
		return s.restoreValue(key, payload)
	}
	return errCorruptState
}

func (s *aggregateState) restoreMeta(value []byte) error {
	payload, err := unseal(metaKey, value)
	if err != nil {
		return err
	}
	r := reader{s: payload}
	if string(r.take(fingerprintSz)) != string(s.fingerprint[:]) {
		return errOtherDefinition
	}
	late := r.int()
	if w := s.agg.win; w != nil {
		w.seen, w.newest = r.bool(), r.int()
	}
	if r.err != nil || len(r.s) > 0 {
		return errCorruptState
	}
	s.agg.counts.lateTotal, s.metaSaved = late, string(value)
	return nil
}

// oneKey looks up or adds the single key that was read into cols.
func oneKey(t *keyTable, prefix int64, cols []column.Column) (entry int32, err error) {
	pointers := make([]*column.Column, len(cols))
	for i := range cols {
		pointers[i] = &cols[i]
	}
	entries, err := t.assign(keyRows{cols: pointers, rows: []int32{0}, prefix: []int64{prefix}}, nil)
	if err != nil {
		return 0, err
	}
	return entries[0], nil
}

// readGroupKey gives the window's start and the grouping values of a key.
func (s *aggregateState) readGroupKey(key []byte) (start int64, cols []column.Column, err error) {
	r := reader{s: key}
	start = r.int()
	cols = make([]column.Column, len(s.types))
	for i := range cols {
		cols[i].Type = s.types[i]
		r.cell(&cols[i])
	}
	if r.err != nil || len(r.s) > 0 {
		return 0, nil, errCorruptState
	}
	return start, cols, nil
}

func (s *aggregateState) restoreValue(key string, payload []byte) error {
	rest := []byte(key)[1:]
	place, size := binary.Uvarint(rest)
	if size <= 0 || place >= uint64(len(s.agg.accs)) || len(payload) > 0 {
		return errCorruptState
	}
	d, ok := s.agg.accs[place].(*distinctAcc)
	if !ok {
		return errCorruptState
	}
	r := reader{s: rest[size:]}
	start, cols, err := s.readGroupKey(r.text())
	if err != nil {
		return err
	}
	value := []column.Column{{Type: d.table.cols[0].Type}}
	r.cell(&value[0])
	if r.err != nil || len(r.s) > 0 || value[0].Null(0) {
		return errCorruptState
	}
	g, err := s.knownGroup(start, cols)
	if err != nil {
		return err
	}
	if _, err = oneKey(d.table, int64(g), value); err != nil || d.table.len() != d.committed+1 {
		return errCorruptState
	}
	d.link(d.committed)
	d.committed++
	return nil
}
