package stage

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// The keys of state.db that say what is beside it: whose directory this is and its layout, which prove a lost OWNER and
// FORMAT, and the first sequence of every segment, so that one that is missing is told from one that is damaged. None of
// them is needed to read the rest.
const (
	ownerKey    = "owner"
	formatKey   = "format"
	segmentsKey = "segments"
)

// journalPrefix is what the names of the files begin with that hold commits before state.db and the outbox do.
const journalPrefix = "journal"

// isData says whether a file of that name holds what was staged.
func isData(name string) bool {
	return name == stateName || strings.HasPrefix(name, segmentPrefix) && strings.HasSuffix(name, segmentSuffix) ||
		strings.HasPrefix(strings.ToLower(name), journalPrefix) && !strings.HasSuffix(name, newSuffix)
}

// traces says what of an earlier start is in the directory: staged data, or at least what is only made once there is a
// state.db.
func traces(dir string) (data, begun bool, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, false, fmt.Errorf("list the staging directory: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.Contains(name, corruptInfix), name == spareName, name == ScratchName:
			begun = true
		case isData(name):
			data, begun = true, true
		}
	}
	return data, begun, nil
}

// origin is what state.db says of the directory that it is in.
type origin struct {
	// owner is empty and format is 0 where it does not say.
	owner  string
	format uint64
}

// readOrigin reads what state.db says of its directory; it says nothing when it was made before that was recorded.
func readOrigin(tx *bolt.Tx) (o origin, err error) {
	b := tx.Bucket([]byte(metaBucket))
	if b == nil {
		return o, damaged("it has no %s bucket", metaBucket)
	}
	owner, err := getSealed(b, []byte(ownerKey))
	if err == nil {
		o.owner = string(owner)
	}
	if err == nil || errors.Is(err, errAbsent) {
		owner, err = getSealed(b, []byte(formatKey))
	}
	if err == nil {
		o.format, err = parseNumber(owner)
	}
	if errors.Is(err, errAbsent) {
		err = nil
	}
	return o, err
}

// putOrigin writes it.
func putOrigin(tx *bolt.Tx, o origin) error {
	b := tx.Bucket([]byte(metaBucket))
	if o.owner != "" {
		if err := putSealed(b, []byte(ownerKey), []byte(o.owner)); err != nil {
			return err
		}
	}
	return putSealed(b, []byte(formatKey), number(o.format))
}

// origin is that of this directory.
func (s *Settings) origin() origin { return origin{owner: s.Owner, format: formatVersion} }

// provenOrigin reads from a whole state.db whose directory this is. It says nothing where there is none, or it is damaged.
func (s *Settings) provenOrigin(ctx context.Context) (o origin, err error) {
	path := filepath.Join(s.Dir, stateName)
	there, err := exists(path)
	if err != nil || !there || strangeness(path) != "" {
		return o, err
	}
	if err = s.verifyOne(ctx, path); err == nil {
		err = s.viewReadOnly(path, func(tx *bolt.Tx) error {
			o, err = readOrigin(tx)
			return err
		})
	}
	if errors.Is(err, ErrDamaged) {
		s.Logger.WarnContext(ctx, "the staged state is damaged, and cannot say whose it is", slog.Any("error", err))
		return origin{}, nil
	}
	return o, err
}

// viewReadOnly reads a file that is known to be whole and changes nothing in it.
func (s *Settings) viewReadOnly(path string, fn func(*bolt.Tx) error) error {
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	return errors.Join(db.View(fn), db.Close())
}

// ownerProven gives whose a directory is whose OWNER is missing or damaged, as the refusal says. Only one that holds nothing
// may be claimed, for which it gives an empty text: to guess could send one tenant's insights to another.
func (s *Settings) ownerProven(ctx context.Context, refusal error) (owner string, err error) {
	data, _, err := traces(s.Dir)
	if err != nil || !data {
		return "", err
	}
	o, err := s.provenOrigin(ctx)
	if err != nil {
		return "", err
	}
	if o.owner == "" {
		return "", refusal
	}
	s.Logger.WarnContext(ctx, "the file that says whose the staged insights are was missing or damaged; it is written anew from the staged state",
		slog.String("file", filepath.Join(s.Dir, ownerName)), slog.String("owner", o.owner), slog.Any("error", refusal))
	return o.owner, nil
}

// ownerMissing is the refusal of a directory without OWNER.
func (s *Settings) ownerMissing() error {
	return fmt.Errorf("%w: %s is missing beside staged insights, and nothing else says whose they are; if the agent that staged them is %[3]s, which starts here now, write the line %[3]s into that file and start again; otherwise write the id of the agent that staged them, and the directory is set aside and never sent",
		ErrDamaged, filepath.Join(s.Dir, ownerName), s.Owner)
}

// disproved says whether the state proves that the directory belongs to the agent that starts, although OWNER names another
// one: then it is OWNER that is damaged. Whatever else the state says, or does not, the directory is another's.
func (s *Settings) disproved(ctx context.Context, owner string) (bool, error) {
	o, err := s.provenOrigin(ctx)
	if err != nil || o.owner != s.Owner {
		return false, err
	}
	s.Logger.WarnContext(ctx, "the file that says whose the staged insights are is damaged: it names another agent than the staged state, which is this agent's; it is written anew",
		slog.String("file", filepath.Join(s.Dir, ownerName)), slog.String("said", owner), slog.String("owner", s.Owner))
	return true, nil
}

// formatProven says whether a directory whose FORMAT is missing, damaged or newer, as the refusal says, may be marked with
// the format of this agent: when its state proves to have it, or when nothing is in it and nothing speaks of a newer agent.
func (s *Settings) formatProven(ctx context.Context, refusal error) error {
	data, _, err := traces(s.Dir)
	switch {
	case err != nil:
		return err
	case data:
	case errors.Is(refusal, ErrNewerFormat):
		return refusal
	default:
		return nil
	}
	o, err := s.provenOrigin(ctx)
	switch {
	case err != nil:
		return err
	case o.format > formatVersion:
		return fmt.Errorf("%w: %s in %s has format %d and this agent knows %d; start the newer agent again", ErrNewerFormat, stateName, s.Dir, o.format, formatVersion)
	case o.format != formatVersion:
		return refusal
	}
	s.Logger.WarnContext(ctx, "the file that says which layout the staged data has was missing or damaged; it is written anew from the staged state",
		slog.String("file", filepath.Join(s.Dir, formatName)), slog.Any("error", refusal))
	return nil
}

// errTwoOwners says that OWNER and state.db name two owners.
var errTwoOwners = errors.New("the staging directory names two owners")

// checkOrigin refuses a state that another owner staged into. Of two names one is a mistake, and to guess could send one
// tenant's insights to another.
func (f *files) checkOrigin(set *Settings) error {
	if set.Owner == "" || f.origin.owner == "" || f.origin.owner == set.Owner {
		return nil
	}
	return fmt.Errorf("%w: %s says %s, and %s was written by %s; write %[5]s into %[2]s, and the directory is set aside and never sent, or move the directory away",
		errTwoOwners, filepath.Join(set.Dir, ownerName), set.Owner, stateName, f.origin.owner)
}

// missingState treats a state.db that is not there as the damage that it is. In a directory that never had one it gives
// nothing.
func (f *files) missingState(ctx context.Context, s *Stage) error {
	f.uncertain = true
	_, begun, err := traces(s.settings.Dir)
	if err != nil || !begun {
		return err
	}
	if err := s.settings.roomFor("to make the missing "+stateName+" anew", stateGrowth); err != nil {
		return err
	}
	d := &DamagedFile{
		Missing: true, StartedAnew: []string{allFlows},
		Reason: "the file is missing: with it went the numbers of the outbox, what every flow had read, the flows that shall run and the run reports. " +
			"Everything that is in the outbox counts as waiting; what the control plane has of it is not sent again. The flows come again from the control plane and start anew, so that what they had read comes twice. " +
			"Find out what removed the file; if a backup has it, do not put it back: it would be older than the outbox",
	}
	if len(s.settings.KnownFlows) > 0 {
		d.StartedAnew = slices.Sorted(slices.Values(s.settings.KnownFlows))
	}
	// What earlier damage has counted is known from what is kept of it.
	kept, err := countKept(s.settings.Dir)
	if err != nil {
		return err
	}
	f.countAtLeast(&kept)
	d.name(filepath.Join(s.settings.Dir, stateName))
	s.settings.Logger.ErrorContext(ctx, "the staged state is missing: flows start anew and repeat what they had read; find out what removed the file",
		slog.String("file", filepath.Join(s.settings.Dir, stateName)), slog.Any("started_anew", d.StartedAnew), slog.String("more", d.File+whySuffix))
	f.setAside++
	f.repaired = true
	return f.tellPassing(s, d)
}

// tellPassing says what is missing, until that is made: a try that comes no further leaves nothing of it.
func (f *files) tellPassing(s *Stage, d *DamagedFile) error {
	f.passing = append(f.passing, filepath.Join(s.settings.Dir, d.File+whySuffix))
	return d.describe(s.settings.Dir)
}

// countKept counts what the damaged files that are kept tell of.
func countKept(dir string) (m meta, err error) {
	list, err := damagedFiles(dir)
	for _, old := range list {
		m.setAside++
		m.salvaged += old.Salvaged
	}
	return m, err
}

// tellOlderState tells that state.db is older than the outbox, where the journal does not.
func (f *files) tellOlderState(s *Stage) error {
	if s.found.ahead(f.epoch) {
		return nil
	}
	d := &DamagedFile{
		Missing: true, SetBack: []string{unknownFlow},
		Reason: "the file is older than the outbox: flows repeat what they had read since. Find out what put an older copy of the file in its place",
	}
	d.name(filepath.Join(s.settings.Dir, stateName))
	f.setAside++
	f.repaired = true
	return f.tellPassing(s, d)
}

// lostRange is the sequences of segments that are not there. first is also that of the first segment missing.
type lostRange struct{ first, last uint64 }

// missingSegments finds the segments that should be there and are not: those that the state lists, and what nothing has in
// front of the first one.
func (f *files) missingSegments(names []segmentName) (lost []lostRange) {
	if f.uncertain || f.produced == f.floor() {
		return nil
	}
	there := func(first uint64) bool {
		return slices.ContainsFunc(names, func(n segmentName) bool { return n.first == first })
	}
	for i, first := range f.listed {
		last := f.produced
		if i+1 < len(f.listed) {
			last = min(last, f.listed[i+1]-1)
		}
		// A later one that the list does not have yet ends it too.
		for _, n := range names {
			if n.first > first {
				last = min(last, n.first-1)
				break
			}
		}
		if last > f.floor() && last >= first && !there(first) {
			lost = append(lost, lostRange{first, last})
		}
	}
	begin := f.floor() + 1
	end := f.produced
	if len(names) > 0 {
		end = min(end, names[0].first-1)
	}
	if len(lost) > 0 {
		end = min(end, lost[0].first-1)
	}
	if begin <= end {
		lost = slices.Insert(lost, 0, lostRange{begin, end})
	}
	return lost
}

// replaceMissing puts an empty segment that knows what is lost in the place of every one that is missing, so that nobody
// else is blamed for it, now and at every later start.
func (f *files) replaceMissing(ctx context.Context, s *Stage, names []segmentName) ([]segmentName, error) {
	for _, lost := range f.missingSegments(names) {
		if err := s.settings.roomFor("to note which part of the outbox is missing", repairBytes); err != nil {
			return nil, err
		}
		from := max(lost.first, f.floor()+1)
		d := &DamagedFile{
			Missing: true, Lost: lost.last - from + 1, LostFirst: from, LostLast: lost.last,
			Reason: fmt.Sprintf("a segment of the outbox is missing: the insights %d to %d, which waited to be sent, went with it. Find out what removed it", from, lost.last),
		}
		to := nameSegment(s.settings.Dir, lost.first, 1)
		d.name(filepath.Join(s.settings.Dir, fmt.Sprintf("%s%020d%s", segmentPrefix, lost.first, segmentSuffix)))
		s.settings.Logger.ErrorContext(ctx, "a part of the outbox is missing and its insights are lost; find out what removed the file",
			slog.Uint64("first_lost", from), slog.Uint64("last_lost", lost.last), slog.Uint64("records_lost", d.Lost), slog.String("more", d.File+whySuffix))
		if err := d.describe(s.settings.Dir); err != nil {
			return nil, err
		}
		f.foundLost(from, lost.last)
		empty, err := createNamed(to, func(tx *bolt.Tx) error { return putLost(tx, []span{{lost.first, lost.last}}) })
		if err != nil {
			return nil, fmt.Errorf("note what a missing segment has lost: %w", err)
		}
		if err := empty.db.Close(); err != nil {
			return nil, err
		}
		names = append(names, to)
		f.setAside++
		f.repaired = true
	}
	slices.SortFunc(names, func(a, b segmentName) int { return cmp.Compare(a.first, b.first) })
	return names, nil
}

// firsts are the first sequences of the segments.
func (f *files) firsts() []uint64 {
	list := make([]uint64, len(f.segments))
	for i, seg := range f.segments {
		list[i] = seg.first
	}
	// A commit that failed can have left an empty one that another of the same sequence follows, and while a renumbering goes
	// back the old ones stand in front.
	slices.Sort(list)
	return slices.Compact(list)
}

// encodeListed and parseListed are for the list of segments: their first sequences, which rise.
func encodeListed(list []uint64) []byte {
	var out []byte
	for _, first := range list {
		out = binary.BigEndian.AppendUint64(out, first)
	}
	return out
}

func parseListed(value []byte) (list []uint64, err error) {
	if len(value)%8 != 0 {
		return nil, damaged("the list of segments has %d bytes", len(value))
	}
	for ; len(value) > 0; value = value[8:] {
		first := binary.BigEndian.Uint64(value)
		if first == 0 || len(list) > 0 && first <= list[len(list)-1] {
			return nil, damaged("the list of segments has %d out of order", first)
		}
		list = append(list, first)
	}
	return list, nil
}
