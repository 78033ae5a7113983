package stage

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/protocol/wire"
)

// The reasons for which a place of the sequence never comes, as a receipt names them.
const (
	// GoneDamaged is for what cannot be read any more.
	GoneDamaged = wire.ReceiptDamaged
	// GoneUnsendable is for what is too large to be sent.
	GoneUnsendable = wire.ReceiptUnsendable
	// GoneExpiredAge and GoneExpiredBytes are for what the rule Settings.MaxAge or DropOldest has dropped.
	GoneExpiredAge   = wire.ReceiptExpiredAge
	GoneExpiredBytes = wire.ReceiptExpiredBytes
)

// goneRange is the sequences first to last, which a rule has dropped, or which lie between such and could never be sent.
type goneRange struct {
	first, last uint64
	reason      string
}

func (g goneRange) count() uint64 { return g.last - g.first + 1 }

// gone is what rules have dropped and the control plane has not been told yet, in order. It is never changed in place.
type gone []goneRange

// end is the last sequence of all.
func (g gone) end() uint64 {
	if len(g) == 0 {
		return 0
	}
	return g[len(g)-1].last
}

// with gives a list that has the range behind the last.
func (g gone) with(r goneRange) gone { return slices.Clone(g).add(r) }

// add puts a range behind the last of a list that nobody else has.
func (g gone) add(r goneRange) gone {
	if n := len(g); n > 0 && g[n-1].last+1 == r.first && g[n-1].reason == r.reason {
		g[n-1].last = r.last
		return g
	}
	return append(g, r)
}

// behind leaves away what is not behind the sequence.
func (g gone) behind(seq uint64) gone {
	for len(g) > 0 && g[0].last <= seq {
		g = g[1:]
	}
	if len(g) > 0 && g[0].first <= seq {
		g = slices.Clone(g)
		g[0].first = seq + 1
	}
	return g
}

// between counts the sequences behind after, up to and with upTo, that went by a rule.
func (g gone) between(after, upTo uint64) (all uint64) {
	for _, r := range g {
		if r.reason == GoneUnsendable {
			continue
		}
		if low, high := max(r.first, after+1), min(r.last, upTo); low <= high {
			all += high - low + 1
		}
	}
	return all
}

// at says why the sequence is gone, and the last one up to which it is so. What no rule has dropped is damaged.
func (g gone) at(seq uint64) (reason string, last uint64) {
	for _, r := range g {
		if seq < r.first {
			return GoneDamaged, r.first - 1
		}
		if seq <= r.last {
			return r.reason, r.last
		}
	}
	return GoneDamaged, ^uint64(0)
}

// goneKey has what rules have dropped, in the bucket of the numbers: per range first u64, last u64 and the reason u8.
const (
	goneKey   = "gone"
	goneBytes = 17
)

// goneReasons are the reasons of ranges by their number on the disk.
func goneReasons() []string { return append(goneRules(), GoneUnsendable) }

// goneRules are the rules.
func goneRules() []string { return []string{GoneExpiredAge, GoneExpiredBytes} }

func (g gone) encode() []byte {
	out := make([]byte, 0, len(g)*goneBytes)
	for _, r := range g {
		out = binary.BigEndian.AppendUint64(out, r.first)
		out = binary.BigEndian.AppendUint64(out, r.last)
		out = append(out, byte(slices.Index(goneReasons(), r.reason))) //nolint:gosec // there are three
	}
	return out
}

func parseGone(value []byte) (g gone, err error) {
	if len(value)%goneBytes != 0 {
		return nil, fmt.Errorf("%w: the list of what was dropped has %d bytes", ErrDamaged, len(value))
	}
	end, reasons := uint64(0), goneReasons()
	for ; len(value) > 0; value = value[goneBytes:] {
		r := goneRange{first: binary.BigEndian.Uint64(value), last: binary.BigEndian.Uint64(value[8:])}
		rule := int(value[16])
		if r.first <= end || r.last < r.first || rule >= len(reasons) {
			return nil, fmt.Errorf("%w: the list of what was dropped has the records %d to %d by rule %d behind %d", ErrDamaged, r.first, r.last, rule, end)
		}
		r.reason, end = reasons[rule], r.last
		g = append(g, r)
	}
	return g, nil
}
