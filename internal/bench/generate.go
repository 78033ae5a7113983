package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// The shape of the data. Changing it changes dataVersion, so that no file of an older shape is taken.
const (
	dataVersion = "2"
	// firstInstant is 2026-01-01T00:00:00Z in milliseconds.
	firstInstant = 1767225600000
	machineCount = 64
	orderCount   = 50_000
	productCount = 500
	// unknownOrders is one of how many production rows is for an order that the work orders do not have.
	unknownOrders = 100
)

// random is splitmix64 (Steele, Lea, Flood, 2014) of a place: the same on every machine, and any record can be made
// without the ones before it.
func random(place uint64) uint64 {
	z := (place + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// spacing is the time between two records of W1 and W2, in microseconds.
type spacing int64

const (
	// dense has a record each millisecond: 5,000,000 of them are 84 minutes, with 60,000 records each.
	dense spacing = 1000
	// sparse has 64 machines at 1 Hz: 5,000,000 records are 22 hours, and 83,380 groups.
	sparse spacing = 1_000_000 / machineCount
)

// reading is one record of W1 and W2, of one of 64 machines. They come in the order of time.
type reading struct {
	millis         int64
	machine        int
	centidegrees   int64
	millivibration int64
	state          string
	count, scrap   int64
}

func (s spacing) readingAt(i int) reading {
	r := random(uint64(i)) //nolint:gosec // a place is never negative
	take := func(n uint64) int64 {
		v := r % n
		r /= n
		return int64(v) //nolint:gosec // below n, which is small
	}
	out := reading{millis: firstInstant + int64(i)*int64(s)/1000, machine: int(take(machineCount))}
	out.centidegrees = 2000 + take(8000)
	out.millivibration = take(5000)
	switch s := take(10); {
	case s < 7:
		out.state = "RUN"
	case s < 9:
		out.state = "IDLE"
	default:
		out.state = "DOWN"
	}
	out.count = take(40)
	out.scrap = min(take(4), out.count)
	return out
}

// lineDigit tells the lines L1 to L8 apart, of eight machines each.
func lineDigit(machine int) byte { return "12345678"[machine/8] }

// appendPadded writes a number with leading zeros.
func appendPadded(dst []byte, v int64, digits int) []byte {
	var b [20]byte
	for i := digits - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, b[:digits]...)
}

// appendFixed writes v / 10^decimals.
func appendFixed(dst []byte, v int64, decimals int) []byte {
	unit := int64(1)
	for range decimals {
		unit *= 10
	}
	dst = append(strconv.AppendInt(dst, v/unit, 10), '.')
	return appendPadded(dst, v%unit, decimals)
}

func (s spacing) appendJSON(dst []byte, i int) []byte {
	r := s.readingAt(i)
	dst = strconv.AppendInt(append(dst, `{"ts":`...), r.millis, 10)
	dst = append(append(dst, `,"line":"L`...), lineDigit(r.machine))
	dst = appendPadded(append(dst, `","machine":"M`...), int64(r.machine+1), 3)
	dst = appendFixed(append(dst, `","temp":`...), r.centidegrees, 2)
	dst = appendFixed(append(dst, `,"vibration":`...), r.millivibration, 3)
	dst = append(append(dst, `,"state":"`...), r.state...)
	dst = strconv.AppendInt(append(dst, `","count":`...), r.count, 10)
	dst = strconv.AppendInt(append(dst, `,"scrap":`...), r.scrap, 10)
	return append(dst, "}\n"...)
}

func (s spacing) appendCSV(dst []byte, i int) []byte {
	r := s.readingAt(i)
	dst = append(strconv.AppendInt(dst, r.millis, 10), ",L"...)
	dst = append(dst, lineDigit(r.machine))
	dst = appendPadded(append(dst, ",M"...), int64(r.machine+1), 3)
	dst = appendFixed(append(dst, ','), r.centidegrees, 2)
	dst = appendFixed(append(dst, ','), r.millivibration, 3)
	dst = append(append(dst, ','), r.state...)
	dst = strconv.AppendInt(append(dst, ','), r.count, 10)
	dst = strconv.AppendInt(append(dst, ','), r.scrap, 10)
	return append(dst, '\n')
}

func appendProduction(dst []byte, i int) []byte {
	r := random(uint64(i) + 1<<40) //nolint:gosec // a place is never negative
	order := int64(r % orderCount)
	if r>>20%unknownOrders == 0 {
		order += orderCount
	}
	dst = appendPadded(append(dst, "WO"...), order, 7)
	dst = strconv.AppendInt(append(dst, ','), firstInstant+int64(i)*40, 10)
	dst = appendPadded(append(dst, ",M"...), int64(r>>32%machineCount+1), 3)
	dst = strconv.AppendInt(append(dst, ','), int64(r>>40%97), 10)
	return append(dst, '\n')
}

func appendOrder(dst []byte, i int) []byte {
	r := random(uint64(i) + 1<<41) //nolint:gosec // a place is never negative
	dst = appendPadded(append(dst, "WO"...), int64(i), 7)
	dst = appendPadded(append(dst, ",P-"...), int64(r%productCount), 4)
	dst = strconv.AppendInt(append(dst, ','), int64(100+r>>32%5000), 10)
	dst = strconv.AppendInt(append(dst, ','), firstInstant/1000+int64(i)*86_400, 10) // seconds
	return append(dst, '\n')
}

// table is a file of generated records.
type table struct {
	name, header string
	records      int
	append       func(dst []byte, i int) []byte
}

// makeFile writes the table below dir unless it is there, and gives its path.
func makeFile(dir string, t table) (path string, err error) {
	path = filepath.Join(dir, t.name)
	if _, err = os.Stat(path); err == nil {
		return path, nil
	}
	unfinished := path + ".unfinished"
	f, err := os.Create(unfinished) //nolint:gosec // the person who runs the benchmark names the folder
	if err != nil {
		return "", fmt.Errorf("make the data of a workload: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, _ = w.WriteString(t.header) // a bufio.Writer keeps its first error for Flush
	var line []byte
	for i := range t.records {
		line = t.append(line[:0], i)
		_, _ = w.Write(line)
	}
	if err = errors.Join(w.Flush(), f.Close()); err != nil {
		return "", fmt.Errorf("write the data of a workload to %s: %w", unfinished, err)
	}
	if err = os.Rename(unfinished, path); err != nil {
		return "", fmt.Errorf("write the data of a workload: %w", err)
	}
	return path, nil
}
