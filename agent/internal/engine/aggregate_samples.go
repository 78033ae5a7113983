package engine

import (
	"encoding/binary"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// samples keeps the values of all groups in the order of arrival, those of one group in a chain. Entries are only ever
// added at the end, so what is behind committed is what the next commit has to write. They lie in pages, so that a log that
// grows is never copied, and what a compact frees is given back: with hundreds of flows these are most of what an agent holds.
type samples[T any] struct {
	pages []*samplePage[T]
	// spare has some of the pages that a compact has freed.
	spare []*samplePage[T]
	// count is how many entries there are.
	count, committed int
	// head is the number of a group's newest entry plus one; zero is a group without any.
	head []int32
	n    []int32
	// dropped is how many entries belong to groups that are gone.
	dropped int
	// put and get write and read a value that follows another one, from which its difference may be shorter.
	put func(dst []byte, v, before T) []byte
	get func(r *reader, before T) T
	// before is the last value of the entry that is being written or read.
	before T

	scratch []T // the values of one group
}

// samplesPerPage is small, because many a flow has few. A log of up to smallLog pages gives up at once what it needs no more:
// there may be hundreds of them whose windows close together, when memory is needed for their insights.
const (
	samplesPerPage = 64
	smallLog       = 64
)

// samplePage is entries: their values, and the number of the one before in the group plus one; zero ends the chain. In the
// middle of a compact the latter is less than zero for what is kept: the bits of the group's new number turned round.
type samplePage[T any] struct {
	values [samplesPerPage]T
	next   [samplesPerPage]int32
}

// at gives the page and the place of entry e, counted from zero.
func (s *samples[T]) at(e int32) (p *samplePage[T], i int) {
	return s.pages[e/samplesPerPage], int(e % samplesPerPage)
}

func (s *samples[T]) grow(n int) { s.head, s.n = growTo(s.head, n), growTo(s.n, n) }

func (s *samples[T]) add(g int32, v T) {
	if s.count == len(s.pages)*samplesPerPage {
		if n := len(s.spare); n > 0 {
			s.pages, s.spare = append(s.pages, s.spare[n-1]), s.spare[:n-1]
		} else {
			s.pages = append(s.pages, &samplePage[T]{})
		}
	}
	p, i := s.at(i32(s.count))
	p.values[i], p.next[i] = v, s.head[g]
	s.count++
	s.head[g] = i32(s.count)
	s.n[g]++
}

// of appends the group's values to dst, the newest first.
func (s *samples[T]) of(dst []T, g int32) []T {
	dst = slices.Grow(dst, int(s.n[g]))
	for e := s.head[g]; e > 0; {
		p, i := s.at(e - 1)
		dst, e = append(dst, p.values[i]), p.next[i]
	}
	return dst
}

// merge adds src's values to dst, in the order of their arrival. They are new entries, which the next commit writes.
func (s *samples[T]) merge(dst, src int32) error {
	s.scratch = s.of(s.scratch[:0], src)
	s.addAll(dst)
	s.drop(src)
	return nil
}

// addAll adds the values of scratch, of which the newest is the first, in the order of their arrival.
func (s *samples[T]) addAll(g int32) {
	for _, v := range slices.Backward(s.scratch) {
		s.add(g, v)
	}
}

// drop forgets the group's values; their memory goes with the next compact.
func (s *samples[T]) drop(g int32) {
	s.dropped += int(s.n[g])
	s.head[g], s.n[g] = 0, 0
}

// wasteful says that what is gone outweighs what is there, so that the cost of a compact is spread over what it frees.
func (s *samples[T]) wasteful() bool {
	return s.dropped > (s.count+len(s.head))/2+compactFloor
}

func (s *samples[T]) compact(keep []int32) {
	for to, g := range keep {
		for e := s.head[g]; e > 0; {
			p, i := s.at(e - 1)
			e, p.next[i] = p.next[i], ^i32(to)
		}
	}
	count, committed := s.count, 0
	s.head, s.n = s.head[:len(keep)], s.n[:len(keep)]
	clear(s.head)
	clear(s.n)
	s.count = 0
	// An entry is never written behind the one that is read.
	for e := range count {
		p, i := s.at(i32(e))
		g := ^p.next[i]
		if g < 0 {
			continue
		}
		if e < s.committed {
			committed++
		}
		s.add(g, p.values[i])
	}
	s.committed, s.dropped = committed, 0
	used := (s.count + samplesPerPage - 1) / samplesPerPage
	if len(s.pages) > smallLog {
		s.spare = append(s.spare, s.pages[used:]...)
	}
	if most := 2 * (used + smallLog); len(s.spare) > most {
		clear(s.spare[most:])
		s.spare = s.spare[:most]
	}
	clear(s.pages[used:])
	s.pages = s.pages[:used]
}

func (*samples[T]) keepsEntries() {}

// commit says that all entries are written.
func (s *samples[T]) commit() { s.committed = s.count }

// beginEntry begins to write or to read the values of an entry.
func (s *samples[T]) beginEntry() {
	var zero T
	s.before = zero
}

// encodeNew appends the group's values that are not committed, the newest first; nothing when there is none.
func (s *samples[T]) encodeNew(dst []byte, g int32) []byte {
	n := uint64(0)
	for e := s.head[g]; int(e) > s.committed; n++ {
		p, i := s.at(e - 1)
		e = p.next[i]
	}
	if n == 0 {
		return dst
	}
	return s.putChain(binary.AppendUvarint(dst, n), s.head[g], s.committed)
}

// putChain appends the values of a chain from entry e on, as long as they are behind the first ones.
func (s *samples[T]) putChain(dst []byte, e int32, first int) []byte {
	for int(e) > first {
		p, i := s.at(e - 1)
		dst = s.put(dst, p.values[i], s.before)
		s.before, e = p.values[i], p.next[i]
	}
	return dst
}

// decodeMore adds the values of encodeNew to a group, or to none where it is noEntry.
func (s *samples[T]) decodeMore(r *reader, g int32) {
	s.scratch = s.scratch[:0]
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		if v := s.get(r, s.before); r.err == nil {
			s.scratch = append(s.scratch, v)
			s.before = v
		}
	}
	if g != noEntry && r.err == nil {
		s.addAll(g)
	}
}

func (s *samples[T]) encode(dst []byte, g int32) []byte {
	s.beginEntry()
	return s.putChain(binary.AppendUvarint(dst, uint64(s.n[g])), s.head[g], 0) //nolint:gosec // a count
}

func (s *samples[T]) decode(src []byte, g int32) ([]byte, error) {
	s.beginEntry()
	r := reader{s: src}
	s.decodeMore(&r, g)
	return r.s, r.err
}

// sampler is an accumulator whose state is a log of samples.
type sampler interface {
	entryKeeper
	drop(g int32)
	wasteful() bool
	commit()
	beginEntry()
	encodeNew(dst []byte, g int32) []byte
	decodeMore(r *reader, g int32)
}

// quantileAcc is quantile and median: PostgreSQL's percentile_cont.
type quantileAcc struct {
	samples[float64]
	fraction float64
}

func newQuantile(fraction float64) *quantileAcc {
	return &quantileAcc{samples: samples[float64]{
		put: func(dst []byte, v, _ float64) []byte { return putFloat(dst, v) },
		get: func(r *reader, _ float64) float64 { return r.float() },
	}, fraction: fraction}
}

func (a *quantileAcc) update(arg *column.Column, u updates) error {
	nulls := arg.HasNulls()
	for i, row := range u.rows {
		if !nulls || !arg.Null(int(row)) {
			a.add(u.groups[i], arg.Floats[row])
		}
	}
	return nil
}

func (a *quantileAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		if a.n[g] == 0 {
			dst.AppendNull()
			continue
		}
		a.scratch = a.of(a.scratch[:0], g)
		dst.AppendFloat(percentile(a.scratch, a.fraction))
	}
}

// percentile sorts the values, of which there is at least one, and interpolates between the two at the fraction. NaN is
// greatest.
func percentile(values []float64, fraction float64) float64 {
	for i, v := range values {
		values[i] = canonical(v) // so that the order of -0 and 0 does not matter
	}
	slices.Sort(values) // NaN first
	nans := 0
	for nans < len(values) && values[nans] != values[nans] {
		nans++
	}
	at := fraction * float64(len(values)-1)
	low := int(at)
	pick := func(i int) float64 { return values[(i+nans)%len(values)] }
	below := pick(low)
	if part := at - float64(low); part > 0 {
		return below + part*(pick(low+1)-below)
	}
	return below
}
