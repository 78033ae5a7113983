package flowdef_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

const lookupText = `flow: f
trigger: continuous
steps:
  - id: made
    read: press-plc
    with: {topic: t}
    schema: {ts: timestamp, order_no: int, part: string, raw: json}
  - id: order
    lookup: mes
    with: {table: orders}
    on: {order_no: id, part: part}
    schema: {id: int, product: string}
    type: inner
    cache: {size: 7, age: 2m}
  - id: out
    write: mes
    with: {table: results, key: [order_no]}
`

func systems() flowdef.Environment {
	env := environment()
	table := flowdef.Option{Name: "table", Type: flowdef.OptionString, Required: true, Help: "The table."}
	env.Connectors["postgres"] = flowdef.ConnectorSpec{
		Kind: "postgres", LookupOptions: []flowdef.Option{table},
		WriteOptions: []flowdef.Option{table, {Name: "key", Type: flowdef.OptionColumns, Help: "The key."}},
	}
	return env
}

func TestLookupAndWrite(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, lookupText, systems())
	l := plan.Steps[1]
	if got, want := columnsOf(l.Output), "ts timestamp, order_no int, part string, raw json, id int, product string"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if l.Lookup.Kind != "inner" || l.Lookup.CacheSize != 7 || l.Lookup.CacheAge != 2*time.Minute || !cmp.Equal(l.LookupPlan.Key, []int{1, 2}) {
		t.Errorf("got %+v, %+v", l.Lookup, l.LookupPlan)
	}
	if got, want := columnsOf(l.LookupPlan.Given()), "id int, part string, product string"; got != want {
		t.Errorf("a test gives %s, want %s", got, want)
	}
	writes := plan.Writes()
	if len(writes) != 1 || writes[0].Step != "out" || writes[0].Connection != "mes" || writes[0].Columns[5] != "product" {
		t.Errorf("the plan writes %+v", writes)
	}
	if len(plan.Egress.Columns) != 0 {
		t.Errorf("a write is in the egress manifest: %+v", plan.Egress)
	}
	var names []string
	for _, ref := range plan.Flow.Connections() {
		names = append(names, ref.Name)
	}
	if !cmp.Equal(names, []string{"press-plc", "mes", "mes"}) {
		t.Errorf("the connections are %v", names)
	}
}

func TestLookupIsAnOrigin(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, strings.Split(lookupText, "  - id: out")[0]+"  - select: [ts, product]\n  - insight: i\n", systems())
	want := []flowdef.EgressColumn{
		{Insight: "i", Column: "ts", Type: "timestamp", Sources: []string{"press-plc.ts"}},
		{Insight: "i", Column: "product", Type: "string", Sources: []string{"mes.product"}},
	}
	if diff := cmp.Diff(want, plan.Egress.Columns); diff != "" {
		t.Error(diff)
	}
}

func TestLookupAndWriteProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown column":      {"on: {order_no: id", "on: {ordr_no: id", `unknown column "ordr_no"`},
		"json key":            {"on: {order_no: id", "on: {raw: id", "nothing is looked up by json"},
		"no on":               {"    on: {order_no: id, part: part}\n", "", "the lookup has no on"},
		"empty on":            {"on: {order_no: id, part: part}", "on: {}", "on is empty"},
		"key twice":           {"part: part}", "part: id}", "there twice in on"},
		"no schema":           {"    schema: {id: int, product: string}\n", "", "the lookup has no schema"},
		"column is there":     {"product: string}", "ts: string}", `adds the column "ts"`},
		"key of another type": {"schema: {id: int,", "schema: {id: string,", "is a key of type int"},
		"type":                {"type: inner", "type: outer", "outer"},
		"cache size":          {"size: 7", "size: 0", "whole number from 1"},
		"cache age":           {"age: 2m", "age: soon", "age"},
		"cache key":           {"size: 7", "sise: 7", `"size"`},
		"unknown option":      {"with: {table: orders}", "with: {tabel: orders}", `"table"`},
		"unknown connection":  {"lookup: mes", "lookup: mess", `"mes"`},
		"no lookup there":     {"lookup: mes", "lookup: press-plc", "cannot look rows up"},
		"no writing there":    {"write: mes", "write: press-plc", "cannot be written to"},
		"unknown write key":   {"key: [order_no]", "key: [order_nr]", `"order_no"`},
		"key is no list":      {"key: [order_no]", "key: order_no", "list of different column names"},
		"write option":        {"table: results", "tables: results", `"table"`},
	} {
		text := strings.Replace(lookupText, c.old, c.new, 1)
		if text == lookupText {
			t.Errorf("%s changes nothing", name)
		}
		if _, err := flowdef.CheckText([]byte(text), systems()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

const streamsText = `flow: f
trigger: continuous
steps:
  - id: parts
    read: a
    schema: {ts: timestamp, serial: string}
  - id: checks
    read: b
    schema: {at: timestamp, part: string, good: bool}
  - join: checks
    from: parts
    on: {serial: part}
    within: 5m
    time: {ts: at}
    late: 10s
    type: left
  - insight: i
    time: ts
`

func TestJoinOfTwoStreams(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, streamsText, flowdef.Environment{})
	j := plan.Steps[2]
	if j.Join.Within != 5*time.Minute || j.Join.Stream.Late != 10*time.Second || *j.StreamJoin != (flowdef.StreamJoinPlan{LeftTime: 0, RightTime: 0}) {
		t.Errorf("got %+v, %+v, %+v", j.Join, j.Join.Stream, j.StreamJoin)
	}
	if got, want := columnsOf(j.Output), "ts timestamp, serial string, at timestamp, good bool"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"no time":          {"    time: {ts: at}\n", "", "needs the times"},
		"time is text":     {"time: {ts: at}", "time: {serial: at}", "of type string, not timestamp"},
		"two times":        {"time: {ts: at}", "time: {ts: at, serial: part}", "one column of each side"},
		"unknown time":     {"time: {ts: at}", "time: {ts: att}", `"at"`},
		"time for a table": {"    within: 5m\n", "", "which also says within"},
		"within":           {"within: 5m", "within: 0", "within"},
		"late":             {"late: 10s", "late: -1s", "late"},
	} {
		if _, err := flowdef.CheckText([]byte(strings.Replace(streamsText, c.old, c.new, 1)), flowdef.Environment{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}
