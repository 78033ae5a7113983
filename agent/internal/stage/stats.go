package stage

import "time"

// Stats is the state of the staging area. Counters only rise, but for Lost where a session corrects it.
type Stats struct {
	// Produced is the last sequence, Acknowledged the last that the control plane has stored.
	Produced, Acknowledged uint64
	// WaitingRecords and WaitingBytes are what is between the two and was not dropped by a rule.
	WaitingRecords, WaitingBytes uint64
	// WaitingFor is for how long this process has seen records wait without an acknowledgement.
	WaitingFor time.Duration
	// Lost counts the insights that were damaged or given up here, LostRemotely those that the control plane lost after it had
	// acknowledged them.
	Lost, LostRemotely uint64
	// LostUnsure is how many of Lost the control plane may have stored before they were damaged here. They are known once a
	// session has agreed with it, and those that it has then count no more.
	LostUnsure uint64
	// Late counts the rows that came too late, as the checkpoints said.
	Late uint64
	// Expired counts the insights that a rule has dropped, by GoneExpiredAge and GoneExpiredBytes; a rule that has dropped
	// nothing is not there.
	Expired map[string]uint64
	// RoomBytes is how many more bytes may wait before Commit does, by Settings.MaxBytes and by what is free on the disk, as
	// it was when a commit or the call before this one last had it looked at.
	RoomBytes uint64
	// Runway is how long RoomBytes last if what waits goes on growing as it did over the last minutes, at most a hundred
	// years; RunwayUnknown when nothing comes or it shrinks.
	Runway time.Duration
	// SetAside counts the files that were ever found damaged and renamed to .corrupt-<time>; Salvaged counts the records
	// that were taken out of them and are served as before.
	SetAside, Salvaged uint64
	// Damaged are the files among them that are still kept, the newest first. The result shares it and must not change it.
	Damaged []DamagedFile
	// Formers are the staging directories of other owners that lay beside this one when it was opened. The result shares
	// it and must not change it.
	Formers []Former
	// DroppedReports counts the run reports that were dropped for newer ones.
	DroppedReports uint64
	// Blocked is how many commits wait for room, and BlockedBy why.
	Blocked   int
	BlockedBy string
	// Unknown says that the stage waits for room before its files can be read, so that no number of insights is known and all of
	// them are 0.
	Unknown bool
	// Degraded says why nothing can be written at present, from the first commit that failed until one succeeds again; what
	// had landed before can still be read and sent. It is empty when all is well.
	Degraded string
}

// held is what the files have of what is not acknowledged: the bytes that wait, and how many places are lost, of which unsure ones
// may be stored.
type held struct {
	waiting, lost, unsure uint64
	// places are those that are lost, where the files have been closed.
	places spans
}

func (f *files) held() held {
	return held{
		waiting: f.waitingBytes(),
		lost:    f.lostBetween(f.acknowledged, f.produced),
		unsure:  f.unsure.within(f.acknowledged, f.produced).count(),
	}
}

// Stats gives the state of the staging area; it never waits for the disk.
func (s *Stage) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	m, st := s.carry, Stats{Formers: s.formers, Expired: map[string]uint64{}}
	held := s.held
	if f := s.files; f != nil {
		m, held = f.meta, f.held()
		s.growth.observe(time.Now(), held.waiting)
	}
	st.WaitingBytes, st.LostUnsure = held.waiting, held.unsure
	m.lost += held.lost
	st.Produced, st.Acknowledged = m.produced, m.acknowledged
	st.WaitingRecords = m.produced - m.acknowledged - m.gone.between(m.acknowledged, m.produced)
	st.Late = m.late
	for _, rule := range goneRules() {
		if n := *m.expired(rule); n > 0 {
			st.Expired[rule] = n
		}
	}
	if st.Unknown = s.unread; !st.Unknown {
		st.RoomBytes = s.room(st.WaitingBytes)
	}
	select {
	case s.look <- struct{}{}: // for the next call
	default:
	}
	st.Runway = s.growth.runway(st.RoomBytes)
	st.Lost, st.LostRemotely, st.SetAside, st.DroppedReports = m.lost, m.lostRemotely, m.setAside, m.droppedReports
	st.Salvaged, st.Damaged = m.salvaged, s.damaged
	if !s.waitingSince.IsZero() {
		st.WaitingFor = time.Since(s.waitingSince)
	}
	if st.Blocked = s.blocked; s.blocked > 0 {
		st.BlockedBy = s.blockedBy.Error()
	}
	if s.trouble.degraded != nil {
		st.Degraded = s.trouble.degraded.Error()
	}
	return st
}
