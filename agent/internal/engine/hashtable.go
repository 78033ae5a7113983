package engine

import (
	"bytes"
	"errors"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// keyTable numbers different keys from zero in the order in which they first came. A key is a prefix (a window's start,
// or the group a value belongs to) and a row of columns; nulls equal nulls, NaN equals NaN and -0 equals 0.
//
// It is an open-addressing table whose slots hold the whole hash, so that a probe touches the stored keys only when the
// hash agrees. Rows are looked up by hash first and compared column by column afterwards, in loops over one type. In the
// rare case that two keys have one hash, the rows are looked up again one by one, so that the numbers are always in the
// order of the rows: many an operator knows a new key by its number being the next one. The hash is seeded, so nobody can
// choose colliding keys.
type keyTable struct {
	seed   maphash.Seed
	start  uint64
	slots  []keySlot
	prefix []int64
	cols   []column.Column
	hashes []uint64
	places []uint64
	// own and all are scratch of compact.
	own []*column.Column
	all []int32
}

// keySlot holds entry+1; zero is free.
type keySlot struct {
	hash  uint64
	entry int32
}

// keyRows is what to look up: the key columns, the rows of them, and for each of those rows the prefix.
type keyRows struct {
	cols   []*column.Column
	rows   []int32
	prefix []int64
}

const noEntry = -1

// minSlots is small, because there are agents with hundreds of flows over a few tags each.
const minSlots = 64

var errTableFull = errors.New("the keys of the groups need more than 2 GiB of text; group by fewer or shorter columns")

func newKeyTable(types []expr.Type) *keyTable {
	t := &keyTable{seed: maphash.MakeSeed(), cols: make([]column.Column, len(types))}
	t.start = maphash.Bytes(t.seed, nil)
	for i := range types {
		t.cols[i].Type = types[i]
	}
	return t
}

func (t *keyTable) len() int { return len(t.prefix) }

// mask cuts a hash to a place in slots, whose number is a power of two.
func (t *keyTable) mask() uint64 {
	return uint64(len(t.slots) - 1) //nolint:gosec // there are slots when a mask is needed
}

const (
	mixA = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	mixB = 0xd6e8feb86659fd93
)

// mix mixes a value into a hash. Each of its steps can be undone, so that different values mixed into one hash give
// different hashes. A product's high bits depend on most of what was multiplied; turned round, they make the low bits.
func mix(h, v uint64) uint64 {
	return bits.ReverseBytes64((h^v)*mixA) * mixB
}

func uint64Of(v int64) uint64 {
	return uint64(v) //nolint:gosec // the same bits
}

// hash computes the hash of every row into t.hashes.
func (t *keyTable) hash(k keyRows) []uint64 {
	h := resize(t.hashes, len(k.rows))
	t.hashes = h
	for i, p := range k.prefix {
		h[i] = mix(t.start, uint64Of(p))
	}
	for _, c := range k.cols {
		t.hashColumn(h, c, k.rows)
	}
	if hashMask != math.MaxUint64 {
		for i := range h {
			h[i] &= hashMask
		}
	}
	return h
}

func (t *keyTable) hashColumn(h []uint64, c *column.Column, rows []int32) {
	if c.HasNulls() {
		t.hashNullable(h, c, rows)
		return
	}
	switch storageOf(c.Type) {
	case storeBool:
		for i, row := range rows {
			v := uint64(1)
			if c.Bools[row] {
				v = 2
			}
			h[i] = mix(h[i], v)
		}
	case storeInt:
		for i, row := range rows {
			h[i] = mix(h[i], uint64Of(c.Ints[row]))
		}
	case storeFloat:
		for i, row := range rows {
			h[i] = mix(h[i], math.Float64bits(canonical(c.Floats[row])))
		}
	case storeText:
		t.hashText(h, c, rows)
	case storeNone:
	}
}

func (t *keyTable) hashText(h []uint64, c *column.Column, rows []int32) {
	for i, row := range rows {
		s := c.Strs[row]
		h[i] = t.text(h[i], c.Data[s.Off:s.Off+s.Len])
	}
}

// hashNullable is hashColumn for a column with nulls.
func (t *keyTable) hashNullable(h []uint64, c *column.Column, rows []int32) {
	for i, row := range rows {
		v := uint64(mixB)
		if !c.Null(int(row)) {
			switch storageOf(c.Type) {
			case storeBool:
				v = 1
				if c.Bools[row] {
					v = 2
				}
			case storeInt:
				v = uint64Of(c.Ints[row])
			case storeFloat:
				v = math.Float64bits(canonical(c.Floats[row]))
			case storeText:
				h[i] = t.text(h[i], c.Bytes(int(row)))
				continue
			case storeNone:
			}
		}
		h[i] = mix(h[i], v)
	}
}

// canonical makes all NaNs one and -0 zero.
func canonical(v float64) float64 {
	switch {
	case v == 0:
		return 0
	case math.IsNaN(v):
		return math.NaN()
	}
	return v
}

// assign gives the entry of every row, adding those that are new in the order of their first rows.
func (t *keyTable) assign(k keyRows, out []int32) ([]int32, error) {
	return t.assignHashed(k, t.hash(k), out)
}

func (t *keyTable) assignHashed(k keyRows, h []uint64, out []int32) ([]int32, error) {
	out = resize(out, len(k.rows))
	t.reserve(len(k.rows))
	known := t.len()
	slots, mask := t.slots, t.mask()
	for i, hv := range h {
		for p := hv & mask; ; p = (p + 1) & mask {
			s := &slots[p]
			if s.entry == 0 {
				s.hash, s.entry = hv, t.add(k, i)+1
			} else if s.hash != hv {
				continue
			}
			out[i] = s.entry - 1
			break
		}
	}
	if !t.verify(k, out) {
		t.forget(known, h, out)
		for i := range out {
			out[i] = t.findOrAdd(k, i, h[i])
		}
	}
	for i := range t.cols {
		if len(t.cols[i].Data) > column.MaxData {
			return nil, errTableFull
		}
	}
	return out, nil
}

// forget takes back the entries from known on, which were numbered as out says, in the order of their first rows. They
// are the last that came, so that without their slots every other one is found as before.
func (t *keyTable) forget(known int, h []uint64, out []int32) {
	mask := t.mask()
	t.places = t.places[:0]
	for i, e := range out {
		if int(e) != known+len(t.places) {
			continue
		}
		p := h[i] & mask
		for t.slots[p].entry != e+1 {
			p = (p + 1) & mask
		}
		t.places = append(t.places, p)
	}
	for _, p := range t.places {
		t.slots[p] = keySlot{}
	}
	t.prefix = t.prefix[:known]
	for c := range t.cols {
		truncateOwned(&t.cols[c], known)
	}
}

// truncateOwned keeps the first n rows of a column that owns its text, whose rows are in the order of their text.
func truncateOwned(c *column.Column, n int) {
	switch storageOf(c.Type) {
	case storeBool:
		c.Bools = c.Bools[:n]
	case storeInt:
		c.Ints = c.Ints[:n]
	case storeFloat:
		c.Floats = c.Floats[:n]
	case storeText:
		for row := n; row < len(c.Strs); row++ {
			if !c.Null(row) {
				c.Data = c.Data[:c.Strs[row].Off]
				break
			}
		}
		c.Strs = c.Strs[:n]
	case storeNone:
	}
	if words := (n + 63) / 64; len(c.Nulls) >= words {
		c.Nulls = c.Nulls[:words]
		if n%64 != 0 {
			c.Nulls[words-1] &= 1<<(n%64) - 1
		}
	}
}

// lookup gives the entry of every row, noEntry where there is none.
func (t *keyTable) lookup(k keyRows, out []int32) []int32 {
	return t.lookupHashed(k, t.hash(k), out)
}

func (t *keyTable) lookupHashed(k keyRows, h []uint64, out []int32) []int32 {
	out = resize(out, len(k.rows))
	if len(t.slots) == 0 {
		for i := range out {
			out[i] = noEntry
		}
		return out
	}
	mask := t.mask()
	for i, hv := range h {
		out[i] = noEntry
		for p := hv & mask; t.slots[p].entry != 0; p = (p + 1) & mask {
			if s := &t.slots[p]; s.hash == hv && t.equal(k, i, s.entry-1) {
				out[i] = s.entry - 1
				break
			}
		}
	}
	return out
}

// findOrAdd looks for row i comparing whole keys, as assign does not.
func (t *keyTable) findOrAdd(k keyRows, i int, hash uint64) int32 {
	mask := t.mask()
	p := hash & mask
	for ; t.slots[p].entry != 0; p = (p + 1) & mask {
		if s := &t.slots[p]; s.hash == hash && t.equal(k, i, s.entry-1) {
			return s.entry - 1
		}
	}
	e := t.add(k, i)
	t.slots[p] = keySlot{hash: hash, entry: e + 1}
	return e
}

// add stores the key of row i as a new entry.
func (t *keyTable) add(k keyRows, i int) int32 {
	e := len(t.prefix)
	t.prefix = append(t.prefix, k.prefix[i])
	for c := range t.cols {
		t.cols[c].AppendFrom(k.cols[c], int(k.rows[i]))
		if t.cols[c].Type == expr.Float {
			t.cols[c].Floats[e] = canonical(t.cols[c].Floats[e])
		}
	}
	return i32(e)
}

// reserve makes room for n more entries. The load is at most one half, but for what is added by one call: most rows are
// of keys that are there already, and room for as many new ones would double the table of a small flow.
func (t *keyTable) reserve(n int) {
	need := max(2*t.len(), (t.len()+n)*8/7+1)
	if need <= len(t.slots) {
		return
	}
	size := max(minSlots, len(t.slots))
	for size < need {
		size *= 2
	}
	old := t.slots
	t.slots = make([]keySlot, size)
	mask := t.mask()
	for _, s := range old {
		if s.entry == 0 {
			continue
		}
		p := s.hash & mask
		for t.slots[p].entry != 0 {
			p = (p + 1) & mask
		}
		t.slots[p] = s
	}
}

// verify says whether every row's key is that of its entry.
func (t *keyTable) verify(k keyRows, entries []int32) bool {
	for i, e := range entries {
		if t.prefix[e] != k.prefix[i] {
			return false
		}
	}
	for c := range t.cols {
		if !verifyColumn(&t.cols[c], k.cols[c], k.rows, entries) {
			return false
		}
	}
	return true
}

func verifyColumn(stored, c *column.Column, rows, entries []int32) bool {
	if stored.HasNulls() || c.HasNulls() {
		for i, row := range rows {
			if !sameKey(stored, int(entries[i]), c, int(row)) {
				return false
			}
		}
		return true
	}
	switch storageOf(c.Type) {
	case storeBool:
		return verifyValues(stored.Bools, c.Bools, rows, entries)
	case storeInt:
		return verifyValues(stored.Ints, c.Ints, rows, entries)
	case storeFloat:
		for i, row := range rows {
			if !equalFloat(stored.Floats[entries[i]], c.Floats[row]) {
				return false
			}
		}
	case storeText:
		for i, row := range rows {
			a, b := stored.Strs[entries[i]], c.Strs[row]
			if a.Len != b.Len || !bytes.Equal(stored.Data[a.Off:a.Off+a.Len], c.Data[b.Off:b.Off+b.Len]) {
				return false
			}
		}
	case storeNone:
	}
	return true
}

func verifyValues[T bool | int64](stored, values []T, rows, entries []int32) bool {
	for i, row := range rows {
		if stored[entries[i]] != values[row] {
			return false
		}
	}
	return true
}

func (t *keyTable) equal(k keyRows, i int, entry int32) bool {
	if t.prefix[entry] != k.prefix[i] {
		return false
	}
	for c := range t.cols {
		if !sameKey(&t.cols[c], int(entry), k.cols[c], int(k.rows[i])) {
			return false
		}
	}
	return true
}

func sameKey(a *column.Column, i int, b *column.Column, j int) bool {
	return compareRows(a, i, b, j) == 0
}

// compact keeps only the entries keep, which rise, renumbered in that order; prefixes are replaced where given.
func (t *keyTable) compact(keep []int32, prefix []int64) {
	if prefix != nil {
		t.prefix = append(t.prefix[:0], prefix...)
	} else {
		t.prefix = compactSlice(t.prefix, keep)
	}
	t.own = t.own[:0]
	for c := range t.cols {
		compactOwned(&t.cols[c], keep)
		t.own = append(t.own, &t.cols[c])
	}
	t.all = sequence(t.all, len(keep))
	clear(t.slots)
	mask := t.mask()
	for i, hv := range t.hash(keyRows{cols: t.own, rows: t.all, prefix: t.prefix}) {
		p := hv & mask
		for t.slots[p].entry != 0 {
			p = (p + 1) & mask
		}
		t.slots[p] = keySlot{hash: hv, entry: i32(i) + 1}
	}
}

func compactSlice[T any](s []T, keep []int32) []T {
	for i, row := range keep {
		s[i] = s[row]
	}
	return s[:len(keep)]
}

// compactOwned keeps the rows of a column that owns its text, whose rows are in the order of their text.
func compactOwned(c *column.Column, keep []int32) {
	if storageOf(c.Type) == storeText {
		end := 0
		for _, row := range keep {
			s := &c.Strs[row]
			copy(c.Data[end:], c.Data[s.Off:s.Off+s.Len])
			*s = textAt(end, int(s.Len))
			end += int(s.Len)
		}
		c.Data = c.Data[:end]
	}
	b := column.Batch{Cols: []column.Column{*c}}
	b.Compact(keep)
	*c = b.Cols[0]
}

// sort orders entries by prefix, then by key, nulls last.
func (t *keyTable) sort(entries []int32) {
	slices.SortFunc(entries, func(a, b int32) int {
		if pa, pb := t.prefix[a], t.prefix[b]; pa != pb {
			if pa < pb {
				return -1
			}
			return 1
		}
		for c := range t.cols {
			if order := compareRows(&t.cols[c], int(a), &t.cols[c], int(b)); order != 0 {
				return order
			}
		}
		return 0
	})
}
