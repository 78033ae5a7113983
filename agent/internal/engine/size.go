package engine

import "reflect"

// groupBytes is what an aggregate's bookkeeping takes for a group beside its key and its accumulators.
const groupBytes = 16

// size is about how many bytes the aggregate's groups take. A table's next doubling is in it, so that it does not come as
// a surprise.
func (a *aggregate) size() int64 {
	m := measure{seen: map[uintptr]struct{}{}}
	total := m.of(reflect.ValueOf(a.accs)) + m.of(reflect.ValueOf(a.keys)) + int64(groupBytes*a.table.len())
	return total + total/8 + a.table.size()
}

// together says that all groups of a key must see its rows in one place, because something is kept for a key over windows
// or a row belongs to several windows.
func (a *aggregate) together() bool { return a.keys != nil || a.win != nil && a.win.hops > 1 }

// size is the bytes of the table, with those of its next doubling when that is near.
func (t *keyTable) size() int64 {
	m := measure{seen: map[uintptr]struct{}{}}
	total := m.of(reflect.ValueOf(t.cols)) + int64(8*cap(t.prefix)+16*cap(t.slots)+8*cap(t.hashes))
	if 2*t.len() > len(t.slots)*7/8 {
		total += int64(32 * cap(t.slots))
	}
	return total
}

// measure adds up the memory behind a value. Of long lists of things that have memory of their own it takes a sample.
type measure struct{ seen map[uintptr]struct{} }

const measureSample = 64

func (m *measure) of(v reflect.Value) int64 {
	switch v.Kind() { //nolint:exhaustive // the others have no memory of their own
	case reflect.Pointer:
		if v.IsNil() {
			return 0
		}
		if _, twice := m.seen[v.Pointer()]; twice {
			return 0
		}
		m.seen[v.Pointer()] = struct{}{}
		return int64(v.Elem().Type().Size()) + m.of(v.Elem()) //nolint:gosec // the size of a type
	case reflect.Interface:
		return m.of(v.Elem())
	case reflect.String:
		return int64(v.Len())
	case reflect.Map:
		entry := v.Type().Key().Size() + v.Type().Elem().Size()
		return 2 * int64(entry) * int64(v.Len()) //nolint:gosec // the size of a type
	case reflect.Slice:
		return int64(v.Type().Elem().Size())*int64(v.Cap()) + m.elements(v) //nolint:gosec // the size of a type
	case reflect.Array:
		return m.elements(v)
	case reflect.Struct:
		total := int64(0)
		for _, field := range v.Fields() {
			total += m.of(field)
		}
		return total
	}
	return 0
}

// elements is the memory behind the elements of a list.
func (m *measure) elements(v reflect.Value) int64 {
	if !hasMemory(v.Type().Elem()) || v.Len() == 0 {
		return 0
	}
	n := min(v.Len(), measureSample)
	total := int64(0)
	for i := range n {
		total += m.of(v.Index(i * v.Len() / n))
	}
	return total * int64(v.Len()) / int64(n)
}

// hasMemory says whether values of a type refer to more memory.
func hasMemory(t reflect.Type) bool {
	switch t.Kind() { //nolint:exhaustive // the others do not
	case reflect.Pointer, reflect.Interface, reflect.String, reflect.Map, reflect.Slice:
		return true
	case reflect.Array:
		return hasMemory(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if hasMemory(f.Type) {
				return true
			}
		}
	}
	return false
}
