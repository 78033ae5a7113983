package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

const (
	// ruleSamples is how many failing records of one rule are sampled, so that there is room for those of others.
	ruleSamples = 5
	// uniquePrefix begins the keys of the values that a unique rule has seen; the rule's place follows.
	uniquePrefix = 'u'
	// maxShownValue is how many bytes of a value a reason shows.
	maxShownValue = 64
	noRule        = -1
)

func requireValidate(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live)
	for i := range step.ValidatePlan.Rules {
		r := &step.ValidatePlan.Rules[i]
		from[r.Column] = true
		markColumns(from, r.Check)
		markAll(from, r.By)
		if r.Time >= 0 {
			from[r.Time] = true
		}
	}
}

// validate passes on the rows that break no rule. The unique rules come last, and a row counts for one only when it has
// broken no rule before it.
type validate struct {
	outputs
	counts *stepCounts
	rules  []rule
	live   []int
	meta   stepMeta
	stored bool
	// removed are entries of another definition; ended says that the input has.
	removed []StateChange
	ended   bool
	span    span
	budget  *budget

	// broken is the place of the rule that each row breaks first, or noRule.
	broken []int16
	good   []int32
	out    *column.Batch
	texts  *textParts
}

// rule is one of a kernel and a seen.
type rule struct {
	plan  *flowdef.RulePlan
	check kernel
	// holds is what check gave last.
	holds   *column.Column
	unique  *seen
	sampled int
}

func (m *maker) validate(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	v := &validate{counts: counts, live: positions(live), span: m.lateSpan(), budget: m.res.budget(), out: column.NewBatch(step.Output)}
	var definition strings.Builder
	var checks []*expr.Node
	for place := range step.ValidatePlan.Rules {
		r := rule{plan: &step.ValidatePlan.Rules[place]}
		if u := r.plan.Unique; u != nil {
			tag := []byte{uniquePrefix, byte(place >> 8), byte(place)}
			r.unique = newSeen(step.ID, tag, input, seenRule{by: r.plan.By, time: r.plan.Time, within: u.Within}, v.span)
			if err := r.unique.check("unique"); err != nil {
				return nil, nil, err
			}
			v.stored = true
			fmt.Fprintf(&definition, "%d %s%d %d;", place, describeColumns(input, r.plan.By), r.plan.Time, u.Within)
		} else {
			var err error
			if r.check, err = compileExpr(r.plan.Check, expr.Bool); err != nil {
				return nil, nil, err
			}
			checks = append(checks, r.plan.Check)
		}
		v.rules = append(v.rules, r)
	}
	// What breaks another rule does not count for unique, wherever that rule is written.
	slices.SortStableFunc(v.rules, func(a, b rule) int { return compareBool(a.unique != nil, b.unique != nil) })
	v.texts = newTextParts(checks...)
	v.meta = newStepMeta(step.ID, "validate "+definition.String())
	return v, &v.outputs, nil
}

func (v *validate) push(b *column.Batch) error { return v.texts.push(b, v, v.counts) }

func (v *validate) evaluate(b *column.Batch) {
	for place := range v.rules {
		if r := &v.rules[place]; r.check != nil {
			r.holds = r.check.eval(b)
		}
	}
}

func (v *validate) use(b *column.Batch) error {
	v.counts.in += int64(b.Len)
	v.broken = resize(v.broken, b.Len)
	for i := range v.broken {
		v.broken[i] = noRule
	}
	failing := 0
	for place := range v.rules {
		r := &v.rules[place]
		if r.unique == nil {
			failing += breakRule(v.broken, r.holds, int16(place))
			continue
		}
		v.collect()
		v.dropNulls(&b.Cols[r.plan.Column])
		if err := r.unique.look(b, v.good); err != nil {
			return err
		}
		for _, rows := range [...][]int32{r.unique.repeats, r.unique.late, r.unique.failed} {
			failing += len(rows)
			for _, row := range rows {
				v.broken[row] = int16(place)
			}
		}
	}
	if err := v.hold(); err != nil {
		return err
	}
	v.counts.out += int64(b.Len - failing)
	if failing == 0 {
		return v.emit(b)
	}
	for row, place := range v.broken {
		if place != noRule {
			if err := v.fail(b, row, &v.rules[place]); err != nil {
				return err
			}
		}
	}
	v.collect()
	for _, pos := range v.live {
		v.out.Cols[pos].Gather(&b.Cols[pos], v.good)
	}
	v.out.Len = len(v.good)
	return v.emit(v.out)
}

// hold counts what the unique rules remember of an input that ends, which has no other bound.
func (v *validate) hold() error {
	if !v.stored || v.span == endless {
		return nil
	}
	size := int64(0)
	for i := range v.rules {
		if u := v.rules[i].unique; u != nil {
			size += u.size()
		}
	}
	return v.budget.hold(size, v.meta.step, "the values that unique rules remember")
}

// breakRule notes the rule for the rows for which the condition is false and that break no rule before it, and gives
// their number. A null is not false.
func breakRule(broken []int16, holds *column.Column, place int16) int {
	n := 0
	for row, ok := range holds.Bools[:len(broken)] {
		if !ok && broken[row] == noRule && !holds.Null(row) {
			broken[row] = place
			n++
		}
	}
	return n
}

// collect lists the rows that break no rule so far.
func (v *validate) collect() {
	v.good = v.good[:0]
	for row, place := range v.broken {
		if place == noRule {
			v.good = append(v.good, i32(row))
		}
	}
}

// dropNulls takes the rows without a value out of those collected: a null breaks no rule but required, and is never
// remembered.
func (v *validate) dropNulls(c *column.Column) {
	if c.HasNulls() {
		v.good = slices.DeleteFunc(v.good, func(row int32) bool { return c.Null(int(row)) })
	}
}

func (v *validate) fail(b *column.Batch, row int, r *rule) error {
	f := failedRow{batch: b, row: row}
	if r.sampled >= ruleSamples || !v.counts.sampling() {
		return v.counts.countFailed()
	}
	r.sampled++
	c := &b.Cols[r.plan.Column]
	name := b.Schema[r.plan.Column].Name
	switch {
	case r.unique != nil && r.unique.timeCol >= 0 && b.Cols[r.unique.timeCol].Null(row):
		f.reason = "the rule unique of column " + name + " cannot be judged: " + untimed(b, r.unique.timeCol, row)
	case r.unique != nil && r.unique.isLate(row):
		f.reason = fmt.Sprintf("the rule unique of column %s cannot be judged: the time is too long before the newest one", name)
	case c.Null(row):
		f.reason = fmt.Sprintf("column %s is null, which breaks the rule %s", name, r.plan.Text)
	default:
		f.reason = fmt.Sprintf("column %s is %s, which breaks the rule %s", name, shownValue(c, row), r.plan.Text)
	}
	return v.counts.failRow(f)
}

// isLate says whether the row was late in the last look.
func (s *seen) isLate(row int) bool {
	for _, late := range s.late {
		if int(late) == row {
			return true
		}
	}
	return false
}

// shownValue is a value as a reason shows it.
func shownValue(c *column.Column, row int) string {
	return excerpt.Bytes(column.AppendJSON(nil, c, row), maxShownValue)
}

// countFailed counts a row as failed without a sample of it.
func (c *stepCounts) countFailed() error {
	c.failed++
	if c.stop {
		return &StoppedError{Step: c.step, Reason: "a record failed"}
	}
	return nil
}

// finish has nothing to emit: it forgets the values of an input that has ended.
func (v *validate) finish() (more bool, err error) { //nolint:unparam // it is a finisher
	v.ended = true
	for i := range v.rules {
		if u := v.rules[i].unique; u != nil {
			u.forgetAll()
		}
	}
	v.budget.release()
	return false, nil
}

func (v *validate) stepID() string { return v.counts.step }

// ledgers are what the unique rules remember, numbers the newest time of each.
func (v *validate) ledgers() (list []*ledger, numbers []*int64) {
	for i := range v.rules {
		if u := v.rules[i].unique; u != nil {
			list, numbers = append(list, &u.ledger), append(numbers, &u.newest)
		}
	}
	return list, numbers
}

func (v *validate) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	ledgers, numbers := v.ledgers()
	if err := v.meta.restore(entries, numbers...); err != nil {
		return err
	}
	return restoreLedgers(entries, ledgers...)
}

func (v *validate) discard(entries map[string][]byte) {
	v.removed = append(v.removed, discardAll(v.counts.step, entries)...)
}

func (v *validate) changes(dst []StateChange) []StateChange {
	dst, v.removed = append(dst, v.removed...), nil
	if !v.stored {
		return dst
	}
	ledgers, numbers := v.ledgers()
	values := make([]int64, len(numbers))
	for i := range ledgers {
		dst = ledgers[i].changes(dst)
		values[i] = *numbers[i]
	}
	if v.ended {
		return v.meta.end(dst)
	}
	return v.meta.changes(dst, values...)
}
