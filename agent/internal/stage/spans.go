package stage

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// spans are ranges of the sequence, in order and apart. They are never changed in place.
type spans []span

// spanBytes is what one takes on the disk: first u64 and last u64. maxSpans bounds how many are kept there.
const (
	spanBytes = 16
	maxSpans  = 4096
)

// with gives the spans and one more; one that is empty changes nothing.
func (l spans) with(more span) spans {
	if more.first > more.last {
		return l
	}
	return joined(append(slices.Clone(l), more))
}

// joined brings spans into order; empty ones go. It uses their memory.
func joined(all []span) (l spans) {
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	l = all[:0]
	for _, s := range all {
		if s.first > s.last {
			continue
		}
		if n := len(l); n > 0 && s.first <= l[n-1].last+1 {
			l[n-1].last = max(l[n-1].last, s.last)
		} else {
			l = append(l, s)
		}
	}
	return l
}

// all are both.
func (l spans) all(more spans) spans {
	for _, s := range more {
		l = l.with(s)
	}
	return l
}

// within leaves away what is not behind after, up to and with upTo.
func (l spans) within(after, upTo uint64) (kept spans) {
	for _, s := range l {
		if s = (span{first: max(s.first, after+1), last: min(s.last, upTo)}); s.first <= s.last {
			kept = append(kept, s)
		}
	}
	return kept
}

// without leaves away what others have.
func (l spans) without(others spans) spans {
	for _, s := range others {
		l = l.within(0, s.first-1).all(l.within(s.last, ^uint64(0)))
	}
	return l
}

// count is how many sequences they are.
func (l spans) count() (n uint64) {
	for _, s := range l {
		n += s.last - s.first + 1
	}
	return n
}

// spansOf are sequences as spans.
func spansOf(seqs []uint64) (l spans) {
	slices.Sort(seqs)
	for _, seq := range seqs {
		if n := len(l); n > 0 && seq <= l[n-1].last+1 {
			l[n-1].last = max(l[n-1].last, seq)
		} else {
			l = append(l, span{first: seq, last: seq})
		}
	}
	return l
}

// encode leaves away the newest where there are too many: what is not said of them is found out again.
func (l spans) encode() []byte {
	l = l[:min(len(l), maxSpans)]
	out := make([]byte, 0, len(l)*spanBytes)
	for _, s := range l {
		out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, s.first), s.last)
	}
	return out
}

func parseSpans(value []byte) (l spans, err error) {
	if len(value)%spanBytes != 0 {
		return nil, damaged("a list of sequences has %d bytes", len(value))
	}
	for end := uint64(0); len(value) > 0; value = value[spanBytes:] {
		s := span{first: binary.BigEndian.Uint64(value), last: binary.BigEndian.Uint64(value[8:])}
		if s.first <= end || s.last < s.first {
			return nil, damaged("a list of sequences has %d to %d behind %d", s.first, s.last, end)
		}
		l, end = append(l, s), s.last
	}
	return l, nil
}
