package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A start that must repair what is damaged, and finds no room for it on the disk, can wait for room: the stage is degraded as
// after a commit that failed, and the writer brings the files into order once it can. Until then the lock is held, nothing is
// read or acknowledged, and what waits in the files stays there.

// ErrNoRoom says that the disk has too little room for what must be written.
var ErrNoRoom = errors.New("there is too little room on the disk")

// isNoSpace says whether the error is that of a disk that has no room, or no room for another file.
func isNoSpace(err error) bool { return errors.Is(err, ErrNoRoom) || isDiskFull(err) }

// repairBytes is what a repair needs besides the file that it makes: what is said of it, and its place in the directory.
const repairBytes = 64 << 10

// roomFor says why there is no room for so many bytes and what is said of them, before a repair begins that would have to be
// given up half way.
func (s *Settings) roomFor(what string, bytes uint64) error {
	need := bytes + repairBytes
	free, err := freeBytes(s.Dir)
	switch {
	case err != nil:
		return err
	case fewFiles(s.Dir):
		return fmt.Errorf("%w: %s needs room for %d more files", ErrNoRoom, what, minFreeFiles)
	case free < need:
		return fmt.Errorf("%w: %s needs up to %d KiB and %d KiB are free", ErrNoRoom, what, (need+1<<10-1)>>10, free>>10)
	}
	return nil
}

// roomToSalvage is roomFor what is whole of a file.
func (s *Settings) roomToSalvage(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at a damaged file: %w", err)
	}
	return s.roomFor("to take out what is whole of the damaged "+filepath.Base(path), salvageBytes(info))
}

// salvageBytes is how much room what is whole of a file takes at most.
func salvageBytes(info os.FileInfo) uint64 { return uint64(min(max(info.Size(), 0), maxFileBytes)) }

// waiting is what a stage knows that could not be opened yet, or not be repaired. The writer's, but for the channel.
type waiting struct {
	// opened is closed once the files are open, or it is known that they cannot be; failure is then why not.
	opened  chan struct{}
	failure error
	// on says that they are not open yet, and repair that damage found since waits to be salvaged. free is how much of the disk was free when it was tried last, at the time tried, and
	// few says that it had room for too few files then.
	on, repair bool
	free       uint64
	few        bool
	tried      time.Time
}

// worthATry says whether the disk has more room than when it was tried last, or that was long ago.
func (w *waiting) worthATry(dir string) bool {
	free, err := freeBytes(dir)
	if err == nil && free <= w.free && (!w.few || fewFiles(dir)) && time.Since(w.tried) < awaitEvery {
		w.free = free // what others have taken since need not come back first
		return false
	}
	return true
}

// awaitEvery is how often a start is tried again although the disk shows no more room than before.
const awaitEvery = time.Minute

// OpenOrWait is Open for who would rather wait than end. Where the directory has staged data and there is no room to repair
// what is damaged in it, or to write the little that a start must, it gives a stage that is degraded, says so in Stats, and
// brings the files into order by itself once there is room. Until then Commit waits and everything else gives an error; Opened
// tells when that is over.
func OpenOrWait(ctx context.Context, settings Settings) (*Stage, error) {
	return openWith(ctx, settings, (*Stage).await)
}

// refuse is Open's answer to a start that failed.
func (s *Stage) refuse(_ context.Context, err error) error { return err }

// await lets the writer try again what was not possible for want of room. It gives the error where waiting would not help, or
// where nothing was staged yet.
func (s *Stage) await(ctx context.Context, err error) error {
	if !isNoSpace(err) || s.lock == nil {
		return err
	}
	data, begun, tracesErr := traces(s.settings.Dir)
	if tracesErr != nil || !data && !begun {
		return errors.Join(err, tracesErr)
	}
	s.waits.on, s.unread = true, true
	s.setUnsettled(s.awaited(err))
	s.trouble.degraded = s.unsettled
	s.settings.Logger.ErrorContext(ctx, "the staging area cannot be opened before there is room on its disk; flows wait, and it is tried again without a restart", slog.Any("error", s.unsettled))
	// It was tried twice, and what fails from here on is the same.
	s.trouble.said, s.trouble.full, s.trouble.tries = time.Now(), true, 1
	s.trouble.failed()
	return nil
}

// awaited notes how full the disk is, and says what to do.
func (s *Stage) awaited(err error) error {
	w := &s.waits
	w.tried, w.few = time.Now(), fewFiles(s.settings.Dir)
	// One that cannot be asked is as good as full.
	w.free, _ = freeBytes(s.settings.Dir)
	return repairError{fmt.Errorf("the staging directory %s must be brought into order, and its disk is full: make room on it%s; flows wait until then, and what is staged stays: %w", s.settings.Dir, s.needs(err), err)}
}

// needs says how much room a start needs that has failed at one of its first files, and what it is for as far as that is known
// by then. Any other error says it itself.
func (s *Stage) needs(err error) string {
	if errors.Is(err, ErrNoRoom) {
		return ""
	}
	if s.waits.few {
		return fmt.Sprintf(" for %d more files", minFreeFiles)
	}
	need := uint64(repairBytes)
	if _, peekErr := peekMeta(filepath.Join(s.settings.Dir, stateName)); peekErr == nil {
		return fmt.Sprintf(", at least %d KiB", need>>10)
	}
	what := stateName + " is missing and must be made anew"
	if info, statErr := os.Stat(filepath.Join(s.settings.Dir, stateName)); statErr == nil {
		what = stateName + " is damaged, and what is whole of it must be taken out"
		need += salvageBytes(info)
	} else {
		need += stateGrowth
	}
	return fmt.Sprintf(", at least %d KiB (%s)", (need+1<<10-1)>>10, what)
}

// Opened gives a channel that is closed once the files are open, for which it may have to wait after OpenOrWait, or once it is
// known that they cannot be opened, which OpenError tells.
func (s *Stage) Opened() <-chan struct{} { return s.waits.opened }

// OpenError says why the files cannot be opened although there is room by now; nil as long as Opened is open, and when all is
// well.
func (s *Stage) OpenError() error {
	select {
	case <-s.waits.opened:
		return s.waits.failure
	default:
		return nil
	}
}

// beginAgain is for the writer: it tries to open the files once the disk has more room than when that was tried last.
func (s *Stage) beginAgain() error {
	w := &s.waits
	if w.failure != nil {
		return w.failure
	}
	if !w.worthATry(s.settings.Dir) {
		return s.isUnsettled()
	}
	err := s.untilClosing(s.begin)
	if isNoSpace(err) {
		err = s.awaited(err)
		s.staysUnsettled(err)
		return err
	}
	if err != nil {
		select {
		case <-s.closing:
			return ErrClosed
		default:
		}
		w.failure = Advise(s.settings.Dir, fmt.Errorf("open the staging directory now that there is room: %w", err))
		s.staysUnsettled(w.failure)
		close(w.opened)
		return w.failure
	}
	w.on = false
	s.settings.Logger.Info("the staging area is open, now that there is room on its disk")
	close(w.opened)
	return nil
}

func (s *Stage) staysUnsettled(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setUnsettled(err)
}

// untilClosing calls fn with a context that ends when Close is called.
func (s *Stage) untilClosing(fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel()
	return fn(ctx)
}
