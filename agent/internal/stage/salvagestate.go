package stage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// unknownFlow stands in a report for flows whose names could not be read.
const unknownFlow = "(a flow whose name could not be read)"

// allFlows stands for all flows that there were, when nothing says which.
const allFlows = "(all flows; their names went with the state)"

// salvagedState is what a salvage says of the state.db that it has made.
type salvagedState struct {
	// Certain says that the numbers are those of the last commit; otherwise the outbox may be further.
	Certain bool `json:"certain"`
	// StartedAnew and SetBack are as in DamagedFile.
	StartedAnew []string `json:"started_anew"`
	SetBack     []string `json:"set_back"`
}

// version is the state at one commit, as far as the file still has it.
type version struct {
	// txid is the commit's; whole says that all numbers are there.
	txid  uint64
	whole bool
	meta  meta
	// counted has the counters that can be read, also when not all numbers can.
	counted meta
	roots   map[string]bucket
	// desired and serial are sealed entries, nil when they are not there or damaged.
	desired, serial []byte
	flows           map[string]flowVersion
	// names are the flows that are mentioned; complete says that no other was.
	names    map[string]struct{}
	complete bool
	reports  []RunReport
}

// flowVersion is the state of a flow at one of its commits, proven by the sum in its mark.
type flowVersion struct {
	mark               mark
	cursors, operators []element
	// whole is false when only the mark is there.
	whole bool
}

// salvageState collects from every version that the file has what is whole, the newest first.
func salvageState(path, target string) error {
	p, heads, err := openPages(path)
	if err != nil {
		return err
	}
	versions := p.versions(heads)
	m, said, flows := choose(versions)
	if len(versions) > 0 && len(heads) > 0 && said.Certain {
		said.Certain = versions[0].txid >= heads[0].txid
	}
	db, err := openReadWrite(target, 0)
	if err != nil {
		return errors.Join(err, p.close())
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if err := createStateBuckets(tx); err != nil {
			return err
		}
		if err := putFlowVersions(tx, flows); err != nil {
			return err
		}
		if err := putControl(tx, versions); err != nil {
			return err
		}
		text, err := json.Marshal(said)
		if err != nil {
			return fmt.Errorf("describe what was salvaged: %w", err)
		}
		return errors.Join(putSealed(tx.Bucket([]byte(metaBucket)), []byte(salvageKey), text), m.put(tx, &sealer{}, nil))
	})
	return errors.Join(err, db.Close(), p.close())
}

// putControl writes the newest desired state and the newest run reports.
func putControl(tx *bolt.Tx, versions []*version) error {
	for _, v := range versions {
		if v.desired == nil || v.serial == nil {
			continue
		}
		b := tx.Bucket([]byte(metaBucket))
		if err := errors.Join(b.Put([]byte(desiredKey), v.desired), b.Put([]byte(desiredSerialKey), v.serial)); err != nil {
			return fmt.Errorf("store the desired state: %w", err)
		}
		break
	}
	if len(versions) == 0 {
		return nil
	}
	for _, r := range versions[0].reports {
		if _, err := putReport(tx, r.ID, r.Payload); err != nil {
			return err
		}
	}
	return nil
}

// choose takes the newest whole state of every flow. A flow that the newest version has at another commit is set back.
func choose(versions []*version) (m meta, said salvagedState, flows map[string]flowVersion) {
	flows = map[string]flowVersion{}
	if len(versions) == 0 {
		return m, salvagedState{StartedAnew: []string{unknownFlow}}, flows
	}
	newest := versions[0]
	names, known := maps.Clone(newest.names), newest.knowsItsFlows()
	if !known {
		for _, v := range versions {
			maps.Copy(names, v.names)
		}
	}
	if i := slices.IndexFunc(versions, func(v *version) bool { return v.whole }); i >= 0 {
		m, said.Certain = versions[i].meta, i == 0
		// A later commit may have noted that a session has agreed: what is here can be sent by now.
		m.unsentFrom = 0
	}
	for _, v := range versions {
		m.countAtLeast(&v.counted)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		i := slices.IndexFunc(versions, func(v *version) bool { return v.flows[name].whole })
		if i < 0 {
			said.StartedAnew = append(said.StartedAnew, name)
			continue
		}
		flow := versions[i].flows[name]
		flows[name] = flow
		m.produced = max(m.produced, flow.mark.lastSeq)
		if i > 0 && newest.flows[name].mark != flow.mark {
			said.SetBack = append(said.SetBack, name)
		}
	}
	if !known {
		// Part of the flows' names could not be read, and those that are known are not all that there were.
		said.StartedAnew = append(said.StartedAnew, unknownFlow)
	}
	m.markSum = 0
	for name, flow := range flows {
		m.markSum += flow.mark.part(name)
	}
	return m, said, flows
}

// counters are the fields that only rise as long as the directory lives, so that the highest value that can be read is the
// nearest to the truth.
func (m *meta) counters() []field {
	return []field{
		{lostKey, &m.lost},
		{lostRemotelyKey, &m.lostRemotely},
		{setAsideKey, &m.setAside},
		{salvagedKey, &m.salvaged},
		{droppedReportsKey, &m.droppedReports},
		{lateKey, &m.late},
		{expiredAgeKey, &m.expiredAge},
		{expiredBytesKey, &m.expiredBytes},
	}
}

// countAtLeast raises the counters to what other ones have.
func (m *meta) countAtLeast(other *meta) {
	theirs := other.counters()
	for i, c := range m.counters() {
		*c.n = max(*c.n, *theirs[i].n)
	}
}

// knowsItsFlows says whether the version names every flow that it had: where it has all marks, their sum must be right.
func (v *version) knowsItsFlows() bool {
	sum, marks := uint64(0), 0
	for name, flow := range v.flows {
		sum += flow.mark.part(name)
		if flow.mark != (mark{}) {
			marks++
		}
	}
	if v.whole && marks == len(v.names) {
		return sum == v.meta.markSum
	}
	return v.complete
}

// putFlowVersions writes flows as they were.
func putFlowVersions(tx *bolt.Tx, flows map[string]flowVersion) error {
	for name, flow := range flows {
		b, err := createFlow(tx.Bucket([]byte(flowsBucket)), name)
		if err != nil {
			return fmt.Errorf("store flow %s: %w", name, err)
		}
		for _, part := range []struct {
			bucket  string
			entries []element
		}{{cursorsBucket, flow.cursors}, {operatorsBucket, flow.operators}} {
			entries := b.Bucket([]byte(part.bucket))
			for _, e := range part.entries {
				if err := entries.Put(e.key, e.value); err != nil {
					return fmt.Errorf("store flow %s: %w", name, err)
				}
			}
		}
		if err := putSealed(b, []byte(markKey), flow.mark.encode()); err != nil {
			return err
		}
	}
	return nil
}

// maxVersions is how many versions are read. bbolt gives up the pages of older ones, so that little of them is left.
const maxVersions = 4

// versions reads the newest roots that the file still has, in order: those that its heads lead to, and those that are only
// pages by now.
func (p *pageFile) versions(heads []head) []*version {
	var list []*version
	seen := map[uint64]struct{}{}
	for _, h := range heads {
		seen[h.root] = struct{}{}
		list = append(list, p.version(h.root, h.txid))
	}
	for id := uint64(2); id < p.pages; id++ {
		if _, twice := seen[id]; !twice && p.looksLikeRoot(id) {
			// Its own numbers say which commit it is of; without them it is the oldest.
			list = append(list, p.version(id, 0))
		}
	}
	slices.SortStableFunc(list, func(a, b *version) int { return cmp.Compare(b.txid, a.txid) })
	list = list[:min(len(list), maxVersions)]
	for _, v := range list {
		v.readFlows(p)
	}
	return list
}

// looksLikeRoot says whether the page could be the root of the whole file.
func (p *pageFile) looksLikeRoot(id uint64) bool {
	header := make([]byte, pageHeaderBytes)
	if _, err := p.file.ReadAt(header, int64(id)*p.pageSize); err != nil || binary.LittleEndian.Uint16(header[8:]) != leafPage || //nolint:gosec // below the size of the file
		binary.LittleEndian.Uint16(header[10:]) != 4 || binary.LittleEndian.Uint32(header[12:]) != 0 {
		return false
	}
	pg, err := p.page(id)
	if err != nil {
		return false
	}
	list, err := pg.elements()
	return err == nil && !slices.ContainsFunc(list, func(e element) bool { return !e.isBucket || !isStateBucket(string(e.key)) })
}

// isStateBucket says whether state.db has a bucket of that name.
func isStateBucket(name string) bool {
	return name == metaBucket || name == flowsBucket || name == reportsBucket || name == reportIDsBucket
}

// version reads the numbers below a root. txid is what the root's head says, 0 for none.
func (p *pageFile) version(root, txid uint64) *version {
	v := &version{txid: txid, roots: map[string]bucket{}, flows: map[string]flowVersion{}, names: map[string]struct{}{}}
	newWalker(p, func(error) {}).each(bucket{root: root}, func(e element) {
		if b, err := parseBucket(e.value); err == nil && e.isBucket {
			v.roots[string(e.key)] = b
		}
	})
	if b, ok := v.roots[metaBucket]; ok {
		v.readNumbers(p, b)
	}
	return v
}

// readFlows reads the flows and the reports.
func (v *version) readFlows(p *pageFile) {
	flows, ok := v.roots[flowsBucket]
	v.complete = ok
	if ok {
		newWalker(p, func(error) { v.complete = false }).each(flows, func(e element) {
			if !e.isBucket {
				v.complete = false
				return
			}
			v.names[string(e.key)] = struct{}{}
			if b, err := parseBucket(e.value); err == nil {
				v.flows[string(e.key)] = p.flow(string(e.key), b)
			}
		})
	}
	if b, ok := v.roots[reportsBucket]; ok {
		newWalker(p, func(error) {}).each(b, func(e element) {
			if r, err := parseReport(e.key, e.value); err == nil {
				v.reports = append(v.reports, r)
			}
		})
	}
}

// readNumbers reads the numbers, which must all be of one commit.
func (v *version) readNumbers(p *pageFile, b bucket) {
	entries := map[string][]byte{}
	newWalker(p, func(error) {}).each(b, func(e element) {
		value, err := unseal(e.key, e.value)
		if err != nil || e.isBucket {
			return
		}
		switch key := string(e.key); key {
		case desiredKey:
			v.desired = bytes.Clone(e.value)
		case desiredSerialKey:
			v.serial = bytes.Clone(e.value)
		default:
			entries[key] = value
		}
	})
	stamp, txid := entries[stampKey], v.txid
	if txid == 0 && len(stamp) >= 8 {
		txid = binary.BigEndian.Uint64(stamp)
	}
	for _, c := range v.counted.counters() {
		// What a damaged one had counted is unknown.
		*c.n, _ = parseNumber(entries[c.key])
	}
	m, err := parseMeta(entries)
	if v.whole = err == nil && bytes.Equal(stamp, m.stamp(txid)); v.whole {
		v.txid, v.meta = txid, m
	}
}

// parseMeta reads the numbers and lists out of the unsealed entries of their bucket.
func parseMeta(entries map[string][]byte) (m meta, err error) {
	for _, f := range m.fields() {
		if *f.n, err = parseNumber(entries[f.key]); err != nil {
			return meta{}, err
		}
	}
	for _, key := range []string{goneKey, agesKey} {
		if entries[key] == nil {
			return meta{}, damaged("%s is not there", key)
		}
	}
	if m.gone, err = parseGone(entries[goneKey]); err == nil {
		m.ages, err = parseAges(entries[agesKey])
	}
	for key, list := range m.spanLists() {
		// Without them more is counted as lost, or less until it is read.
		*list, _ = parseSpans(entries[key])
	}
	// Without it fewer are counted as lost where the control plane's database went back.
	m.apart, _ = parseNumber(entries[apartKey])
	return m, err
}

// flow reads a flow and proves it.
func (p *pageFile) flow(name string, b bucket) (f flowVersion) {
	parts, whole := map[string]bucket{}, true
	problem := func(error) { whole = false }
	marked := false
	newWalker(p, problem).each(b, func(e element) {
		if string(e.key) == markKey && !e.isBucket {
			value, err := unseal(e.key, e.value)
			if err == nil {
				f.mark, err = parseMark(value)
			}
			marked = err == nil
			return
		}
		child, err := parseBucket(e.value)
		if err != nil || !e.isBucket {
			whole = false
			return
		}
		parts[string(e.key)] = child
	})
	content := emptyContent(name)
	read := func(name string, kind uint64) (list []element) {
		part, ok := parts[name]
		if !ok {
			whole = false
			return nil
		}
		newWalker(p, problem).each(part, func(e element) {
			if _, err := unseal(e.key, e.value); err != nil || e.isBucket {
				whole = false
				return
			}
			content += sealedPart(kind, e.value)
			list = append(list, e)
		})
		return list
	}
	f.cursors, f.operators = read(cursorsBucket, cursorPart), read(operatorsBucket, operatorPart)
	f.whole = whole && marked && content == f.mark.content
	return f
}
