package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/durable"
)

// Settings is what Open needs.
type Settings struct {
	// Dir is the directory; it is made when it is not there. Nothing else may write to it.
	Dir string
	// Owner is who stages here, such as the agent's id, at most 200 bytes in one line. The directory of another owner is
	// set aside as a whole (see Stats.Formers) and a fresh one begins. Empty neither looks at the owner nor records one.
	Owner string
	// Others says what becomes of the directory of another owner.
	Others OwnerRule
	// Logger may be nil, for none.
	Logger *slog.Logger
	// MaxBytes is how much the outbox may hold, in bytes of waiting records; 0 means 1 GiB. WhenFull says what a full one
	// does: by default Commit waits, and nothing is dropped.
	MaxBytes uint64
	WhenFull FullRule
	// MaxAge is how long a record may wait, 0 for ever. Only the time that the agent runs with this directory counts, by the
	// monotonic clock. What is older is dropped, and counted in Stats.Expired.
	MaxAge time.Duration
	// MinFreeBytes is how much of the disk stays free; below it Commit waits. 0 means 64 MiB.
	MinFreeBytes uint64
	// LockWait is how long to wait for a directory that another process holds; 0 means 2 s.
	LockWait time.Duration
	// Verify checks one file after an unclean stop. It should run stage.Verify in a child process, because reading a
	// damaged file can end the process. It gives nil for a whole file and an error that wraps ErrDamaged for a damaged
	// one (a child that died counts as that); any other error means that it could not be found out, and ends Open. Nil
	// verifies inside this process.
	Verify func(ctx context.Context, path string) error
	// Salvage takes what is whole out of a damaged file, as the function Salvage does; it should run that in a child process
	// too. Nil salvages inside this process.
	Salvage func(ctx context.Context, path, target string, end uint64) error
	// KnownFlows are the keys of the flows that are known from elsewhere to have staged here. They are what is told to start
	// anew when the state is missing, so that it cannot tell. Nil is fine.
	KnownFlows []string
	// segmentBytes bounds a segment's file; tests make it small. journalBytes is the size of the journal, 0 for the usual one and
	// negative for none.
	segmentBytes, journalBytes int
}

func (s *Settings) setDefaults() {
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.MaxBytes == 0 {
		s.MaxBytes = 1 << 30
	}
	if s.MinFreeBytes == 0 {
		s.MinFreeBytes = 64 << 20
	}
	if s.LockWait == 0 {
		s.LockWait = 2 * time.Second
	}
	if s.Verify == nil {
		s.Verify = func(_ context.Context, path string) error { return Verify(path) }
	}
	if s.Salvage == nil {
		s.Salvage = func(_ context.Context, path, target string, end uint64) error { return Salvage(path, target, end) }
	}
	if s.segmentBytes == 0 {
		s.segmentBytes = maxSegmentBytes
	}
}

// Stage is an open staging directory.
type Stage struct {
	settings Settings
	lock     *directoryLock
	// formers is what Open found set aside, and damaged are the damaged files that are kept; mu guards both.
	formers []Former
	damaged []DamagedFile
	// fault is called at named points of a commit, so that tests can make it fail there. It is nil outside of tests.
	fault atomic.Pointer[func(point string) error]

	requests  chan *request
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	writer    sync.WaitGroup
	changed   chan struct{}
	// sealed is the writer's.
	sealed sealer
	disk   diskSpace
	// look asks the writer to look at the disk.
	look   chan struct{}
	growth growth
	spare  spare
	// trouble is the writer's, but for degraded, which mu guards.
	trouble trouble
	waits   waiting
	// opened is when Open was called, and ranBefore for how long the agent had run with the directory by then. ranStored is
	// the writer's: what of both together is on the disk.
	opened    time.Time
	ranBefore time.Duration
	ranStored uint64
	// The journal is the writer's, and so is what follows: when making one was last tried, when what it has is to be taken in
	// by state.db, the marks of the flows of which the transaction under way does that, what a start has found, and the file
	// with the mark of what was acknowledged.
	journal       *journal
	journalLooked time.Time
	folding       *time.Timer
	foldedMarks   map[string]mark
	// states has *commitBuffer.
	states  sync.Pool
	found   *journalContent
	running runningFile

	// mu guards what follows. The writer alone changes produced and the files, and may therefore read them without it.
	mu sync.RWMutex
	// files is nil while they could not be opened again after an error; unsettled says that a commit has failed and that
	// the files have not been read again since. Until then what had landed before can still be read from them.
	files     *files
	unsettled error
	// settling is closed when it is nil again, and harmed is what is damaged and not salvaged yet.
	settling chan struct{}
	harmed   harmed
	// unread says that the files have not been open yet, so that no numbers are known.
	unread bool
	// known says that it is known all the same what of every request has landed.
	known bool
	// pending is what the journal alone has. It stays when the files are read again.
	pending *pending
	// heals counts the times that the files were read again because of damage.
	heals int
	// carry is the numbers at the time of the failure; those in memory can be ahead of those on the disk. held is what the
	// files had when they were closed.
	carry meta
	held  held
	// reserved is the outbox bytes of commits under way, and space is closed when some become free.
	reserved uint64
	space    chan struct{}
	// blocked counts the commits that wait for room, for the reason blockedBy.
	blocked   int
	blockedBy error
	// reached is the last sequence that was there when the stage was opened or that a session was given since; agreed says
	// that one has agreed with the control plane, and lowering that a renumbering has failed half way. renumbering says that one
	// was the last commit that failed.
	reached                       uint64
	agreed, lowering, renumbering bool
	// sent is the last sequence that the control plane can have since the last time that it was agreed on.
	sent uint64
	// waitingSince is when records began to wait, zero while none do.
	waitingSince time.Time
}

// files is the open databases and what was read from them.
type files struct {
	meta
	// origin is what state.db says of the directory.
	origin origin
	// stored is what of the meta is on the disk. Only the writer uses it.
	stored meta
	state  *database
	// restored is what a salvage says of state.db until that is noted; nil for none.
	restored *salvagedState
	// uncertain says that produced may be behind the outbox.
	uncertain bool
	// repaired says that files were set aside, which is to be counted on the disk.
	repaired bool
	// segments are in order; the last one is written to.
	segments []*segment
	// acknowledgedBytes is what the acknowledged records in the segments take.
	acknowledgedBytes uint64
	// settledStored is the floor that is on the disk: up to it segments may be dropped.
	settledStored uint64
	// fresh is what was found to be lost when the files were opened, until it is among what is unsure.
	fresh spans
	// damaged are the waiting records that were found damaged or can never be sent, with which of the two.
	damaged map[uint64]string
	// marks are those of the flows' last commits, also of those in pending, which is the stage's.
	marks   map[string]mark
	pending *pending
	// passing are the texts that go when the files cannot be opened after all.
	passing []string
	// proven is the last sequence that the journal proves to have counted; 0 for none.
	proven uint64
}

// Open opens the staging directory, and makes it when it is not there. After an unclean stop it verifies the files
// first. What is damaged is set aside and reported in Stats, and so is the whole directory of another owner.
//
// Errors wrap ErrLocked, ErrNewerFormat or ErrDamaged where they apply.
func Open(ctx context.Context, settings Settings) (*Stage, error) {
	return openWith(ctx, settings, (*Stage).refuse)
}

// openWith opens the directory. failed may let a stage wait that could not be opened.
func openWith(ctx context.Context, settings Settings, failed func(*Stage, context.Context, error) error) (*Stage, error) {
	settings.setDefaults()
	if len(settings.Owner) > maxOwner || strings.ContainsAny(settings.Owner, "\n\x00") {
		return nil, fmt.Errorf("the owner %.40q of a staging directory must be one line of at most %d bytes", settings.Owner, maxOwner)
	}
	made, err := firstMissing(settings.Dir)
	if err != nil {
		return nil, err
	}
	s, err := openDir(ctx, settings, failed)
	if err != nil && made != "" && !errors.Is(err, ErrLocked) {
		err = errors.Join(err, unmake(settings.Dir, made))
	}
	return s, err
}

// firstMissing is the highest folder on the way to dir that is not there, dir included, or an empty text.
func firstMissing(dir string) (missing string, err error) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		there, err := exists(at)
		if err != nil || there || at == filepath.Dir(at) {
			return missing, err
		}
		missing = at
	}
}

// unmake removes what a first start that failed has made, up to the folder made: the next one begins anew. It must not have
// come as far as a state.
func unmake(dir, made string) error {
	dir = filepath.Clean(dir)
	state, err := exists(filepath.Join(dir, stateName))
	if err != nil || state {
		return err
	}
	if there, err := exists(dir); err != nil || there {
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			return fmt.Errorf("remove what the start that failed has made: %w", err)
		}
	}
	for dir != made {
		dir = filepath.Dir(dir)
		if os.Remove(dir) != nil {
			return nil //nolint:nilerr // somebody else uses it by now, or it was never made
		}
	}
	return nil
}

// openDir opens the directory, and makes what is missing of it.
func openDir(ctx context.Context, settings Settings, failed func(*Stage, context.Context, error) error) (*Stage, error) {
	s := &Stage{
		settings: settings,
		requests: make(chan *request), closing: make(chan struct{}),
		changed: make(chan struct{}, 1), look: make(chan struct{}, 1), space: make(chan struct{}), trouble: newTrouble(), opened: time.Now(),
		spare: spare{path: filepath.Join(settings.Dir, spareName)}, folding: newStoppedTimer(), harmed: newHarmed(), waits: waiting{opened: make(chan struct{})},
	}
	err := s.withSpare(func() error { return s.begin(ctx) })
	if err != nil {
		err = failed(s, ctx, err)
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.release())
	}
	if !s.waits.on {
		close(s.waits.opened)
	}
	s.writer.Go(s.write)
	return s, nil
}

// begin takes the directory, unless it has it already, and opens the files. After an error the directory may still be taken,
// and it can be called again.
func (s *Stage) begin(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	err := s.start(ctx)
	if err == nil {
		return nil
	}
	err = errors.Join(err, s.journal.close())
	s.journal = nil
	if s.running.file != nil {
		s.lock.running, s.running.file = s.running.file, nil
	}
	return err
}

// makeDir makes the directory and its name durable.
func makeDir(dir string) error {
	there, err := exists(dir)
	if err != nil || there {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the staging directory: %w", err)
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// acquireLock takes the directory, and waits a little for a process that is about to leave it.
func acquireLock(ctx context.Context, settings Settings) (*directoryLock, error) {
	tries := int(settings.LockWait/lockRetry) + 1
	for i := 0; ; i++ {
		lock, err := settings.tryLock(ctx)
		if err == nil || !errors.Is(err, ErrLocked) || i+1 >= tries {
			return lock, err
		}
		if sleepErr := backoff.Sleep(ctx, lockRetry); sleepErr != nil {
			return nil, errors.Join(err, sleepErr)
		}
	}
}

// start brings the files into order and opens them. The lock is held.
func (s *Stage) start(ctx context.Context) error {
	dir := s.settings.Dir
	if err := s.withSpare(s.lock.describe); err != nil {
		return err
	}
	if err := removeUnfinished(dir); err != nil {
		return err
	}
	strange, err := s.settings.setAsideStrange(ctx)
	if s.lock.strange += strange; err != nil {
		return err
	}
	if err := s.startRunning(ctx); err != nil {
		return err
	}
	others, err := formers(dir)
	if err != nil {
		return err
	}
	unclean := s.found.unclean
	f, err := s.openFiles(ctx)
	if err != nil {
		return err
	}
	fold, err := s.recoverJournal(ctx, f)
	if err != nil {
		return errors.Join(err, f.close())
	}
	kept, err := boundKept(dir, s.settings.Logger)
	if err != nil {
		return errors.Join(err, f.close())
	}
	if unclean {
		f.closeLast()
	}
	// What a start has set aside that came no further is counted too.
	if aside := max(f.setAside+s.lock.strange, uint64(len(kept))); aside > f.setAside {
		f.setAside, fold = aside, true
	}
	s.show(f, kept, others)
	s.keepSpare()
	if fold || s.unsureMoved() {
		_ = s.commit(nil) // it has noted why not, and is tried again
	}
	s.keepJournal()
	return nil
}

// show lets everybody use the files.
func (s *Stage) show(f *files, kept []DamagedFile, others []Former) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged, s.formers = kept, others
	s.files, s.pending, s.unread = f, f.pending, false
	s.setUnsettled(nil)
	s.ranBefore, s.ranStored = millis(f.ranMillis), f.ranMillis
	s.beginReach()
	s.doubt(f, f.unsure)
	f.recallVoids()
	if s.settings.MaxAge > 0 {
		s.noteAge(&f.meta)
	}
	s.dropAcknowledged()
	f.countAcknowledged()
	s.noteWaiting()
}

// startRunning finds out whether the last stop was clean and verifies the files if it was not.
func (s *Stage) startRunning(ctx context.Context) error {
	dir := s.settings.Dir
	there, err := exists(filepath.Join(dir, runningName))
	if err != nil {
		return err
	}
	s.found = &journalContent{unclean: there, marks: readLandedMarks(dir)}
	doubtful := false
	if !there {
		// Nothing has verified the state yet, so that it is read by its pages alone. Where that is not possible nothing says how
		// the last stop was, and the other files may be damaged as well: to write into one could cost what is whole in it.
		m, peekErr := peekMeta(filepath.Join(dir, stateName))
		doubtful = peekErr != nil
		s.found.unclean = !doubtful && s.found.foundUnclean(dir, m)
		s.found.unmarked = s.found.unclean
	}
	if s.found.unmarked {
		s.settings.Logger.WarnContext(ctx, "the journal has commits that a clean stop would have taken out of it, although the file that marks an unclean stop is missing",
			slog.String("file", filepath.Join(dir, runningName)))
	}
	if s.found.unclean || doubtful {
		if err := s.verifyAll(ctx); err != nil {
			return err
		}
	}
	if !there {
		if err = s.withSpare(func() error { return createRunning(dir) }); err != nil {
			return err
		}
	}
	return s.running.open(s.lock, dir)
}

// removeUnfinished removes files that a stopped process was still making.
func removeUnfinished(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list the staging directory: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), newSuffix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the remains of an earlier start: %w", err)
		}
	}
	return nil
}

func (f *files) close() error {
	var errs []error
	if f.state != nil {
		errs = append(errs, f.state.Close())
		f.state = nil
	}
	for _, seg := range f.segments {
		errs = append(errs, seg.db.Close())
	}
	f.segments = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the staged files: %w", err)
	}
	return nil
}

// Close waits for what is being written, stores what was acknowledged and how old the rest is, and closes the files. It is safe twice. Nothing
// may use the Stage afterwards; what still waits in it gets ErrClosed.
func (s *Stage) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.writer.Wait()
		s.trouble.timer.Stop()
		s.folding.Stop()
		s.closeErr = s.finish()
	})
	return s.closeErr
}

// finish runs after the writer has ended. The mark of an unclean stop goes only when all is well.
func (s *Stage) finish() error {
	var errs []error
	if s.isUnsettled() == nil && (s.acknowledgedMoved() || s.settings.MaxAge > 0 || !s.pending.empty() || s.journal.ready() && s.journal.number > 0) {
		errs = append(errs, s.commit(nil))
	}
	s.mu.Lock()
	// What may hold half of a commit is verified by the next start.
	clean := s.unsettled == nil && s.files != nil && !s.files.lastClosed()
	if s.files != nil {
		errs = append(errs, s.files.close())
		s.files = nil
	}
	s.mu.Unlock()
	errs = append(errs, s.journal.close(), s.running.close())
	if err := errors.Join(errs...); err != nil || !clean {
		return errors.Join(err, s.lock.release())
	}
	return errors.Join(removeRunning(s.settings.Dir), s.lock.release())
}
