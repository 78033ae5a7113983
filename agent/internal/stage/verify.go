package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// verifyTimeout bounds the verification of one file: a damaged one can send bbolt in circles.
const verifyTimeout = 30 * time.Second

// verifyAll verifies every file after an unclean stop and sets aside what is damaged.
func (s *Stage) verifyAll(ctx context.Context) (setAside uint64, err error) {
	paths, err := databasePaths(s.settings.Dir)
	if err != nil {
		return 0, err
	}
	s.settings.Logger.InfoContext(ctx, "the last stop was not clean, so the staged files are verified", slog.Int("files", len(paths)))
	for _, path := range paths {
		err := s.settings.verifyOne(ctx, path)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			return setAside, fmt.Errorf("verify %s after an unclean stop: %w", path, err)
		}
		s.settings.Logger.ErrorContext(ctx, "a staged file is damaged and was set aside", slog.String("file", path), slog.Any("error", err))
		if err := quarantine(path, DamagedFile{Reason: err.Error()}); err != nil {
			return setAside, err
		}
		setAside++
	}
	return setAside, nil
}

func (s *Settings) verifyOne(ctx context.Context, path string) error {
	limited, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	err := s.Verify(limited, path)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("%w: it could not be read within %s: %w", ErrDamaged, verifyTimeout, err)
	}
	return err
}

// databasePaths gives the bbolt files of a directory.
func databasePaths(dir string) ([]string, error) {
	var paths []string
	state := filepath.Join(dir, stateName)
	there, err := exists(state)
	if err != nil {
		return nil, err
	}
	if there {
		paths = append(paths, state)
	}
	firsts, err := listSegments(dir)
	for _, first := range firsts {
		paths = append(paths, segmentPath(dir, first))
	}
	return paths, err
}

// Verify reads one bbolt file of a staging directory completely, and checks its pages and what all of it rests on. It
// changes nothing. An error that wraps ErrDamaged says that the file is damaged; any other, that it could not be read.
//
// A damaged file can end the process that reads it, or keep it busy for ever. Run it in a child process with a time limit.
func Verify(path string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: reading it fails with %v", ErrDamaged, path, p)
		}
	}()
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		if damage := checkPages(tx); damage != nil {
			return damage
		}
		if strings.HasPrefix(filepath.Base(path), segmentPrefix) {
			return verifySegment(tx)
		}
		return verifyState(tx)
	})
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	return nil
}

// checkPages is bbolt's own consistency check.
func checkPages(tx *bolt.Tx) error {
	var first error
	for err := range tx.Check() {
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, first)
	}
	return nil
}

// verifySegment reads every record once, so that what faults does so here. A record whose checksum is wrong does not
// make the file damaged: it alone is reported as lost when it is read.
func verifySegment(tx *bolt.Tx) error {
	b := tx.Bucket([]byte(recordsBucket))
	if b == nil {
		return fmt.Errorf("%w: it has no records bucket", ErrDamaged)
	}
	c := b.Cursor()
	for key, value := c.First(); key != nil; key, value = c.Next() {
		h, err := parseChunk(key, value)
		if err != nil {
			continue
		}
		eachRecord(h, value, func(uint64, []byte, bool) bool { return true })
	}
	return nil
}

// verifyState checks what concerns every flow. What is damaged inside one flow is told by LoadFlow, to that flow alone.
func verifyState(tx *bolt.Tx) error {
	if _, err := readMeta(tx); err != nil {
		return err
	}
	if _, err := readMarks(tx); err != nil {
		return err
	}
	return readEverything(tx.Bucket([]byte(flowsBucket)))
}

// readEverything touches every entry of a bucket, so that what faults does so here.
func readEverything(b *bolt.Bucket) error {
	err := b.ForEach(func(key, sealed []byte) error {
		if sealed == nil {
			return readEverything(b.Bucket(key))
		}
		if _, err := unseal(key, sealed); err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
