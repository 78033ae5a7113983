package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// lookup adds the columns of a plant system's rows, found by key. What was found, or not found, is remembered for a
// while; what a batch asks for beyond that is one question.
type lookup struct {
	outputs
	counts *stepCounts
	need   ReadNeed
	inner  bool
	keys   *keySide
	// inputs is how many columns the input has, live the output columns that something downstream reads, and found the
	// column of the cache for each output column behind the inputs, -1 for one that nothing reads.
	inputs int
	live   []int
	found  []int
	cache  *lookupCache

	// fetch asks the system, and waits where it does not answer; now is the time since the run began. The run sets both.
	fetch func(keys *column.Batch) (connector.Found, error)
	now   func() time.Duration

	entries  []int32
	rows     []int32
	hits     []int32
	gathered *column.Batch
	out      *column.Batch
}

// maxQuestion is how many keys one question has at most.
const maxQuestion = column.TargetRows

func requireLookup(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live[:len(from)])
	if step.LookupPlan != nil {
		markAll(from, step.LookupPlan.Key)
	}
}

// lookupNeed is what a lookup step reads, given what is read of its output.
func lookupNeed(step *flowdef.PlanStep, live []bool) ReadNeed {
	need := ReadNeed{Step: step.ID, Role: RoleLookup, Keys: step.LookupPlan.KeySchema}
	if step.Lookup != nil {
		need.Connection, need.With = step.Lookup.Connection.Name, step.Lookup.With
	}
	first := len(step.Output) - len(step.LookupPlan.Schema)
	for i := range step.LookupPlan.Schema {
		if live[first+i] {
			need.Schema = append(need.Schema, step.LookupPlan.Schema[i])
		}
	}
	return need
}

// lookups lists the needs of the lookup steps of the graph and of its tables, each step once.
func (g *graph) lookups(known map[string]bool) []ReadNeed {
	var list []ReadNeed
	for i := range g.plan.Steps {
		step := &g.plan.Steps[i]
		if g.include[i] && step.LookupPlan != nil && !known[step.ID] {
			known[step.ID] = true
			list = append(list, lookupNeed(step, g.live[i]))
		}
	}
	for _, j := range g.joins {
		list = append(list, j.right.lookups(known)...)
	}
	return list
}

func (m *maker) lookup(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	if step.LookupPlan == nil || step.Lookup == nil {
		return nil, nil, errors.New("the plan of the lookup is missing")
	}
	need := lookupNeed(step, live)
	l := &lookup{
		counts: counts, need: need, inner: step.Lookup.Kind == "inner", keys: newKeySide(step.LookupPlan.Key),
		inputs: len(input), live: positions(live),
		cache:    newLookupCache(need.Keys, need.Schema, step.Lookup.CacheSize, step.Lookup.CacheAge),
		gathered: column.NewBatch(step.Output), out: column.NewBatch(step.Output),
	}
	next := 0
	for pos := l.inputs; pos < len(step.Output); pos++ {
		place := -1
		if live[pos] {
			place, next = next, next+1
		}
		l.found = append(l.found, place)
	}
	m.lookups = append(m.lookups, l)
	return l, &l.outputs, nil
}

func (l *lookup) push(b *column.Batch) error {
	l.counts.in += int64(b.Len)
	l.cache.trim()
	keys := l.keys.load(b)
	var err error
	if l.entries, err = l.cache.find(keys, l.entries); err != nil {
		return fmt.Errorf("step %s: %w", l.need.Step, err)
	}
	if err = l.ask(l.cache.missing(l.entries, l.now())); err != nil {
		return err
	}
	l.rows, l.hits = l.rows[:0], l.hits[:0]
	at := 0
	for row := range b.Len {
		hit := int32(noEntry)
		if at < len(keys.rows) && int(keys.rows[at]) == row {
			hit = l.cache.row[l.entries[at]]
			at++
		}
		switch {
		case hit < noEntry:
			if err = l.fail(b, row, l.cache.reason(hit)); err != nil {
				return err
			}
		case hit != noEntry || !l.inner:
			l.rows, l.hits = append(l.rows, i32(row)), append(l.hits, hit)
		}
	}
	return l.send(b)
}

// ask asks the system for the keys of these entries.
func (l *lookup) ask(missing []int32) error {
	for len(missing) > 0 {
		part := missing[:min(len(missing), maxQuestion)]
		missing = missing[len(part):]
		keys, err := l.cache.question(part)
		if err != nil {
			return fmt.Errorf("step %s: %w", l.need.Step, err)
		}
		found, err := l.fetch(keys)
		if err != nil {
			return err
		}
		if err = l.cache.store(part, &found, l.now(), l.need.Connection); err != nil {
			return fmt.Errorf("step %s: connection %s: %w", l.need.Step, l.need.Connection, err)
		}
	}
	return nil
}

func (l *lookup) fail(b *column.Batch, row int, reason string) error {
	return l.counts.fail(connector.FailedRecord{Where: "step " + l.need.Step, Reason: reason, Record: describeRow(b, row)})
}

// send emits the rows that were selected with what was found for them.
func (l *lookup) send(b *column.Batch) error {
	whole := len(l.rows) == b.Len
	for _, pos := range l.live {
		switch {
		case pos >= l.inputs:
			gatherOptional(&l.gathered.Cols[pos], &l.cache.rows[l.found[pos-l.inputs]], l.hits)
		case whole:
			l.out.Cols[pos] = b.Cols[pos]
			continue
		default:
			l.gathered.Cols[pos].Gather(&b.Cols[pos], l.rows)
		}
		l.out.Cols[pos] = l.gathered.Cols[pos]
	}
	l.out.Len = len(l.rows)
	l.counts.out += int64(l.out.Len)
	return l.emit(l.out)
}
