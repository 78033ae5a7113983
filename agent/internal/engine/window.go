package engine

import (
	"math"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// span says when an aggregate's input ends: a bounded input is grouped as a whole and nothing in it is late; an endless
// one closes its windows as the watermark passes them.
type span uint8

const (
	bounded span = iota + 1
	endless
)

// window is a tumbling window over one time column, with the watermark of an endless input.
//
// The watermark is the greatest time seen minus late, taken row by row: a row is late when the watermark from the rows
// before it has reached its window's end, and a window closes behind the row whose time moves the watermark to its end.
// So where batches begin and end changes nothing.
type window struct {
	size, late int64
	span       span

	seen   bool
	newest int64
	// minEnd is the earliest end of the open windows.
	minEnd int64
}

func newWindow(size, late time.Duration, s span) *window {
	return &window{size: size.Microseconds(), late: late.Microseconds(), span: s, minEnd: math.MaxInt64}
}

// watermark is the time up to which windows are closed; nothing is before the first row.
func (w *window) watermark() int64 {
	if !w.seen || w.newest < math.MinInt64+w.late {
		return math.MinInt64
	}
	return w.newest - w.late
}

// bounds gives the window of a time; ok is false at the ends of what 64 bits can count.
func (w *window) bounds(t int64) (start, end int64, ok bool) {
	start = t - floorMod(t, w.size)
	end = start + w.size
	return start, end, start <= t && end > start
}

// segment is a stretch of rows between two closings: the rows that count and the start of the window of each.
type segment struct {
	rows         []int32
	starts       []int64
	late, failed []int32
}

func (s *segment) reset() {
	s.rows, s.starts, s.late, s.failed = s.rows[:0], s.starts[:0], s.late[:0], s.failed[:0]
}

// scan fills seg with the rows from row `from` on, up to and with the row that closes a window, and gives the row after
// it and whether there are windows to close.
func (w *window) scan(times *column.Column, from, n int, seg *segment) (next int, closes bool) {
	seg.reset()
	nulls := times.HasNulls()
	mark := w.watermark()
	start, end := int64(0), int64(0)
	for i := from; i < n; i++ {
		if nulls && times.Null(i) {
			seg.failed = append(seg.failed, i32(i))
			continue
		}
		t := times.Ints[i]
		if t < start || t >= end {
			ok := false
			if start, end, ok = w.bounds(t); !ok {
				start, end = 0, 0
				seg.failed = append(seg.failed, i32(i))
				continue
			}
		}
		if w.span == bounded {
			seg.rows, seg.starts = append(seg.rows, i32(i)), append(seg.starts, start)
			continue
		}
		if end <= mark {
			seg.late = append(seg.late, i32(i))
			continue
		}
		seg.rows, seg.starts = append(seg.rows, i32(i)), append(seg.starts, start)
		w.minEnd = min(w.minEnd, end)
		if !w.seen || t > w.newest {
			w.seen, w.newest = true, t
			if mark = w.watermark(); mark >= w.minEnd {
				return i + 1, true
			}
		}
	}
	return n, false
}
