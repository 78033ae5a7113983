package flowdef

import (
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// Pos is a place in a definition's text, counted from one, in lines and characters. The zero Pos is nowhere.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Verb is what a step does.
type Verb string

// The verbs of the language.
const (
	Read      Verb = "read"
	Filter    Verb = "filter"
	Map       Verb = "map"
	Select    Verb = "select"
	Aggregate Verb = "aggregate"
	Join      Verb = "join"
	Lookup    Verb = "lookup"
	Union     Verb = "union"
	Sort      Verb = "sort"
	Limit     Verb = "limit"
	Distinct  Verb = "distinct"
	Unnest    Verb = "unnest"
	Validate  Verb = "validate"
	Detect    Verb = "detect"
	Write     Verb = "write"
	Insight   Verb = "insight"
)

// OnError says what a failing record does to its flow.
type OnError string

// OnErrorSkip counts and samples a failing record and goes on; it is the default. OnErrorStop fails the run.
const (
	OnErrorSkip OnError = "skip"
	OnErrorStop OnError = "stop"
)

// Flow is a definition as written, parsed but not checked.
type Flow struct {
	Name        string
	Description string
	Trigger     Trigger
	OnError     OnError
	Steps       []Step
	Tests       []Test
	Pos         Pos
}

// TriggerKind says when a flow runs.
type TriggerKind string

// The kinds of trigger. Manual is what a definition without a trigger has.
const (
	Continuous TriggerKind = "continuous"
	Every      TriggerKind = "every"
	Cron       TriggerKind = "cron"
	Manual     TriggerKind = "manual"
)

// Trigger is when a flow runs.
type Trigger struct {
	Kind TriggerKind
	// Every is the period of an `every` trigger.
	Every time.Duration
	// Cron, Timezone and Missed belong to a `cron` trigger. Missed is "skip" (the default) or "once".
	Cron, Timezone, Missed string
	Pos                    Pos
}

// Step is one verb of a flow. Of the pointers exactly the one of its Verb is set.
type Step struct {
	// ID is the `id:` as written, or "<verb>_<n>" with n the step's place counted from one.
	ID   string
	Verb Verb
	// From is the ids of the input steps: none for read, the step before when left out, two for join (left, right), all
	// of them for union.
	From []Ref
	Pos  Pos

	Read      *ReadStep
	Filter    *Expression
	Map       []Assignment
	Select    []Selection
	Aggregate *AggregateStep
	Join      *JoinStep
	Lookup    *LookupStep
	Sort      *SortStep
	Limit     *LimitStep
	Distinct  *DistinctStep
	Unnest    *UnnestStep
	Validate  *ValidateStep
	Detect    *DetectStep
	Write     *WriteStep
	Insight   *InsightStep
}

// Ref is a name that refers to something else, and where it stands.
type Ref struct {
	Name string
	Pos  Pos
}

// Expression is the text of an expression and its tree.
type Expression struct {
	Text string
	Pos  Pos
	// Node is the parsed tree; a checked plan holds its own typed copy.
	Node *expr.Node
	// source is the place in the definition's text that Text comes from; nil when the flow was not parsed.
	source *scalar
}

// Assignment gives a name to an expression: a map's new column, an aggregate's result.
type Assignment struct {
	Name string
	Expr Expression
	Pos  Pos
}

// Selection keeps the column From under the name Name.
type Selection struct {
	Name string
	From Ref
}

// ReadStep reads a connection.
type ReadStep struct {
	Connection Ref
	// With is the read options as written: strings, int64, float64, bools, []any and map[string]any.
	With map[string]any
	// WithPos is where each option's key stands.
	WithPos map[string]Pos
	// Schema is the columns that the source must deliver, in the written order.
	Schema []SchemaColumn
	// Refresh is how often a continuous flow reads a bounded source again for the right side of a join; 0 means the default, a minute.
	Refresh time.Duration
	// Drift is what becomes of records that have what Schema does not name, or lack what it names: one of the Drift
	// constants; "" is DriftIgnore.
	Drift string
}

// What becomes of records that differ from a read's schema. DriftIgnore passes over the difference, DriftReport notes
// each once in the run's sample, DriftFail fails records that have what the schema does not name, and reads that lack
// what it names.
const (
	DriftIgnore = "ignore"
	DriftReport = "report"
	DriftFail   = "fail"
)

// SchemaColumn is one declared column of a read.
type SchemaColumn struct {
	expr.Column
	Pos Pos
}

// AggregateStep groups rows and summarises each group.
type AggregateStep struct {
	Results []Assignment
	By      []Ref
	// Window is nil when the groups span the whole input, which a continuous flow does not allow.
	Window *Window
}

// JoinKind is which rows a join gives.
type JoinKind string

// The kinds of join. Inner and left give a row for every match, left also the left rows without one and full those of
// either side. Semi gives the left rows that have a match, anti those that have none, and neither adds columns.
const (
	JoinInner JoinKind = "inner"
	JoinLeft  JoinKind = "left"
	JoinSemi  JoinKind = "semi"
	JoinAnti  JoinKind = "anti"
	JoinFull  JoinKind = "full"
)

// JoinStep adds the columns of the right input to the rows of the left: Step.From[0] and Step.From[1].
type JoinStep struct {
	Kind JoinKind
	// On pairs a left column with a right column.
	On []JoinKey
	// Within makes it a join of two streams: rows match whose times are at most that far apart. 0 means that the right
	// side is a table.
	Within time.Duration
	// Stream is set when Within is.
	Stream *StreamJoin
}

// JoinKey is one pair of columns that must be equal.
type JoinKey struct{ Left, Right Ref }

// InsightStep turns rows into insights.
type InsightStep struct {
	Name string
	Key  []Ref
	// Time is the timestamp column of the insight; the zero Ref stands for the window's start or, where there is no
	// window, the only timestamp column, or else the time at which the run began.
	Time Ref
}

// Test is a flow test: rows given to the read steps, insights expected.
type Test struct {
	Name string
	// Given maps a read step's id to its rows, Expect an insight's name to the expected insights.
	// Values are as in ReadStep.With; null is nil.
	Given  map[string][]map[string]any
	Expect map[string][]map[string]any
	// Failed is how many records must fail; nil when the test does not say.
	Failed *int64
	// Ordered says that the insights of a name must come in the written order.
	Ordered bool
	Pos     Pos
	// places is where the names and rows stand, by a path like "given/readings/0/temp".
	places map[string]Pos
}
