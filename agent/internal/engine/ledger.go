package engine

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// ledger keeps a number for each key, over restarts. What its keys and numbers mean is up to its owner.
type ledger struct {
	step string
	// tag begins the ledger's keys in the store, so that a step can have several.
	tag    []byte
	types  []expr.Type
	table  *keyTable
	values []int64
	flags  []ledgerFlags
	// changed are the entries to write at the next commit, removed those to take out of the store.
	changed []int32
	removed []StateChange
	key     []byte
	zeros   []int64
}

type ledgerFlags uint8

const (
	// hasValue is set once the entry has a number; lookups add entries that have none yet.
	hasValue ledgerFlags = 1 << iota
	isChanged
	isCommitted
)

func newLedger(step string, tag []byte, types []expr.Type) ledger {
	return ledger{step: step, tag: tag, types: types, table: newKeyTable(types)}
}

// assign gives the entry of every row, adding those that are new without a number. prefix may be nil.
func (l *ledger) assign(cols []*column.Column, rows []int32, prefix []int64, out []int32) ([]int32, error) {
	if prefix == nil {
		l.zeros = growTo(l.zeros, len(rows))
		prefix = l.zeros[:len(rows)]
	}
	out, err := l.table.assign(keyRows{cols: cols, rows: rows, prefix: prefix}, out)
	l.values, l.flags = growTo(l.values, l.table.len()), growTo(l.flags, l.table.len())
	return out, err
}

func (l *ledger) has(e int32) bool { return l.flags[e]&hasValue != 0 }

// put sets the number of an entry.
func (l *ledger) put(e int32, v int64) {
	l.values[e] = v
	if l.flags[e]&isChanged == 0 {
		l.changed = append(l.changed, e)
	}
	l.flags[e] |= hasValue | isChanged
}

// maxStoreKey is the length up to which a key is a key of the store too. The store takes keys of at most 32 KiB; of a
// longer one it gets the hash, and the key itself with the value.
const maxStoreKey = 4096

// size is about how many bytes the ledger takes.
func (l *ledger) size() int64 {
	return l.table.size() + int64(8*cap(l.values)+cap(l.flags)+4*cap(l.changed))
}

// storeKey gives the key of an entry in the store and, where that is a hash, what it is the hash of.
func (l *ledger) storeKey(e int32) (key, hashed []byte) {
	l.key = putInt(append(l.key[:0], l.tag...), l.table.prefix[e])
	for i := range l.table.cols {
		l.key = putCell(l.key, &l.table.cols[i], int(e))
	}
	if len(l.key) <= maxStoreKey {
		return l.key, nil
	}
	hashed = l.key[len(l.tag):]
	sum := sha256.Sum256(hashed)
	return append(slices.Clone(l.tag), sum[:]...), hashed
}

// remove notes that an entry is to be taken out of the store.
func (l *ledger) remove(e int32) {
	key, _ := l.storeKey(e)
	l.removed = append(l.removed, StateChange{Step: l.step, Key: string(key)})
}

// retain forgets the entries that keep does not want, and those without a number.
func (l *ledger) retain(keep func(value int64) bool) {
	var kept []int32
	for e, f := range l.flags {
		switch {
		case f&hasValue == 0:
		case keep(l.values[e]):
			kept = append(kept, i32(e))
		case f&isCommitted != 0:
			l.remove(i32(e))
		}
	}
	l.table.compact(kept, nil)
	l.values, l.flags = compactSlice(l.values, kept), compactSlice(l.flags, kept)
	l.changed = l.changed[:0]
	for e, f := range l.flags {
		if f&isChanged != 0 {
			l.changed = append(l.changed, i32(e))
		}
	}
}

// forgetAll empties the ledger when its input has ended.
func (l *ledger) forgetAll() {
	for e, f := range l.flags {
		if f&isCommitted != 0 {
			l.remove(i32(e))
		}
	}
	l.table, l.values, l.flags, l.changed = newKeyTable(l.types), nil, nil, nil
}

// changes appends what is to be stored.
func (l *ledger) changes(dst []StateChange) []StateChange {
	dst = append(dst, l.removed...)
	l.removed = l.removed[:0]
	for _, e := range l.changed {
		l.flags[e] = l.flags[e]&^isChanged | isCommitted
		key, hashed := l.storeKey(e)
		value := append(putInt([]byte{stateVersion}, l.values[e]), hashed...)
		dst = append(dst, StateChange{Step: l.step, Key: string(key), Value: seal(value, key)})
	}
	l.changed = l.changed[:0]
	return dst
}

// restore reads one entry of the store, whose key begins with the tag.
func (l *ledger) restore(key string, payload []byte) error {
	v := reader{s: payload}
	value := v.int()
	r := reader{s: []byte(key)[len(l.tag):]}
	if len(v.s) > 0 {
		if sum := sha256.Sum256(v.s); string(sum[:]) != string(r.s) {
			return errCorruptState
		}
		r.s = v.s
	}
	prefix := r.int()
	cols := make([]column.Column, len(l.types))
	for i := range cols {
		cols[i].Type = l.types[i]
		r.cell(&cols[i])
	}
	if r.err != nil || v.err != nil || len(r.s) > 0 {
		return errCorruptState
	}
	known := l.table.len()
	e, err := oneKey(l.table, prefix, cols)
	if err != nil || l.table.len() != known+1 {
		return errCorruptState
	}
	l.values, l.flags = growTo(l.values, known+1), growTo(l.flags, known+1)
	l.values[e], l.flags[e] = value, hasValue|isCommitted
	return nil
}

// stepMeta is the entry of a step's state that says of which definition it is, with the step's few numbers.
type stepMeta struct {
	step        string
	fingerprint [fingerprintSz]byte
	saved       string
	// value is the memory of the entry that is made now, which most often is the one that is saved.
	value []byte
}

func newStepMeta(step, definition string) stepMeta {
	m := stepMeta{step: step}
	sum := sha256.Sum256([]byte(definition))
	copy(m.fingerprint[:], sum[:])
	return m
}

// changes appends the entry when the numbers are others than the last time.
func (m *stepMeta) changes(dst []StateChange, numbers ...int64) []StateChange {
	m.value = append(append(m.value[:0], stateVersion), m.fingerprint[:]...)
	for _, n := range numbers {
		m.value = putInt(m.value, n)
	}
	m.value = sealMeta(m.value)
	if string(m.value) == m.saved {
		return dst
	}
	m.saved = string(m.value)
	return append(dst, StateChange{Step: m.step, Key: metaKey, Value: []byte(m.saved)})
}

// end appends the removal of the entry, where there is one.
func (m *stepMeta) end(dst []StateChange) []StateChange {
	if m.saved == "" {
		return dst
	}
	m.saved = ""
	return append(dst, StateChange{Step: m.step, Key: metaKey})
}

// restore reads the entry back into the numbers.
func (m *stepMeta) restore(entries map[string][]byte, numbers ...*int64) error {
	payload, err := unseal(metaKey, entries[metaKey])
	if err != nil {
		return err
	}
	r := reader{s: payload}
	if string(r.take(fingerprintSz)) != string(m.fingerprint[:]) {
		return errOtherDefinition
	}
	values := make([]int64, len(numbers))
	for i := range values {
		values[i] = r.int()
	}
	if r.err != nil || len(r.s) > 0 {
		return errCorruptState
	}
	for i, n := range numbers {
		*n = values[i]
	}
	m.saved = string(entries[metaKey])
	return nil
}

// discardAll gives the removals of all entries.
func discardAll(step string, entries map[string][]byte) []StateChange {
	var list []StateChange
	for _, key := range sortedKeys(entries) {
		list = append(list, StateChange{Step: step, Key: key})
	}
	return list
}

// restoreEntries reads all entries but the meta one, in the order of their keys.
func restoreEntries(entries map[string][]byte, restore func(key string, payload []byte) error) error {
	for _, key := range sortedKeys(entries) {
		if key == metaKey {
			continue
		}
		payload, err := unseal(key, entries[key])
		if err != nil {
			return err
		}
		if err = restore(key, payload); err != nil {
			return err
		}
	}
	return nil
}

// describeColumns names columns and their types, for a definition.
func describeColumns(schema expr.Schema, cols []int) string {
	var text strings.Builder
	for _, pos := range cols {
		fmt.Fprintf(&text, "%s %q;", schema[pos].Type, schema[pos].Name)
	}
	return text.String()
}

// typesOf gives the types of columns.
func typesOf(schema expr.Schema, cols []int) []expr.Type {
	types := make([]expr.Type, len(cols))
	for i, pos := range cols {
		types[i] = schema[pos].Type
	}
	return types
}

// allRows gives the row numbers from 0 to n.
func allRows(rows []int32, n int) []int32 {
	rows = resize(rows, n)
	for i := range rows {
		rows[i] = i32(i)
	}
	return rows
}
