package engine

// endQueue is a heap of sessions by the end that they had when they were put in, the earliest first. Each open session
// is in it once. Ends only move on, so what is at the front closes next or goes back with a later end.
type endQueue []queuedEnd

type queuedEnd struct {
	end   int64
	group int32
}

func (q *endQueue) push(end int64, group int32) {
	h := append(*q, queuedEnd{end, group})
	i := len(h) - 1
	for i > 0 && h[(i-1)/2].end > h[i].end {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
	*q = h
}

// pop takes the front off; there must be one.
func (q *endQueue) pop() queuedEnd {
	h := *q
	front, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].end < h[child].end {
			child++
		}
		if h[i].end <= h[child].end {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	*q = h
	return front
}

// closeUpTo appends the open sessions that end by the mark, and gives a time that is not later than the end of any other.
func (a *aggregate) closeUpTo(dst []int32, mark int64) (closing []int32, minEnd int64) {
	s := a.sessions
	for len(s.queue) > 0 && s.queue[0].end <= mark {
		q := s.queue.pop()
		switch end := a.frames.ends[q.group]; {
		case a.dead[q.group]:
		case end > mark:
			s.queue.push(end, q.group)
		default:
			dst = append(dst, q.group)
		}
	}
	if len(s.queue) == 0 {
		return dst, maxTime
	}
	return dst, s.queue[0].end
}

// requeue puts the groups that are kept into the queue under their new numbers.
func (s *sessions) requeue(keep []int32, ends []int64) {
	if len(s.queue) == 0 {
		return // a bounded input closes nothing
	}
	s.queue = s.queue[:0]
	for g := range keep {
		s.queue.push(ends[g], i32(g))
	}
}
