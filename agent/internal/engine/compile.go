package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// DefaultRefresh is how often a continuous flow reads the right side of a join again when its read step does not say.
const DefaultRefresh = time.Minute

// Program is a compiled flow. It is immutable.
type Program struct {
	plan *flowdef.Plan
	main *graph
	// lookups are the needs of the lookup steps.
	lookups []ReadNeed
}

// ReadRole says what a read is for.
type ReadRole uint8

const (
	// RoleStream is read from the last committed cursor on, once.
	RoleStream ReadRole = iota + 1
	// RoleTable is the right side of a join: it is read from the beginning to the end, at the start of the run and, in a
	// continuous flow, again every Refresh. Its cursor is never kept.
	RoleTable
	// RoleLookup is asked for rows by key while the flow runs; it has no cursor and is opened with RunSettings.OpenLookup.
	RoleLookup
)

// ReadNeed is what a program reads. A read step that feeds both sides of a join is in the list once for each role.
type ReadNeed struct {
	// Step is the read step's id, Connection the connection's name, With the step's read options.
	Step, Connection string
	With             map[string]any
	// Schema is the columns that the source must deliver: those that something downstream reads, in the declared
	// order, and at least one.
	Schema expr.Schema
	Role   ReadRole
	// Drift is what becomes of records that differ from the declared schema.
	Drift connector.Drift
	// Refresh is how often a table is read again; 0 for a stream.
	Refresh time.Duration
	// Keys is, for a lookup, the columns of the system that the keys are compared with. Its Schema can be empty.
	Keys expr.Schema
}

// Reads lists what the program reads: the streams in the plan's order, then the tables, then the lookups.
func (p *Program) Reads() []ReadNeed { return append(p.main.needs(), p.lookups...) }

// graph is a part of a flow that runs together: the flow without the right sides of its joins, or one right side. The
// right side of each of its joins is a graph of its own, so that a table is always complete before a row asks for it.
type graph struct {
	plan *flowdef.Plan
	// sink is the step whose rows are the table, -1 in the main graph; table is the join it is for.
	sink, table int
	include     []bool
	// live has, for every included step, the output columns that something downstream reads.
	live  [][]bool
	reads []graphRead
	joins []graphJoin
}

type graphRead struct {
	step int
	// cols are the positions of the need's columns in the step's output.
	cols []int
	need ReadNeed
}

type graphJoin struct {
	step  int
	right *graph
}

// Compile makes a program of a checked plan. It fails when the plan needs what this agent does not have, such as a
// function of a newer version; whether a join's right side ends is known only from its source, so Run checks that.
func Compile(plan *flowdef.Plan) (*Program, error) {
	main := &graph{plan: plan, sink: -1, table: -1, include: make([]bool, len(plan.Steps))}
	for i := range plan.Steps {
		if v := plan.Steps[i].Verb; v == flowdef.Insight || v == flowdef.Write {
			main.reach(i)
		}
	}
	if !slices.Contains(main.include, true) {
		return nil, errors.New("the flow has no insight step and no write step, so nothing would come out of it; add one")
	}
	if err := main.build(nil); err != nil {
		return nil, err
	}
	p := &Program{plan: plan, main: main, lookups: main.lookups(map[string]bool{})}
	// Kernels have scratch memory and are made anew for every run; making them once here finds what they refuse.
	if _, err := main.instantiate(func(int) span { return bounded }, 0); err != nil {
		return nil, err
	}
	return p, nil
}

// inputs are the steps that feed a step within its graph.
func (g *graph) inputs(step int) []int {
	s := &g.plan.Steps[step]
	if s.Verb == flowdef.Join && s.Join.Within == 0 {
		return s.Inputs[:1]
	}
	return s.Inputs
}

func (g *graph) reach(step int) {
	if g.include[step] {
		return
	}
	g.include[step] = true
	for _, in := range g.inputs(step) {
		g.reach(in)
	}
}

// build finds the columns that are read, backwards from the ends, and makes the graphs of the joins' right sides.
func (g *graph) build(sinkLive []bool) error {
	g.live = make([][]bool, len(g.plan.Steps))
	for i := range g.plan.Steps {
		g.live[i] = make([]bool, len(g.plan.Steps[i].Output))
	}
	if g.sink >= 0 {
		copy(g.live[g.sink], sinkLive)
	}
	for i := range slices.Backward(g.plan.Steps) {
		if !g.include[i] {
			continue
		}
		if err := g.require(i); err != nil {
			return fmt.Errorf("step %s: %w", g.plan.Steps[i].ID, err)
		}
	}
	slices.Reverse(g.reads)
	slices.Reverse(g.joins)
	return nil
}

// require marks what a step reads of its inputs, given what is read of its output.
func (g *graph) require(i int) error {
	step := &g.plan.Steps[i]
	if err := checkInputs(g.plan, i); err != nil {
		return err
	}
	live := g.live[i]
	var from []bool
	if len(step.Inputs) > 0 {
		from = g.live[step.Inputs[0]]
	}
	switch step.Verb { //nolint:exhaustive // the others read their input alone
	case flowdef.Read:
		g.addRead(i)
	case flowdef.Join:
		return g.requireJoin(i)
	case flowdef.Union:
		g.requireUnion(step, live)
	case flowdef.Write:
		g.requireWrite(live, from)
	case flowdef.Insight:
		g.requireInsight(step, live, from)
	default:
		require, known := requirements()[step.Verb]
		if !known {
			return fmt.Errorf("the agent does not know the verb %s; a newer agent may", step.Verb)
		}
		require(step, live, from)
	}
	return nil
}

// requirements mark, by verb, what a step reads of its input, given what is read of its output.
var requirements = sync.OnceValue(func() map[flowdef.Verb]func(step *flowdef.PlanStep, live, from []bool) {
	return map[flowdef.Verb]func(step *flowdef.PlanStep, live, from []bool){
		flowdef.Filter: requireFilter, flowdef.Map: requireMap, flowdef.Select: requireSelect, flowdef.Aggregate: requireAggregate,
		flowdef.Lookup: requireLookup, flowdef.Sort: requireSort, flowdef.Limit: requireLimit, flowdef.Distinct: requireDistinct,
		flowdef.Unnest: requireUnnest, flowdef.Validate: requireValidate, flowdef.Detect: requireDetect,
	}
})

func requireFilter(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live)
	markColumns(from, step.Filter)
}

func requireMap(step *flowdef.PlanStep, live, from []bool) {
	need, _ := liveAssigns(step, live)
	mark(from, need[:len(from)])
}

func requireSelect(step *flowdef.PlanStep, live, from []bool) {
	for out, pos := range step.Keep {
		from[pos] = from[pos] || live[out]
	}
}

func checkInputs(plan *flowdef.Plan, i int) error {
	want := 1
	inputs := plan.Steps[i].Inputs
	switch plan.Steps[i].Verb { //nolint:exhaustive // the others take one
	case flowdef.Read:
		want = 0
	case flowdef.Join:
		want = 2
	case flowdef.Union:
		want = max(len(inputs), 1)
	}
	if len(inputs) != want {
		return fmt.Errorf("a %s step takes %d inputs, not %d", plan.Steps[i].Verb, want, len(inputs))
	}
	for _, in := range inputs {
		if in < 0 || in >= i {
			return errors.New("its input is not a step before it")
		}
	}
	return nil
}

func mark(dst, src []bool) {
	for i, v := range src {
		dst[i] = dst[i] || v
	}
}

func markAll(dst []bool, positions []int) {
	for _, pos := range positions {
		dst[pos] = true
	}
}

func markColumns(dst []bool, n *expr.Node) {
	if n == nil {
		return
	}
	if n.Op == expr.OpColumn {
		dst[n.Column] = true
	}
	for _, a := range n.Args {
		markColumns(dst, a)
	}
}

// liveAssigns walks a map's assignments backwards: need is the columns that they read or leave as they are, and assigns
// says which of them something reads.
func liveAssigns(step *flowdef.PlanStep, live []bool) (need, assigns []bool) {
	need, assigns = slices.Clone(live), make([]bool, len(step.Assign))
	for i, to := range slices.Backward(step.AssignTo) {
		assigns[i] = need[to]
		if assigns[i] {
			need[to] = false
			markColumns(need, step.Assign[i])
		}
	}
	return need, assigns
}

func requireAggregate(step *flowdef.PlanStep, _, from []bool) {
	markAll(from, step.By)
	for i := range step.Aggregates {
		markColumns(from, step.Aggregates[i].Arg)
	}
	if step.Aggregate.Window != nil {
		from[step.WindowTime] = true
	}
}

// requireInsight marks what the insights hold and what is read of the rows that go on. For a table the step makes no
// insights (see operator), but it leaves out the same rows.
func (g *graph) requireInsight(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live)
	if g.sink < 0 {
		markAll(from, step.InsightKey)
		markAll(from, step.InsightValues)
	}
	if step.InsightTime >= 0 {
		from[step.InsightTime] = true
	}
}

func (g *graph) requireJoin(i int) error {
	step := &g.plan.Steps[i]
	if step.Join.Within > 0 {
		return g.requireStreamJoin(step, g.live[i])
	}
	live, left := g.live[i], len(g.plan.Steps[step.Inputs[0]].Output)
	mark(g.live[step.Inputs[0]], live[:left])
	markAll(g.live[step.Inputs[0]], step.JoinLeft)

	right := &graph{plan: g.plan, sink: step.Inputs[1], table: i, include: make([]bool, len(g.plan.Steps))}
	right.reach(right.sink)
	need := make([]bool, len(g.plan.Steps[right.sink].Output))
	for k, pos := range step.RightKeep {
		need[pos] = live[left+k]
	}
	markAll(need, step.JoinRight)
	g.joins = append(g.joins, graphJoin{step: i, right: right})
	return right.build(need)
}

func (g *graph) addRead(i int) {
	step := &g.plan.Steps[i]
	// Counting rows needs no column, but every source can deliver one.
	if len(step.Output) > 0 && !slices.Contains(g.live[i], true) {
		g.live[i][0] = true
	}
	r := graphRead{step: i, need: ReadNeed{Step: step.ID, Role: RoleStream}}
	if step.Read != nil {
		r.need.Connection, r.need.With = step.Read.Connection.Name, step.Read.With
		r.need.Drift = driftOf(step.Read.Drift)
	}
	if g.sink >= 0 {
		r.need.Role, r.need.Refresh = RoleTable, DefaultRefresh
		if step.Read != nil && step.Read.Refresh > 0 {
			r.need.Refresh = step.Read.Refresh
		}
	}
	r.cols = positions(g.live[i])
	for _, pos := range r.cols {
		r.need.Schema = append(r.need.Schema, step.Output[pos])
	}
	g.reads = append(g.reads, r)
}

func positions(live []bool) []int {
	var list []int
	for i, v := range live {
		if v {
			list = append(list, i)
		}
	}
	return list
}

// needs lists the graph's own reads, then those of its tables.
func (g *graph) needs() []ReadNeed {
	var list []ReadNeed
	for i := range g.reads {
		list = append(list, g.reads[i].need)
	}
	for _, j := range g.joins {
		list = append(list, j.right.needs()...)
	}
	return list
}

// pipeline is a graph's operators, made for one run.
type pipeline struct {
	graph *graph
	// sources are where the batches of graph.reads enter, in that order.
	sources []*readStep
	// joins are in the order of graph.joins; their tables are set before the first row.
	joins []*join
	// lookups and writers get their systems before the first row; see openSystems.
	lookups []*lookup
	writers []*writer
	// finishers, keepers and tickers are in the order of the plan.
	finishers []*finishing
	keepers   []keeper
	tickers   []ticker
	table     *tableBuilder
	box       outbox
	// res is what the operators may hold in memory and spill.
	res *resources
	// counts and sample belong to the goroutine that runs the pipeline.
	counts []*stepCounts
	sample []FailedRecord
}

// instantiate makes the operators, without a limit to what they hold. spans says for each of the graph's reads whether it
// ends.
func (g *graph) instantiate(spans func(read int) span, started int64) (*pipeline, error) { //nolint:unparam // tests and compilation agree on the time
	return g.instantiateWith(&resources{}, spans, started)
}

func (g *graph) instantiateWith(res *resources, spans func(read int) span, started int64) (*pipeline, error) {
	p := &pipeline{graph: g, res: res, counts: make([]*stepCounts, len(g.plan.Steps))}
	outs := make([]*outputs, len(g.plan.Steps))
	roots := make([][]int, len(g.plan.Steps))
	forks := g.forks(spans)
	for i := range g.plan.Steps {
		step := &g.plan.Steps[i]
		p.counts[i] = &stepCounts{step: step.ID, sample: &p.sample, stop: g.plan.Flow != nil && g.plan.Flow.OnError == flowdef.OnErrorStop, bounds: res.texts}
		if !g.include[i] {
			continue
		}
		if step.Verb == flowdef.Read {
			roots[i] = []int{len(p.sources)}
			read := newReadStep(step.Output, g.reads[len(p.sources)].cols)
			read.counts, read.worker = p.counts[i], res.worker
			p.sources, outs[i] = append(p.sources, read), p.behind(i, &read.outputs, forks)
			continue
		}
		for _, in := range g.inputs(i) {
			roots[i] = append(roots[i], roots[in]...)
		}
		slices.Sort(roots[i])
		roots[i] = slices.Compact(roots[i]) // before the next step: unions of steps behind one step double them each time
		m := maker{pipeline: p, roots: roots[i], started: started, span: bounded}
		for _, read := range m.roots {
			m.span = max(m.span, spans(read))
		}
		op, out, err := m.operator(i)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", step.ID, err)
		}
		out.worker = res.worker
		m.register(op)
		for n, in := range g.inputs(i) {
			outs[in].next = append(outs[in].next, res.guard.watched(m.ahead(i, n, m.entrance(op, n))))
		}
		outs[i] = p.behind(i, out, forks)
	}
	if g.sink >= 0 {
		join := &g.plan.Steps[g.table]
		var err error
		p.table, err = newTableBuilder(join, g.plan.Steps[join.Inputs[0]].Output, g.plan.Steps[g.sink].Output, g.live[g.sink], res)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", join.ID, err)
		}
		outs[g.sink].next = append(outs[g.sink].next, res.guard.watched(p.table))
	}
	return p, p.tryJoins()
}

// tryJoins makes the pipelines of the joins' right sides once, to find what they refuse.
func (p *pipeline) tryJoins() error {
	for _, j := range p.graph.joins {
		if _, err := j.right.instantiate(func(int) span { return bounded }, 0); err != nil {
			return err
		}
	}
	return nil
}

// maker makes the operator of one step. roots are the reads that feed it; its span is endless when one of them is.
type maker struct {
	*pipeline
	roots   []int
	span    span
	started int64
}

// lateSpan is the span for operators that count rows as late. The tests of a continuous flow have rows that end, and yet
// a row of a read is late there as it would be in the plant, where the step takes the rows of that read alone: among the
// rows of several, which a test gives one read after the other, their order says nothing.
func (m *maker) lateSpan() span {
	if m.res.guard != nil && m.graph.sink < 0 && len(m.roots) == 1 && m.graph.plan.Flow.Trigger.Kind == flowdef.Continuous {
		return endless
	}
	return m.span
}

// register notes what the run must do with an operator beside pushing batches into it.
func (m *maker) register(op operator) {
	if f, ok := op.(finisher); ok {
		m.finishers = append(m.finishers, &finishing{finisher: f, reads: m.roots, left: len(m.roots)})
	}
	if k, ok := op.(keeper); ok {
		m.keepers = append(m.keepers, k)
	}
	if t, ok := op.(ticker); ok {
		m.tickers = append(m.tickers, t)
	}
}

// entrance is where the rows of the step's n-th input go.
func (*maker) entrance(op operator, n int) operator {
	if e, ok := op.(interface{ entrance(n int) operator }); ok {
		return e.entrance(n)
	}
	return op
}

// operator makes the operator of a step that is no read, and gives where the operators behind it go.
func (m *maker) operator(i int) (operator, *outputs, error) {
	verb := m.graph.plan.Steps[i].Verb
	newOperator, known := operators()[verb]
	if !known {
		return nil, nil, fmt.Errorf("the agent does not know the verb %s; a newer agent may", verb)
	}
	return newOperator(m, i)
}

var operators = sync.OnceValue(func() map[flowdef.Verb]func(m *maker, i int) (operator, *outputs, error) {
	return map[flowdef.Verb]func(m *maker, i int) (operator, *outputs, error){
		flowdef.Filter: (*maker).filter, flowdef.Map: (*maker).mapper, flowdef.Select: (*maker).selecter,
		flowdef.Aggregate: (*maker).aggregate, flowdef.Join: (*maker).join, flowdef.Lookup: (*maker).lookup,
		flowdef.Union: (*maker).union, flowdef.Sort: (*maker).sort, flowdef.Limit: (*maker).limit,
		flowdef.Distinct: (*maker).distinct, flowdef.Unnest: (*maker).unnest, flowdef.Validate: (*maker).validate,
		flowdef.Detect: (*maker).detect, flowdef.Write: (*maker).write, flowdef.Insight: (*maker).insight,
	}
})

// step is the step, the schema of its first input, what it counts, and the columns of its output that something
// downstream reads.
func (m *maker) step(i int) (step *flowdef.PlanStep, input expr.Schema, counts *stepCounts, live []bool) {
	step = &m.graph.plan.Steps[i]
	return step, m.graph.plan.Steps[step.Inputs[0]].Output, m.counts[i], m.graph.live[i]
}

func (m *maker) filter(i int) (operator, *outputs, error) {
	step, _, counts, live := m.step(i)
	f, err := newFilter(step, positions(live))
	if err != nil {
		return nil, nil, err
	}
	f.counts = counts
	return f, &f.outputs, nil
}

func (m *maker) mapper(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	_, assigns := liveAssigns(step, live)
	op, err := newMapper(step, len(input), assigns)
	if err != nil {
		return nil, nil, err
	}
	op.counts = counts
	return op, &op.outputs, nil
}

func (m *maker) selecter(i int) (operator, *outputs, error) {
	step, _, counts, _ := m.step(i)
	s := newSelecter(step)
	s.counts = counts
	return s, &s.outputs, nil
}

func (m *maker) aggregate(i int) (operator, *outputs, error) {
	if m.res.memory != nil {
		l, err := newLimitedAggregate(m, i)
		if err != nil {
			return nil, nil, err
		}
		return l, &l.outputs, nil
	}
	step, input, counts, _ := m.step(i)
	a, err := newAggregate(step, input, m.lateSpan())
	if err != nil {
		return nil, nil, err
	}
	a.counts = counts
	return a, &a.outputs, nil
}

func (m *maker) join(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	if step.Join.Within > 0 {
		return m.streamJoin(i)
	}
	j, err := newJoin(step, input, m.graph.plan.Steps[step.Inputs[1]].Output, positions(live), m.span)
	if err != nil {
		return nil, nil, err
	}
	j.counts, j.res = counts, m.res
	m.joins = append(m.joins, j)
	if step.Join.Kind == flowdef.JoinFull {
		// What was matched, and that the rest was given, is in no state.
		m.res.held = true
	}
	return j, &j.outputs, nil
}

func (m *maker) insight(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	s := newInsightStep(step, input, m.started)
	if m.span == endless && step.InsightTime < 0 {
		s.clock = m.res.clock
	}
	s.counts, s.live = counts, positions(live)
	// The main graph has every insight step; a table that is read through one must not make its insights twice.
	if m.graph.sink < 0 {
		s.box = &m.box
		s.guard = m.res.guard
	}
	return s, &s.outputs, nil
}
