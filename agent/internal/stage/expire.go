package stage

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// FullRule says what happens to a commit when the outbox holds Settings.MaxBytes.
type FullRule int

const (
	// WaitWhenFull lets the commit wait until the control plane has taken some. Nothing is dropped.
	WaitWhenFull FullRule = iota
	// DropOldest drops what has waited longest to make room, and counts it in Stats.Expired. It makes none on a disk that
	// others have filled: there a commit waits all the same.
	DropOldest
)

// agesKey has the marks below, in the bucket of the numbers: per mark start u64 (milliseconds of running) and last u64.
const (
	agesKey      = "ages"
	agesBytes    = 16
	marksPerAge  = 64
	minAgeMark   = time.Second
	maxAgeMark   = time.Minute
	droppedShare = 64
)

// ageMark says that the records up to last, and behind the mark before, were staged in the ageStep that began at start.
// Time is how long the agent has run with this directory, so that no clock that is set lets anything expire.
type ageMark struct {
	start time.Duration
	last  uint64
}

// ages are marks in order. They are never changed in place.
type ages []ageMark

// with notes that the records up to last are there at a time.
func (a ages) with(now, step time.Duration, last uint64) ages {
	out := slices.Clone(a)
	if n := len(out); n > 0 && now < out[n-1].start+step {
		out[n-1].last = last
		return out
	}
	return append(out, ageMark{start: now, last: last})
}

// behind leaves away the marks that are not behind the sequence.
func (a ages) behind(seq uint64) ages {
	for len(a) > 0 && a[0].last <= seq {
		a = a[1:]
	}
	return a
}

// older is the last sequence of which everything is older than age.
func (a ages) older(now, step, age time.Duration) (last uint64) {
	for _, m := range a {
		if now-m.start-step < age {
			break
		}
		last = m.last
	}
	return last
}

func (a ages) encode() []byte {
	out := make([]byte, 0, len(a)*agesBytes)
	for _, m := range a {
		out = binary.BigEndian.AppendUint64(out, uint64(m.start.Milliseconds())) //nolint:gosec // it began at 0
		out = binary.BigEndian.AppendUint64(out, m.last)
	}
	return out
}

func parseAges(value []byte) (a ages, err error) {
	if len(value)%agesBytes != 0 {
		return nil, fmt.Errorf("%w: the list of ages has %d bytes", ErrDamaged, len(value))
	}
	for ; len(value) > 0; value = value[agesBytes:] {
		m := ageMark{start: millis(binary.BigEndian.Uint64(value)), last: binary.BigEndian.Uint64(value[8:])}
		if n := len(a); n > 0 && (m.start < a[n-1].start || m.last < a[n-1].last) {
			return nil, fmt.Errorf("%w: the list of ages is not in order", ErrDamaged)
		}
		a = append(a, m)
	}
	return a, nil
}

// millis is a stored number of milliseconds. What no agent can have run for is taken for the longest that it can.
func millis(n uint64) time.Duration {
	return time.Duration(min(n, uint64(longestRunway.Milliseconds()))) * time.Millisecond //nolint:gosec // bounded
}

// ageStep is how exact ages are.
func (s *Settings) ageStep() time.Duration {
	return min(max(s.MaxAge/marksPerAge, minAgeMark), maxAgeMark)
}

// ran is for how long the agent has run with this directory, over restarts. It uses the monotonic clock alone.
func (s *Stage) ran() time.Duration { return s.ranBefore + time.Since(s.opened) }

// noteAge keeps the time that the agent has run, and the marks of what a commit adds.
func (s *Stage) noteAge(next *meta) {
	if s.settings.MaxAge == 0 {
		next.ages = nil
		return
	}
	now := s.ran()
	next.ranMillis = uint64(now.Milliseconds()) //nolint:gosec // it began at 0
	// What was staged before there was a limit begins to age now.
	if n := len(next.ages); next.produced > next.floor() && (n == 0 || next.ages[n-1].last < next.produced) {
		next.ages = next.ages.with(now, s.settings.ageStep(), next.produced)
	}
	next.ages = next.ages.behind(next.floor())
}

// expiry is a request that drops the oldest of what waits.
func (s *Stage) expiry(reason string, choose func(*files) (last uint64, err error)) *request {
	var runs gone
	return &request{
		folded: true,
		admit: func(f *files) error {
			last, err := choose(f)
			if err != nil {
				return err
			}
			s.findVoids(f, last)
			if runs = s.waitingRuns(last, reason); len(runs) == 0 {
				return errDone
			}
			return nil
		},
		apply: func(_ *bolt.Tx, next *meta) error {
			for _, r := range runs.behind(next.floor()) {
				next.gone = next.gone.with(r)
				if r.reason == reason {
					*next.expired(reason) += r.count()
				}
			}
			return nil
		},
		done: make(chan error, 1),
	}
}

// findVoids finds the places up to last of insights that were too large, which stay what they are when what is around them
// is dropped. An earlier process may have staged them.
func (s *Stage) findVoids(f *files, last uint64) {
	found := map[uint64]string{}
	for _, seg := range f.segments {
		if seg.empty() || seg.first > last || seg.last <= f.floor() {
			continue
		}
		// What cannot be read is told by those who need it.
		_ = seg.read(max(seg.first, f.floor()+1), func(seq uint64, payload []byte, ok bool) bool {
			if ok && seq <= min(last, seg.last) && voidBytes(payload) > 0 {
				found[seq] = GoneUnsendable
			}
			return seq < last
		})
	}
	s.noteDamaged(found)
}

// waitingRuns are the records up to last that wait and are not known to be damaged, and between them those that can never be
// sent.
func (s *Stage) waitingRuns(last uint64, reason string) (runs gone) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	after := s.files.floor()
	for _, seg := range s.files.segments {
		low, high := max(seg.first, after+1), min(seg.last, last)
		for _, hole := range s.files.holes(seg) {
			if hole.last < low || hole.first > high {
				continue
			}
			if hole.first > low {
				runs = runs.add(goneRange{first: low, last: hole.first - 1, reason: reason})
			}
			if hole.reason == GoneUnsendable {
				runs = runs.add(hole)
			}
			low = hole.last + 1
		}
		if low <= high {
			runs = runs.add(goneRange{first: low, last: high, reason: reason})
		}
	}
	return runs
}

// holes are the records of a segment that are known to be damaged, missing, or never to be sent, in order.
func (f *files) holes(seg *segment) []goneRange {
	var holes []goneRange
	for _, gap := range seg.lost {
		holes = append(holes, goneRange{first: gap.first, last: gap.last, reason: GoneDamaged})
	}
	for seq, reason := range f.damaged {
		if seq >= seg.first && seq <= seg.last && !seg.isLost(seq) {
			holes = append(holes, goneRange{first: seq, last: seq, reason: reason})
		}
	}
	slices.SortFunc(holes, func(a, b goneRange) int { return cmp.Compare(a.first, b.first) })
	return holes
}

// oldestBytes chooses the oldest chunks that together have at least so many bytes.
func oldestBytes(f *files, floor, size uint64) (last uint64, err error) {
	passed := uint64(0)
	for _, seg := range f.segments {
		before, err := seg.bytesUpTo(floor)
		if err != nil {
			return 0, err
		}
		if passed+seg.bytes-before < size {
			passed += seg.bytes - before
			last = seg.last
			continue
		}
		return seg.chunkEnd(floor, before+size-passed)
	}
	return last, nil
}

// chunkEnd is the last sequence of the chunk with which the records of the segment take at least so many bytes, and which
// does not end before the sequence after.
func (s *segment) chunkEnd(after, size uint64) (last uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(recordsBucket)).Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			h, err := parseChunk(s.id, key, value)
			if errors.Is(err, ErrDamaged) {
				continue
			}
			if last = min(h.last(), s.last); last > after && h.before+uint64(len(value[chunkHeaderBytes:])) >= size {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s.path, err)
	}
	return last, nil
}

// dropOldest makes room for a commit by the rule DropOldest, and a little more, so that not every commit has to.
func (s *Stage) dropOldest(ctx context.Context, size uint64) error {
	r := s.expiry(GoneExpiredBytes, func(f *files) (uint64, error) {
		s.mu.RLock()
		held, floor := f.waitingBytes()+s.reserved, f.floor()
		// Damaged records are told as such, and dropping them would make no room that counts.
		for damaged := true; damaged; floor++ {
			_, damaged = f.damaged[floor+1]
			damaged = damaged || slices.ContainsFunc(f.segments, func(seg *segment) bool { return seg.isLost(floor + 1) })
		}
		s.mu.RUnlock()
		if held+size <= s.settings.MaxBytes {
			return 0, nil
		}
		return oldestBytes(f, floor-1, held+size-s.settings.MaxBytes+s.settings.MaxBytes/droppedShare)
	})
	return s.submit(ctx, r)
}

// expireByAge is for the writer: it drops what is older than Settings.MaxAge, and keeps how old the rest is.
func (s *Stage) expireByAge() {
	if s.isDegraded() != nil || s.isUnsettled() != nil {
		return
	}
	s.mu.RLock()
	now := s.files.meta
	s.mu.RUnlock()
	last := now.ages.older(s.ran(), s.settings.ageStep(), s.settings.MaxAge)
	if last <= now.floor() {
		if now.produced > now.floor() && s.ran()-millis(s.ranStored) >= maxAgeMark {
			_ = s.commit(nil) // it has noted why not, and is tried again
		}
		return
	}
	r := s.expiry(GoneExpiredAge, func(*files) (uint64, error) { return last, nil })
	s.process([]*request{r})
	if err := <-r.done; err != nil {
		s.settings.Logger.Debug("what is too old could not be dropped", slog.Any("error", err))
	}
}
