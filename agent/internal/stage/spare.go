package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// spareName is a file that is there to be removed when the disk is full, so that the little that must be written then
	// can be: what was acknowledged, the mark of a start, the counter of a connection.
	spareName  = "SPARE"
	spareBytes = 256 << 10
)

// spare is the file. Any goroutine may use it.
type spare struct {
	path string

	mu    sync.Mutex
	there bool
	// looked is when the writer last tried to make it again.
	looked time.Time
}

// spareEvery is how far apart two tries to make it again are at least.
const spareEvery = 10 * time.Second

// due says whether the room was given away and it is time to see whether it can be kept again.
func (p *spare) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.there || time.Since(p.looked) < spareEvery {
		return false
	}
	p.looked = time.Now()
	return true
}

// keep makes the file if the disk has room for it. It must not fail a start, so it only says that it did not work.
func (p *spare) keep(room uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.there || room < spareBytes {
		return nil
	}
	info, err := os.Lstat(p.path)
	if err == nil && info.Size() == spareBytes {
		p.there = true
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for %s: %w", p.path, err)
	}
	// It holds no zeros, which some file systems would not keep room for.
	content := make([]byte, spareBytes)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content) // it cannot fail
	if err := createFile(p.path, string(content)); err != nil {
		return err
	}
	p.there = true
	return nil
}

// use gives the room away, and says whether there was any.
func (p *spare) use(log *slog.Logger) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there = false
	if err := os.Remove(p.path); err != nil {
		return false
	}
	log.Warn("the disk is full; the room that was kept for this is used", slog.String("file", filepath.Base(p.path)))
	return true
}

// keepSpare makes the spare room again when there is enough; the writer and Open call it.
func (s *Stage) keepSpare() {
	free, err := s.disk.free(s.settings)
	if err == nil && free > s.settings.MinFreeBytes {
		err = s.spare.keep(free - s.settings.MinFreeBytes)
	}
	if err != nil {
		s.settings.Logger.Debug("no room can be kept for a full disk", slog.Any("error", err))
	}
}

// restoreSpare is for the writer, after what it does.
func (s *Stage) restoreSpare() {
	if !s.waits.on && !s.waits.repair && s.spare.due() {
		s.keepSpare()
	}
}

// withSpare tries a second time when the disk is full and there is spare room.
func (s *Stage) withSpare(do func() error) error {
	err := do()
	if err != nil && isNoSpace(err) && s.spare.use(s.settings.Logger) {
		return do()
	}
	return err
}
