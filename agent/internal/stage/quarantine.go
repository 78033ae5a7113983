package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/durable"
)

const (
	// corruptTime is the time in the name of a file that was set aside.
	corruptTime = "20060102T150405.000000Z"
	// whySuffix marks the text beside such a file that says what happened to it.
	whySuffix = ".why"
	// maxKeptFiles and maxKeptBytes bound the damaged files that are kept: the oldest go first, the newest always stays.
	maxKeptFiles = 16
	maxKeptBytes = 256 << 20
)

// DamagedFile is a file of the staging directory that was found damaged and set aside.
type DamagedFile struct {
	// File is its name in the staging directory now.
	File string `json:"file"`
	// At is when that was.
	At time.Time `json:"at"`
	// Reason is what was wrong with it.
	Reason string `json:"reason"`
	// Salvaged is how many records were taken out of it, Lost how many could not be. Both are 0 for state.db.
	Salvaged uint64 `json:"salvaged"`
	Lost     uint64 `json:"lost"`
	// LostFirst and LostLast are the sequences that went with a file that is missing, 0 for any other.
	LostFirst uint64 `json:"lost_first,omitempty"`
	LostLast  uint64 `json:"lost_last,omitempty"`
	// Missing says that there was no file any more, so that File names only what is said of it.
	Missing bool `json:"missing,omitempty"`
	// StartedAnew are the flows whose state could not be proven whole, so that they start from nothing; SetBack are those
	// that go on from an earlier commit. Either repeats what it had read since.
	StartedAnew []string `json:"started_anew,omitempty"`
	SetBack     []string `json:"set_back,omitempty"`
}

// quarantine gives a damaged file another name, under which nothing opens it, and says beside it why. What is said comes
// first: on a disk that has no room for it the file stays where it is.
func quarantine(path string, d DamagedFile) (*DamagedFile, error) {
	d.name(path)
	dir := filepath.Dir(path)
	if err := d.describe(dir); err != nil {
		return nil, err
	}
	if err := os.Rename(path, filepath.Join(dir, d.File)); err != nil {
		return nil, errors.Join(fmt.Errorf("set a damaged file aside: %w", err), remove(filepath.Join(dir, d.File+whySuffix)))
	}
	return &d, durable.SyncDir(dir)
}

// setAsideStrange gives another name to what has that of a staged file and is none, such as a folder or a link that leads
// nowhere, so that the file counts as missing. It says how many there were.
func (s *Settings) setAsideStrange(ctx context.Context) (n uint64, err error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return 0, fmt.Errorf("list the staging directory: %w", err)
	}
	for _, e := range entries {
		_, isSegment := parseSegmentName(filepath.Join(s.Dir, e.Name()))
		if !isSegment && !slices.Contains([]string{stateName, journalName, runningName, ScratchName}, e.Name()) {
			continue
		}
		one, err := s.setAsideIfStrange(ctx, e.Name())
		if n += one; err != nil {
			return n, err
		}
	}
	return n, nil
}

// setAsideIfStrange does it for one name, and gives 1 when it did.
func (s *Settings) setAsideIfStrange(ctx context.Context, name string) (n uint64, err error) {
	path := filepath.Join(s.Dir, name)
	reason, what := strangeness(path), "file"
	if name == ScratchName {
		reason, what = strangeFolder(path), "folder"
	}
	if reason == "" {
		return 0, nil
	}
	d, err := quarantine(path, DamagedFile{Reason: reason + ". Find out what has put it in the place of the " + what})
	if err != nil {
		return 0, err
	}
	aside := filepath.Join(s.Dir, d.File)
	if info, err := os.Lstat(aside); err == nil && info.Mode().IsRegular() && name != ScratchName {
		// Another agent that starts has made the file since it was looked at.
		return 0, errors.Join(errOtherAgent(s.Dir), os.Link(aside, path), remove(aside), remove(aside+whySuffix))
	}
	s.Logger.ErrorContext(ctx, "what is in the place of a file or folder of the staging area is none, and was set aside", slog.String("file", path), slog.String("now", d.File), slog.String("reason", reason))
	return 1, nil
}

// strangeness says what is wrong with what has the name of a file and is none; nothing for a file, and where nothing is.
func strangeness(path string) string { return strange(path, "file", fs.FileMode.IsRegular) }

// strangeFolder is strangeness for the name of a folder.
func strangeFolder(path string) string { return strange(path, "folder", fs.FileMode.IsDir) }

func strange(path, kind string, is func(fs.FileMode) bool) string {
	named, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	switch info, err := os.Stat(path); {
	case err == nil && is(info.Mode()):
		return ""
	case err == nil:
		return "it is no " + kind
	case named.Mode()&fs.ModeSymlink == 0:
		return "" // it cannot be looked at, which opening it tells better
	}
	return "it is a link that leads nowhere"
}

// maxTextBytes is far more than any text in the directory has that the agent reads. What is behind it is not read, so that the text
// is none that the agent has written.
const maxTextBytes = 1 << 20

// readText reads a small file. What is no file counts as missing, and is not opened: a named pipe would never answer.
func readText(path string) ([]byte, error) {
	if reason := strangeness(path); reason != "" {
		return nil, fmt.Errorf("%w: %s: %s", fs.ErrNotExist, path, reason)
	}
	f, err := os.Open(path) //nolint:gosec // the directory is the agent's own
	if err != nil {
		return nil, fmt.Errorf("read a file of the staging directory: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxTextBytes))
	if err != nil {
		return nil, fmt.Errorf("read a file of the staging directory: %w", err)
	}
	return text, nil
}

// keep does the same for a file that is about to be replaced, which keeps its own name too until then.
func keep(path string, d DamagedFile) (*DamagedFile, error) {
	d.name(path)
	dir := filepath.Dir(path)
	if err := d.describe(dir); err != nil {
		return nil, err
	}
	err := os.Link(path, filepath.Join(dir, d.File))
	if err == nil {
		return &d, nil
	}
	err = errors.Join(err, remove(filepath.Join(dir, d.File+whySuffix)))
	if isNoSpace(err) {
		return nil, fmt.Errorf("set a damaged file aside: %w", err)
	}
	// Not every file system has a second name for a file.
	return quarantine(path, d)
}

func (d *DamagedFile) name(path string) {
	d.At = time.Now().UTC().Truncate(time.Microsecond)
	d.File = filepath.Base(path) + corruptInfix + d.At.Format(corruptTime)
}

// describe writes what happened beside the file.
func (d *DamagedFile) describe(dir string) error {
	why, err := json.MarshalIndent(d, "", "  ")
	if err == nil {
		// What it says already must not be gone when the disk has no room for more.
		err = createFile(filepath.Join(dir, d.File+whySuffix), string(why)+"\n")
	}
	if err != nil {
		return fmt.Errorf("describe a damaged file: %w", err)
	}
	return nil
}

// damagedFiles lists what was set aside, the newest first.
func damagedFiles(dir string) ([]DamagedFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the staging directory: %w", err)
	}
	list := []DamagedFile{}
	for _, e := range entries {
		name, explains := strings.CutSuffix(e.Name(), whySuffix)
		_, at, ok := strings.Cut(name, corruptInfix)
		if !ok {
			continue
		}
		d := DamagedFile{File: name}
		if why, err := readText(filepath.Join(dir, name+whySuffix)); err == nil {
			// What it says is for people; a damaged explanation is as good as none.
			_ = json.Unmarshal(why, &d)
		}
		if explains != d.Missing {
			// The file itself stands for it, or a person has removed that.
			continue
		}
		d.File = name
		if d.At, err = time.Parse(corruptTime, at); err != nil {
			continue
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b DamagedFile) int { return b.At.Compare(a.At) })
	return list, nil
}

// boundKept removes the oldest of the damaged files when they become too many or too large, and gives the rest.
func boundKept(dir string, log *slog.Logger) ([]DamagedFile, error) {
	list, err := damagedFiles(dir)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for i, d := range list {
		path := filepath.Join(dir, d.File)
		if info, err := os.Stat(path); err == nil {
			total += info.Size()
		}
		if i == 0 || i < maxKeptFiles && total <= maxKeptBytes {
			continue
		}
		for _, old := range list[i:] {
			path := filepath.Join(dir, old.File)
			if info, err := os.Lstat(path); err == nil && info.IsDir() {
				continue // whoever has put a folder there may want what is in it
			}
			if err := errors.Join(remove(path), remove(path+whySuffix)); err != nil {
				return nil, fmt.Errorf("remove an old damaged file: %w", err)
			}
			log.Warn("an old damaged file was removed to make room for newer ones", slog.String("file", path))
		}
		return list[:i], nil
	}
	return list, nil
}

// remove removes a file that may be gone.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
