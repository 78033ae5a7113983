package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// The buckets of state.db. Every value in them is sealed.
const (
	// metaBucket has the numbers below and the desired state.
	metaBucket = "meta"
	// flowsBucket has a bucket per flow, with markKey, cursorsBucket (step: cursor) and operatorsBucket (step and key: entry).
	flowsBucket     = "flows"
	cursorsBucket   = "cursors"
	operatorsBucket = "operators"
	// reportsBucket has run reports by a rising number, reportIDsBucket that number by the run's id.
	reportsBucket   = "reports"
	reportIDsBucket = "report_ids"
)

// The keys of metaBucket and of a flow's bucket.
const (
	producedKey       = "produced"
	acknowledgedKey   = "acknowledged"
	lostKey           = "lost"
	lostRemotelyKey   = "lost_remotely"
	setAsideKey       = "set_aside"
	salvagedKey       = "salvaged"
	desiredKey        = "desired"
	desiredSerialKey  = "desired_serial"
	droppedReportsKey = "dropped_reports"
	remoteStoredKey   = "remote_stored"
	lateKey           = "late"
	expiredAgeKey     = GoneExpiredAge
	expiredBytesKey   = GoneExpiredBytes
	ranKey            = "ran"
	markKey           = "mark"
	marksKey          = "marks"
	stampKey          = "stamp"
	journalKey        = "journal"
	epochKey          = "epoch"
	unsentKey         = "unsent_from"
	unsureKey         = "unsure"
	apartKey          = "lost_apart"
	voidsKey          = "voids"
	// salvageKey is there in a state.db that was made by a salvage, until the agent has taken note of it.
	salvageKey = "salvage"
)

func createState(path string, m meta, o origin) error {
	return createDatabase(path, func(tx *bolt.Tx) error {
		if err := createStateBuckets(tx); err != nil {
			return err
		}
		if err := putOrigin(tx, o); err != nil {
			return err
		}
		return m.put(tx, &sealer{}, nil)
	})
}

func createStateBuckets(tx *bolt.Tx) error {
	for _, name := range []string{metaBucket, flowsBucket, reportsBucket, reportIDsBucket} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return fmt.Errorf("make the bucket %s: %w", name, err)
		}
	}
	return nil
}

// meta is the numbers of state.db, all of which are small enough to be written with every commit.
type meta struct {
	// produced is the last sequence that counts, acknowledged the last one that the control plane has stored.
	produced, acknowledged uint64
	// lost counts acknowledged sequences whose records were damaged here; lostRemotely those that the control plane no
	// longer has; setAside the files that were found damaged, salvaged the records that were taken out of them.
	lost, lostRemotely, setAside, salvaged uint64
	droppedReports                         uint64
	// remoteStored is 0, or one more than the end at which a control plane was that had lost what it had acknowledged.
	remoteStored uint64
	// late counts rows that came too late; expiredAge and expiredBytes the insights that those rules have dropped.
	late, expiredAge, expiredBytes uint64
	// markSum is the sum of all flows' marks, so that none of them can be an older one.
	markSum uint64
	// gone is what rules have dropped of what is not acknowledged.
	gone gone
	// ranMillis is for how long the agent has run with this directory, in milliseconds, and ages how old is what waits.
	ranMillis uint64
	ages      ages
	// listed are the first sequences of the segments, as they were at the last commit. An older list does no harm, so that
	// the stamp leaves it out.
	listed []uint64
	// journal is the id of the journal, 0 for none. A commit here begins another epoch of it, but for those that take in the first
	// of many flows: what it has of earlier epochs is in the state.
	journal, epoch uint64
	// unsentFrom is the first sequence that was never sent because no session has agreed since, over restarts; 0 once one has.
	// An older one does no harm but that something is sent twice, so that the stamp leaves it out.
	unsentFrom uint64
	// unsure are the lost ones of which the control plane may have stored what was sent before, and voids those that can never
	// be sent. Older ones do no harm but to what is counted, so that the stamp leaves them out.
	unsure, voids spans
	// apart is how many of the lost ones the control plane has no receipts for: those of which its database lost them, and those
	// that were lost before they had a number that it knows. It is left out like them.
	apart uint64
}

// floor is the last sequence that is acknowledged or that a rule has dropped with all before it.
func (m *meta) floor() uint64 { return max(m.acknowledged, m.gone.end()) }

// field is a number of the meta and its key.
type field struct {
	key string
	n   *uint64
}

func (m *meta) fields() [15]field {
	return [...]field{
		{producedKey, &m.produced},
		{acknowledgedKey, &m.acknowledged},
		{lostKey, &m.lost},
		{lostRemotelyKey, &m.lostRemotely},
		{setAsideKey, &m.setAside},
		{salvagedKey, &m.salvaged},
		{droppedReportsKey, &m.droppedReports},
		{remoteStoredKey, &m.remoteStored},
		{lateKey, &m.late},
		{expiredAgeKey, &m.expiredAge},
		{expiredBytesKey, &m.expiredBytes},
		{ranKey, &m.ranMillis},
		{marksKey, &m.markSum},
		{journalKey, &m.journal},
		{epochKey, &m.epoch},
	}
}

// expired is the counter of a rule.
func (m *meta) expired(reason string) *uint64 {
	if reason == GoneExpiredAge {
		return &m.expiredAge
	}
	return &m.expiredBytes
}

// put stores what differs from what is stored, which is nil where nothing is.
func (m *meta) put(tx *bolt.Tx, sealed *sealer, stored *meta) error {
	b := tx.Bucket([]byte(metaBucket))
	var before [15]field
	if stored != nil {
		before = stored.fields()
	}
	for i, f := range m.fields() {
		if stored != nil && *f.n == *before[i].n {
			continue
		}
		if err := sealed.put(b, []byte(f.key), number(*f.n)); err != nil {
			return err
		}
	}
	if err := m.putLists(b, sealed, stored); err != nil {
		return err
	}
	return sealed.put(b, []byte(stampKey), m.stamp(uint64(tx.ID()))) //nolint:gosec // bbolt's is a uint64 itself
}

// putLists stores what readLists reads, where it differs.
func (m *meta) putLists(b *bolt.Bucket, sealed *sealer, stored *meta) error {
	for _, e := range []struct {
		key   string
		same  bool
		value func() []byte
	}{
		{goneKey, stored != nil && slices.Equal(m.gone, stored.gone), m.gone.encode},
		{agesKey, stored != nil && slices.Equal(m.ages, stored.ages), m.ages.encode},
		{segmentsKey, stored != nil && slices.Equal(m.listed, stored.listed), func() []byte { return encodeListed(m.listed) }},
		{unsentKey, stored != nil && m.unsentFrom == stored.unsentFrom, func() []byte { return number(m.unsentFrom) }},
		{apartKey, m.apart == stored.lists().apart, func() []byte { return number(m.apart) }},
		{unsureKey, slices.Equal(m.unsure, stored.lists().unsure), m.unsure.encode},
		{voidsKey, slices.Equal(m.voids, stored.lists().voids), m.voids.encode},
	} {
		if e.same {
			continue
		}
		if err := sealed.put(b, []byte(e.key), e.value()); err != nil {
			return err
		}
	}
	return nil
}

// lists is the meta, or an empty one in the place of nil, of which no list is on the disk that could be left away.
func (m *meta) lists() *meta {
	if m == nil {
		return &meta{}
	}
	return m
}

// stamp is the transaction that wrote the numbers, and what they add up to. Every commit writes it, so that a page with
// older numbers is found out.
func (m *meta) stamp(txid uint64) []byte {
	sum := contentPart(numberPart, sumOf([]byte(goneKey), m.gone.encode())) + contentPart(numberPart, sumOf([]byte(agesKey), m.ages.encode()))
	for _, f := range m.fields() {
		sum += contentPart(numberPart, sumOf([]byte(f.key), number(*f.n)))
	}
	return append(number(txid), number(sum)...)
}

func readMeta(tx *bolt.Tx) (m meta, err error) {
	b := tx.Bucket([]byte(metaBucket))
	if b == nil || tx.Bucket([]byte(flowsBucket)) == nil {
		return meta{}, fmt.Errorf("%w: state.db has no %s or %s bucket", ErrDamaged, metaBucket, flowsBucket)
	}
	for _, f := range m.fields() {
		value, err := getSealed(b, []byte(f.key))
		if errors.Is(err, errAbsent) {
			return meta{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err != nil {
			return meta{}, err
		}
		if *f.n, err = parseNumber(value); err != nil {
			return meta{}, err
		}
	}
	if err := m.readLists(b); err != nil {
		return meta{}, err
	}
	stamp, err := getSealed(b, []byte(stampKey))
	if err == nil && !bytes.Equal(stamp, m.stamp(uint64(tx.ID()))) { //nolint:gosec // bbolt's is a uint64 itself
		err = errors.New("the numbers are not those of the last commit")
	}
	if err != nil {
		return meta{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, nil
}

// readLists reads what rules have dropped, how old the rest is, and readOptional.
func (m *meta) readLists(b *bolt.Bucket) error {
	value, err := getSealed(b, []byte(goneKey))
	if err == nil {
		m.gone, err = parseGone(value)
	}
	if err == nil {
		value, err = getSealed(b, []byte(agesKey))
	}
	if err == nil {
		m.ages, err = parseAges(value)
	}
	if errors.Is(err, errAbsent) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	return m.readOptional(b)
}

// readOptional reads what may be missing.
func (m *meta) readOptional(b *bolt.Bucket) error {
	parsers := map[string]func([]byte) error{
		segmentsKey: func(value []byte) (err error) {
			m.listed, err = parseListed(value)
			return err
		},
	}
	for key, n := range map[string]*uint64{unsentKey: &m.unsentFrom, apartKey: &m.apart} {
		parsers[key] = func(value []byte) (err error) {
			*n, err = parseNumber(value)
			return err
		}
	}
	for key, list := range m.spanLists() {
		parsers[key] = func(value []byte) (err error) {
			*list, err = parseSpans(value)
			return err
		}
	}
	for key, parse := range parsers {
		value, err := getSealed(b, []byte(key))
		if err == nil {
			err = parse(value)
		}
		if err != nil && !errors.Is(err, errAbsent) {
			return err
		}
	}
	return nil
}

// spanLists are the lists of sequences by their keys.
func (m *meta) spanLists() map[string]*spans {
	return map[string]*spans{unsureKey: &m.unsure, voidsKey: &m.voids}
}

// errAbsent says that a bucket has no such key.
var errAbsent = errors.New("no such entry")

func putSealed(b *bolt.Bucket, key, value []byte) error {
	if err := b.Put(key, seal(key, value)); err != nil {
		return fmt.Errorf("store the entry %q: %w", key, err)
	}
	return nil
}

// getSealed gives a value that is valid until the transaction ends, or errAbsent.
func getSealed(b *bolt.Bucket, key []byte) ([]byte, error) {
	sealed := b.Get(key)
	if sealed == nil {
		return nil, fmt.Errorf("%w: %q", errAbsent, key)
	}
	return unseal(key, sealed)
}

// mark is the end of a flow's last commit.
type mark struct {
	// number counts the flow's commits; sum is the checkpoint's checksum and lastSeq the outbox's end behind it.
	number  uint64
	sum     uint32
	lastSeq uint64
	// content is the sum of the flow's name and of all its cursors and entries, which proves that none is missing, an older
	// one, or another flow's.
	content uint64
}

func (m mark) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, m.number)
	out = binary.BigEndian.AppendUint32(out, m.sum)
	out = binary.BigEndian.AppendUint64(out, m.lastSeq)
	return binary.BigEndian.AppendUint64(out, m.content)
}

// part is what the flow's mark adds to meta.markSum; that of a flow without one is 0.
func (m mark) part(flow string) uint64 {
	if m.number == 0 {
		return 0
	}
	return contentPart(markPart, sumOf([]byte(flow), m.encode()))
}

func parseMark(b []byte) (mark, error) {
	if len(b) != 28 {
		return mark{}, fmt.Errorf("%w: a flow's mark has %d bytes instead of 28", ErrDamaged, len(b))
	}
	return mark{
		number: binary.BigEndian.Uint64(b), sum: binary.BigEndian.Uint32(b[8:]),
		lastSeq: binary.BigEndian.Uint64(b[12:]), content: binary.BigEndian.Uint64(b[20:]),
	}, nil
}

// readMarks gives the marks of all flows, which must be those that belong together.
func readMarks(tx *bolt.Tx, want uint64) (map[string]mark, error) {
	marks, sum := map[string]mark{}, uint64(0)
	flows := tx.Bucket([]byte(flowsBucket))
	err := flows.ForEachBucket(func(flow []byte) error {
		value, err := getSealed(flows.Bucket(flow), []byte(markKey))
		if err != nil {
			return err
		}
		m, err := parseMark(value)
		if err != nil {
			return err
		}
		marks[string(flow)] = m
		sum += m.part(string(flow))
		return nil
	})
	if err == nil && sum != want {
		err = fmt.Errorf("%w: the flows are not those of the last commit", ErrDamaged)
	}
	if errors.Is(err, errAbsent) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the flows' marks: %w", err)
	}
	return marks, nil
}

// operatorKey joins a step's id and an entry's key so that both can be told apart again.
func operatorKey(step, key string) []byte { return appendOperatorKey(nil, step, key) }

func appendOperatorKey(dst []byte, step, key string) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(step))), step...)
	return append(dst, key...)
}

func parseOperatorKey(b []byte) (step, key string, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b[n:])) {
		return "", "", fmt.Errorf("%w: an operator entry has the key %q", ErrDamaged, b)
	}
	return string(b[n : n+int(size)]), string(b[n+int(size):]), nil //nolint:gosec // bounded by len(b)
}
