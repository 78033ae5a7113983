package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connector/conformance"
	"github.com/outfeed/outfeed/agent/internal/connectors/postgres"
	"github.com/outfeed/outfeed/protocol/expr"
)

func (m *mes) connection() connector.Connection {
	return connector.Connection{Name: "erp", Kind: "postgres", Options: map[string]any{"url": m.db.OwnerURL()}}
}

func (m *mes) lookup(with map[string]any, keys, schema expr.Schema) connector.Lookup {
	m.t.Helper()
	c, ok := postgres.New().(connector.Lookuper)
	if !ok {
		m.t.Fatal("the connector looks nothing up")
	}
	l, err := c.NewLookup(connector.LookupSettings{Connection: m.connection(), With: with, Keys: keys, Schema: schema})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = l.Close() })
	return l
}

func intsAndNames(ids []int64, names []string) *column.Batch {
	b := column.NewBatch(expr.Schema{{Name: "id", Type: expr.Int}, {Name: "name", Type: expr.String}})
	for i := range ids {
		b.Cols[0].AppendInt(ids[i])
		b.Cols[1].AppendStr([]byte(names[i]))
		b.Len++
	}
	return b
}

// show lists what was found as "key:value".
func show(f connector.Found) []string {
	var list []string
	for i, k := range f.Key {
		text := "null"
		if !f.Rows.Cols[0].Null(i) {
			text = string(f.Rows.Cols[0].Bytes(i))
		}
		list = append(list, fmt.Sprintf("%d:%s", k, text))
	}
	slices.Sort(list)
	return list
}

func TestLookupFindsByAllKeyColumns(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE SCHEMA erp; CREATE TABLE erp."Work Orders" (id int, "na""me" varchar(40), product text);
		INSERT INTO erp."Work Orders" VALUES (1, 'a', 'cap'), (1, 'b', 'lid'), (2, 'a', NULL), (3, 'x', 'one'), (3, 'x', 'two'), (3, 'x', 'three'), (NULL, 'a', 'never')`)
	keys := expr.Schema{{Name: "id", Type: expr.Int}, {Name: `na"me`, Type: expr.String}}
	l := m.lookup(map[string]any{"table": `erp."Work Orders"`}, keys, expr.Schema{{Name: "product", Type: expr.String}})
	const injection = `a'); DROP TABLE erp."Work Orders"; --`
	found, err := l.Fetch(t.Context(), intsAndNames([]int64{1, 1, 2, 3, 4, 1, 1, 1}, []string{"a", "b", "a", "x", "a", injection, "a\x00", "\xff"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(show(found), " "), "0:cap 1:lid 2:null 3:one 3:two"; got != want {
		t.Errorf("found %q, want %q", got, want)
	}
	if found, err = l.Fetch(t.Context(), intsAndNames([]int64{7}, []string{"\x00"})); err != nil || len(found.Key) != 0 {
		t.Errorf("a key that PostgreSQL cannot hold gives %v, %v", found, err)
	}
	if found, err = l.Fetch(t.Context(), intsAndNames([]int64{1}, []string{"b"})); err != nil || strings.Join(show(found), " ") != "0:lid" {
		t.Errorf("the table does not answer any more: %v, %v", found, err)
	}
}

func TestLookupOfEveryKeyType(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE TABLE things (b bool, n numeric, f real, at timestamp, s text); INSERT INTO things VALUES (true, 12, 0.5, '2026-07-01 08:00:00', 'found')`)
	for column, c := range map[string]struct {
		t     expr.Type
		value func(*column.Column)
	}{
		"b":  {expr.Bool, func(c *column.Column) { c.AppendBool(true) }},
		"n":  {expr.Int, func(c *column.Column) { c.AppendInt(12) }},
		"f":  {expr.Float, func(c *column.Column) { c.AppendFloat(0.5) }},
		"at": {expr.Timestamp, func(c *column.Column) { c.AppendInt(time.Date(2026, 7, 1, 6, 0, 0, 0, time.UTC).UnixMicro()) }},
	} {
		keys := expr.Schema{{Name: column, Type: c.t}}
		conn := m.connection()
		conn.Options["time_zone"] = "Europe/Berlin"
		lookuper, _ := postgres.New().(connector.Lookuper)
		l, err := lookuper.NewLookup(connector.LookupSettings{Connection: conn, With: map[string]any{"query": "SELECT * FROM things"}, Keys: keys, Schema: expr.Schema{{Name: "s", Type: expr.String}}})
		if err != nil {
			t.Fatal(err)
		}
		b := newBatch(keys)
		c.value(&b.Cols[0])
		b.Len = 1
		found, err := l.Fetch(t.Context(), b)
		if err != nil || strings.Join(show(found), " ") != "0:found" {
			t.Errorf("%s: %v, %v", column, show(found), err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func newBatch(schema expr.Schema) *column.Batch { return column.NewBatch(schema) }

func TestLookupOnlyReads(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE TABLE t (id int, name text); INSERT INTO t VALUES (1, 'a');
		CREATE FUNCTION evil() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (2, ''evil'') RETURNING 1'`)
	keys := expr.Schema{{Name: "id", Type: expr.Int}}
	for range 2 {
		l := m.lookup(map[string]any{"query": "SELECT evil() AS id, name FROM t, set_config('default_transaction_read_only', 'off', false)"}, keys, nil)
		b := newBatch(keys)
		b.Cols[0].AppendInt(1)
		b.Len = 1
		_, err := l.Fetch(t.Context(), b)
		var permanent *connector.PermanentError
		if !errors.As(err, &permanent) || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("a query that writes gives %v", err)
		}
	}
}

func TestLookupReportsWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE TABLE t (id int, n numeric); INSERT INTO t VALUES (1, 5), (2, 0.5)`)
	keys := expr.Schema{{Name: "id", Type: expr.Int}}
	l := m.lookup(map[string]any{"table": "t"}, keys, expr.Schema{{Name: "n", Type: expr.Int}})
	b := newBatch(keys)
	b.Cols[0].Ints, b.Len = []int64{1, 2}, 2
	found, err := l.Fetch(t.Context(), b)
	if err != nil || len(found.Key) != 1 || found.Rows.Cols[0].Ints[0] != 5 || !strings.Contains(found.Unreadable[1], "whole number") {
		t.Errorf("found %+v, %v", found, err)
	}
	for name, with := range map[string]map[string]any{"no such table": {"table": "nowhere"}, "no such column": {"query": "SELECT 1 AS other"}} {
		_, err := m.lookup(with, keys, nil).Fetch(t.Context(), b)
		if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLookupSaysWhatIsWrongWithTheTable(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE TABLE t (id bigint, name text)`)
	for _, c := range []struct {
		table, column string
		key           expr.Type
		want          string
	}{
		{"t", "name", expr.String, "looking rows up in table t in PostgreSQL at * the key (id) is of type string in the flow and bigint in the database, which cannot be compared; convert"},
		{"t", "productt", expr.Int, `table t has no column "productt"; correct the name`},
		{"nowhere", "name", expr.Int, "looking rows up in table nowhere in PostgreSQL at * there is no such table or view"},
	} {
		keys := expr.Schema{{Name: "id", Type: c.key}}
		b := newBatch(keys)
		if c.key == expr.Int {
			b.Cols[0].AppendInt(1)
		} else {
			b.Cols[0].AppendStr([]byte("A1"))
		}
		b.Len = 1
		_, err := m.lookup(map[string]any{"table": c.table}, keys, expr.Schema{{Name: c.column, Type: expr.String}}).Fetch(t.Context(), b)
		mustSay(t, err, c.want)
	}
}

// mustSay asks for an error that does not pass and whose text has the parts between the stars of want.
func mustSay(t *testing.T, err error, want string) {
	t.Helper()
	if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
		t.Fatalf("the error passes: %v", err)
	}
	for part := range strings.SplitSeq(want, " * ") {
		if text := err.Error(); !strings.Contains(text, part) || strings.Contains(text, "outfeed_rows") || strings.Contains(text, "SQLSTATE") {
			t.Errorf("the error is %q, want %q", text, part)
		}
	}
}

func TestLookupGoesOnAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE TABLE t (id int, name text); INSERT INTO t VALUES (1, 'a')`)
	keys := expr.Schema{{Name: "id", Type: expr.Int}}
	l := m.lookup(map[string]any{"table": "t"}, keys, expr.Schema{{Name: "name", Type: expr.String}})
	b := newBatch(keys)
	b.Cols[0].Ints, b.Len = []int64{1}, 1
	ask := func() (string, error) {
		found, err := l.Fetch(t.Context(), b)
		return strings.Join(show(found), " "), err
	}
	if got, err := ask(); err != nil || got != "0:a" {
		t.Fatal(got, err)
	}
	cut := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + m.db.Name + "' AND pid <> pg_backend_pid()"
	m.execAt(m.admin(), cut)
	// A cut connection may be told of as an error of the server's, which the engine's next try mends.
	got, err := ask()
	if err != nil {
		got, err = ask()
	}
	if err != nil || got != "0:a" {
		t.Fatalf("after a cut: %q, %v", got, err)
	}
	m.Down()
	m.execAt(m.admin(), cut)
	if _, err = ask(); err == nil {
		t.Fatal("a database that allows no connection answers")
	}
	m.Up()
	if got, err = ask(); err != nil {
		got, err = ask()
	}
	if err != nil || got != "0:a" {
		t.Fatalf("after it came back: %q, %v", got, err)
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	keys := expr.Schema{{Name: "id", Type: expr.Int}}
	b := newBatch(keys)
	b.Cols[0].Ints, b.Len = []int64{1}, 1
	slow := map[string]any{"query": "SELECT 1 AS id FROM pg_sleep(30)"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := m.lookup(slow, keys, nil).Fetch(ctx, b); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("it ended after %v with %v", time.Since(began), err)
	}
	slow["statement_timeout"] = "200ms"
	var permanent *connector.PermanentError
	if _, err := m.lookup(slow, keys, nil).Fetch(t.Context(), b); err == nil || errors.As(err, &permanent) {
		t.Errorf("a statement that takes too long gives %v", err)
	}
}

func (m *mes) LookupSettings() connector.LookupSettings {
	return connector.LookupSettings{Connection: m.connection(), With: m.with}
}

// cutting makes going down end the connections that are there, as a server that stops does.
type cutting struct{ *mes }

func (c cutting) Down() {
	c.mes.Down()
	c.execAt(c.admin(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+c.db.Name+"' AND pid <> pg_backend_pid()")
}

func TestLookupConformance(t *testing.T) {
	t.Parallel()
	conformance.RunLookup(t, postgres.New(), func(t *testing.T) conformance.LookupSystem {
		t.Helper()
		m := newMES(t, map[string]any{"table": "plant.orders"})
		m.exec("CREATE SCHEMA plant; CREATE TABLE plant.orders (n bigint PRIMARY KEY, id numeric, name text)")
		return cutting{m}
	})
}

func (m *mes) SinkSettings() connector.SinkSettings {
	return connector.SinkSettings{Connection: m.connection(), With: m.with}
}

func (m *mes) Written() []int {
	var ids []int
	for field := range strings.SplitSeq(m.rows("SELECT id::text FROM plant.results ORDER BY n"), "|") {
		var id int
		if n, _ := fmt.Sscan(field, &id); n == 1 {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestSinkConformance(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]map[string]any{
		"insert": {"table": "plant.results"},
		"upsert": {"table": "plant.results", "mode": "upsert", "key": []any{"id"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformance.RunSink(t, postgres.New(), func(t *testing.T) conformance.SinkSystem {
				t.Helper()
				m := newMES(t, with)
				m.exec("CREATE SCHEMA plant; CREATE TABLE plant.results (n bigserial, id int UNIQUE, name text)")
				return cutting{m}
			})
		})
	}
}
