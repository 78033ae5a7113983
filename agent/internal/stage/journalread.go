package stage

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// journalFrame is a frame whose head is whole.
type journalFrame struct {
	// start and end are where it is in the file.
	start, end          int
	number, epoch, base uint64
	requests            []journaled
	// whole says that all of it is.
	whole bool
}

// journaled is one request of a frame.
type journaled struct {
	flow        string
	number      uint64
	sum, before uint32
	late, count uint64
	// lastSeq is the last sequence behind it.
	lastSeq              uint64
	stateBytes, recBytes uint64
	// state is nil when it is damaged; records are its frames, as they are.
	state, records []byte
}

// parseFrame reads the frame that begins at a place of the journal.
func parseFrame(id uint64, data []byte, start int) (journalFrame, bool) {
	b := data[start:]
	f := journalFrame{start: start}
	if len(b) < frameFixedBytes {
		return f, false
	}
	size, table, count := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
	if uint64(size) > uint64(len(b)) || uint64(table)+frameFixedBytes > uint64(size) || count > table {
		return f, false
	}
	f.number, f.epoch, f.base = binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[32:])
	seed := journalSeed(id, f.epoch)
	head := b[:frameFixedBytes+table]
	if headOfFrameSum(seed, head) != binary.LittleEndian.Uint32(b[12:]) {
		return f, false
	}
	f.end = start + int(size)
	var sums []uint32
	r := stateReader{rest: head[frameFixedBytes:]}
	for range count {
		q := journaled{flow: string(r.bytes(r.uvarint())), number: r.fixed(8)}
		q.sum, q.before = uint32(r.fixed(4)), uint32(r.fixed(4)) //nolint:gosec // 4 bytes
		q.late, q.count, q.recBytes, q.stateBytes = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
		r.bad = r.bad || q.count > q.recBytes/frameHeaderBytes
		sums = append(sums, uint32(r.fixed(4))) //nolint:gosec // 4 bytes
		f.requests = append(f.requests, q)
	}
	rest := stateReader{rest: b[len(head):size]}
	f.whole = !r.bad && len(r.rest) == 0
	seq := f.base
	for i := range f.requests {
		q := &f.requests[i]
		q.state, q.records = rest.bytes(q.stateBytes), rest.bytes(q.recBytes)
		if q.state == nil || crc32.Checksum(q.state, castagnoli()) != sums[i] {
			f.whole, q.state = false, nil
		}
		f.whole = f.whole && wholeRecords(seed, q.records, seq, q.count)
		seq += q.count
		q.lastSeq = seq
	}
	return f, !r.bad && !rest.bad && len(rest.rest) == 0
}

// wholeRecords says whether b is just so many records behind a sequence.
func wholeRecords(seed segmentID, b []byte, seq, count uint64) bool {
	for ; count > 0; count-- {
		seq++
		f, ok := frameAt(seed, b, seq, seq)
		if !ok {
			return false
		}
		b = b[f.end:]
	}
	return len(b) == 0
}

// journalContent is what a start finds in the journal.
type journalContent struct {
	id   uint64
	data []byte
	// epoch is the newest one that the file has frames of, 0 for none; frames are those, in their order.
	epoch  uint64
	frames []journalFrame
	// size is what the head says, and length how long the file is; unclean is what the start says.
	size    int64
	length  int64
	unclean bool
	// absent says that there is no file, stale that state.db does not know it.
	absent, stale bool
	// marks are what processes before have noted, and mark is the newest that is of this journal. unmarked says that RUNNING was
	// removed although the last stop was not clean.
	marks    []landedMark
	mark     landedMark
	unmarked bool
	// problem is what is wrong with the file as such.
	problem error
}

// scan finds the frames of the newest epoch that is not before the state's.
func (c *journalContent) scan(from uint64) {
	for at := journalBlock; at < len(c.data); at += journalBlock {
		f, ok := parseFrame(c.id, c.data, at)
		if !ok || f.epoch < max(from, c.epoch) {
			continue
		}
		if f.epoch > c.epoch {
			c.epoch, c.frames = f.epoch, nil
		}
		c.frames = append(c.frames, f)
	}
	// Damage may have moved some.
	slices.SortStableFunc(c.frames, func(a, b journalFrame) int { return cmp.Compare(a.number, b.number) })
	c.frames = slices.CompactFunc(c.frames, func(a, b journalFrame) bool { return a.number == b.number })
}

// readJournalFile reads a journal, as far as its head says, and says how long the file is. Of one without a head it reads what
// could be one.
func readJournalFile(path string) (data []byte, length int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("look at the journal: %w", err)
	}
	if data, err = readRaw(path, journalHeadBytes); err != nil {
		return nil, 0, err
	}
	most := int64(maxFileBytes)
	if _, size, headErr := parseJournalHead(data); headErr == nil {
		most = min(most, size)
	}
	data, err = readRaw(path, most)
	return data, info.Size(), err
}

// lastStaged is the last sequence that was acknowledged to a flow before an unclean stop, as the state, the journal and its mark
// say. It is ErrDamaged where they do not.
func (c *journalContent) lastStaged(dir string, m meta) (last uint64, err error) {
	if m.journal == 0 {
		return m.produced, nil
	}
	c.id = m.journal
	if mark := newestMark(c.marks, m.journal); mark.epoch >= m.epoch {
		c.mark = mark
	}
	data, _, err := readJournalFile(filepath.Join(dir, journalName))
	if err == nil {
		var id uint64
		if id, _, err = parseJournalHead(data); err == nil && id != m.journal {
			err = damaged("the journal is not that of the state")
		}
	}
	switch {
	case err == nil:
		c.data = data
		c.scan(m.epoch)
	case c.mark.number == 0:
		return 0, damaged("nothing says what was staged last: %v", err)
	}
	if c.ahead(m.epoch) {
		return 0, damaged("the state is older than the journal")
	}
	last = max(m.produced, c.mark.last)
	for i := range c.frames {
		if n := len(c.frames[i].requests); c.frames[i].whole && n > 0 {
			last = max(last, c.frames[i].requests[n-1].lastSeq)
		}
	}
	return last, nil
}

// replayed is what a replay has found wrong.
type replayed struct {
	// setBack are the flows of which commits are missing; unknown says that there may be others.
	setBack map[string]struct{}
	unknown bool
	// salvaged and lost count the records of damaged frames.
	salvaged, lost uint64
	problem        error
}

// flows are the names for a report.
func (r *replayed) flows() []string {
	names := slices.Sorted(maps.Keys(r.setBack))
	if r.unknown {
		names = append(names, unknownFlow)
	}
	return names
}

// claims says whether the mark is of what the journal has on top of the state, so that all it names must be there.
func (c *journalContent) claims(epoch uint64) bool {
	return c.mark.number > 0 && c.mark.id == c.id && c.mark.epoch >= max(c.epoch, epoch)
}

// ahead says whether the journal or its mark proves that state.db is an older one.
func (c *journalContent) ahead(epoch uint64) bool {
	return c != nil && (c.epoch > epoch || c.claims(epoch) && c.mark.epoch > epoch)
}

// aheadUpTo is the last sequence that is known to have been acknowledged where state.db is an older one, 0 otherwise.
func (c *journalContent) aheadUpTo(epoch uint64) uint64 {
	if !c.ahead(epoch) {
		return 0
	}
	return c.upTo(epoch)
}

// upTo is a last sequence that is known to have been acknowledged, whether the journal has it or not.
func (c *journalContent) upTo(epoch uint64) (last uint64) {
	if c == nil {
		return 0
	}
	if len(c.frames) > 0 {
		last = c.frames[0].base
	}
	if c.claims(epoch) {
		last = max(last, c.mark.last)
	}
	return last
}

// claimed says whether the mark proves that a frame was acknowledged.
func (c *journalContent) claimed(fr *journalFrame) bool {
	return c.claims(fr.epoch) && (c.mark.epoch > fr.epoch || c.mark.number >= fr.number)
}

// claimAll takes all that is there for acknowledged, where nothing says what was.
func (c *journalContent) claimAll(r *replayed) {
	r.unknown = true
	if r.problem == nil {
		r.problem = damaged("%s is missing although the last stop was not clean, and nothing else says up to where commits were acknowledged", runningName)
	}
	if len(c.frames) == 0 {
		return
	}
	last := &c.frames[len(c.frames)-1]
	c.mark = landedMark{id: c.id, epoch: last.epoch, number: last.number, end: uint64(last.end), last: last.base} //nolint:gosec // it is not negative
	if n := len(last.requests); n > 0 {
		c.mark.last = last.requests[n-1].lastSeq
	}
}

// begin looks at the journal as such, on top of a state of an epoch.
func (c *journalContent) begin(epoch uint64) replayed {
	r := replayed{setBack: map[string]struct{}{}, problem: c.problem}
	if c.epoch > epoch {
		r.unknown, r.problem = true, damaged("the journal goes on from a later state than state.db has")
	}
	if c.unmarked && !c.claims(epoch) {
		c.claimAll(&r)
	}
	return r
}

// replay takes in what the journal has and the state does not.
func (f *files) replay(c *journalContent) (r replayed, err error) {
	r = c.begin(f.epoch)
	end, place, number := journalBlock, journalBlock, uint64(0)
	for i := range c.frames {
		fr := &c.frames[i]
		last := i+1 == len(c.frames)
		if fr.number != number+1 {
			r.unknown, r.problem = true, damaged("the frames %d to %d of the journal", number+1, fr.number-1)
			place = unknownPlace
		}
		number = fr.number
		switch {
		case fr.base <= f.produced:
		case fr.whole:
			// What is between the last whole frame and this one may still have records.
			f.salvageRuns(c, c.data[end:max(end, fr.start)], fr.base, &r)
		case last:
			f.salvageRuns(c, c.data[end:], fr.base, &r)
		}
		if !fr.whole {
			if last && !c.claimed(fr) {
				// A frame is written once the one before it is on the disk: the last may be half there, and nobody was told of it.
				break
			}
			r.problem = damaged("frame %d of the journal", number)
		}
		for j := range fr.requests {
			if err := f.replayOne(&fr.requests[j], &r); err != nil {
				return r, err
			}
		}
		if !fr.whole {
			place = unknownPlace
			continue
		}
		f.replayRecords(fr)
		end = min(fr.endAt(place), len(c.data))
		place = (end + journalBlock - 1) / journalBlock * journalBlock
	}
	f.replayClaimed(c, end, number, &r)
	if r.problem == nil && r.lost+uint64(len(r.setBack)) > 0 {
		r.problem = damaged("the journal does not follow the state")
	}
	return r, nil
}

// unknownPlace is where a frame begins of which the one before is not whole.
const unknownPlace = -1

// endAt is where a frame ends that should begin at a place. One that damage has moved lies on top of another, of which more is
// to be looked for in front of it.
func (fr *journalFrame) endAt(place int) int {
	if place == unknownPlace {
		return fr.end
	}
	return place + fr.end - fr.start
}

// replayClaimed takes in what is left of the frames that the mark names and the journal does not have whole: what follows the
// end of the last whole one, and the frame with the number, which is the last whose head is.
func (f *files) replayClaimed(c *journalContent, end int, number uint64, r *replayed) {
	if !c.claims(f.epoch) || f.uncertain && len(f.segments) == 0 && c.mark.epoch > c.epoch {
		// Without a state and an outbox nothing says whether all of it was sent long ago.
		return
	}
	if later := c.mark.epoch > c.epoch; later || c.mark.number > number {
		if later {
			number = 0
		}
		r.unknown = true
		if r.problem == nil {
			r.problem = damaged("the frames %d to %d of the journal, which were acknowledged", number+1, c.mark.number)
		}
	}
	if c.mark.last <= f.produced {
		return
	}
	if c.mark.epoch > c.epoch {
		c.epoch, end = c.mark.epoch, journalBlock
	}
	high := int(min(c.mark.end, uint64(len(c.data)))) //nolint:gosec // it is at most the length
	f.salvageRuns(c, c.data[min(end, high):high], c.mark.last, r)
}

// replayOne takes in the state of one commit, if it is the flow's next.
func (f *files) replayOne(q *journaled, r *replayed) error {
	m := f.marks[q.flow]
	switch {
	case q.number <= m.number:
		return nil
	case q.number != m.number+1 || q.before != m.sum || q.state == nil:
		r.setBack[q.flow] = struct{}{}
		return nil
	}
	now := mark{number: q.number, sum: q.sum, lastSeq: q.lastSeq, content: m.content}
	f.late += q.late
	f.marks[q.flow] = now
	return f.pending.add(q.flow, m, now, q.late, q.state)
}

// replayRecords takes in the records of a whole frame that are not in the segments.
func (f *files) replayRecords(fr *journalFrame) {
	for i := range fr.requests {
		q := &fr.requests[i]
		if q.lastSeq <= f.produced {
			continue
		}
		run := pendingRun{first: q.lastSeq - q.count + 1, last: q.lastSeq, data: slices.Clone(q.records)}
		f.pending.addRun(run.after(f.produced))
		f.produced = q.lastSeq
	}
}

// salvageRuns looks for the records up to a sequence in the bytes of damaged frames.
func (f *files) salvageRuns(c *journalContent, data []byte, upTo uint64, r *replayed) {
	seed := journalSeed(c.id, c.epoch)
	for _, found := range findFrames(segmentName{id: seed, first: f.produced + 1}, data, upTo) {
		f.loseRun(found.seq-1, r)
		f.pending.addRun(pendingRun{first: found.seq, last: found.seq, data: slices.Clone(data[found.start-frameHeaderBytes : found.end])})
		f.produced = found.seq
		r.salvaged++
	}
	f.loseRun(upTo, r)
}

// loseRun notes that the records up to a sequence are lost.
func (f *files) loseRun(upTo uint64, r *replayed) {
	if upTo <= f.produced {
		return
	}
	f.pending.addRun(pendingRun{first: f.produced + 1, last: upTo})
	f.foundLost(f.produced+1, upTo)
	r.lost += upTo - f.produced
	f.produced = upTo
}
