package engine

import (
	"fmt"
	"math"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// seen tells the first row of each key from its repeats, for ever or within a time.
//
// Within a time, kept rows of one key are never nearer to each other than it. A key is stored under its time's bucket of
// that length, so that a bucket has at most one kept row and a row must be held against three of them. In an endless
// input a row that is older than the newest by that time or more is late, for what it may be a repeat of is not all
// remembered: a kept row is forgotten when it is older than the newest by twice the time, when no row that is not late
// can be near it any more.
type seen struct {
	ledger
	span    span
	by      []int
	timeCol int
	within  int64
	newest  int64
	// quiet is how many entries there may be before the ledger is searched for those to forget.
	quiet int

	cols   []*column.Column
	rows   []int32
	groups [3][]int32
	bucket [3][]int64
	// What became of the rows of the last call of look.
	fresh, repeats, late, failed []int32
}

// sweepFloor is how many entries are left alone however few are worth keeping.
const sweepFloor = 4096

// seenRule is what makes rows repeats: equal values at the input positions by and, unless within is 0, times at the
// position time that are nearer than within.
type seenRule struct {
	by     []int
	time   int
	within time.Duration
}

func newSeen(step string, tag []byte, input expr.Schema, r seenRule, s span) *seen {
	return &seen{
		ledger: newLedger(step, tag, typesOf(input, r.by)), span: s, by: r.by, timeCol: r.time,
		within: r.within.Microseconds(), newest: math.MinInt64, quiet: sweepFloor, cols: make([]*column.Column, len(r.by)),
	}
}

// check refuses to remember the rows of an endless input for ever. what is the verb or the rule.
func (s *seen) check(what string) error {
	if s.span == endless && s.within == 0 {
		return fmt.Errorf("%s would have to remember every row for ever, because the input has no end; add within and time", what)
	}
	return nil
}

// look sorts rows of a batch into fresh, repeats, late and failed (their time is null).
func (s *seen) look(b *column.Batch, rows []int32) error {
	s.fresh, s.repeats, s.late, s.failed = s.fresh[:0], s.repeats[:0], s.late[:0], s.failed[:0]
	for i, pos := range s.by {
		s.cols[i] = &b.Cols[pos]
	}
	if s.within == 0 {
		return s.lookForEver(rows)
	}
	times := &b.Cols[s.timeCol]
	rows = s.timed(times, rows)
	var err error
	if s.groups[1], err = s.assign(s.cols, rows, s.bucket[1], s.groups[1]); err != nil {
		return err
	}
	for side := 0; side < 3; side += 2 {
		s.groups[side] = s.table.lookup(keyRows{cols: s.cols, rows: rows, prefix: s.bucket[side]}, s.groups[side])
	}
	for i, row := range rows {
		t, e := times.Ints[row], s.groups[1][i]
		before, after := s.groups[0][i], s.groups[2][i]
		switch {
		case s.span == endless && s.newest >= math.MinInt64+s.within && t <= s.newest-s.within:
			s.late = append(s.late, row)
			continue
		case s.has(e),
			before >= 0 && s.has(before) && t-s.values[before] < s.within,
			after >= 0 && s.has(after) && s.values[after]-t < s.within:
			s.repeats = append(s.repeats, row)
		default:
			s.put(e, t)
			s.fresh = append(s.fresh, row)
		}
		s.newest = max(s.newest, t)
	}
	s.sweep()
	return nil
}

func (s *seen) lookForEver(rows []int32) error {
	var err error
	if s.groups[1], err = s.assign(s.cols, rows, nil, s.groups[1]); err != nil {
		return err
	}
	for i, e := range s.groups[1] {
		if s.has(e) {
			s.repeats = append(s.repeats, rows[i])
			continue
		}
		s.put(e, 0)
		s.fresh = append(s.fresh, rows[i])
	}
	return nil
}

// timed leaves out the rows whose time is null or at the ends of what 64 bits can count, and fills in the buckets of
// the others.
func (s *seen) timed(times *column.Column, rows []int32) []int32 {
	s.rows = s.rows[:0]
	for i := range s.bucket {
		s.bucket[i] = s.bucket[i][:0]
	}
	for _, row := range rows {
		t := times.Ints[row]
		if times.Null(int(row)) || t < math.MinInt64+4*s.within || t > math.MaxInt64-4*s.within {
			s.failed = append(s.failed, row)
			continue
		}
		s.rows = append(s.rows, row)
		bucket := (t - floorMod(t, s.within)) / s.within
		for i := range s.bucket {
			s.bucket[i] = append(s.bucket[i], bucket+int64(i)-1)
		}
	}
	return s.rows
}

// sweep forgets what can matter no more, when there is much.
func (s *seen) sweep() {
	if s.table.len() <= s.quiet {
		return
	}
	oldest := int64(math.MinInt64)
	if s.span == endless {
		oldest = s.newest - 2*s.within
	}
	s.retain(func(kept int64) bool { return kept > oldest })
	s.quiet = 2*s.table.len() + sweepFloor
}
