package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
)

const machines = 64

// sums is what W1 and W2 keep of a machine's minute.
type sums struct {
	n, made, yields int64
	temp, yield     float64
	vibration       float64
}

// minutes are the sums of each minute, and the last one used, because records come in the order of time.
type minutes struct {
	all     map[int64]*[machines]sums
	current *[machines]sums
	minute  int64
}

func (m *minutes) at(minute int64) *[machines]sums {
	if minute != m.minute || m.current == nil {
		m.minute, m.current = minute, m.all[minute]
		if m.current == nil {
			m.current = new([machines]sums)
			m.all[minute] = m.current
		}
	}
	return m.current
}

// fields are what the job needs of a record.
type fields struct {
	millis, count, scrap int64
	temp, vibration      float64
	machine              int
	running              bool
}

// number reads digits up to the first other byte.
func number(b []byte, i int) (v int64, end int) {
	for d := b[i] - '0'; d <= 9; d = b[i] - '0' {
		v = v*10 + int64(d)
		i++
	}
	return v, i
}

// decimal reads digits with a point among them: exact, because the digits fit into a float and so does the power of ten.
func decimal(b []byte, i int) (v float64, end int) {
	whole, i := number(b, i)
	unit := 1.0
	if b[i] == '.' {
		for i++; b[i]-'0' <= 9; i++ {
			whole = whole*10 + int64(b[i]-'0')
			unit *= 10
		}
	}
	return float64(whole) / unit, i
}

// jsonReading reads {"ts":1,"line":"L1","machine":"M001","temp":1.2,"vibration":1.2,"state":"RUN","count":1,"scrap":1}.
func jsonReading(b []byte, i int, f *fields) (end int) {
	f.millis, i = number(b, i+len(`{"ts":`))
	i += len(`,"line":"L1","machine":"M`)
	machine, i := number(b, i)
	f.machine = int(machine) - 1
	f.temp, i = decimal(b, i+len(`","temp":`))
	f.vibration, i = decimal(b, i+len(`,"vibration":`))
	i += len(`,"state":"`)
	f.running = b[i] == 'R'
	i += 3 // RUN; the others have four letters
	if !f.running {
		i++
	}
	f.count, i = number(b, i+len(`","count":`))
	f.scrap, i = number(b, i+len(`,"scrap":`))
	return i + len("}\n")
}

// csvReading reads 1,L1,M001,1.2,1.2,RUN,1,1.
func csvReading(b []byte, i int, f *fields) (end int) {
	f.millis, i = number(b, i)
	machine, i := number(b, i+len(",L1,M"))
	f.machine = int(machine) - 1
	f.temp, i = decimal(b, i+1)
	f.vibration, i = decimal(b, i+1)
	i++
	f.running = b[i] == 'R'
	i += 3
	if !f.running {
		i++
	}
	f.count, i = number(b, i+1)
	f.scrap, i = number(b, i+1)
	return i + 1
}

// perMinute is W1 and W2.
func perMinute(path, out string, workers int, read func([]byte, int, *fields) int) error {
	parts := make([]minutes, workers)
	for w := range parts {
		parts[w].all = map[int64]*[machines]sums{}
	}
	err := eachPart(path, workers, func(w int, lines []byte) {
		var f fields
		i := 0
		if len(lines) > 0 && lines[0] == 't' {
			for ; lines[i] != '\n'; i++ { // the header
			}
			i++
		}
		for i < len(lines) {
			i = read(lines, i, &f)
			if f.running && f.temp > 60 {
				parts[w].at(f.millis / 60_000)[f.machine].add(&f)
			}
		}
	})
	if err != nil {
		return err
	}
	total := parts[0].all
	for _, p := range parts[1:] {
		for minute, row := range p.all {
			if total[minute] == nil {
				total[minute] = row
				continue
			}
			for i := range row {
				total[minute][i].merge(&row[i])
			}
		}
	}
	return writeMinutes(out, total)
}

func (s *sums) add(f *fields) {
	s.n++
	s.made += f.count
	s.temp += f.temp
	s.vibration = max(s.vibration, f.vibration)
	if f.count != 0 {
		s.yields++
		s.yield += float64(f.count-f.scrap) / float64(f.count)
	}
}

func (s *sums) merge(o *sums) {
	s.n, s.made, s.yields = s.n+o.n, s.made+o.made, s.yields+o.yields
	s.temp, s.yield = s.temp+o.temp, s.yield+o.yield
	s.vibration = math.Max(s.vibration, o.vibration)
}

func writeMinutes(out string, total map[int64]*[machines]sums) error {
	return writeLines(out, func(w *bufio.Writer) {
		for minute, row := range total {
			for i := range row {
				s := &row[i]
				if s.n == 0 {
					continue
				}
				yield := any(nil)
				if s.yields > 0 {
					yield = s.yield / float64(s.yields)
				}
				writeMinute(w, minute, i, s, yield)
			}
		}
	})
}

func writeMinute(w *bufio.Writer, minute int64, machine int, s *sums, yield any) {
	text := "null"
	if v, ok := yield.(float64); ok {
		text = fmt.Sprint(v)
	}
	fmt.Fprintf(w, `{"machine":"M%03d","minute":%d,"n":%d,"temp_avg":%v,"vib_max":%v,"made":%d,"yield_avg":%s}`+"\n",
		machine+1, minute*60_000, s.n, s.temp/float64(s.n), s.vibration, s.made, text)
}

func writeLines(out string, write func(w *bufio.Writer)) error {
	f, err := os.Create(out) //nolint:gosec // the person names it
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<16)
	write(w)
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
