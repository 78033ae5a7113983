package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/durable"
	"github.com/outfeed/outfeed/internal/keyfile"
)

const (
	// ownerName holds the owner as a line of text. A second one has ownerSum and the checksum of the first, so that a bit that
	// has turned makes no other owner; where a person has written the first alone the next start adds it.
	ownerName = "OWNER"
	ownerSum  = "crc32c "
	// waitingName is in a directory that was set aside: how many insights had waited, with mostWaiting in front of it where it can
	// be fewer, or unknownWaiting.
	waitingName    = "WAITING"
	mostWaiting    = "at most "
	unknownWaiting = "unknown"
	// formerInfix, with the owner and the time behind it, marks a whole directory that was set aside.
	formerInfix = ".of-"
	// maxOwner bounds an owner, in bytes.
	maxOwner = 200
)

// Former is a staging directory of another owner that was set aside. Nothing in it is ever sent.
type Former struct {
	// Dir is where it lies now.
	Dir string
	// Owner is whose it is, empty when that cannot be read any more.
	Owner string
	// Waiting is how many insights had waited to be sent, -1 when that could not be read. AtMost says that it can be fewer: what
	// was acknowledged last before a kill is not on the disk.
	Waiting int64
	AtMost  bool
}

// Owner gives whose a staging directory is, or an empty text when there is none or nobody has claimed it yet. What stands in the
// place of OWNER and is no file gives an error.
func Owner(dir string) (string, error) {
	path := filepath.Join(dir, ownerName)
	if reason := strangeness(path); reason != "" {
		return "", fmt.Errorf("%w: %s says whose the staged insights are, and %s; find out what has put it there and move it away", ErrDamaged, path, reason)
	}
	owner, _, err := readOwner(dir)
	return owner, err
}

// OwnerRule says what becomes of a directory that another owner has staged in.
type OwnerRule int

const (
	// SetOthersAside gives it another name and begins a fresh one.
	SetOthersAside OwnerRule = iota
	// RefuseOthers lets Open fail with ErrOtherOwner, and with ErrDamaged where what says whose it is is no file. What was staged
	// stays where it is.
	RefuseOthers
)

// ownerText is what OWNER says.
func ownerText(owner string) string {
	return fmt.Sprintf("%s\n%s%08x\n", owner, ownerSum, sumOf(nil, []byte(owner)))
}

// readOwner is Owner, and says whether OWNER proves itself.
func readOwner(dir string) (owner string, proven bool, err error) {
	path := filepath.Join(dir, ownerName)
	text, err := readText(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read the owner of the staging directory: %w", err)
	}
	owner, _, complete := strings.Cut(string(text), "\n")
	proven = string(text) == ownerText(owner)
	if !complete || !proven && string(text) != owner+"\n" || owner == "" || len(owner) > maxOwner || strings.Contains(owner, "\x00") || strings.Contains(owner, ownerSum) {
		return "", false, fmt.Errorf("%w: %s should name one owner and says %.40q; write the id of the agent that staged here as its only line, or move the directory away to begin a new one", ErrDamaged, path, text)
	}
	return owner, proven, nil
}

// take makes and locks the directory, unless that was done, and finds out that it is the owner's. One of another owner is set
// aside first, as a whole: what waits in it was meant for somebody else.
func (s *Stage) take(ctx context.Context) error {
	for {
		if err := s.lockDir(ctx); err != nil {
			return err
		}
		other, err := claim(ctx, s.settings, s.lock)
		if err != nil || other == "" {
			return err
		}
		if err := s.setAside(ctx, other); err != nil {
			return err
		}
	}
}

// lockDir makes and locks the directory, unless it is locked.
func (s *Stage) lockDir(ctx context.Context) (err error) {
	if s.lock != nil {
		return nil
	}
	if err := roomToBegin(s.settings); err != nil {
		return err
	}
	if err := makeDir(s.settings.Dir); err != nil {
		return err
	}
	if err := (keyfile.Advice{What: "the staging directory", Lost: "move it away, or name another folder with --data-dir"}).CheckDir(s.settings.Dir); err != nil {
		return fmt.Errorf("check the staging directory: %w", err)
	}
	s.lock, err = acquireLock(ctx, s.settings)
	return err
}

// claim makes an empty directory without an owner that of the settings', and gives the owner when it is another one. An
// OWNER that is missing or damaged is written anew where the state proves what it said.
func claim(ctx context.Context, settings Settings, lock *directoryLock) (other string, err error) {
	if settings.Others == RefuseOthers {
		if _, err := Owner(settings.Dir); err != nil {
			return "", err
		}
	}
	strange, err := settings.checkFormat(ctx)
	if lock.strange += strange; err != nil || settings.Owner == "" {
		return "", err
	}
	strange, err = settings.setAsideIfStrange(ctx, ownerName)
	if lock.strange += strange; err != nil {
		return "", err
	}
	owner, whole, proven, err := settings.whose(ctx)
	if err != nil {
		return "", err
	}
	if owner != settings.Owner && settings.Others == RefuseOthers {
		return "", fmt.Errorf("%w: %s was staged in by %s, and %s starts here now", ErrOtherOwner, settings.Dir, owner, settings.Owner)
	}
	if !whole || !proven && owner == settings.Owner {
		if err := createFile(filepath.Join(settings.Dir, ownerName), ownerText(owner)); err != nil && !whole {
			return "", err
		}
	}
	if owner != settings.Owner {
		return owner, nil
	}
	return "", nil
}

// whose finds out whose the directory is, the settings' where it is nobody's. whole says that OWNER says so, and proven that it
// proves that.
func (s *Settings) whose(ctx context.Context) (owner string, whole, proven bool, err error) {
	owner, proven, err = readOwner(s.Dir)
	whole = owner != ""
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
	case err != nil:
		owner, err = s.ownerProven(ctx, err)
	case !whole:
		owner, err = s.ownerProven(ctx, s.ownerMissing())
	case owner != s.Owner:
		var wrong bool
		if wrong, err = s.disproved(ctx, owner); wrong {
			owner, whole = s.Owner, false
		}
	}
	return cmp.Or(owner, s.Owner), whole, proven, err
}

// setAside gives the directory another name and lets go of its lock. Nothing in it is lost, and nothing of it is used.
func (s *Stage) setAside(ctx context.Context, owner string) error {
	settings := &s.settings
	text, problem := settings.countWaiting(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if problem != nil {
		text = unknownWaiting
	}
	if err := createFile(filepath.Join(settings.Dir, waitingName), text+"\n"); err != nil {
		return err
	}
	target := settings.Dir + formerInfix + nameOf(owner) + "-" + time.Now().UTC().Format("20060102T150405.000000Z")
	lock := s.lock
	s.lock = nil
	if err := lock.move(settings.Dir, target); err != nil {
		return fmt.Errorf("set the staging directory of %s aside, whose insights must not be sent as those of %s: %w", owner, settings.Owner, err)
	}
	if err := durable.SyncDir(filepath.Dir(settings.Dir)); err != nil {
		return err
	}
	attrs := []any{slog.String("now_in", target), slog.String("owner", owner), slog.String("new_owner", settings.Owner), slog.String("waiting_insights", text)}
	if problem != nil {
		attrs = append(attrs, slog.Any("error", problem))
	}
	settings.Logger.WarnContext(ctx, "the staged insights belong to another agent, so they are not sent; the staging directory was set aside and a new one begins", attrs...)
	return nil
}

// countWaiting reads how many insights wait, as waitingName says it. After an unclean stop the file is verified first, because
// reading a damaged one can end the process.
func (s *Settings) countWaiting(ctx context.Context) (text string, err error) {
	path := filepath.Join(s.Dir, stateName)
	there, err := exists(path)
	if err != nil {
		return "", err
	}
	if !there {
		data, begun, err := traces(s.Dir)
		if err == nil && (data || begun) {
			err = damaged("%s is missing", path)
		}
		return "0", err
	}
	if reason := strangeness(path); reason != "" {
		return "", damaged("%s: %s", path, reason)
	}
	unclean, err := exists(filepath.Join(s.Dir, runningName))
	if err != nil {
		return "", err
	}
	if unclean {
		if err := s.verifyOne(ctx, path); err != nil {
			return "", err
		}
	}
	m, err := peekMeta(path)
	if err != nil {
		return "", fmt.Errorf("count what waits: %w", err)
	}
	journal := &journalContent{marks: readLandedMarks(s.Dir)}
	if unclean || journal.foundUnclean(s.Dir, m) {
		if m.produced, err = journal.lastStaged(s.Dir, m); err != nil {
			return "", err
		}
		text = mostWaiting
	}
	return text + strconv.FormatUint(m.produced-m.acknowledged-m.gone.between(m.acknowledged, m.produced), 10), nil
}

// nameOf is an owner as a part of a file's name.
func nameOf(owner string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, owner[:min(len(owner), 64)])
}

// formers lists the directories that were set aside, by their names.
func formers(dir string) ([]Former, error) {
	parent, prefix := filepath.Dir(dir), filepath.Base(dir)+formerInfix
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("look for staging directories that were set aside: %w", err)
	}
	list := []Former{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		f := Former{Dir: filepath.Join(parent, e.Name()), Waiting: -1}
		// It can be a link to a folder.
		if info, err := os.Stat(f.Dir); err != nil || !info.IsDir() {
			continue
		}
		// What cannot be read there any more is no reason not to start.
		f.Owner, _ = Owner(f.Dir)
		text, err := readText(filepath.Join(f.Dir, waitingName))
		count, most := strings.CutPrefix(strings.TrimSpace(string(text)), mostWaiting)
		if n, parseErr := strconv.ParseInt(count, 10, 64); err == nil && parseErr == nil {
			f.Waiting, f.AtMost = n, most
		}
		list = append(list, f)
	}
	return list, nil
}
