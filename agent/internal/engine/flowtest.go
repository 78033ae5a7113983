package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// TestResult is the outcome of one test of a definition.
type TestResult struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	// Difference says what was expected and what came, for people; it is empty when the test passed.
	Difference string `json:"difference,omitempty"`
	// Failed is how many records failed, and FailedReason what was wrong with the first. A test that does not say how many
	// must fail passes whatever they are.
	Failed       int64  `json:"failed"`
	FailedReason string `json:"failed_reason,omitempty"`
	// FailedExpected says that the test names their number.
	FailedExpected bool `json:"failed_expected,omitempty"`
}

// TestFlow runs the tests that a definition brings along: the given rows through the flow as a bounded run, in which
// rows of a continuous flow can yet be late (see lateSpan), then each expected insight name compared with what came out. An expectation names the members to compare, of key and values
// together (and `time`, where no member has that name); the number of the insights matters, and their order where the
// test says so. Read and lookup steps without given rows are empty. No system is written to: the rows of a write step are
// compared under the step's id. A test that takes more memory, rows or time than testGuard allows fails.
func TestFlow(ctx context.Context, plan *flowdef.Plan) ([]TestResult, error) {
	return testFlow(ctx, plan, ProcessorTime)
}

func testFlow(ctx context.Context, plan *flowdef.Plan, used func() (time.Duration, error)) ([]TestResult, error) {
	program, err := Compile(plan)
	if err != nil {
		return nil, err
	}
	inner, end, err := withinTestTime(ctx, used)
	if err != nil {
		return nil, err
	}
	defer end()
	results := make([]TestResult, 0, len(plan.Flow.Tests))
	for i := range plan.Flow.Tests {
		result, err := runTest(inner, program, &plan.Flow.Tests[i])
		if err != nil {
			if ctx.Err() != nil {
				return results, context.Cause(ctx)
			}
			result.Difference = testError(err)
		}
		result.Passed = result.Difference == ""
		results = append(results, result)
	}
	return results, nil
}

func runTest(ctx context.Context, program *Program, test *flowdef.Test) (TestResult, error) {
	result := TestResult{Name: test.Name, FailedExpected: test.Failed != nil}
	guard := newTestGuard(ctx)
	store := &collector{insights: map[string][]map[string]any{}, guard: guard}
	size := givenRows(program.plan)
	report, err := Run(ctx, RunSettings{
		Program: program, Store: store, Started: time.Unix(0, 0).UTC(), Memory: NewMemory(testMemory), guard: guard,
		Open: func(need ReadNeed, _ connector.Cursor) (connector.Source, error) {
			return newGivenSource(need, test.Given[need.Step], size)
		},
		OpenLookup: func(need ReadNeed) (connector.Lookup, error) { return newGivenLookup(need, test.Given[need.Step]) },
		OpenSink:   func(need WriteNeed) (connector.Sink, error) { return store.newSink(need, program.plan), nil },
	})
	result.Failed = report.Failed
	for _, f := range report.Sample {
		if result.FailedReason == "" {
			result.FailedReason = f.Reason
		}
	}
	if err != nil {
		return result, err
	}
	var lines []string
	for _, name := range sortedKeys(test.Expect) {
		compare := compareInsights
		if test.Ordered {
			compare = compareInOrder
		}
		d, err := compare(ctx, sides{name, test.Expect[name], store.insights[name]})
		if err != nil {
			return result, err
		}
		if d != "" {
			lines = append(lines, d)
		}
	}
	if test.Failed != nil && *test.Failed != report.Failed {
		lines = append(lines, fmt.Sprintf("failed records: expected %d, came %d", *test.Failed, report.Failed))
	}
	if len(lines) > 0 {
		lines = append(lines, lateLines(report.Steps)...)
		for _, f := range report.Sample {
			lines = append(lines, "  "+describeSample(f))
		}
	}
	result.Difference = strings.Join(lines, "\n")
	return result, nil
}

// lateLines say of each step how many rows came too late.
func lateLines(steps []StepCount) []string {
	var lines []string
	for i := range steps {
		if n := steps[i].Late; n > 0 {
			lines = append(lines, fmt.Sprintf("  rows that came too late in step %s: %d", steps[i].Step, n))
		}
	}
	return lines
}

func describeSample(f FailedRecord) string {
	if f.Note {
		return fmt.Sprintf("noted in step %s: %s", f.Step, f.Reason)
	}
	return fmt.Sprintf("a record failed in step %s: %s: %s", f.Step, f.Reason, f.Record)
}

// collector is a store that keeps the insights as values.
type collector struct {
	insights map[string][]map[string]any
	guard    *testGuard
}

// Load gives the empty state.
func (c *collector) Load(context.Context) (State, error) { return State{}, nil }

// Commit keeps the insights.
func (c *collector) Commit(_ context.Context, cp Checkpoint) error {
	for i := range cp.Insights {
		in := &cp.Insights[i]
		members := map[string]any{"time": string(column.AppendTimeText(nil, in.Time))}
		for _, part := range [][]byte{in.Key, in.Values} {
			decoder := json.NewDecoder(strings.NewReader(string(part)))
			decoder.UseNumber()
			if err := decoder.Decode(&members); err != nil {
				return fmt.Errorf("the insight %s is not JSON: %w", in.Name, err)
			}
		}
		c.insights[in.Name] = append(c.insights[in.Name], members)
	}
	return nil
}

// unlike are the members of an expected insight that another has not, in order.
func unlike(want, got map[string]any) []string {
	var names []string
	for _, name := range sortedKeys(want) {
		if g, there := got[name]; !there || !sameValue(want[name], g) {
			names = append(names, name)
		}
	}
	return names
}

// valueText is a value as a definition writes it.
func valueText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

func show(members map[string]any) string {
	parts := make([]string, 0, len(members))
	for _, k := range sortedKeys(members) {
		parts = append(parts, k+": "+valueText(members[k]))
	}
	return withLength("{" + strings.Join(parts, ", ") + "}")
}

func fits(want, got map[string]any) bool {
	for name, w := range want {
		g, ok := got[name]
		if !ok || !sameValue(w, g) {
			return false
		}
	}
	return true
}

// sameValue compares a value of a definition with a decoded one: numbers by value, times by instant, whatever their
// spelling.
func sameValue(want, got any) bool {
	switch w := want.(type) {
	case nil:
		return got == nil
	case int64, float64, int:
		return sameNumber(w, got)
	case string:
		return sameText(w, got)
	case time.Time:
		return sameText(string(column.AppendTimeText(nil, w.UnixMicro())), got)
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(w, g, sameValue)
	case map[string]any:
		g, ok := got.(map[string]any)
		return ok && len(w) == len(g) && fits(w, g)
	}
	return want == got
}

func sameText(want string, got any) bool {
	g, ok := got.(string)
	if !ok {
		return false
	}
	wanted, isTime := parseTime([]byte(want))
	came, isTimeToo := parseTime([]byte(g))
	return want == g || (isTime && isTimeToo && wanted == came)
}

func sameNumber(want, got any) bool {
	number, ok := got.(json.Number)
	if !ok {
		return false
	}
	switch w := want.(type) {
	case int:
		return sameNumber(int64(w), got)
	case int64:
		if g, err := number.Int64(); err == nil {
			return g == w
		}
		g, err := number.Float64()
		return err == nil && nearFloat(g, float64(w))
	case float64:
		g, err := number.Float64()
		return err == nil && nearFloat(g, w)
	}
	return false
}

// floatTolerance is how far apart, as a share of the greater one, two floats of a test are the same.
const floatTolerance = 1e-9

func nearFloat(a, b float64) bool {
	return equalFloat(a, b) || math.Abs(a-b) <= floatTolerance*max(math.Abs(a), math.Abs(b))
}

// givenSource is a bounded source over the rows of a test, which it gives a few at a time.
type givenSource struct {
	rows, batch *column.Batch
	at, size    int
}

func newGivenSource(need ReadNeed, rows []map[string]any, size int) (*givenSource, error) {
	b := column.NewBatch(need.Schema)
	for i, row := range rows {
		for c := range need.Schema {
			if err := appendGiven(&b.Cols[c], row[need.Schema[c].Name]); err != nil {
				return nil, fmt.Errorf("row %d, column %s: %w", i+1, need.Schema[c].Name, err)
			}
		}
		b.Len++
	}
	return &givenSource{rows: b, batch: column.NewBatch(need.Schema), size: size}, nil
}

// Traits says that the rows end.
func (s *givenSource) Traits() connector.Traits {
	return connector.Traits{Bounded: true, Replayable: true}
}

// Next gives the next rows, behind the last one io.EOF.
func (s *givenSource) Next(context.Context) (connector.Delivery, error) {
	if s.at == s.rows.Len {
		return connector.Delivery{}, io.EOF
	}
	s.batch.Reset()
	for end := min(s.at+s.size, s.rows.Len); s.at < end; s.at++ {
		s.batch.AppendRow(s.rows, s.at)
	}
	return connector.Delivery{Batch: s.batch, Cursor: connector.Cursor("end"), Read: int64(s.batch.Len)}, nil
}

// Committed has nothing to do.
func (s *givenSource) Committed(context.Context, connector.Cursor) error { return nil }

// Close has nothing to do.
func (s *givenSource) Close() error { return nil }

// appendGiven converts a value of a definition to the column's type.
func appendGiven(c *column.Column, v any) error {
	if v == nil {
		c.AppendNull()
		return nil
	}
	if n, ok := v.(int); ok {
		v = int64(n)
	}
	ok := false
	switch c.Type {
	case expr.Bool:
		var value bool
		value, ok = v.(bool)
		c.AppendBool(value)
	case expr.Int:
		var value int64
		if f, isFloat := v.(float64); isFloat && f == math.Trunc(f) && math.Abs(f) < 1<<63 {
			v = int64(f)
		}
		value, ok = v.(int64)
		c.AppendInt(value)
	case expr.Float:
		var value float64
		value, ok = givenFloat(v)
		c.AppendFloat(value)
	case expr.String:
		var value string
		value, ok = v.(string)
		c.AppendStr([]byte(value))
	case expr.Timestamp:
		var value int64
		value, ok = givenTime(v)
		c.AppendInt(value)
	case expr.JSON:
		text, err := json.Marshal(v)
		ok = err == nil
		c.AppendStr(text)
	case expr.Invalid, expr.Null:
	}
	if !ok {
		return fmt.Errorf("%s is no %s", show(map[string]any{"value": v}), c.Type)
	}
	return nil
}

func givenFloat(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case string:
		switch n {
		case "NaN":
			return math.NaN(), true
		case "Infinity":
			return math.Inf(1), true
		case "-Infinity":
			return math.Inf(-1), true
		}
	}
	return 0, false
}

func givenTime(v any) (int64, bool) {
	switch t := v.(type) {
	case int64:
		return timeOfMillis(t)
	case string:
		return parseTime([]byte(t))
	case time.Time:
		return t.UnixMicro(), true
	}
	return 0, false
}
