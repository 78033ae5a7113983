package stage

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// pending is what has landed in the journal and is not in the segments and state.db yet: of every entry the last value, and
// the records as they came. The writer changes it with the stage's mu held; others read it under mu.
type pending struct {
	// epoch is the one of the state that it goes on top of.
	epoch uint64
	flows map[string]*pendingFlow
	// runs are records in the order of their sequences, without a gap.
	runs []pendingRun
	// base is the last sequence in front of the first record that the journal took on top of the state, and last that of the
	// newest; both are 0 while it took none. They stay when records are dropped.
	base, last uint64
	// bytes is what the records take, and late what the checkpoints say.
	bytes, late uint64
	// entries counts those of all flows.
	entries int

	// values is what the values of flows lie in. spare are flows of an earlier epoch, to be used again, and taken those of this
	// one that were taken in.
	values       arena
	spare, taken []*pendingFlow
}

// next is what goes on top of the state of a later epoch, when all of this one was taken in. It takes over the memory.
func (p *pending) next(epoch uint64) *pending {
	n := newPending(epoch)
	if p == nil {
		return n
	}
	// Those that were not used again meanwhile are too many.
	for _, f := range p.flows {
		f.empty()
		n.spare = append(n.spare, f)
	}
	n.spare = append(n.spare, p.taken...)
	n.values = p.values
	n.values.reset()
	return n
}

// maxPendingEntries bounds what small entries take in memory, where each costs some 200 bytes besides itself.
const maxPendingEntries = 50_000

// pendingFlow is what the commits of one flow have changed.
type pendingFlow struct {
	// before is the flow's mark in state.db, now that of its last commit, without a content.
	before, now mark
	cursors     map[string][]byte
	// entries are by their keys in the bucket; nil for one that is removed.
	entries map[string][]byte
	// late is what its checkpoints say.
	late uint64
}

// pendingRun is the records first to last, as the frames of a chunk, or a gap where data is nil.
type pendingRun struct {
	first, last uint64
	data        []byte
}

// each calls fn for the records from seq on until it gives false. The payload aliases the run.
func (r pendingRun) each(seq uint64, fn func(seq uint64, payload []byte) bool) {
	rest := r.data
	for at := r.first; len(rest) >= frameHeaderBytes; at++ {
		end := frameHeaderBytes + int(binary.LittleEndian.Uint32(rest))
		if at >= seq && !fn(at, rest[frameHeaderBytes:end]) {
			return
		}
		rest = rest[end:]
	}
}

func (p *pending) empty() bool { return p == nil || len(p.flows) == 0 && len(p.runs) == 0 }

// behind is the last sequence in front of the records, which is end when there are none.
func (p *pending) behind(end uint64) uint64 {
	if p == nil || len(p.runs) == 0 {
		return end
	}
	return p.runs[0].first - 1
}

// waiting is what the records take.
func (p *pending) waiting() uint64 {
	if p == nil {
		return 0
	}
	return p.bytes
}

// add takes in a commit of a flow, of which before is the mark that came before it. What state says is copied.
func (p *pending) add(flow string, before, now mark, late uint64, state []byte) error {
	f := p.flows[flow]
	if f == nil {
		f = p.flow()
		f.before = before
		p.flows[strings.Clone(flow)] = f
	}
	f.late += late
	p.late += late
	f.now = now
	f.now.content = f.before.content
	return eachInState(state, func(source, value []byte) {
		p.put(f.cursors, source, value)
	}, func(key, value []byte) {
		before := len(f.entries)
		p.put(f.entries, key, value)
		p.entries += len(f.entries) - before
	})
}

// flow gives a flow without anything.
func (p *pending) flow() *pendingFlow {
	if n := len(p.spare); n > 0 {
		f := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return f
	}
	return &pendingFlow{cursors: map[string][]byte{}, entries: map[string][]byte{}}
}

// empty makes it like a new one. A map that had become large goes: at the end of a window most flows change far more entries
// than before and behind it.
func (f *pendingFlow) empty() {
	*f = pendingFlow{cursors: emptied(f.cursors), entries: emptied(f.entries)}
}

func emptied(m map[string][]byte) map[string][]byte {
	const kept = 28 // what four groups of a map hold
	if len(m) > kept {
		return map[string][]byte{}
	}
	clear(m)
	return m
}

// put copies a value into a map, in the place of the value before where it fits.
func (p *pending) put(m map[string][]byte, key, value []byte) {
	if value == nil {
		m[string(key)] = nil
		return
	}
	old := m[string(key)]
	if cap(old) < len(value) || old == nil {
		m[string(key)] = p.values.copyOf(value)
		return
	}
	if len(old) == len(value) {
		copy(old, value)
		return
	}
	m[string(key)] = append(old[:0], value...)
}

// addRun takes in records, which it keeps.
func (p *pending) addRun(r pendingRun) {
	if p.last == 0 {
		p.base = r.first - 1
	}
	p.last = max(p.last, r.last)
	p.runs = append(p.runs, r)
	p.bytes += uint64(len(r.data))
}

// bytesUpTo is what the records up to the sequence take.
func (p *pending) bytesUpTo(seq uint64) (sum uint64) {
	if p == nil {
		return 0
	}
	for _, r := range p.runs {
		if r.last <= seq {
			sum += uint64(len(r.data))
			continue
		}
		r.each(r.first, func(at uint64, payload []byte) bool {
			if at <= seq {
				sum += recordBytes(payload)
			}
			return at < seq
		})
		break
	}
	return sum
}

// held counts the records with the sequences low to high that are there.
func (p *pending) held(low, high uint64) (n uint64) {
	if p == nil {
		return 0
	}
	for _, r := range p.runs {
		if from, to := max(low, r.first), min(high, r.last); from <= to && r.data != nil {
			n += to - from + 1
		}
	}
	return n
}

// whole are the runs that are not lost.
func (p *pending) whole() (runs []pendingRun) {
	if p == nil {
		return nil
	}
	for _, r := range p.runs {
		if r.data != nil {
			runs = append(runs, r)
		}
	}
	return runs
}

// after is the part of the run behind a sequence that is in it or in front of it.
func (r pendingRun) after(seq uint64) pendingRun {
	for ; r.first <= seq; r.first++ {
		if r.data == nil {
			r.first = seq
			continue
		}
		r.data = r.data[frameHeaderBytes+int(binary.LittleEndian.Uint32(r.data)):]
	}
	return r
}

// trim drops the records up to a sequence, which are in the segments or needed no more.
func (p *pending) trim(upTo uint64) {
	runs := p.runs
	p.runs, p.bytes = nil, 0
	for _, r := range runs {
		if r.last > upTo {
			p.addRun(r.after(upTo))
		}
	}
}

// readPending adds what is in the journal alone.
func (r *outboxReader) readPending(p *pending) {
	if p == nil {
		return
	}
	for _, run := range p.runs {
		if r.full {
			return
		}
		if run.last < r.next {
			continue
		}
		if run.data == nil {
			r.fill(run.last)
			continue
		}
		run.each(r.next, func(seq uint64, payload []byte) bool {
			r.add(nil, seq, payload, true)
			return !r.full
		})
	}
}

// overlay puts what the flow has changed since the state was stored on top of it.
func (f *pendingFlow) overlay(st *FlowState) error {
	st.Number = f.now.number
	for source, cursor := range f.cursors {
		st.Cursors[source] = bytes.Clone(cursor)
	}
	for key, value := range f.entries {
		step, entry, err := parseOperatorKey([]byte(key))
		if err != nil {
			return err
		}
		entries := st.Operators[step]
		switch {
		case value == nil:
			delete(entries, entry)
			if len(entries) == 0 {
				delete(st.Operators, step)
			}
		case entries == nil:
			st.Operators[step] = map[string][]byte{entry: bytes.Clone(value)}
		default:
			entries[entry] = bytes.Clone(value)
		}
	}
	return nil
}

// drop forgets flows that state.db has taken in.
func (p *pending) drop(names []string) {
	for _, name := range names {
		f := p.flows[name]
		p.entries -= len(f.entries)
		p.late -= f.late
		delete(p.flows, name)
		f.empty()
		p.taken = append(p.taken, f)
	}
}

// lateOf is how many rows of these flows came too late.
func (p *pending) lateOf(names []string) (n uint64) {
	for _, name := range names {
		n += p.flows[name].late
	}
	return n
}

// apply writes the state of flows, and gives their marks.
func (p *pending) apply(tx *bolt.Tx, sealed *sealer, next *meta, names []string) (map[string]mark, error) {
	marks := make(map[string]mark, len(names))
	for _, name := range names {
		f := p.flows[name]
		changes := make([]Change, 0, len(f.entries))
		entries := make([]entry, 0, len(f.entries))
		for _, key := range slices.Sorted(maps.Keys(f.entries)) {
			changes = append(changes, Change{Value: f.entries[key]})
			entries = append(entries, entry{key: []byte(key), change: &changes[len(changes)-1]})
		}
		c, m := Checkpoint{Flow: name, Cursors: f.cursors}, f.now
		if err := c.put(tx, sealed, &m, entries); err != nil {
			return nil, err
		}
		next.markSum += m.part(name) - f.before.part(name)
		marks[name] = m
	}
	return marks, nil
}
