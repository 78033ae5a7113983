package flowdef

import "github.com/outfeed/outfeed/protocol/expr"

// Environment is what a definition is checked against.
type Environment struct {
	// Connections maps the name of every known connection to its kind. Nil means that they are not known, and then
	// neither the names nor the read options are checked.
	Connections map[string]string
	// Connectors maps a kind to its spec.
	Connectors map[string]ConnectorSpec
}

// Plan is a checked flow: the steps in an order in which every input comes before its use, names resolved to positions
// and expressions typed.
type Plan struct {
	Flow  *Flow
	Steps []PlanStep
	// Egress is what would leave the plant.
	Egress Manifest
}

// PlanStep is one checked step.
type PlanStep struct {
	*Step
	// Inputs are positions in Plan.Steps.
	Inputs []int
	// Output is the schema of the rows that the step gives. An insight step gives its input's.
	Output expr.Schema

	// Filter is the typed condition of a filter step.
	Filter *expr.Node
	// Assign are the typed expressions of a map step, by Output column: see AssignTo. Later ones see earlier ones.
	Assign []*expr.Node
	// AssignTo is the position in Output that each Assign sets.
	AssignTo []int
	// Keep is, for a select step, the input position of each Output column.
	Keep []int
	// Aggregates, By and WindowTime belong to an aggregate step. Output is the By columns; where there is a window,
	// window_start and window_end and, of shifts, shift; then the aggregates.
	Aggregates []AggregateCall
	// By is the input positions of the grouping columns.
	By []int
	// WindowTime is the input position of the window's time column, or -1.
	WindowTime int
	// JoinLeft and JoinRight are the key positions in the two inputs; RightKeep is the right positions that follow the
	// left columns in Output.
	JoinLeft, JoinRight, RightKeep []int
	// StreamJoin is set for a join of two streams.
	StreamJoin *StreamJoinPlan
	// The plans of the other verbs, each set for its own.
	LookupPlan   *LookupPlan
	SortPlan     *SortPlan
	LimitPlan    *LimitPlan
	DistinctPlan *DistinctPlan
	UnnestPlan   *UnnestPlan
	ValidatePlan *ValidatePlan
	DetectPlan   *DetectPlan
	WritePlan    *WritePlan
	// InsightKey and InsightValues are input positions; InsightTime is one, or -1 for the run's start.
	InsightKey, InsightValues []int
	InsightTime               int
}

// AggregateCall is one result of an aggregate.
type AggregateCall struct {
	// Name is the output column, Func the aggregate's name: count sum avg min max first last …
	Name, Func string
	// Arg is the typed argument; nil for count().
	Arg *expr.Node
	// Params are the constants behind the argument, such as the 0.95 of quantile(x, 0.95).
	Params []expr.Value
	// Result is the output column's type.
	Result expr.Type
}

// Manifest is the egress manifest: every column that would leave the plant.
type Manifest struct {
	Columns []EgressColumn `json:"columns"`
}

// EgressColumn is one column of one insight.
type EgressColumn struct {
	Insight string `json:"insight"`
	Column  string `json:"column"`
	Type    string `json:"type"`
	// Sources are the columns it was made from, as "connection.column", sorted.
	Sources []string `json:"sources"`
	// Aggregated is true when every path from a source to the column passes an aggregate that is not a grouping column;
	// otherwise the column is raw.
	Aggregated bool `json:"aggregated"`
}

// Problem is one thing that is wrong with a definition.
type Problem struct {
	Pos
	// Step is the step's id, or "" outside the steps.
	Step string `json:"step,omitempty"`
	// Message says what is wrong and names the nearest valid name where there is one.
	Message string `json:"message"`
}

// Problems is everything found wrong with a definition, in the order of the text. It is an error.
type Problems []Problem //nolint:errname // the word that people read, in the API too
