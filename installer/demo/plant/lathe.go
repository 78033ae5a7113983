package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

const (
	// fileEvery is how often the lathe drops a file, in seconds.
	fileEvery = 20
	// keepFiles is how many files stay in its folder, about eleven hours.
	keepFiles = 2000
	// toolLife is the minutes of cutting after which the tool is changed.
	toolLife = 30.0
)

// cycle is one part that the lathe turned.
type cycle struct {
	TS      time.Time
	PartID  string
	RPM     float64
	Torque  float64 // in newton metres
	Wear    float64 // minutes that the tool has cut
	Temp    float64 // of the workpiece, degrees Celsius
	Seconds float64
	OK      bool
}

// lathe turns one part after the other.
type lathe struct {
	random *rand.Rand
	batch  string
	parts  int
	left   float64 // seconds until the part is done
	length float64 // seconds that it takes
	wear   float64
	temp   float64
	age    int // seconds since the last file
	done   []cycle
}

func newLathe(seed uint64, now time.Time) *lathe {
	l := &lathe{random: rand.New(rand.NewPCG(seed, 1<<32)), batch: now.Format("060102-1504"), temp: 45} //nolint:gosec // a simulation must repeat itself, not be secret
	l.wear = l.random.Float64() * toolLife * 0.8
	l.length = l.cycleTime()
	l.left = l.length
	return l
}

// cycleTime is how long the next part takes.
func (l *lathe) cycleTime() float64 { return 5.5 + l.random.Float64() }

// second lets a second pass, which ends at now.
func (l *lathe) second(now time.Time) {
	l.age++
	if l.left--; l.left > 0 {
		return
	}
	l.parts++
	l.wear += l.length / 60
	worn := l.wear / toolLife
	rpm := 1500 + l.random.NormFloat64()*12
	torque := 38 + 9*worn + l.random.NormFloat64()*0.8
	load := torque * rpm * 2 * math.Pi / 60 / 1000 // kilowatts
	l.temp += (25 + 5.5*load - l.temp) * 0.2
	l.done = append(l.done, cycle{
		TS: now, PartID: fmt.Sprintf("L%s-%05d", l.batch, l.parts), RPM: round(rpm, 0), Torque: round(torque, 2),
		Wear: round(l.wear, 2), Temp: round(l.temp, 1), Seconds: round(l.length, 2),
		OK: l.random.Float64() > 0.005+0.06*worn*worn,
	})
	if l.wear > toolLife {
		l.wear = 0
	}
	l.length = l.cycleTime()
	l.left += l.length
}

// finished gives the cycles for a file when it is time to drop one.
func (l *lathe) finished(time.Time) []cycle {
	if l.age < fileEvery || len(l.done) == 0 {
		return nil
	}
	cycles := l.done
	l.age, l.done = 0, nil
	return cycles
}

// dropFile writes a file under another name first, so that nobody reads half of it, and removes the oldest ones.
func dropFile(dir string, now time.Time, cycles []cycle) error {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	w.Comma = ';'
	records := [][]string{{"ts", "part_id", "spindle_rpm", "torque_nm", "tool_wear_min", "temp_c", "cycle_s", "ok"}}
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	for _, c := range cycles {
		records = append(records, []string{
			c.TS.Format(time.RFC3339), c.PartID, number(c.RPM), number(c.Torque), number(c.Wear), number(c.Temp), number(c.Seconds), strconv.FormatBool(c.OK),
		})
	}
	if err := w.WriteAll(records); err != nil {
		return fmt.Errorf("write the lathe's cycles: %w", err)
	}
	name := "cycles-" + now.Format("20060102T150405Z") + ".csv"
	temporary := filepath.Join(dir, "."+name+".part")
	if err := os.WriteFile(temporary, text.Bytes(), 0o640); err != nil { //nolint:gosec // whoever may enter the folder may read the cycles
		return fmt.Errorf("write the lathe's file: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("drop the lathe's file: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "cycles-*.csv"))
	if err != nil {
		return fmt.Errorf("list the lathe's files: %w", err)
	}
	slices.Sort(old)
	for _, path := range old[:max(len(old)-keepFiles, 0)] {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove an old file of the lathe: %w", err)
		}
	}
	return nil
}
