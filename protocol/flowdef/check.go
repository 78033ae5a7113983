package flowdef

import (
	"slices"
	"strings"

	"github.com/outfeed/outfeed/protocol/expr"
)

// maxCells bounds what a flow costs to check and to compile: the columns of all steps together, with those that every
// join adds by computing its right side for itself, and the sets of sources of those columns.
const maxCells = 100_000

// Check resolves and type-checks a parsed flow. Its error is Problems. The plan shares the flow's steps; neither must
// be changed afterwards.
func Check(f *Flow, env Environment) (*Plan, error) {
	c := checker{flow: f, env: env, index: make(map[string]int, len(f.Steps)), plan: &Plan{Flow: f}}
	for i := range f.Steps {
		if _, twice := c.index[f.Steps[i].ID]; !twice {
			c.index[f.Steps[i].ID] = i
		}
	}
	known := c.resolveInputs()
	if sorted := c.sortSteps(); known && sorted {
		c.findUnused()
	}
	c.checkSteps()
	c.checkTests()
	if err := c.err(); err != nil {
		return nil, err
	}
	c.plan.Egress = c.manifest()
	return c.plan, nil
}

// CheckText parses and checks a definition. Its error is Problems.
func CheckText(text []byte, env Environment) (*Plan, error) {
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return Check(f, env)
}

type checker struct {
	collector
	flow *Flow
	env  Environment
	plan *Plan
	// index is the position in flow.Steps by id, inputs the positions of each step's inputs.
	index  map[string]int
	inputs [][]int
	// order is flow.Steps in the order of the plan; place is the other way round, -1 for a step that is not in it.
	order, place []int
	// sound says which steps of the plan have a known output, and origins where their columns come from.
	sound   []bool
	origins [][]origin
	sources sourceNames
	cells   int
	// copied is, for every step of the plan, the columns that a join adds to cells when that step is its right side.
	copied []int
	// patterns are those of all expressions.
	patterns expr.Patterns
}

func (c *checker) problem(s *Step, pos Pos, format string, args ...any) {
	if pos == (Pos{}) {
		pos = s.Pos
	}
	c.add(pos, s.ID, format, args...)
}

// resolveInputs finds every step's inputs by name; false when one is not there.
func (c *checker) resolveInputs() bool {
	all := true
	c.inputs = make([][]int, len(c.flow.Steps))
	for i := range c.flow.Steps {
		s := &c.flow.Steps[i]
		for _, ref := range s.From {
			input, ok := c.index[ref.Name]
			if !ok {
				if all = false; !c.full() {
					c.problem(s, ref.Pos, "%s", expr.Unknown("step", ref.Name, c.ids(i)))
				}
				continue
			}
			c.inputs[i] = append(c.inputs[i], input)
		}
	}
	return all
}

// ids lists the ids of the steps other than the one at i.
func (c *checker) ids(i int) []string {
	list := make([]string, 0, len(c.flow.Steps))
	for j := range c.flow.Steps {
		if j != i {
			list = append(list, c.flow.Steps[j].ID)
		}
	}
	return list
}

// sortSteps puts every step after its inputs, in the written order otherwise. Steps on a cycle, and those behind one,
// are left out; false when there are any.
func (c *checker) sortSteps() bool {
	c.place = make([]int, len(c.flow.Steps))
	for i := range c.place {
		c.place[i] = unvisited
	}
	for i := range c.flow.Steps {
		c.visit(i, nil)
	}
	return len(c.order) == len(c.flow.Steps)
}

// The states of checker.place before a step has its place.
const (
	unvisited = -1 - iota
	onPath
	onCycle
)

// visit places step i after its inputs; path is the steps whose inputs led to it. It says whether i could be placed.
func (c *checker) visit(i int, path []int) bool {
	switch {
	case c.place[i] == onPath:
		c.reportCycle(path[slices.Index(path, i):])
		return false
	case c.place[i] == onCycle:
		return false
	case c.place[i] >= 0:
		return true
	}
	c.place[i] = onPath
	path = append(path, i)
	sound := true
	for _, input := range c.inputs[i] {
		sound = c.visit(input, path) && sound
	}
	if !sound {
		c.place[i] = onCycle
		return false
	}
	c.place[i] = len(c.order)
	c.order = append(c.order, i)
	return true
}

// reportCycle reports steps that each take the next one's rows, at the one that is written first.
func (c *checker) reportCycle(cycle []int) {
	first := slices.Index(cycle, slices.Min(cycle))
	names := make([]string, 0, maxCycleNames+1)
	for k := range cycle {
		if k == maxCycleNames {
			names = append(names, "…")
			break
		}
		names = append(names, c.flow.Steps[cycle[(first+k)%len(cycle)]].ID)
	}
	s := &c.flow.Steps[cycle[first]]
	names = append(names, s.ID)
	pos := s.Pos
	for _, ref := range s.From {
		if c.index[ref.Name] == cycle[(first+1)%len(cycle)] {
			pos = ref.Pos
		}
	}
	c.problem(s, pos, "the steps form a cycle: %s, each taking the rows of the next; let one of them take its rows from elsewhere", strings.Join(names, " <- "))
}

const maxCycleNames = 8

// findUnused reports steps whose rows reach no insight.
func (c *checker) findUnused() {
	used := make([]bool, len(c.flow.Steps))
	ends := false
	for _, i := range slices.Backward(c.order) {
		switch c.flow.Steps[i].Verb { //nolint:exhaustive // the other rows must reach one of these
		case Insight, Write:
			used[i], ends = true, true
		}
		if used[i] {
			for _, input := range c.inputs[i] {
				used[input] = true
			}
		}
	}
	if !ends {
		c.add(c.flow.Pos, "", "the flow has no insight step and no write step, so nothing would come of it; end it with insight: and a name")
		return
	}
	for i := range c.flow.Steps {
		if s := &c.flow.Steps[i]; !used[i] {
			c.problem(s, Pos{}, "nothing uses the rows of this step: they reach no insight and no write; remove it, or name it in from: or join:")
		}
	}
}

// checkSteps checks every step whose inputs are known, in the order of the plan.
func (c *checker) checkSteps() {
	c.sound = make([]bool, len(c.order))
	c.origins = make([][]origin, len(c.order))
	c.copied = make([]int, len(c.order))
	c.plan.Steps = make([]PlanStep, len(c.order))
	insights := map[string]bool{}
	for k, i := range c.order {
		s := &c.flow.Steps[i]
		ps := &c.plan.Steps[k]
		*ps = PlanStep{Step: s, WindowTime: -1, InsightTime: -1}
		ready := len(c.inputs[i]) == len(s.From)
		for _, input := range c.inputs[i] {
			ps.Inputs = append(ps.Inputs, c.place[input])
			ready = ready && c.sound[c.place[input]]
		}
		if s.Verb == Insight && insights[s.Insight.Name] {
			c.problem(s, Pos{}, "the insight %q is there twice; give it another name", s.Insight.Name)
		} else if s.Verb == Insight {
			insights[s.Insight.Name] = true
		}
		if s.Verb == Read || ready && len(ps.Inputs) > 0 {
			c.sound[k] = c.checkStep(k) && c.withinBounds(k)
		}
		if !c.sound[k] { // nothing will look at it, and thousands of these take memory
			ps.Output, c.origins[k] = nil, nil
		}
	}
}

func (c *checker) withinBounds(k int) bool {
	ps := &c.plan.Steps[k]
	if len(ps.Output) > maxColumns {
		c.problem(ps.Step, Pos{}, "the step has %d columns; the most is %d", len(ps.Output), maxColumns)
		return false
	}
	added := len(ps.Output)
	c.copied[k] = len(ps.Output)
	for _, input := range ps.Inputs {
		c.copied[k] = min(c.copied[k]+c.copied[input], maxCells+1) // unions of the same steps double it again and again
	}
	switch ps.Verb { //nolint:exhaustive // the others cost their columns alone
	case Join:
		if ps.Join.Within > 0 {
			break
		}
		// The engine runs every right side as a flow of its own, which takes some memory for each step of the whole.
		table := len(c.flow.Steps) / 2
		c.copied[k] += table
		added += table + c.copied[ps.Inputs[1]]
	case Insight: // the egress manifest writes the sources out
		for i := range c.origins[k] {
			added += len(c.origins[k][i].sources)
		}
	}
	if c.cells += added; c.cells > maxCells {
		c.problem(ps.Step, Pos{}, "the flow is too large: up to here its steps have more than %d columns together, those of a join's right side counted for each join; drop columns early with select, or make it several flows", maxCells)
		return false
	}
	return true
}

// checkStep checks the step at place k, whose inputs are sound; it says whether the step's output is known.
func (c *checker) checkStep(k int) bool {
	ps := &c.plan.Steps[k]
	if rules, known := rulesOf()[ps.Verb]; known {
		return rules.check(c, k)
	}
	c.problem(ps.Step, Pos{}, "%s", expr.Unknown("verb", string(ps.Verb), verbNames()))
	return false
}

// input is the output schema and the origins of the step's input.
func (c *checker) input(ps *PlanStep, i int) (expr.Schema, []origin) {
	k := ps.Inputs[i]
	return c.plan.Steps[k].Output, c.origins[k]
}

// column finds a column of the schema, or reports it and gives -1.
func (c *checker) column(s *Step, ref Ref, schema expr.Schema) int {
	i := schema.Index(ref.Name)
	if i < 0 && !c.full() {
		c.problem(s, ref.Pos, "%s", expr.Unknown("column", ref.Name, schema.Names()))
	}
	return i
}

// node checks an expression; nil when something is wrong with it, which is reported.
func (c *checker) node(s *Step, e *Expression, schema expr.Schema) *expr.Node {
	if e.Node == nil || c.full() {
		return nil
	}
	n, err := expr.CheckWithin(e.Node, schema, &c.patterns)
	if err != nil {
		c.problem(s, e.place(err), "%s", err)
		return nil
	}
	return n
}
