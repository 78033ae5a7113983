package engine

import (
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

const (
	microsPerMilli = int64(time.Millisecond / time.Microsecond)
	microsPerSec   = int64(time.Second / time.Microsecond)
	// minTime and maxTime are the first and the last microsecond of the years 1 to 9999.
	minTime = -62135596800 * microsPerSec
	maxTime = 253402300800*microsPerSec - 1
)

func utc(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

func yearOf(v int64) (int64, bool)   { return int64(utc(v).Year()), true }
func monthOf(v int64) (int64, bool)  { return int64(utc(v).Month()), true }
func dayOf(v int64) (int64, bool)    { return int64(utc(v).Day()), true }
func hourOf(v int64) (int64, bool)   { return int64(utc(v).Hour()), true }
func minuteOf(v int64) (int64, bool) { return int64(utc(v).Minute()), true }
func secondOf(v int64) (int64, bool) { return int64(utc(v).Second()), true }
func millisOf(v int64) (int64, bool) { return floorDiv(v, microsPerMilli), true }

func timeOfMillis(v int64) (int64, bool) {
	if v < minTime/microsPerMilli || v > maxTime/microsPerMilli {
		return 0, false
	}
	return v * microsPerMilli, true
}

// floorDiv rounds towards minus infinity; d is more than zero.
func floorDiv(v, d int64) int64 {
	q := v / d
	if v%d < 0 {
		q--
	}
	return q
}

// truncateKernel gives the start of the unit.
type truncateKernel struct {
	arg  kernel
	unit int64
	out  column.Column
}

func buildTruncate(n *expr.Node) (kernel, error) {
	arg, err := compileExpr(n.Args[0], expr.Timestamp)
	if err != nil {
		return nil, err
	}
	k := &truncateKernel{arg: arg, out: column.Column{Type: expr.Timestamp}}
	unit, ok := expr.TruncateUnit(n.Args[1].Value.Str)
	if !ok {
		return nil, fmt.Errorf(`truncate at offset %d needs "1m", "1h" or "1d"`, n.Pos)
	}
	k.unit = unit.Microseconds()
	return k, nil
}

func (k *truncateKernel) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	for i, v := range a.Ints[:b.Len] {
		start := v - floorMod(v, k.unit)
		k.out.Ints[i] = start
		if start > v {
			k.out.SetNull(i)
		}
	}
	return &k.out
}

func floorMod(v, d int64) int64 {
	m := v % d
	if m < 0 {
		m += d
	}
	return m
}

// parseTime reads the texts that expr.ParseTimestamp takes, those without a zone in UTC.
func parseTime(s []byte) (int64, bool) { return expr.ParseTimestamp(string(s), time.UTC) }
