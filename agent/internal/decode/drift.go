package decode

import (
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

const (
	// maxDrift is how many names a decoder notices that the schema does not name, and lacks of those that it does.
	maxDrift = 32
	// driftPatience is how many records in a row without a column make it noticed.
	driftPatience = 1000
	// driftFile is how many records a file must have for what none of them has to be noticed.
	driftFile = 100
)

// unwatched is the place of a member that fills no column of the schema.
const unwatched = -1

// drift watches for members that the schema does not name, and for columns that never come or no longer do. A nil drift
// watches nothing.
//
// The decoder notes in each member which record had it last, and nothing more is done with a record. What columns do not come
// is looked at when one may have been away for long enough.
type drift struct {
	policy connector.Drift
	// declared has the places of the schema's names in columns, which are those that a member is to fill.
	declared map[string]int
	columns  []awaited
	// watched are the members that fill one of columns, as far as the decoder remembers them.
	watched []*member
	// noticed has the names that were told of.
	noticed map[string]bool
	// offence is the name for which the record must fail.
	offence string
	// records counts those that are objects, and others those of them that are of other files than this one.
	records, others int64
	// look is how many records there are when the columns are looked at again.
	look int64
	// patient says that nothing was told yet of columns that never came.
	patient bool
	notes   []string
}

// awaited is a column that members are to fill.
type awaited struct {
	name string
	// last is the record in which it came last, counted from one, as far as gather knows; 0 when it never came.
	last int64
	// told says that it was told to come no longer.
	told bool
}

// Watch makes the decoder look for what the declared schema and the records do not share. It is called before the first
// record. With connector.DriftFail a record with a member that the schema does not name fails.
func (d *JSON) Watch(policy connector.Drift, declared expr.Schema) {
	if policy == connector.DriftIgnore {
		return
	}
	w := &drift{policy: policy, declared: map[string]int{}, noticed: map[string]bool{}, look: driftPatience, patient: true}
	for _, c := range slices.Concat(declared, d.schema) {
		if _, double := w.declared[c.Name]; double {
			continue
		}
		w.declared[c.Name] = unwatched
		if !slices.Contains(d.ignored, c.Name) {
			w.declared[c.Name] = len(w.columns)
			w.columns = append(w.columns, awaited{name: c.Name})
		}
	}
	d.drift, d.seq = w, 1
}

// see is told of a member's name that is not remembered, in the record of this number, and gives its place. forget says that it
// must not be remembered, because every record that has it fails.
func (w *drift) see(name []byte, seq int64) (place int, forget bool) {
	if w == nil {
		return unwatched, false
	}
	if place, named := w.declared[string(name)]; named {
		if place != unwatched {
			w.columns[place].last = seq
		}
		return place, false
	}
	if w.policy == connector.DriftFail {
		if w.offence == "" {
			w.offence = excerpt.Of(name)
		}
		return unwatched, true
	}
	if len(w.noticed) < maxDrift && !w.noticed[string(name)] {
		w.noticed[string(name)] = true
		w.notes = append(w.notes, unnamedMember(string(name)))
	}
	return unwatched, false
}

// watch remembers a member that the decoder remembers.
func (w *drift) watch(m *member) {
	if w != nil && m.place != unwatched {
		w.watched = append(w.watched, m)
	}
}

// gather brings up to date when the columns came last.
func (w *drift) gather() {
	for _, m := range w.watched {
		c := &w.columns[m.place]
		c.last = max(c.last, m.seen)
	}
}

// begin starts a record.
func (w *drift) begin() {
	if w != nil {
		w.offence = ""
	}
}

// endRecord counts a record for the drift and says whether it must fail.
func (d *JSON) endRecord() (offends bool) {
	w := d.drift
	if w == nil {
		return false
	}
	w.records++
	d.seq++
	if w.records >= w.look {
		w.lookForAbsent()
	}
	return w.offence != ""
}

// lookForAbsent notices which columns none of the last driftPatience records has, and says when to look again.
func (w *drift) lookForAbsent() {
	w.gather()
	if w.patient {
		w.neverCame("first ")
	}
	w.look = w.records + driftPatience
	for i := range w.columns {
		c := &w.columns[i]
		switch {
		case c.last == 0 || c.told:
		case w.records-c.last >= driftPatience:
			w.gone(c, w.records-c.last)
		default:
			w.look = min(w.look, c.last+driftPatience)
		}
	}
}

// endFile notices, at the end of a file that is not a small one, which columns none of its records has.
func (d *JSON) endFile() {
	w := d.drift
	if w == nil {
		return
	}
	if n := w.records - w.others; n >= driftFile {
		w.gather()
		for i := range w.columns {
			if c := &w.columns[i]; c.last > 0 && c.last <= w.others {
				w.gone(c, w.records-c.last)
			}
		}
	}
	w.others = w.records
}

// gone tells once of a column that came before and is in none of the last n records.
func (w *drift) gone(c *awaited, n int64) {
	if !c.told && len(w.notes) < maxDrift {
		c.told = true
		w.notes = append(w.notes, fmt.Sprintf("the schema names %q, which came before, and none of the last %d records has it", excerpt.Of(c.name), n))
	}
}

// neverCame tells once of the columns that none of the records so far has.
func (w *drift) neverCame(first string) {
	w.patient = false
	for _, name := range w.absent() {
		if len(w.notes) < maxDrift {
			w.notes = append(w.notes, fmt.Sprintf("the schema names %q, which none of the %s%d records has", excerpt.Of(name), first, w.records))
		}
	}
}

// unnamedMember says that records have what the schema does not name.
func unnamedMember(name string) string {
	return fmt.Sprintf("the source sends %q, which the schema does not name", excerpt.Of(name))
}

// Drift gives what was noticed since the last call: sentences for people. Decode has done so with what its input shows.
// ended says that no more records will come, so that what has not come by now never will.
func (d *JSON) Drift(ended bool) []string {
	w := d.drift
	if w == nil {
		return nil
	}
	if ended && w.patient && w.records > 0 {
		w.neverCame("")
	}
	notes := w.notes
	w.notes = nil
	return notes
}

// absent are the columns that no record had.
func (w *drift) absent() []string {
	w.gather()
	var names []string
	for _, c := range w.columns {
		if c.last == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// Absent is for when no more records will come: with connector.DriftFail it is an error that a column of the declared
// schema was in none of them. Without any records nothing can be said of them.
func (d *JSON) Absent() error {
	w := d.drift
	if w == nil || w.policy != connector.DriftFail || w.records == 0 {
		return nil
	}
	for _, name := range w.absent() {
		return &RecordError{Reason: fmt.Sprintf("the schema names %q, which none of the %d records has, and the read says drift: fail; take it out of the schema, or say drift: report", excerpt.Of(name), w.records)}
	}
	return nil
}

// note adds what was noticed to the result.
func (r *Result) note(in *Input, sentences []string) {
	for _, s := range sentences {
		r.Failed.Note(connector.FailedRecord{Where: in.Name, Reason: s})
	}
}

// CheckDrift compares the names of a CSV header with the declared schema and says what the two do not share. With
// connector.DriftFail that is an error.
func CheckDrift(policy connector.Drift, declared expr.Schema, names []string) ([]string, error) {
	if policy == connector.DriftIgnore {
		return nil, nil
	}
	var unnamed, missing []string
	for i, name := range names {
		if declared.Index(name) < 0 && !slices.Contains(names[:i], name) {
			unnamed = append(unnamed, fmt.Sprintf("the header has column %q, which the schema does not name", excerpt.Of(name)))
		}
	}
	for _, c := range declared {
		if !slices.Contains(names, c.Name) {
			missing = append(missing, fmt.Sprintf("the schema names column %q, which the header has not", excerpt.Of(c.Name)))
		}
	}
	if policy == connector.DriftFail {
		switch {
		case len(unnamed) > 0:
			return nil, &RecordError{Reason: unnamed[0] + ", and the read says drift: fail; add it to the schema, or say drift: report"}
		case len(missing) > 0:
			return nil, &RecordError{Reason: missing[0] + ", and the read says drift: fail; take it out of the schema, or say drift: report"}
		}
	}
	return slices.Concat(unnamed[:min(len(unnamed), maxDrift)], missing[:min(len(missing), maxDrift)]), nil
}
