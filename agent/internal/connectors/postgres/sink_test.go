package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/postgres"
	"github.com/outfeed/outfeed/protocol/expr"
)

func resultSchema() expr.Schema {
	return expr.Schema{{Name: "machine", Type: expr.String}, {Name: "hour", Type: expr.Timestamp}, {Name: "made", Type: expr.Int}, {Name: "note", Type: expr.String}}
}

func (m *mes) sink(with map[string]any, schema expr.Schema) connector.Sink {
	m.t.Helper()
	c, ok := postgres.New().(connector.Sinker)
	if !ok {
		m.t.Fatal("the connector writes nothing")
	}
	s, err := c.NewSink(connector.SinkSettings{Connection: m.connection(), With: with, Schema: schema})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = s.Close() })
	return s
}

// results makes rows of "machine hour made note"; "-" is null.
func results(rows ...string) *column.Batch {
	b := column.NewBatch(resultSchema())
	for _, text := range rows {
		for i, field := range strings.SplitN(text, " ", 4) {
			c := &b.Cols[i]
			var n int64
			_, _ = fmt.Sscan(field, &n)
			switch {
			case field == "-":
				c.AppendNull()
			case c.Type == expr.String:
				c.AppendStr([]byte(field))
			case c.Type == expr.Timestamp:
				c.AppendInt(n * 3600e6)
			default:
				c.AppendInt(n)
			}
		}
		b.Len++
	}
	return b
}

func (m *mes) rows(sql string) string {
	m.t.Helper()
	c, err := pgx.Connect(m.t.Context(), m.db.OwnerURL())
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	rows, err := c.Query(m.t.Context(), sql)
	if err != nil {
		m.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Join(list, "|")
}

const (
	makeResults = `CREATE SCHEMA mes; CREATE TABLE mes.results (machine varchar(8), hour timestamptz, made int CHECK (made >= 0), note text, PRIMARY KEY (machine, hour))`
	readResults = `SELECT machine || ' ' || extract(epoch FROM hour)::bigint / 3600 || ' ' || coalesce(made::text, '-') || ' ' || coalesce(note, '-') FROM mes.results ORDER BY machine, hour`
)

func TestInsertKeepsTheGoodRowsOfAStatement(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(makeResults)
	s := m.sink(map[string]any{"table": "mes.results"}, resultSchema())
	if _, failed := s.Write(results("M1 1 5 -", "M2 1 -4 -", "M3 1 9 -", "much-too-long 1 3 -", "M5 1 99999999999 -", "M6 1 1 a\x00b", "M1 1 6 twice")); failed.Count != 0 {
		t.Errorf("Write fails %+v", failed)
	}
	failed, err := s.Flush(t.Context())
	if err != nil || failed.Count != 5 || len(failed.Sample) != 5 || !strings.Contains(failed.Sample[0].Record, `"machine":"M2"`) {
		t.Errorf("Flush gives %+v, %v", failed, err)
	}
	if got, want := m.rows(readResults), "M1 1 5 -|M3 1 9 -"; got != want {
		t.Errorf("the table holds %q, want %q", got, want)
	}
	if failed, err = s.Flush(t.Context()); err != nil || failed.Count != 0 {
		t.Errorf("a second Flush gives %+v, %v", failed, err)
	}
}

func TestUpsertHasTheEffectOfOnce(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(makeResults)
	with := map[string]any{"table": "mes.results", "mode": "upsert", "key": []any{"machine", "hour"}}
	for range 2 { // the second time is a start after a crash before the commit
		s := m.sink(with, resultSchema())
		s.Write(results("M1 1 5 first", "M2 1 7 -", "M1 1 6 last"))
		s.Write(results("M1 2 1 -"))
		if _, failed := s.Write(results("- 2 1 -")); failed.Count != 1 {
			t.Errorf("a key of null gives %+v", failed)
		}
		if failed, err := s.Flush(t.Context()); err != nil || failed.Count != 0 {
			t.Fatalf("%+v, %v", failed, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if got, want := m.rows(readResults), "M1 1 6 last|M1 2 1 -|M2 1 7 -"; got != want {
		t.Errorf("the table holds %q, want %q", got, want)
	}
}

func TestWritesIntoOtherTypesAndOddNames(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(`CREATE TYPE mood AS ENUM ('good'); CREATE TABLE "odd ""table" ("a'; DROP TABLE x" uuid, j jsonb, e mood, n numeric(6,2), at timestamp, b bool, i smallint)`)
	schema := expr.Schema{
		{Name: "a'; DROP TABLE x", Type: expr.String},
		{Name: "j", Type: expr.JSON},
		{Name: "e", Type: expr.String},
		{Name: "n", Type: expr.Float},
		{Name: "at", Type: expr.Timestamp},
		{Name: "b", Type: expr.Bool},
		{Name: "i", Type: expr.Int},
	}
	b := column.NewBatch(schema)
	b.Cols[0].AppendStr([]byte("00000000-0000-0000-0000-000000000001"))
	b.Cols[1].AppendStr([]byte(`{"a": 1}`))
	b.Cols[2].AppendStr([]byte("good"))
	b.Cols[3].AppendFloat(12.345)
	b.Cols[4].AppendInt(time.Date(2026, 1, 1, 6, 0, 0, 0, time.UTC).UnixMicro())
	b.Cols[5].AppendBool(true)
	b.Cols[6].AppendInt(7)
	b.Len = 1
	m.exec(`ALTER TABLE "odd ""table" RENAME TO odd`)
	s := m.sink(map[string]any{"table": "odd"}, schema)
	s.Write(b)
	if failed, err := s.Flush(t.Context()); err != nil || failed.Count != 0 {
		t.Fatalf("%+v, %v", failed, err)
	}
	if got, want := m.rows(`SELECT row(odd.*)::text FROM odd`), `(00000000-0000-0000-0000-000000000001,"{""a"": 1}",good,12.35,"2026-01-01 06:00:00",t,7)`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSinkSaysWhatWillNotPass(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(makeResults + `; CREATE TABLE bare (machine text, hour timestamptz, made int, note text)`)
	for want, with := range map[string]map[string]any{
		"writing to table nowhere in PostgreSQL at * there is no such table":       {"table": "nowhere"},
		"table bare has no primary key and no unique index on exactly * (machine)": {"table": "bare", "mode": "upsert", "key": []any{"machine"}},
		"has no column \"": {"table": "pg_class"},
	} {
		s := m.sink(with, resultSchema())
		s.Write(results("M1 1 1 -"))
		_, err := s.Flush(t.Context())
		mustSay(t, err, want)
	}
	sinker, _ := postgres.New().(connector.Sinker)
	for option, with := range map[string]map[string]any{
		"key":   {"table": "t", "mode": "upsert"},
		"table": {"table": "a;b"},
		"mode":  {"table": "t", "mode": "replace"},
	} {
		_, err := sinker.NewSink(connector.SinkSettings{Connection: m.connection(), With: with, Schema: resultSchema()})
		var wrong *connector.OptionError
		if !errors.As(err, &wrong) || wrong.Option != option {
			t.Errorf("option %s: %v", option, err)
		}
	}
	_, err := sinker.NewSink(connector.SinkSettings{Connection: m.connection(), With: map[string]any{"table": "t", "mode": "upsert", "key": []any{"machin"}}, Schema: resultSchema()})
	if err == nil || !strings.Contains(err.Error(), "machine") {
		t.Errorf("a key that is no column: %v", err)
	}
}

func TestSinkKeepsWhatItCouldNotWrite(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec(makeResults)
	m.Down()
	s := m.sink(map[string]any{"table": "mes.results"}, resultSchema())
	s.Write(results("M1 1 5 -"))
	if _, err := s.Flush(t.Context()); err == nil {
		t.Fatal("a database that allows no connection takes rows")
	}
	m.Up()
	s.Write(results("M2 1 6 -"))
	failed, err := s.Flush(t.Context())
	if err != nil {
		failed, err = s.Flush(t.Context())
	}
	if err != nil || failed.Count != 0 {
		t.Fatalf("%+v, %v", failed, err)
	}
	if got, want := m.rows(readResults), "M1 1 5 -|M2 1 6 -"; got != want {
		t.Errorf("the table holds %q, want %q", got, want)
	}
}
