package decode

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
)

const (
	// maxDrift is how many names a decoder notices that the schema does not name, and lacks of those that it does.
	maxDrift = 32
	// driftPatience is how many records may come before a column that none of them has is noticed.
	driftPatience = 1000
	// maxDriftName is how many bytes of a name a message shows.
	maxDriftName = 80
)

// drift watches for members that the schema does not name, and for columns that never come. A nil drift watches nothing.
type drift struct {
	policy connector.Drift
	// declared has the names of the schema, columns those in its order that a member is to fill.
	declared map[string]bool
	columns  []string
	// noticed has the names that were told of, arrived the columns that came.
	noticed, arrived map[string]bool
	// offence is the name for which the record must fail.
	offence string
	// records counts those that are objects.
	records int64
	patient bool
	notes   []string
}

// Watch makes the decoder look for what the declared schema and the records do not share. It is called before the first
// record. With connector.DriftFail a record with a member that the schema does not name fails.
func (d *JSON) Watch(policy connector.Drift, declared expr.Schema) {
	if policy == connector.DriftIgnore {
		return
	}
	d.drift = &drift{policy: policy, declared: map[string]bool{}, noticed: map[string]bool{}, arrived: map[string]bool{}, patient: true}
	for _, c := range slices.Concat(declared, d.schema) {
		if !d.drift.declared[c.Name] && !slices.Contains(d.ignored, c.Name) {
			d.drift.columns = append(d.drift.columns, c.Name)
		}
		d.drift.declared[c.Name] = true
	}
}

// see is told of a member's name that is not remembered. forget says that it must not be remembered, because every
// record that has it fails.
func (w *drift) see(name []byte) (forget bool) {
	switch {
	case w == nil:
		return false
	case w.declared[string(name)]:
		if !w.arrived[string(name)] {
			w.arrived[string(name)] = true
		}
		return false
	case w.policy == connector.DriftFail:
		if w.offence == "" {
			w.offence = string(bytes.Clone(name[:min(len(name), 4*maxDriftName)]))
		}
		return true
	}
	if len(w.noticed) < maxDrift && !w.noticed[string(name)] {
		w.noticed[string(name)] = true
		w.notes = append(w.notes, unnamedMember(string(name)))
	}
	return false
}

// begin starts a record.
func (w *drift) begin() {
	if w != nil {
		w.offence = ""
	}
}

// end counts a record and says whether it must fail.
func (w *drift) end() (offends bool) {
	if w == nil {
		return false
	}
	w.records++
	return w.offence != ""
}

// unnamedMember says that records have what the schema does not name.
func unnamedMember(name string) string {
	return fmt.Sprintf("the source sends %q, which the schema does not name", clipName(name))
}

func clipName(name string) string {
	if len(name) <= maxDriftName {
		return name
	}
	end := maxDriftName
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + "…"
}

// Drift gives what was noticed since the last call: sentences for people. Decode has done so with what its input shows.
// ended says that no more records will come, so that what has not come by now never will.
func (d *JSON) Drift(ended bool) []string {
	w := d.drift
	if w == nil {
		return nil
	}
	if w.patient && w.records > 0 && (ended || w.records >= driftPatience) {
		w.patient = false
		first := "first "
		if ended {
			first = ""
		}
		for _, name := range w.absent() {
			if len(w.notes) < maxDrift {
				w.notes = append(w.notes, fmt.Sprintf("the schema names %q, which none of the %s%d records has", clipName(name), first, w.records))
			}
		}
	}
	notes := w.notes
	w.notes = nil
	return notes
}

// absent are the columns that no record had.
func (w *drift) absent() []string {
	return slices.DeleteFunc(slices.Clone(w.columns), func(name string) bool { return w.arrived[name] })
}

// Absent is for when no more records will come: with connector.DriftFail it is an error that a column of the declared
// schema was in none of them. Without any records nothing can be said of them.
func (d *JSON) Absent() error {
	w := d.drift
	if w == nil || w.policy != connector.DriftFail || w.records == 0 {
		return nil
	}
	for _, name := range w.absent() {
		return &RecordError{Reason: fmt.Sprintf("the schema names %q, which none of the %d records has, and the read says drift: fail; take it out of the schema, or say drift: report", clipName(name), w.records)}
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
			unnamed = append(unnamed, fmt.Sprintf("the header has column %q, which the schema does not name", clipName(name)))
		}
	}
	for _, c := range declared {
		if !slices.Contains(names, c.Name) {
			missing = append(missing, fmt.Sprintf("the schema names column %q, which the header has not", clipName(c.Name)))
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
