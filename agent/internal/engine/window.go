package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// span says when an aggregate's input ends: a bounded input is grouped as a whole and nothing in it is late; an endless
// one closes its windows as the watermark passes them.
type span uint8

const (
	bounded span = iota + 1
	endless
)

// window is what cuts a time column into windows, with the watermark of an endless input.
//
// The watermark is the greatest time seen minus late, taken row by row: a row is late when the watermark from the rows
// before it has reached its window's end, and a window closes behind the row whose time moves the watermark to its end.
// So where batches begin and end changes nothing.
type window struct {
	// panes cuts time into windows or, where they hop, into the parts that hops of them make one window.
	panes panes
	hops  int
	// shifts is panes where they are shifts, else nil. keepOutside keeps the rows outside of every shift.
	shifts      *shiftPanes
	keepOutside bool

	late int64
	span span

	seen   bool
	newest int64
	// minEnd is not later than the end of any open window.
	minEnd int64

	// starts and ends are the windows of the pane from paneStart to paneEnd, which held the last time; outside says that
	// it is outside of every shift.
	paneStart, paneEnd int64
	starts, ends       []int64
	outside            bool
}

func newWindow(w *flowdef.Window, s span) (*window, error) {
	out := &window{late: w.Late.Microseconds(), span: s, minEnd: math.MaxInt64, hops: 1}
	var loc *time.Location
	if w.Timezone != "" {
		var err error
		if loc, err = time.LoadLocation(w.Timezone); err != nil {
			return nil, fmt.Errorf("the time zone %s of the window is not known on this machine: %w", w.Timezone, err)
		}
	}
	switch {
	case len(w.Shifts) > 0 && loc != nil:
		out.shifts = newShiftPanes(w.Shifts, loc)
		out.panes = out.shifts
	case w.Hopping > 0:
		if w.Every <= 0 || w.Hopping/w.Every > flowdef.MaxHops || w.Hopping%w.Every != 0 {
			return nil, fmt.Errorf("the window's length %s must be a multiple of every, at most %d times as long", w.Hopping, flowdef.MaxHops)
		}
		out.hops = int(w.Hopping / w.Every)
		out.panes = newPanes(w.Every, loc)
	case w.Session > 0:
		out.panes = wholeTime{}
		if w.Max > 0 {
			out.panes = newPanes(w.Max, loc)
		}
	default:
		out.panes = newPanes(w.Tumbling, loc)
	}
	if out.panes == nil {
		return nil, fmt.Errorf("the window must be at least a microsecond long, not %s", w.Tumbling+w.Every+w.Max)
	}
	return out, nil
}

// describeWindow is the definition of a window as far as the meaning of saved state goes.
func describeWindow(w *flowdef.Window) string {
	if w.Tumbling > 0 && w.Timezone == "" {
		return strconv.FormatInt(w.Tumbling.Microseconds(), 10)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s %s/%s %q", w.Tumbling, w.Hopping, w.Every, w.Session, w.Max, w.Timezone)
	for i := range w.Shifts {
		s := &w.Shifts[i]
		fmt.Fprintf(&b, " %q %d-%d %v", s.Name, s.Start, s.End, s.Days)
	}
	return b.String()
}

// watermark is the time up to which windows are closed; nothing is before the first row.
func (w *window) watermark() int64 {
	if !w.seen || w.newest < math.MinInt64+w.late {
		return math.MinInt64
	}
	return w.newest - w.late
}

// see moves the watermark and says whether that closes a window.
func (w *window) see(t int64) bool {
	if w.span == bounded || w.seen && t <= w.newest {
		return false
	}
	w.seen, w.newest = true, t
	return w.watermark() >= w.minEnd
}

// locate finds the windows of a time. It is false when one of them would not lie within the years 1 to 9999.
func (w *window) locate(t int64) bool {
	if t < minTime || t > maxTime {
		return false
	}
	start, end := w.panes.pane(t)
	w.starts, w.ends = w.starts[:0], w.ends[:0]
	w.paneStart, w.paneEnd = start, end
	w.outside = w.shifts != nil && w.shifts.outside(start)
	// Walk back to the first window that holds the pane and forward to the end of the last.
	first, last := start, end
	w.starts, w.ends = append(w.starts, start), append(w.ends, end)
	for range w.hops - 1 {
		if first <= minTime || last > maxTime {
			return w.forget()
		}
		first, _ = w.panes.pane(first - 1)
		_, last = w.panes.pane(last)
		w.starts, w.ends = append(w.starts, first), append(w.ends, last)
	}
	if first < minTime || last > maxTime {
		return w.forget()
	}
	slices.Reverse(w.starts)
	return true
}

// forget makes the next time look for its pane.
func (w *window) forget() bool {
	w.paneStart, w.paneEnd = 0, 0
	return false
}

// bounds gives the window that begins in the pane of t, and where that pane ends. It is false when the window does not
// lie within the years 1 to 9999. The others that hold t need not: the first window of all begins in the year 1.
func (w *window) bounds(t int64) (start, paneEnd, end int64, ok bool) {
	if t < minTime || t > maxTime {
		return 0, 0, 0, false
	}
	start, paneEnd = w.panes.pane(t)
	end = paneEnd
	for range w.hops - 1 {
		if end > maxTime {
			break
		}
		_, end = w.panes.pane(end)
	}
	if start < minTime || end > maxTime {
		return 0, 0, 0, false
	}
	return start, paneEnd, end, true
}

// segment is a stretch of rows between two closings: the rows that count and the start of the window of each.
type segment struct {
	rows         []int32
	starts       []int64
	late, failed []int32
	// outside counts the rows outside of every shift.
	outside int64
}

func (s *segment) reset() {
	s.rows, s.starts, s.late, s.failed, s.outside = s.rows[:0], s.starts[:0], s.late[:0], s.failed[:0], 0
}

// maxSegment is how many pairs of a row and a window a segment holds before it is worked on.
const maxSegment = 4 * column.TargetRows

// scan fills seg with the rows from row `from` on, up to and with the row that closes a window, and gives the row after
// it and whether there are windows to close.
func (w *window) scan(times *column.Column, from, n int, seg *segment) (next int, closes bool) {
	seg.reset()
	nulls := times.HasNulls()
	for i := from; i < n; {
		if len(seg.rows) >= maxSegment {
			return i, false
		}
		if !nulls && w.hops == 1 && !w.outside {
			if i = w.run(times.Ints[:n], i, seg); i == n {
				return n, false
			}
		}
		t := times.Ints[i]
		if nulls && times.Null(i) || (t < w.paneStart || t >= w.paneEnd) && !w.locate(t) {
			seg.failed = append(seg.failed, i32(i))
			i++
			continue
		}
		w.place(i32(i), w.watermark(), seg)
		i++
		if w.see(t) {
			return i, true
		}
	}
	return n, false
}

// run takes rows as long as they are in the window of the row before, which is most often so: see scan.
func (w *window) run(times []int64, i int, seg *segment) (next int) {
	start, end, newest, closing := w.paneStart, w.paneEnd, w.newest, int64(math.MaxInt64)
	if w.span == endless {
		if !w.seen || end <= w.watermark() {
			return i
		}
		// At this time the watermark reaches the end of a window.
		w.minEnd = min(w.minEnd, end)
		closing = w.minEnd + w.late
	}
	n := i
	for n < len(times) && times[n] >= start && times[n] < end && times[n] < closing {
		newest = max(newest, times[n])
		n++
	}
	rows, starts := slices.Grow(seg.rows, n-i), slices.Grow(seg.starts, n-i)
	for ; i < n; i++ {
		rows, starts = append(rows, i32(i)), append(starts, start)
	}
	seg.rows, seg.starts = rows, starts
	if w.span == endless {
		w.newest = newest
	}
	return n
}

// place puts a row into those of its windows that are open. One that is closed already makes it late.
func (w *window) place(row int32, mark int64, seg *segment) {
	if w.outside {
		seg.outside++
		if !w.keepOutside {
			return
		}
	}
	for k, start := range w.starts {
		if w.span == endless {
			if w.ends[k] <= mark {
				if k == 0 {
					seg.late = append(seg.late, row)
				}
				continue
			}
			w.minEnd = min(w.minEnd, w.ends[k])
		}
		seg.rows, seg.starts = append(seg.rows, row), append(seg.starts, start)
	}
}
