package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connector/conformance"
	"github.com/outfeed/outfeed/agent/internal/connectors/postgres"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/protocol/expr"
)

func TestMain(m *testing.M) { pgtest.Main(m, nil) }

// mes is a database of a test.
type mes struct {
	t    *testing.T
	db   *pgtest.DB
	with map[string]any
}

func newMES(t *testing.T, with map[string]any) *mes {
	t.Helper()
	return &mes{t: t, db: pgtest.New(t), with: with}
}

func (m *mes) exec(sql string) {
	m.t.Helper()
	m.execAt(m.db.OwnerURL(), sql)
}

func (m *mes) execAt(address, sql string) {
	m.t.Helper()
	c, err := pgx.Connect(m.t.Context(), address)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.Exec(m.t.Context(), sql); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mes) Settings() connector.SourceSettings {
	return connector.SourceSettings{
		Connection: connector.Connection{Name: "mes", Kind: "postgres", Options: map[string]any{"url": m.db.OwnerURL()}},
		With:       m.with, Logger: slog.New(slog.DiscardHandler),
	}
}

func (m *mes) Add(first, end int) {
	m.exec(fmt.Sprintf("INSERT INTO plant.orders SELECT coalesce((SELECT max(n) FROM plant.orders), 0) + g - %[1]d + 1, g, 'n' || g FROM generate_series(%[1]d, %[2]d - 1) g ORDER BY g", first, end))
}

func (m *mes) AddBad() {
	m.exec("INSERT INTO plant.orders SELECT max(n) + 1, 0.5, 'bad' FROM plant.orders")
}

func (m *mes) Down() {
	m.execAt(m.admin(), "ALTER DATABASE "+m.db.Name+" ALLOW_CONNECTIONS false")
}

func (m *mes) Up() {
	m.execAt(m.admin(), "ALTER DATABASE "+m.db.Name+" ALLOW_CONNECTIONS true")
}

// admin is the address of the server's own database for the superuser.
func (m *mes) admin() string {
	return strings.Replace(m.db.SuperURL(), m.db.Name, "postgres", 1)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]map[string]any{
		"snapshot": {"table": "plant.orders"},
		"query":    {"query": "SELECT * FROM plant.orders ORDER BY n;"},
		"cursor":   {"table": "plant.orders", "cursor": "n", "page_size": int64(1000)},
		"follow":   {"table": "plant.orders", "cursor": "n", "follow": true, "every": "20ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformance.Run(t, conformance.Harness{
				Connector: postgres.New(), Records: 10000,
				New: func(t *testing.T) conformance.System {
					t.Helper()
					m := newMES(t, with)
					m.exec("CREATE SCHEMA plant; CREATE TABLE plant.orders (n bigint PRIMARY KEY, id numeric, name text)")
					return m
				},
			})
		})
	}
}

// all reads a bounded source to its end.
func (m *mes) all(schema expr.Schema, options map[string]any) (rows, failures []string, err error) {
	m.t.Helper()
	in := m.Settings()
	in.Schema = schema
	maps.Copy(in.Connection.Options, options)
	src, err := postgres.New().NewSource(in)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = src.Close() }()
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	for {
		d, err := src.Next(ctx)
		if errors.Is(err, io.EOF) {
			return rows, failures, nil
		}
		if err != nil {
			return rows, failures, err
		}
		for _, f := range d.Failed.Sample {
			failures = append(failures, f.Where+": "+f.Reason)
		}
		for i := range d.Batch.Len {
			var row []string
			for c := range d.Batch.Cols {
				col := &d.Batch.Cols[c]
				switch {
				case col.Null(i):
					row = append(row, "-")
				case col.Type == expr.Bool:
					row = append(row, strconv.FormatBool(col.Bools[i]))
				case col.Type == expr.Int:
					row = append(row, strconv.FormatInt(col.Ints[i], 10))
				case col.Type == expr.Float:
					row = append(row, strconv.FormatFloat(col.Floats[i], 'g', -1, 64))
				case col.Type == expr.Timestamp:
					row = append(row, time.UnixMicro(col.Ints[i]).UTC().Format(time.RFC3339Nano))
				default:
					row = append(row, string(col.Bytes(i)))
				}
			}
			rows = append(rows, strings.Join(row, " "))
		}
	}
}

func TestEveryType(t *testing.T) {
	t.Parallel()
	m := newMES(t, map[string]any{"table": `"Plant A"."x;y"`, "cursor": "id", "page_size": int64(2)})
	m.exec(`CREATE SCHEMA "Plant A"; SET timezone = 'Asia/Tokyo'; CREATE TABLE "Plant A"."x;y" (id bigserial, "b""q" bool, i int, n numeric, f real, s varchar(9), u uuid, tz timestamptz, ts timestamp, d date, j jsonb);
		INSERT INTO "Plant A"."x;y" ("b""q", i, n, f, s, u, tz, ts, d, j) VALUES
		(true, -5, 3.00, 1.5, 'ä b', '00000000-0000-0000-0000-000000000001', '2026-07-01 12:00:00.123456Z', '2026-07-01 12:00:00', '2026-07-01', '{"a": [1]}'),
		(null, null, null, null, null, null, null, null, null, null),
		(false, 1, 3.5, 1, 'half', null, null, null, null, null),
		(false, 1, 3, 'NaN', 'nan', null, null, null, null, null),
		(false, 1, 3, 1, 'infinite', null, 'infinity', null, null, null),
		(false, 1, 3, 1, 'last', null, '0099-01-01 00:00:00+00', null, null, null)`)
	schema := expr.Schema{
		{Name: `b"q`, Type: expr.Bool},
		{Name: "i", Type: expr.Float},
		{Name: "n", Type: expr.Int},
		{Name: "f", Type: expr.Float},
		{Name: "s", Type: expr.String},
		{Name: "u", Type: expr.String},
		{Name: "tz", Type: expr.Timestamp},
		{Name: "ts", Type: expr.Timestamp},
		{Name: "d", Type: expr.Timestamp},
		{Name: "j", Type: expr.JSON},
	}
	rows, failures, err := m.all(schema, map[string]any{"time_zone": "Europe/Berlin"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`true -5 3 1.5 ä b 00000000-0000-0000-0000-000000000001 2026-07-01T12:00:00.123456Z 2026-07-01T10:00:00Z 2026-06-30T22:00:00Z {"a": [1]}`,
		"- - - - - - - - - -",
		"false 1 3 1 last - 0099-01-01T00:00:00Z - - -",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	name := `table "Plant A"."x;y", id = `
	wantFailures := []string{
		name + "3: column n: 3.5 is not a whole number of 64 bits",
		name + "4: column f: NaN is not a number that a float can hold",
		name + "5: column tz: infinity is not a time between the years 1 and 9999",
	}
	if !slices.Equal(failures, wantFailures) {
		t.Errorf("failures %q", failures)
	}
}

func TestPermanentErrors(t *testing.T) {
	t.Parallel()
	m := newMES(t, nil)
	m.exec("CREATE TABLE orders (id int, name text); CREATE FUNCTION sly() RETURNS int LANGUAGE sql AS 'INSERT INTO orders VALUES (1) RETURNING 1'")
	text := expr.Schema{{Name: "id", Type: expr.Int}, {Name: "name", Type: expr.String}}
	for _, tt := range []struct {
		with    map[string]any
		schema  expr.Schema
		options map[string]any
		want    string
	}{
		{map[string]any{"table": "ordrs"}, text, nil, `no such table or view`},
		{map[string]any{"table": "orders"}, expr.Schema{{Name: "nme", Type: expr.String}}, nil, `has no column "nme"`},
		{map[string]any{"table": "orders"}, expr.Schema{{Name: "name", Type: expr.Int}}, nil, "column name of table orders is text, which does not fit the schema's int"},
		{map[string]any{"query": "SELECT id FROM orders WHERE"}, text[:1], nil, "syntax error"},
		{map[string]any{"query": "SELECT 1 AS id; DROP TABLE orders"}, text[:1], nil, "syntax error"},
		{map[string]any{"query": "SELECT nextval('no')::int AS id"}, text[:1], nil, `relation "no" does not exist`},
		{map[string]any{"query": "SELECT sly() AS id"}, text[:1], nil, "read-only transaction"},
	} {
		m.with = tt.with
		_, _, err := m.all(tt.schema, tt.options)
		var permanent *connector.PermanentError
		if !errors.As(err, &permanent) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want %q", tt.with, err, tt.want)
		}
	}
}

func TestStatementTimeoutMayPass(t *testing.T) {
	t.Parallel()
	m := newMES(t, map[string]any{"query": "SELECT 1 AS id FROM pg_sleep(20)", "statement_timeout": "20ms"})
	_, _, err := m.all(expr.Schema{{Name: "id", Type: expr.Int}}, nil)
	var permanent *connector.PermanentError
	if err == nil || errors.As(err, &permanent) || !strings.Contains(err.Error(), "statement timeout") {
		t.Fatalf("error %v", err)
	}
}

func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	in := connector.SourceSettings{
		Connection: connector.Connection{Name: "mes", Options: map[string]any{"host": "127.0.0.1", "port": int64(1), "database": "mes", "user": "me", "sslmode": "disable"}},
		With:       map[string]any{"table": "t"}, Schema: expr.Schema{{Name: "id", Type: expr.Int}}, Logger: slog.New(slog.DiscardHandler),
	}
	src, err := postgres.New().NewSource(in)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	_, err = src.Next(t.Context())
	var permanent *connector.PermanentError
	if err == nil || errors.As(err, &permanent) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Fatalf("error %v", err)
	}
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	server := map[string]any{"host": "h", "database": "d", "user": "u"}
	for _, tt := range []struct {
		options, with map[string]any
		option        string
	}{
		{map[string]any{"host": "h", "user": "u"}, map[string]any{"table": "t"}, "database"},
		{map[string]any{"url": "postgres://u:secret@h/d"}, map[string]any{"table": "t"}, "url"}, //nolint:gosec // made up
		{map[string]any{"url": "mysql://h/d"}, map[string]any{"table": "t"}, "url"},
		{map[string]any{"url": "postgres://h/d", "port": int64(1)}, map[string]any{"table": "t"}, "port"},
		{server, map[string]any{}, "table"},
		{server, map[string]any{"table": "t", "query": "SELECT 1"}, "query"},
		{server, map[string]any{"query": "DELETE FROM t"}, "query"},
		{server, map[string]any{"table": "a.b.c"}, "table"},
		{server, map[string]any{"table": "t; DROP TABLE x"}, "table"},
		{server, map[string]any{"table": "t", "follow": true}, "follow"},
		{server, map[string]any{"table": "t", "cursr": "id"}, "cursr"},
	} {
		_, err := postgres.New().NewSource(connector.SourceSettings{
			Connection: connector.Connection{Name: "mes", Options: tt.options}, With: tt.with,
		})
		var option *connector.OptionError
		if !errors.As(err, &option) || option.Option != tt.option {
			t.Errorf("%v %v: error %v, want one of option %s", tt.options, tt.with, err, tt.option)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}
