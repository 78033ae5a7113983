package stage

import (
	"log/slog"
	"slices"
)

// Of an insight that is damaged here the control plane may have stored what was sent before: the acknowledgement on the disk is
// older than the last one. Such are unsure, on the disk too, until a session says what is stored. Those that are stored are not
// lost; the others are, and are told by a receipt from then on.

// foundLost notes that records were found to be lost just now.
func (f *files) foundLost(first, last uint64) {
	f.fresh = f.fresh.with(span{first: max(first, f.floor()+1), last: last})
}

// doubt adds what was found to be lost to what is unsure, as far as the control plane can have it. mu is held or not yet shared.
func (s *Stage) doubt(f *files, known spans) {
	upTo := s.reach()
	if s.agreed {
		upTo = min(upTo, s.sent)
		// The session was told that these are lost: a file that is salvaged again lacks them again.
		f.fresh = f.fresh.without(s.held.places)
	} else if f.uncertain {
		// What an earlier start knew to be unsure, and what was acknowledged, went with the state.
		known = f.lostPlaces()
	}
	f.unsure, f.fresh = known.all(f.fresh).within(f.acknowledged, upTo), nil
}

// lostPlaces are those that lostBetween counts of all that is not acknowledged, but for what is too large.
func (f *files) lostPlaces() (lost spans) {
	var there []span
	for _, seg := range f.segments {
		next := seg.first
		for _, gap := range seg.lost {
			there = append(there, span{first: next, last: gap.first - 1})
			next = gap.last + 1
		}
		there = append(there, span{first: next, last: seg.last})
	}
	for _, run := range f.pending.whole() {
		there = append(there, span{first: run.first, last: run.last})
	}
	for _, r := range f.gone {
		there = append(there, span{first: r.first, last: r.last})
	}
	next := f.acknowledged + 1
	for _, s := range joined(there) {
		if s.first > next {
			lost = append(lost, span{first: next, last: min(s.first-1, f.produced)})
		}
		next = max(next, s.last+1)
	}
	if next <= f.produced {
		lost = append(lost, span{first: next, last: f.produced})
	}
	return lost.within(f.acknowledged, f.produced)
}

// unsureMoved says whether there is something unsure that is not on the disk, or no longer.
func (s *Stage) unsureMoved() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return !slices.Equal(s.files.unsure, s.files.stored.unsure)
}

// settleDoubts ends what was unsure before the control plane has said up to where it has everything. What is up to there is
// acknowledged by now.
func (s *Stage) settleDoubts(stored uint64, before spans) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = stored
	if len(before) == 0 {
		return
	}
	if s.files != nil {
		s.files.unsure = nil
	}
	s.settings.Logger.Info("the control plane has said what it has of the insights that were damaged here",
		slog.Uint64("accounted_for", before.within(0, stored).count()), slog.Uint64("lost", before.within(stored, ^uint64(0)).count()))
}

// settleLost counts as lost, of what the control plane has accounted for, what it has receipts for. What is counted here beside
// it can be wrong in both ways: of what was damaged between two acknowledgements that are on the disk, and where a state.db is
// damaged or missing, nothing here says whether it was stored before, or told by a receipt.
func (s *Stage) settleLost(stored, lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files
	if f == nil {
		return
	}
	before := f.lost
	if stored < f.acknowledged {
		// Its database went back, and some of the receipts with it.
		f.apart = before - min(before, lost)
	}
	f.lost = f.apart + lost
	if f.lost != before {
		s.settings.Logger.Info("the control plane has said how many insights were lost here", slog.Uint64("lost", f.lost), slog.Uint64("counted", before))
	}
}

// doubts are what is unsure now.
func (s *Stage) doubts() spans {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil {
		return nil
	}
	return s.files.unsure
}

// sentDoubts are those of them that were given to a session before they were found to be lost, so that what it acknowledges of
// them is stored. Without a session nobody knows.
func (s *Stage) sentDoubts() spans {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil || !s.agreed {
		return nil
	}
	return s.files.unsure
}

// voidsWith are the waiting places of insights that can never be sent, and those of a batch.
func (s *Stage) voidsWith(batch []*request, acknowledged uint64) spans {
	var seqs []uint64
	s.mu.RLock()
	for seq, reason := range s.files.damaged {
		if reason == GoneUnsendable && seq > acknowledged {
			seqs = append(seqs, seq)
		}
	}
	s.mu.RUnlock()
	for _, r := range batch {
		seqs = append(seqs, r.voidSeqs()...)
	}
	return spansOf(seqs)
}

// voidSeqs are the places in the sequence of the insights of a request that were too large, once its lastSeq is set.
func (r *request) voidSeqs() []uint64 {
	seqs := make([]uint64, len(r.voids))
	for i, place := range r.voids {
		seqs[i] = r.lastSeq - r.count + place
	}
	return seqs
}

// noteVoids remembers them. mu is held.
func (f *files) noteVoids(seqs []uint64) {
	for _, seq := range seqs {
		if seq > f.acknowledged {
			f.damaged[seq] = GoneUnsendable
		}
	}
}

// recallVoids remembers those that state.db knows, and those that only the journal has. mu is held or not yet shared.
func (f *files) recallVoids() {
	for _, s := range f.voids.within(f.acknowledged, f.produced) {
		for seq := s.first; seq <= s.last; seq++ {
			f.damaged[seq] = GoneUnsendable
		}
	}
	for _, run := range f.pending.runs {
		run.each(max(run.first, f.acknowledged+1), func(seq uint64, payload []byte) bool {
			if voidBytes(payload) > 0 {
				f.damaged[seq] = GoneUnsendable
			}
			return true
		})
	}
}
