package stage

import (
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
	desiredKey        = "desired"
	desiredSerialKey  = "desired_serial"
	droppedReportsKey = "dropped_reports"
	remoteStoredKey   = "remote_stored"
	lateKey           = "late"
	expiredAgeKey     = GoneExpiredAge
	expiredBytesKey   = GoneExpiredBytes
	ranKey            = "ran"
	markKey           = "mark"
)

func createState(path string, m meta) error {
	return createDatabase(path, func(tx *bolt.Tx) error {
		for _, name := range []string{metaBucket, flowsBucket, reportsBucket, reportIDsBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err //nolint:wrapcheck // createDatabase says what it was doing
			}
		}
		return m.put(tx, &sealer{}, nil)
	})
}

// meta is the numbers of state.db, all of which are small enough to be written with every commit.
type meta struct {
	// produced is the last sequence that counts, acknowledged the last one that the control plane has stored.
	produced, acknowledged uint64
	// lost counts acknowledged sequences whose records were damaged here; lostRemotely those that the control plane no
	// longer has; setAside the files that were found damaged.
	lost, lostRemotely, setAside uint64
	droppedReports               uint64
	// remoteStored is 0, or one more than the end at which a control plane was that had lost what it had acknowledged.
	remoteStored uint64
	// late counts rows that came too late; expiredAge and expiredBytes the insights that those rules have dropped.
	late, expiredAge, expiredBytes uint64
	// gone is what rules have dropped of what is not acknowledged.
	gone gone
	// ranMillis is for how long the agent has run with this directory, in milliseconds, and ages how old is what waits.
	ranMillis uint64
	ages      ages
}

// floor is the last sequence that is acknowledged or that a rule has dropped with all before it.
func (m *meta) floor() uint64 { return max(m.acknowledged, m.gone.end()) }

// field is a number of the meta and its key.
type field struct {
	key string
	n   *uint64
}

func (m *meta) fields() [11]field {
	return [...]field{
		{producedKey, &m.produced},
		{acknowledgedKey, &m.acknowledged},
		{lostKey, &m.lost},
		{lostRemotelyKey, &m.lostRemotely},
		{setAsideKey, &m.setAside},
		{droppedReportsKey, &m.droppedReports},
		{remoteStoredKey, &m.remoteStored},
		{lateKey, &m.late},
		{expiredAgeKey, &m.expiredAge},
		{expiredBytesKey, &m.expiredBytes},
		{ranKey, &m.ranMillis},
	}
}

// optional says whether a directory may be without the number, because an agent began it that did not keep it.
func optional(key string) bool {
	return key == lateKey || key == expiredAgeKey || key == expiredBytesKey || key == ranKey
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
	var before [11]field
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
	if stored == nil || !slices.Equal(m.gone, stored.gone) {
		if err := sealed.put(b, []byte(goneKey), m.gone.encode()); err != nil {
			return err
		}
	}
	if stored == nil || !slices.Equal(m.ages, stored.ages) {
		return sealed.put(b, []byte(agesKey), m.ages.encode())
	}
	return nil
}

func readMeta(tx *bolt.Tx) (m meta, err error) {
	b := tx.Bucket([]byte(metaBucket))
	if b == nil || tx.Bucket([]byte(flowsBucket)) == nil {
		return meta{}, fmt.Errorf("%w: state.db has no %s or %s bucket", ErrDamaged, metaBucket, flowsBucket)
	}
	for _, f := range m.fields() {
		value, err := getSealed(b, []byte(f.key))
		if errors.Is(err, errAbsent) && optional(f.key) {
			continue
		}
		if err != nil {
			return meta{}, err
		}
		if *f.n, err = parseNumber(value); err != nil {
			return meta{}, err
		}
	}
	return m, m.readLists(b)
}

// readLists reads what rules have dropped and how old the rest is, where they are kept.
func (m *meta) readLists(b *bolt.Bucket) error {
	value, err := getSealed(b, []byte(goneKey))
	if err == nil {
		m.gone, err = parseGone(value)
	}
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	if value, err = getSealed(b, []byte(agesKey)); err == nil {
		m.ages, err = parseAges(value)
	}
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	return nil
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
}

func (m mark) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, m.number)
	out = binary.BigEndian.AppendUint32(out, m.sum)
	return binary.BigEndian.AppendUint64(out, m.lastSeq)
}

func parseMark(b []byte) (mark, error) {
	if len(b) != 20 {
		return mark{}, fmt.Errorf("%w: a flow's mark has %d bytes instead of 20", ErrDamaged, len(b))
	}
	return mark{number: binary.BigEndian.Uint64(b), sum: binary.BigEndian.Uint32(b[8:]), lastSeq: binary.BigEndian.Uint64(b[12:])}, nil
}

func readMarks(tx *bolt.Tx) (map[string]mark, error) {
	marks := map[string]mark{}
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
		return nil
	})
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
