package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

const (
	// verifyTimeout bounds the verification of one file, and salvageTimeout the salvage: neither takes longer than reading
	// the file, or reading and writing it.
	verifyTimeout  = 30 * time.Second
	salvageTimeout = time.Minute
	// verifiedAtOnce is how many files are verified or salvaged at the same time.
	verifiedAtOnce = 2
)

// verifyAll verifies every file after an unclean stop and notes which are damaged. One of which that is known
// from a try before may be locked by this process.
func (s *Stage) verifyAll(ctx context.Context) error {
	paths, err := databasePaths(s.settings.Dir)
	paths = slices.DeleteFunc(paths, s.harmed.holds)
	if err != nil || len(paths) == 0 {
		return err
	}
	s.settings.Logger.InfoContext(ctx, "the last stop was not clean, or nothing says how it was, so the staged files are verified", slog.Int("files", len(paths)))
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(verifiedAtOnce)
	for _, path := range paths {
		group.Go(func() error {
			err := s.settings.verifyOne(ctx, path)
			if err == nil {
				return nil
			}
			if !errors.Is(err, ErrDamaged) {
				return fmt.Errorf("verify %s after an unclean stop: %w", path, err)
			}
			mu.Lock()
			defer mu.Unlock()
			s.harmed.found[path] = err
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("verify the staged files: %w", err)
	}
	return nil
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
	names, err := listSegments(dir)
	for _, name := range names {
		paths = append(paths, name.path)
	}
	return paths, err
}

// Verify reads one bbolt file of a staging directory completely: every page, what all of it rests on, and every record. It
// changes nothing. An error that wraps ErrDamaged says that the file is damaged; any other, that it could not be read.
//
// A damaged file can end the process that reads it. Run it in a child process with a time limit.
func Verify(path string) error {
	var fell atomic.Bool
	err := guard(path, &fell, func() error { return verify(path) })
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	return nil
}

// verify looks at the pages by itself first, because bbolt would trust them.
func verify(path string) error {
	if err := verifyPages(path); err != nil {
		return err
	}
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		if name, ok := parseSegmentName(path); ok {
			return verifySegment(tx, name)
		}
		return verifyState(tx)
	})
	return errors.Join(err, db.Close())
}

func verifyPages(path string) error {
	p, heads, err := openPages(path)
	if err != nil {
		return err
	}
	if len(heads) == 0 {
		err = damaged("it has no valid head")
	} else {
		err = p.checkAll(heads[0])
	}
	return errors.Join(err, p.close())
}

// verifySegment reads every record once: all that are not known to be lost must be there.
func verifySegment(tx *bolt.Tx, name segmentName) error {
	b := tx.Bucket([]byte(recordsBucket))
	if b == nil {
		return damaged("it has no records bucket")
	}
	lost, err := readLost(tx, ^uint64(0))
	if err != nil {
		return err
	}
	s := &segment{segmentName: name, lost: lost}
	next, bytes := name.first, uint64(0)
	c := b.Cursor()
	for key, value := c.First(); key != nil; key, value = c.Next() {
		h, err := parseChunk(name.id, key, value)
		if err != nil {
			return err
		}
		if h.first < next || h.first > next && s.lostBetween(next, h.first-1) != h.first-next {
			return damaged("record %d comes where %d should be", h.first, next)
		}
		if h.before != bytes {
			return damaged("%d bytes are in front of record %d and should be %d", bytes, h.first, h.before)
		}
		whole := true
		eachRecord(h, value, func(_ uint64, _ []byte, ok bool) bool {
			whole = whole && ok
			return whole
		})
		if !whole {
			return damaged("a record of those from %d on", h.first)
		}
		next, bytes = h.last()+1, bytes+uint64(len(value[chunkHeaderBytes:]))
	}
	return nil
}

// verifyState checks every entry, and that those of a flow are of one commit.
func verifyState(tx *bolt.Tx) error {
	m, err := readMeta(tx)
	if err != nil {
		return err
	}
	if _, err := readMarks(tx, m.markSum); err != nil {
		return err
	}
	flows := tx.Bucket([]byte(flowsBucket))
	err = flows.ForEachBucket(func(flow []byte) error {
		st := FlowState{Cursors: map[string][]byte{}, Operators: map[string]map[string][]byte{}}
		return st.read(string(flow), flows.Bucket(flow))
	})
	if err != nil {
		return fmt.Errorf("read the flows: %w", err)
	}
	for _, name := range []string{metaBucket, reportsBucket, reportIDsBucket} {
		if err := eachSealed(tx.Bucket([]byte(name)), func([]byte, []byte) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}
