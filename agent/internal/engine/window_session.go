package engine

import (
	"math"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// sessions finds the session of every row. A session of a key goes from its first row to gap after its last; a row
// within the gap before or behind it belongs to it, and so two sessions become one by a row between them. The panes of
// the window are what no session crosses.
//
// A group of a session is known in the group table by the time of the row that began it, which no later row changes.
type sessions struct {
	gap int64
	// open has the groups of each key in the order of time.
	open [][]int32
	// lasts and limits are, by group, the time of the last row and the end of the pane.
	lasts, limits []int64

	// queue is the open sessions of an endless input.
	queue  endQueue
	anchor [1]int64
	row    [1]int32
	entry  []int32
}

func (s *sessions) grow(groups, keys int) {
	s.lasts, s.limits = growTo(s.lasts, groups), growTo(s.limits, groups)
	for len(s.open) < keys {
		if len(s.open) < cap(s.open) {
			s.open = s.open[:len(s.open)+1]
			s.open[len(s.open)-1] = s.open[len(s.open)-1][:0]
			continue
		}
		s.open = append(s.open, nil)
	}
}

// near finds the sessions of a key that a time belongs to: at most one that began before it and one behind it. at is
// the place of the latter in the list.
func (s *sessions) near(starts []int64, key int32, t, limit int64) (before, behind int32, at int) {
	list := s.open[key]
	before, behind = noEntry, noEntry
	at = len(list)
	for at > 0 && starts[list[at-1]] > t && len(list)-at < 8 {
		at--
	}
	if at > 0 && starts[list[at-1]] > t {
		at, _ = slices.BinarySearchFunc(list[:at], t, func(g int32, t int64) int {
			if starts[g] <= t {
				return -1
			}
			return 1
		})
	}
	if at > 0 {
		if g := list[at-1]; t < s.limits[g] && t-s.lasts[g] < s.gap {
			before = g
		}
	}
	if at < len(list) {
		if g := list[at]; starts[g] < limit && starts[g]-t < s.gap {
			behind = g
		}
	}
	return before, behind, at
}

// end is the end of a group's window.
func (s *sessions) end(g int32) int64 { return min(s.lasts[g]+s.gap, s.limits[g]) }

// compact renumbers the groups; those that are not kept are in no list.
func (s *sessions) compact(keep []int32) {
	s.lasts, s.limits = compactSlice(s.lasts, keep), compactSlice(s.limits, keep)
	for _, list := range s.open {
		for i, g := range list {
			to, _ := slices.BinarySearch(keep, g)
			list[i] = i32(to)
		}
	}
}

// compactKeys moves lists down by swapping, so that every one stays in use once.
func (s *sessions) compactKeys(keep []int32) {
	for i, key := range keep {
		s.open[i], s.open[key] = s.open[key], s.open[i]
	}
	s.open = s.open[:len(keep)]
}

// leave takes a group out of its key's list.
func (s *sessions) leave(key, g int32) {
	if i := slices.Index(s.open[key], g); i >= 0 {
		s.open[key] = slices.Delete(s.open[key], i, i+1)
	}
}

// scanSessions is what window.scan and update are for other windows: it works on the rows from row `from` on, up to and
// with the row that closes a session, and gives the row after it and whether there are sessions to close.
func (a *aggregate) scanSessions(times *column.Column, keys []int32, from, n int) (next int, closes bool, err error) {
	a.seg.reset()
	a.groups = a.groups[:0]
	for i := from; i < n; i++ {
		key := keys[i]
		if key == noEntry {
			a.seg.failed = append(a.seg.failed, i32(i))
			continue
		}
		t := times.Ints[i]
		g, err := a.joinSession(key, t, i)
		if err != nil {
			return 0, false, err
		}
		if g == noEntry {
			a.seg.late = append(a.seg.late, i32(i))
			continue
		}
		a.seg.rows, a.groups = append(a.seg.rows, i32(i)), append(a.groups, g)
		if a.win.see(t) {
			return i + 1, true, a.apply(times.Ints)
		}
	}
	return n, false, a.apply(times.Ints)
}

// joinSession gives the group of a row, noEntry when the row is late.
func (a *aggregate) joinSession(key int32, t int64, row int) (int32, error) {
	s, w := a.sessions, a.win
	if t < w.paneStart || t >= w.paneEnd {
		w.paneStart, w.paneEnd = w.panes.pane(t)
	}
	limit := w.paneEnd
	before, behind, at := s.near(a.frames.starts, key, t, limit)
	switch {
	case before != noEntry:
		s.lasts[before] = max(s.lasts[before], t)
		if behind != noEntry {
			return before, a.mergeSessions(before, behind)
		}
		a.frames.ends[before] = s.end(before)
		return before, nil
	case behind != noEntry:
		a.frames.starts[behind] = t
		return behind, nil
	}
	end := min(t+s.gap, limit)
	if w.span == endless && end <= w.watermark() {
		return noEntry, nil
	}
	s.anchor[0], s.row[0] = t, i32(row)
	var err error
	s.entry, err = a.table.assign(keyRows{cols: a.byCols, rows: s.row[:], prefix: s.anchor[:]}, s.entry)
	if err != nil {
		return noEntry, err
	}
	g := s.entry[0]
	a.growGroups(a.table.len())
	a.frames.starts[g], a.frames.ends[g], a.frames.keys[g] = t, end, key
	s.lasts[g], s.limits[g] = t, limit
	s.open[key] = slices.Insert(s.open[key], at, g)
	if w.span == endless {
		s.queue.push(end, g)
		w.minEnd = min(w.minEnd, end)
	}
	return g, nil
}

// mergeSessions makes the session behind a part of the one before it.
func (a *aggregate) mergeSessions(before, behind int32) error {
	// The rows so far belong to the two as they were.
	if err := a.apply(a.times); err != nil {
		return err
	}
	a.seg.rows, a.groups = a.seg.rows[:0], a.groups[:0]
	a.merged[0] = behind
	a.state.forget(a.merged[:])
	for _, acc := range a.accs {
		if err := acc.merge(before, behind); err != nil {
			return err
		}
	}
	s := a.sessions
	s.lasts[before] = max(s.lasts[before], s.lasts[behind])
	a.frames.ends[before] = s.end(before)
	a.bury(behind)
	return nil
}

// sessionKeys gives the keys of a batch's rows, noEntry for those whose time cannot be used.
func (a *aggregate) sessionKeys(times *column.Column, n int) ([]int32, error) {
	rows := a.seg.rows[:0]
	for i := range n {
		rows = append(rows, i32(i))
	}
	a.seg.rows = rows
	keys, err := a.keys.assign(a.byCols, rows)
	if err != nil {
		return nil, err
	}
	a.sessions.grow(len(a.dead), a.keys.table.len())
	for i := range keys {
		t := times.Ints[i]
		if times.Null(i) || t < minTime || t > maxTime || t > math.MaxInt64-a.sessions.gap || t+a.sessions.gap > maxTime {
			keys[i] = noEntry
		}
	}
	return keys, nil
}
