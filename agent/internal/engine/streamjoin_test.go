package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
)

const partsFlow = `
flow: parts
trigger: continuous
steps:
  - id: parts
    read: press
    schema: {ts: timestamp, serial: string, n: int}
  - id: checks
    read: camera
    schema: {at: timestamp, serial: string, m: int}
  - id: both
    join: checks
    from: parts
    on: [serial]
    within: 10s
    time: {ts: at}
    late: 3s
    type: left
  - insight: both
    key: [serial]
    time: ts
`

// event of a stream: a row of one side. No time and no key are nulls.
type streamRow struct {
	side, n  int
	time     int64 // seconds
	key      string
	noTime   bool
	accepted bool
}

// randomStreams makes rows of both sides that go forward in time with some disorder.
func randomStreams(r *rand.Rand, n int, disorder int64) []streamRow {
	rows := make([]streamRow, n)
	now := [2]int64{1000, 1000}
	for i := range rows {
		side := r.IntN(2)
		now[side] += r.Int64N(4)
		rows[i] = streamRow{side: side, n: i, time: now[side] - r.Int64N(disorder+1), key: string("abcd"[r.IntN(4)])}
		switch r.IntN(20) {
		case 0:
			rows[i].key = ""
		case 1:
			rows[i].noTime = true
		}
	}
	return rows
}

// accept marks the rows that are not late.
func accept(rows []streamRow, late int64) (lates int64) {
	newest := [2]int64{}
	for i := range rows {
		r := &rows[i]
		if r.noTime {
			continue
		}
		newest[r.side] = max(newest[r.side], r.time)
		if r.accepted = r.time >= newest[r.side]-late; !r.accepted {
			lates++
		}
	}
	return lates
}

// nestedLoop is the SQL join of the accepted rows, as a sorted list.
func nestedLoop(rows []streamRow, within int64, outer bool) []string {
	var list []string
	for _, l := range rows {
		if l.side != leftSide || !l.accepted {
			continue
		}
		found := false
		for _, r := range rows {
			if r.side == rightSide && r.accepted && l.key != "" && l.key == r.key && max(l.time-r.time, r.time-l.time) <= within {
				found = true
				list = append(list, fmt.Sprintf("%d-%d", l.n, r.n))
			}
		}
		if !found && outer {
			list = append(list, fmt.Sprintf("%d-null", l.n))
		}
	}
	slices.Sort(list)
	return list
}

// joinRun drives a join of two streams by hand, so that the order of the batches is the test's.
type joinRun struct {
	tb    testing.TB
	prog  *Program
	span  span
	pipe  *pipeline
	state map[string][]byte
	lines []string
	tune  func(*streamJoin)
}

func newJoinRun(tb testing.TB, text string, s span) *joinRun {
	tb.Helper()
	j := &joinRun{tb: tb, prog: program(tb, text), span: s, state: map[string][]byte{}}
	j.open()
	return j
}

func (j *joinRun) open() {
	j.tb.Helper()
	pipe, err := j.prog.main.instantiate(func(int) span { return j.span }, 0)
	if err != nil {
		j.tb.Fatal(err)
	}
	j.pipe = pipe
	if err = j.keeper().restore(j.state); err != nil {
		j.tb.Fatal(err)
	}
	if j.tune != nil {
		j.tune(j.join())
	}
}

func (j *joinRun) keeper() keeper { return j.pipe.keepers[0] }

func (j *joinRun) join() *streamJoin {
	s, ok := j.keeper().(*streamJoin)
	if !ok {
		j.tb.Fatal("the keeper is no join of two streams")
	}
	return s
}

func (j *joinRun) commit() {
	for _, ch := range j.keeper().changes(nil) {
		if ch.Value == nil {
			delete(j.state, ch.Key)
		} else {
			j.state[ch.Key] = slices.Clone(ch.Value)
		}
	}
	j.lines = append(j.lines, insightLines(j.pipe.box.take())...)
	j.pipe.box.reset()
}

// push hands rows of one side over.
func (j *joinRun) push(rows []streamRow) error {
	side := rows[0].side
	b := column.NewBatch(j.prog.main.reads[side].need.Schema)
	for _, r := range rows {
		if r.noTime {
			b.Cols[0].AppendNull()
		} else {
			b.Cols[0].AppendInt(r.time * 1e6)
		}
		if r.key == "" {
			b.Cols[1].AppendNull()
		} else {
			b.Cols[1].AppendStr([]byte(r.key))
		}
		b.Cols[2].AppendInt(int64(r.n))
		b.Len++
	}
	err := j.pipe.sources[side].push(b)
	for i := range b.Cols { // whoever still reads it gets nonsense
		for k := range b.Cols[i].Data {
			b.Cols[i].Data[k] = '#'
		}
		for k := range b.Cols[i].Ints {
			b.Cols[i].Ints[k] = -7
		}
	}
	return err
}

// all pushes the rows in batches of at most size rows of one side.
func (j *joinRun) all(rows []streamRow, size int, then func()) {
	j.tb.Helper()
	for len(rows) > 0 {
		n := 1
		for n < min(size, len(rows)) && rows[n].side == rows[0].side {
			n++
		}
		if err := j.push(rows[:n]); err != nil {
			j.tb.Fatal(err)
		}
		rows = rows[n:]
		then()
	}
}

// pairs turns insights into what nestedLoop gives.
func pairs(lines []string) []string {
	list := make([]string, 0, len(lines))
	for _, line := range lines {
		n, m := "?", "null"
		for field := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune("{},", r) }) {
			if v, ok := strings.CutPrefix(field, `"n":`); ok {
				n = v
			} else if v, ok := strings.CutPrefix(field, `"m":`); ok {
				m = v
			}
		}
		list = append(list, n+"-"+m)
	}
	slices.Sort(list)
	return list
}

func TestStreamJoinAgainstANestedLoop(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // a test's data
		rows := randomStreams(r, 150, []int64{0, 2, 6}[seed%3])
		kind := []string{"left", "inner"}[seed%2]
		text := strings.Replace(partsFlow, "type: left", "type: "+kind, 1)
		// Rows of a far future make everything before them certain.
		ends := []streamRow{{side: leftSide, n: 9001, time: 1e6, key: "y"}, {side: rightSide, n: 9002, time: 1e6, key: "z"}}
		stream := append(slices.Clone(rows), ends...)
		lates := accept(stream, 3)
		want := nestedLoop(stream[:len(rows)], 10, kind == "left")
		j := newJoinRun(t, text, endless)
		j.all(stream, 7, j.commit)
		got := pairs(j.lines)
		sameLines(t, fmt.Sprintf("seed %d, %s, endless", seed, kind), got, want)
		if j.join().counts.late != lates {
			t.Errorf("seed %d: %d rows were late, want %d", seed, j.join().counts.late, lates)
		}
		if n := len(j.state); n > 3 {
			t.Errorf("seed %d: %d entries remain of rows that nothing can match", seed, n)
		}
		// In a run that ends nothing is late.
		accept(rows, 1e9)
		j = newJoinRun(t, text, bounded)
		j.all(rows, 7, j.commit)
		for more := true; more; {
			var err error
			if more, err = j.join().finish(); err != nil {
				t.Fatal(err)
			}
			j.commit()
		}
		sameLines(t, fmt.Sprintf("seed %d, %s, bounded", seed, kind), pairs(j.lines), nestedLoop(rows, 10, kind == "left"))
		if len(j.state) != 0 {
			t.Errorf("seed %d: a run that ended leaves %d entries", seed, len(j.state))
		}
	}
}

func TestStreamJoinOverBatchesAndRestarts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		rows := randomStreams(rand.New(rand.NewPCG(seed, 9)), 300, 4) //nolint:gosec // a test's data
		slices.SortStableFunc(rows[100:200], func(a, b streamRow) int { return a.side - b.side })
		whole := newJoinRun(t, partsFlow, endless)
		whole.all(rows, 1000, func() {})
		whole.commit()
		if len(whole.lines) < 100 {
			t.Fatalf("seed %d gives only %d rows", seed, len(whole.lines))
		}
		for _, size := range []int{1, 3, 50} {
			cut := newJoinRun(t, partsFlow, endless)
			cut.all(rows, size, func() {
				cut.commit()
				lates := cut.join().counts.lateTotal
				cut.open()
				if cut.join().counts.lateTotal != lates {
					t.Errorf("%d late rows became %d", lates, cut.join().counts.lateTotal)
				}
			})
			sameLines(t, fmt.Sprintf("seed %d, batches of %d with a restart after each", seed, size), cut.lines, whole.lines)
		}
	}
}

func TestStreamJoinForgetsOverManyRows(t *testing.T) {
	t.Parallel()
	j := newJoinRun(t, partsFlow, endless)
	var rows []streamRow
	for i := range 20_000 {
		rows = append(rows, streamRow{side: i / 100 % 2, n: i, time: int64(1000 + i/200), key: fmt.Sprint("serial-", i)})
	}
	most := 0
	j.all(rows, 100, func() {
		most = max(most, len(j.join().sides[0].times)+len(j.join().sides[1].times)+j.join().table.len())
		j.pipe.box.reset()
	})
	if most > 20_000 {
		t.Errorf("up to %d rows and keys were held", most)
	}
}

func TestStreamJoinBoundsWhatWaitsForAnIdleSide(t *testing.T) {
	t.Parallel()
	j := newJoinRun(t, partsFlow, endless)
	j.tune = func(s *streamJoin) { s.maxLive = 100 }
	j.open()
	var rows []streamRow
	for i := range 1000 {
		rows = append(rows, streamRow{side: leftSide, n: i, time: int64(1000 + i), key: "a"})
	}
	j.all(rows, 33, j.commit)
	s := j.join()
	if s.live > 100 || len(j.state) > 101 {
		t.Errorf("%d rows and %d entries are held", s.live, len(j.state))
	}
	if s.counts.failed+int64(s.live) != 1000 || len(j.lines) != 0 {
		t.Errorf("%d rows failed, %d are held, %d went out", s.counts.failed, s.live, len(j.lines))
	}
	if len(j.pipe.sample) == 0 || !strings.Contains(j.pipe.sample[0].Reason, "input checks does not go on") {
		t.Errorf("the sample is %+v", j.pipe.sample)
	}
	if err := j.push([]streamRow{{side: rightSide, n: 5, time: 1999, key: "a"}}); err != nil {
		t.Fatal(err)
	}
	j.commit()
	if len(j.lines) == 0 {
		t.Error("the newest rows find nothing")
	}
	b := newJoinRun(t, partsFlow, bounded)
	b.join().maxLive = 10
	if err := b.push(rows[:11]); err == nil || !strings.Contains(err.Error(), "step both") {
		t.Errorf("a run that ends gives %v", err)
	}
}

func TestStreamJoinDropsTheStateOfAnotherDefinition(t *testing.T) {
	t.Parallel()
	j := newJoinRun(t, partsFlow, endless)
	j.all([]streamRow{{side: leftSide, n: 1, time: 1000, key: "a"}}, 1, j.commit)
	for change, other := range map[string]bool{"late: 9s": false, "within: 11s": true, "type: inner": true} {
		text := partsFlow
		for _, old := range []string{"late: 3s", "within: 10s", "type: left"} {
			if strings.HasPrefix(old, strings.SplitAfter(change, ":")[0]) {
				text = strings.Replace(text, old, change, 1)
			}
		}
		n := newJoinRun(t, text, endless)
		if err := n.keeper().restore(j.state); errors.Is(err, errOtherDefinition) != other {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// FuzzRestoreStreamJoin gives the decoder entries whose checksum is right.
func FuzzRestoreStreamJoin(f *testing.F) {
	j := newJoinRun(f, partsFlow, endless)
	j.all(randomStreams(rand.New(rand.NewPCG(1, 2)), 30, 2), 5, j.commit) //nolint:gosec // a test's data
	for key, value := range j.state {
		f.Add([]byte(key), value[:len(value)-4])
	}
	meta := j.state[metaKey]
	f.Fuzz(func(t *testing.T, key, value []byte) {
		n := newJoinRun(t, partsFlow, endless)
		entries := map[string][]byte{metaKey: meta}
		entries[string(key)] = seal(value, key)
		if n.keeper().restore(entries) != nil {
			return
		}
		for i, at := range []int64{5, 1 << 40} {
			if err := n.push([]streamRow{{side: i, n: 1, time: at, key: "a"}}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestStreamJoinAllocatesNothing is not parallel, because it counts the allocations of the whole process.
func TestStreamJoinAllocatesNothing(t *testing.T) {
	step := streamJoinStepper(t)
	for range 400 {
		step()
	}
	if n := testing.AllocsPerRun(100, step); n > 40 {
		t.Errorf("%v allocations for %d rows", n, 2*column.TargetRows)
	}
}

func BenchmarkStreamJoin(b *testing.B) {
	step := streamJoinStepper(b)
	for range 50 {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*column.TargetRows), "ns/row")
}

// streamJoinStepper pushes a batch of each side, each row of which finds one partner.
func streamJoinStepper(tb testing.TB) func() {
	tb.Helper()
	j := newJoinRun(tb, partsFlow, endless)
	batches := [2]*column.Batch{}
	for side := range batches {
		b := column.NewBatch(j.prog.main.reads[side].need.Schema)
		for i := range column.TargetRows {
			b.Cols[0].AppendInt(int64(i) * 10_000)
			b.Cols[1].AppendStr(fmt.Appendf(nil, "serial-%d", i))
			b.Cols[2].AppendInt(int64(i))
			b.Len++
		}
		batches[side] = b
	}
	return func() {
		for side, b := range batches {
			if err := j.pipe.sources[side].push(b); err != nil {
				tb.Fatal(err)
			}
			for i := range b.Cols[0].Ints {
				b.Cols[0].Ints[i] += (41 * time.Second).Microseconds()
			}
		}
		j.pipe.box.reset()
	}
}
