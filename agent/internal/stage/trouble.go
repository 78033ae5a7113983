package stage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/outfeed/outfeed/internal/durable"
)

// trouble is what the writer knows of a disk that fails. Only the writer touches it, but for degraded, which needs mu.
type trouble struct {
	// degraded is why nothing can be written: from the first failure until a commit succeeds again.
	degraded error
	// tries counts the failures since a flow's commit last succeeded, and next is when the next try is.
	tries int
	next  time.Time
	// said is when a failure was last told in the log, as an error, and untold how many failures there were of which the end
	// is to be told; full says that one of them was for want of room.
	said   time.Time
	untold int
	full   bool
	// timer lets the writer try by itself. It runs while degraded.
	timer *time.Timer
	// suspects are the pages of the size's two metas, by file, that a commit has written and that may not be on the disk.
	suspects map[string]int
}

const (
	// firstRetry is the wait after the second failure, and doubles up to lastRetry. The first failure is tried again at once.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
	// saidEvery is how far apart two errors in the log are at least, for a disk that fails now and then.
	saidEvery = time.Minute
)

func newTrouble() trouble {
	return trouble{timer: newStoppedTimer(), suspects: map[string]int{}}
}

// wait is how long to wait after so many failures.
func (t *trouble) wait() time.Duration {
	if t.tries < 2 {
		return 0
	}
	return min(firstRetry<<min(t.tries-2, 20), lastRetry)
}

// suspect notes that the commit under way writes to a file.
func (t *trouble) suspect(db *database) { t.suspects[db.path] = int(db.heads.pageSize) }

// failed notes a failure and says whether the log should tell it.
func (t *trouble) failed() (tell bool) {
	now := time.Now()
	t.tries++
	t.next = now.Add(t.wait())
	t.timer.Reset(t.wait())
	if t.tries > 1 || !t.said.IsZero() && now.Sub(t.said) < saidEvery {
		return false
	}
	t.said = now
	return true
}

// errNotRead says that what was to be committed could not be read: the disk of the stage is not to blame.
var errNotRead = errors.New("what is to be committed cannot be read")

// fail notes that the outcome of a commit is unknown. One without requests only moves what has landed in the journal, so that
// the outcome of every request is known all the same.
func (s *Stage) fail(batch []*request, err error) error {
	if errors.Is(err, errNotRead) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.setUnsettled(err)
		s.known, s.carry = false, s.files.meta
		s.trouble.next = time.Now()
		s.trouble.timer.Reset(0)
		return err
	}
	err = fmt.Errorf("the staging directory %s could not be written; check the disk: %w", s.settings.Dir, err)
	if _, ok := errors.AsType[*damageError](err); ok {
		err = repairError{err}
	}
	s.mu.Lock()
	s.setUnsettled(err)
	s.trouble.degraded, s.known = err, len(batch) == 0
	s.harmed.suspect(err, s.files)
	s.carry = s.files.meta
	s.renumbering = len(batch) == 1 && batch[0].renumberFrom != 0
	s.mu.Unlock()
	s.noteFailure(err)
	return err
}

// noteFailure plans the next try. Only the first failure of a series is an error of its own in the log.
func (s *Stage) noteFailure(err error) {
	if isNoSpace(err) {
		s.spare.use(s.settings.Logger)
		s.trouble.full = true
	}
	if s.trouble.failed() {
		s.settings.Logger.Error("a commit to the staging area failed; nothing new is staged until the disk can be written again", slog.Any("error", err))
		return
	}
	s.settings.Logger.Debug("the staging area still cannot be written", slog.Any("error", err), slog.Duration("next_try", s.trouble.wait()))
}

// healed notes that a commit has succeeded. One without requests shows that something can be written, but not that all can.
func (s *Stage) healed(batch []*request) {
	clear(s.trouble.suspects)
	tries := s.trouble.tries
	if len(batch) > 0 {
		s.trouble.tries = 0
	}
	if s.isDegraded() == nil {
		return
	}
	s.trouble.timer.Stop()
	s.mu.Lock()
	s.trouble.degraded = nil
	s.wakeSpace()
	s.mu.Unlock()
	// It is told where the failure was.
	if tries > 1 || time.Since(s.trouble.said) < saidEvery {
		s.trouble.untold = max(tries, 1)
	}
	s.tellHealed()
}

// tellHealed tells that a series of failures is over, once there is room for commits too: on a full disk what was staged can
// be stored in the room that was kept for that, and nothing else.
func (s *Stage) tellHealed() {
	if s.trouble.untold == 0 || s.isDegraded() != nil {
		return
	}
	need := s.settings.MinFreeBytes
	if s.trouble.full {
		need += spareBytes // what was kept for this is used up by now, and counts as free
	}
	if free, err := s.disk.free(s.settings); err == nil && free >= need {
		s.settings.Logger.Info("the staging area can be written again", slog.Int("failures", s.trouble.untold))
		s.trouble.untold, s.trouble.full = 0, false
	}
}

func (s *Stage) isUnsettled() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unsettled
}

// isUnknown says why nobody can tell what has landed; nil when that is known.
func (s *Stage) isUnknown() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.known && s.files != nil {
		return nil
	}
	return s.unsettled
}

func (s *Stage) isDegraded() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.trouble.degraded
}

// mend finds out what a failed commit left behind and tries whether the disk can be written again, once it is time to.
// It gives why not.
func (s *Stage) mend() error {
	err := s.isDegraded()
	if err == nil {
		err = s.isUnsettled()
	}
	if err == nil {
		return nil
	}
	if time.Until(s.trouble.next) > 0 {
		return err
	}
	if err := s.settle(); err != nil {
		s.mu.Lock()
		s.trouble.degraded = err
		s.mu.Unlock()
		s.noteFailure(err)
		return err
	}
	// It stores what was acknowledged meanwhile, which may free segments.
	return s.commit(nil)
}

// settle finds out what a failed commit left behind: it reads everything again from the files, as a start does. bbolt
// cannot be trusted to go on in memory after an error, and the operating system may have stored any part of it.
func (s *Stage) settle() error {
	if s.isUnsettled() == nil {
		return nil
	}
	if s.waits.on {
		if err := s.beginAgain(); err != nil {
			return err
		}
		return s.isUnsettled() // what the start has committed can have failed in its turn
	}
	if s.waits.repair && !s.waits.worthATry(s.settings.Dir) {
		return s.isUnsettled()
	}
	if err := s.roomToHeal(); isNoSpace(err) {
		return s.awaitRoom(err)
	}
	if err := s.trouble.rewrite(s.settings.Dir); err != nil {
		return fmt.Errorf("the staging directory %s still cannot be written: %w", s.settings.Dir, err)
	}
	err := s.readAgain()
	if isNoSpace(err) {
		return s.awaitRoom(err)
	}
	s.waits.repair = false
	return err
}

// readAgain is settle without its waiting.
func (s *Stage) readAgain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files != nil {
		old := s.files
		s.harmed.fell(old)
		s.carry.acknowledged, s.carry.unsentFrom, s.carry.unsure = old.acknowledged, old.unsentFrom, old.unsure
		s.carry.lost, s.carry.apart, s.carry.lostRemotely, s.carry.remoteStored = old.lost, old.apart, old.lostRemotely, old.remoteStored
		s.files, s.held = nil, old.held()
		s.held.places = old.lostPlaces()
		if err := old.close(); err != nil {
			s.settings.Logger.Warn("a file could not be closed after a failed commit", slog.Any("error", err))
		}
	}
	f, err := s.reopen()
	if err != nil {
		s.setUnsettled(repairError{fmt.Errorf("the staging directory %s cannot be read again after an error: %w", s.settings.Dir, err)})
		s.known = false
		return s.unsettled
	}
	stored := f.meta
	f.acknowledged = min(max(stored.acknowledged, s.carry.acknowledged), f.produced)
	if s.lowering && f.produced < s.carry.acknowledged {
		// It has landed, and the acknowledgement in memory is of the numbers before.
		f.acknowledged = stored.acknowledged
	}
	s.lowering = false
	if f.lost, f.apart = s.carry.lost, s.carry.apart; s.renumbering {
		// It may have landed.
		f.lost, f.apart = max(stored.lost, f.lost), max(stored.apart, f.apart)
	}
	s.renumbering = false
	f.lostRemotely = max(stored.lostRemotely, s.carry.lostRemotely)
	f.remoteStored = s.carry.remoteStored
	f.gone = f.gone.behind(f.acknowledged)
	f.unsentFrom = s.carry.unsentFrom
	f.countAcknowledged()
	s.files = f
	s.setUnsettled(nil)
	s.doubt(f, s.carry.unsure)
	f.recallVoids()
	s.noteWaiting()
	s.settings.Logger.Debug("the staging area was read again after a failed commit", slog.Uint64("produced", f.produced))
	return nil
}

// rewrite makes durable what will be read as the last commit. After a failed sync Linux takes the pages for written, so
// that the next sync succeeds without them: what the memory of the system shows and the disk does not have would count,
// and be acknowledged, and be gone after a power cut. bbolt writes the two meta pages only once all others are synced, and
// nothing refers to pages of a transaction without them, so they alone are written once more.
func (t *trouble) rewrite(dir string) error {
	for _, path := range slices.Sorted(maps.Keys(t.suspects)) {
		if err := rewriteHead(path, 2*t.suspects[path]); err != nil {
			return err
		}
	}
	return durable.SyncDir(dir)
}

// rewriteHead writes the first bytes of a file again and syncs it.
func rewriteHead(path string, size int) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the directory is the agent's own
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write %s again: %w", filepath.Base(path), err)
	}
	head := make([]byte, size)
	if _, err = io.ReadFull(io.NewSectionReader(f, 0, int64(size)), head); err == nil {
		_, err = f.WriteAt(head, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it was cut short, which opening it tells
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s again: %w", filepath.Base(path), err)
	}
	return nil
}
