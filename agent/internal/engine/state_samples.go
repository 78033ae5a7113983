package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
)

// knownGroup is the group of a key, which must be there.
func (s *aggregateState) knownGroup(start int64, cols []column.Column) (int32, error) {
	known := s.agg.table.len()
	g, err := oneKey(s.agg.table, start, cols)
	if err != nil || s.agg.table.len() != known {
		return 0, errCorruptState
	}
	return g, nil
}

// encodeSession appends the bounds of a session, which its key does not say.
func (a *aggregate) encodeSession(dst []byte, g int32) []byte {
	if a.sessions == nil {
		return dst
	}
	return putInt(putInt(dst, a.frames.starts[g]), a.sessions.lasts[g])
}

// restoreFrame sets the bounds of a group that was read back, and gives what follows them.
func (a *aggregate) restoreFrame(g int32, payload []byte) (rest []byte, err error) {
	if a.win == nil {
		return payload, nil
	}
	start, f := a.table.prefix[g], &a.frames
	if a.sessions != nil {
		return a.restoreSession(g, payload)
	}
	if aligned, _, _, ok := a.win.bounds(start); !ok || aligned != start {
		return nil, errCorruptState
	}
	if err = a.frameGroups(int(g), int(g)+1); err != nil {
		return nil, err
	}
	a.win.minEnd = min(a.win.minEnd, f.ends[g])
	return payload, nil
}

func (a *aggregate) restoreSession(g int32, payload []byte) (rest []byte, err error) {
	r := reader{s: payload}
	start, last := r.int(), r.int()
	anchor := a.table.prefix[g]
	if r.err != nil || start < minTime || anchor < start || last < anchor || last > maxTime-a.sessions.gap {
		return nil, errCorruptState
	}
	_, limit := a.win.panes.pane(start)
	keys, err := a.keys.ofGroups(a.table, int(g), int(g)+1)
	if err != nil || last >= limit {
		return nil, errCorruptState
	}
	s, key := a.sessions, keys[0]
	s.grow(len(a.dead), a.keys.table.len())
	before, behind, at := s.near(a.frames.starts, key, start, limit)
	if before != noEntry || behind != noEntry || at < len(s.open[key]) && a.frames.starts[s.open[key][at]] <= last {
		return nil, errCorruptState
	}
	a.frames.starts[g], a.frames.keys[g] = start, key
	s.lasts[g], s.limits[g] = last, limit
	a.frames.ends[g] = s.end(g)
	if a.win.span == endless {
		s.queue.push(a.frames.ends[g], g)
	}
	a.win.minEnd = min(a.win.minEnd, a.frames.ends[g])
	s.open[key] = append(s.open[key], 0)
	copy(s.open[key][at+1:], s.open[key][at:])
	s.open[key][at] = g
	return r.s, nil
}
