package stage

import (
	"bytes"
	"fmt"
	"testing"
)

// sampleFrames is a journal with some frames, as bytes.
func sampleFrames() (id uint64, data []byte) {
	j := &journal{id: 77, size: 64 << 10}
	j.begin(5)
	data = append(encodeJournalHead(j.id, j.size), make([]byte, journalBlock-journalHeadBytes)...)
	base := uint64(9)
	for n := range uint64(3) {
		var batch []*request
		for f := range 2 {
			c := &Checkpoint{Flow: fmt.Sprint("flow", f), Number: n + 1, Late: n, Cursors: map[string][]byte{"r": {byte(n)}}, Insights: [][]byte{[]byte("insight"), {}}}
			c.Changes = []Change{{Step: "s", Key: "k", Value: []byte{}}, {Step: "s", Key: "gone"}}
			r := &request{flow: c.Flow, payloads: c.Insights, bytes: 39}
			(&Stage{}).journaled(r, c, mark{number: c.Number, sum: uint32(n)}, sortChanges(c.Changes))
			batch = append(batch, r)
		}
		data = append(data, j.encode(batch, base)...)
		j.number++
		base += 4
	}
	return j.id, data
}

func TestTheFramesOfAJournalAreRead(t *testing.T) {
	t.Parallel()
	id, data := sampleFrames()
	c := &journalContent{id: id, data: data}
	c.scan(5)
	if len(c.frames) != 3 || c.epoch != 5 {
		t.Fatalf("%d frames of epoch %d", len(c.frames), c.epoch)
	}
	for i, f := range c.frames {
		if !f.whole || f.number != uint64(i)+1 || f.base != 9+4*uint64(i) || len(f.requests) != 2 || f.requests[1].lastSeq != f.base+4 {
			t.Errorf("frame %d is %+v", i, f)
		}
	}
	for name, other := range map[string]*journalContent{"another file": {id: id + 1, data: data}, "an earlier epoch": {id: id, data: data}} {
		if other.scan(6); len(other.frames) != 0 {
			t.Errorf("%s has %d frames", name, len(other.frames))
		}
	}
	p := newPending(5)
	for _, f := range c.frames {
		for i := range f.requests {
			q := &f.requests[i]
			if err := p.add(q.flow, mark{}, mark{number: q.number}, q.late, q.state); err != nil {
				t.Fatal(err)
			}
		}
	}
	f := p.flows["flow1"]
	if f.now.number != 3 || !bytes.Equal(f.cursors["r"], []byte{2}) || len(f.entries) != 2 {
		t.Errorf("flow1 is %+v", f)
	}
}

// FuzzJournal lets anything be in the journal's place: it must be read without a panic, and only what was written may come out.
func FuzzJournal(f *testing.F) {
	id, data := sampleFrames()
	f.Add(data, id)
	f.Add(data[:journalBlock+100], id)
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, id uint64) {
		_, _, _ = parseJournalHead(data)
		c := &journalContent{id: id, data: data}
		c.scan(0)
		files := &files{marks: map[string]mark{}, pending: newPending(0)}
		if _, err := files.replay(c); err != nil {
			t.Log(err)
		}
		end := uint64(0)
		for _, r := range files.pending.runs {
			if r.first != end+1 && end != 0 || r.last < r.first {
				t.Errorf("the run %d to %d follows %d", r.first, r.last, end)
			}
			end = r.last
			r.each(r.first, func(uint64, []byte) bool { return true })
		}
		_ = eachInState(data, func(_, _ []byte) {}, func(_, _ []byte) {})
	})
}

// FuzzLandedMark lets anything be in the place of the marks: only one whose checksum is right counts, and of two the newer one.
func FuzzLandedMark(f *testing.F) {
	older, newer := landedMark{id: 7, epoch: 3, number: 9, end: 40960, last: 77}, landedMark{id: 7, epoch: 4, number: 2, end: 12288, last: 80}
	file := append(append([]byte(runningText), make([]byte, runningBytes-len(runningText))...), older.encode()...)
	copy(file[runningSlot:], newer.encode())
	copy(file[2*runningSlot:], older.encode())
	f.Add(file, 0)
	f.Add(file, runningSlot+20)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		_ = newestMark(parseLandedMarks(data), 0)
		harmed := bytes.Clone(file)
		if at < 0 || at >= len(harmed) {
			return
		}
		harmed[at] ^= 1
		want := newer
		if at >= runningSlot && at < runningSlot+landedMarkSize {
			want = older
		}
		if got := newestMark(parseLandedMarks(harmed[:runningBytes]), 7); got != want {
			t.Errorf("with a bit turned at %d the mark is %+v, want %+v", at, got, want)
		}
	})
}
