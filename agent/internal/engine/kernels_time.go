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
	switch n.Args[1].Value.Str {
	case "1m":
		k.unit = 60 * microsPerSec
	case "1h":
		k.unit = 3600 * microsPerSec
	case "1d":
		k.unit = 86400 * microsPerSec
	default:
		return nil, fmt.Errorf(`truncate at offset %d needs "1m", "1h" or "1d"`, n.Pos)
	}
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

// parseTime reads RFC 3339, or YYYY-MM-DD hh:mm:ss[.f] or YYYY-MM-DD in UTC. Digits below a microsecond are dropped.
func parseTime(s []byte) (int64, bool) {
	p := timeParser{s: s, ok: true}
	year := p.number(4, 1, 9999)
	p.expect('-')
	month := p.number(2, 1, 12)
	p.expect('-')
	day := p.number(2, 1, 31)
	var hour, minute, second int
	var micros, offset int64
	if len(p.s) > 0 {
		zoned := p.s[0] == 'T'
		if !zoned {
			p.expect(' ')
		} else {
			p.expect('T')
		}
		hour = p.number(2, 0, 23)
		p.expect(':')
		minute = p.number(2, 0, 59)
		p.expect(':')
		second = p.number(2, 0, 59)
		micros = p.fraction()
		if zoned {
			offset = p.offset()
		}
	}
	if !p.ok || len(p.s) > 0 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day {
		return 0, false
	}
	v := t.Unix()*microsPerSec + micros - offset*microsPerSec
	return v, v >= minTime && v <= maxTime
}

type timeParser struct {
	s  []byte
	ok bool
}

func (p *timeParser) expect(c byte) {
	if len(p.s) == 0 || p.s[0] != c {
		p.ok = false
		return
	}
	p.s = p.s[1:]
}

func (p *timeParser) number(digits, least, most int) int {
	if len(p.s) < digits {
		p.ok = false
		return 0
	}
	v := 0
	for _, c := range p.s[:digits] {
		if c < '0' || c > '9' {
			p.ok = false
			return 0
		}
		v = v*10 + int(c-'0')
	}
	p.s = p.s[digits:]
	if v < least || v > most {
		p.ok = false
	}
	return v
}

// fraction reads an optional fraction of a second in microseconds.
func (p *timeParser) fraction() int64 {
	if len(p.s) == 0 || p.s[0] != '.' {
		return 0
	}
	p.s = p.s[1:]
	v, unit, n := int64(0), microsPerSec/10, 0
	for len(p.s) > 0 && p.s[0] >= '0' && p.s[0] <= '9' {
		v += int64(p.s[0]-'0') * unit
		unit /= 10
		p.s = p.s[1:]
		n++
	}
	if n == 0 {
		p.ok = false
	}
	return v
}

// offset reads Z or ±hh:mm in seconds.
func (p *timeParser) offset() int64 {
	if len(p.s) == 0 {
		p.ok = false
		return 0
	}
	sign := p.s[0]
	p.s = p.s[1:]
	if sign == 'Z' {
		return 0
	}
	hours := p.number(2, 0, 23)
	p.expect(':')
	minutes := p.number(2, 0, 59)
	seconds := int64(hours*3600 + minutes*60)
	switch sign {
	case '+':
	case '-':
		seconds = -seconds
	default:
		p.ok = false
	}
	return seconds
}
