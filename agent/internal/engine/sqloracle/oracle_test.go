package sqloracle

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/protocol/expr"
)

func TestMain(m *testing.M) { pgtest.Main(m, nil) }

var nan, infinity = math.NaN(), math.Inf(1)

func joinKinds() []string { return []string{"inner", "left", "semi", "anti", "full"} }

// flowsVariable and seedVariable set how many flows are tried and which ones.
const (
	flowsVariable = "OUTFEED_ORACLE_FLOWS"
	seedVariable  = "OUTFEED_ORACLE_SEED"
)

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestRandomFlowsAsPostgreSQL makes flows and tables at random, and holds what the engine gives against PostgreSQL.
// OUTFEED_ORACLE_FLOWS says how many, OUTFEED_ORACLE_SEED where to begin.
func TestRandomFlowsAsPostgreSQL(t *testing.T) {
	t.Parallel()
	flows := setting(t, flowsVariable, 500)
	seed := setting(t, seedVariable, uint64(time.Now().UnixNano()))
	t.Logf("%s=%d begins the %d flows", seedVariable, seed, flows)
	const workers = 2
	for w := range uint64(workers) {
		t.Run(fmt.Sprintf("worker%d", w), func(t *testing.T) {
			t.Parallel()
			db := connect(t)
			for n := w; n < flows && !t.Failed(); n += workers {
				r := rand.New(rand.NewPCG(seed+n, 1)) //nolint:gosec // a test's
				c := randomCase(r)
				if err := c.compare(t.Context(), db, r); err != nil {
					t.Errorf("%s=%d %s=1: %v\n%s", seedVariable, seed+n, flowsVariable, err, c.keep(t, seed+n))
				}
			}
		})
	}
}

// TestFlowsThatFailedBefore tries the cases that were once wrong.
func TestFlowsThatFailedBefore(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	db := connect(t)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := readCase(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.compare(t.Context(), db, rand.New(rand.NewPCG(1, 1))); err != nil { //nolint:gosec // a test's
			t.Errorf("%s: %v", name, err)
		}
	}
}

func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(pgtest.New(t).SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["timezone"] = "UTC"
	// Tables of one name have other columns in every case.
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	config.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	db, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := db.Exec(t.Context(), prelude); err != nil {
		t.Fatal(err)
	}
	return db
}

// compare runs the case in PostgreSQL, and here: as one piece, in small batches, and ended and begun anew.
func (c *testCase) compare(ctx context.Context, db *pgx.Conn, r *rand.Rand) error {
	whole, err := c.here(ctx, &cut{Rand: r, size: 1000})
	if err != nil {
		return err
	}
	for _, by := range []*cut{{r, 1 + r.IntN(5), 0}, {r, 1 + r.IntN(40), 3}} {
		breaks := by.breaks
		again, err := c.here(ctx, by)
		if err != nil {
			return err
		}
		if !slices.Equal(whole, again) {
			return fmt.Errorf("in batches of up to %d rows and with %d restarts the insights differ:\n%s\n---\n%s", by.size, breaks, show(whole), show(again))
		}
	}
	ours, err := c.decodeLines(whole)
	if err != nil {
		return err
	}
	theirs, err := c.there(ctx, db)
	if err != nil {
		return err
	}
	return c.difference(ours, theirs)
}

func show(lines []string) string { return strings.Join(lines[:min(len(lines), 20)], "\n") }

// there runs the query in PostgreSQL.
func (c *testCase) there(ctx context.Context, db *pgx.Conn) (out [][]any, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // nothing is to stay
	for _, t := range c.Tables {
		columns := names(t.Schema)
		for i := range columns {
			columns[i] += " " + sqlType(t.Schema[i].Type)
		}
		if _, err = tx.Exec(ctx, "CREATE TEMP TABLE "+t.Name+" ("+strings.Join(columns, ", ")+")"); err != nil {
			return nil, err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{t.Name}, t.Schema.Names(), pgx.CopyFromSlice(len(t.Rows), func(i int) ([]any, error) {
			row := slices.Clone(t.Rows[i])
			for k, v := range row {
				if t.Schema[k].Type == expr.Timestamp && v != nil {
					row[k] = time.UnixMicro(v.(int64)).UTC() //nolint:errcheck,forcetypeassert // made so
				}
			}
			return row, nil
		}))
		if err != nil {
			return nil, err
		}
	}
	query, err := tx.Query(ctx, c.SQL)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	for query.Next() {
		values, err := query.Values()
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			if at, ok := v.(time.Time); ok {
				values[i] = at.UTC().Format(time.RFC3339Nano)
			}
		}
		out = append(out, values)
	}
	return out, query.Err()
}

// difference compares the rows without their order. Floats may differ in the last digits, as sums in another order do.
func (c *testCase) difference(ours, theirs [][]any) error {
	if len(ours) != len(theirs) {
		return fmt.Errorf("%d rows here and %d in PostgreSQL\nhere %v\nthere %v", len(ours), len(theirs), head(ours), head(theirs))
	}
	slices.SortFunc(ours, compareRows)
	slices.SortFunc(theirs, compareRows)
	taken := make([]bool, len(theirs))
	for i, row := range ours {
		at := slices.IndexFunc(theirs, func(r []any) bool { return sameRow(row, r) })
		if !taken[i] && sameRow(row, theirs[i]) {
			at = i
		}
		for at >= 0 && taken[at] {
			next := slices.IndexFunc(theirs[at+1:], func(r []any) bool { return sameRow(row, r) })
			if at += 1 + next; next < 0 {
				at = -1
			}
		}
		if at < 0 {
			return fmt.Errorf("PostgreSQL does not have the row %v; its rows there: %v", row, theirs[max(0, i-1):min(len(theirs), i+2)])
		}
		taken[at] = true
	}
	return nil
}

func head(rows [][]any) [][]any { return rows[:min(len(rows), 5)] }

func compareRows(a, b []any) int {
	for i := range a {
		if order := compareValues(a[i], b[i]); order != 0 {
			return order
		}
	}
	return 0
}

func compareValues(a, b any) int {
	switch x := a.(type) {
	case float64:
		if y, ok := b.(float64); ok {
			return cmp.Compare(x, y)
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func sameRow(a, b []any) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool {
		f, isFloat := x.(float64)
		g, too := y.(float64)
		if isFloat && too {
			return f == g || (math.IsNaN(f) && math.IsNaN(g)) || math.Abs(f-g) <= 1e-9*max(math.Abs(f), math.Abs(g), 1)
		}
		return x == y
	})
}

// keep writes a failing case where it can be moved from into testdata, and says where.
func (c *testCase) keep(t *testing.T, seed uint64) string {
	t.Helper()
	file := filepath.Join(os.TempDir(), fmt.Sprintf("outfeed-oracle-%d.json", seed))
	text, err := writeCase(c)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s\n%s\nkept in %s; move it to testdata when it is mended", c.Flow, c.SQL, file)
}

// cell is a value in a file, by its type, because JSON has neither all floats nor all ints.
type cell struct {
	Null bool   `json:"null,omitempty"`
	Text string `json:"v,omitempty"`
}

// file is a case in a file.
type file struct {
	Flow   string      `json:"flow"`
	SQL    string      `json:"sql"`
	Schema [][2]string `json:"schema"`
	Tables []fileTable `json:"tables"`
}

type fileTable struct {
	Name   string      `json:"name"`
	Schema [][2]string `json:"schema"`
	Rows   [][]cell    `json:"rows"`
}

func writeCase(c *testCase) ([]byte, error) {
	f := file{Flow: c.Flow, SQL: c.SQL, Schema: writeSchema(c.Schema)}
	for _, t := range c.Tables {
		ft := fileTable{Name: t.Name, Schema: writeSchema(t.Schema)}
		for _, row := range t.Rows {
			cells := make([]cell, len(row))
			for i, v := range row {
				if cells[i].Null = v == nil; v != nil {
					cells[i].Text = fmt.Sprint(v)
				}
			}
			ft.Rows = append(ft.Rows, cells)
		}
		f.Tables = append(f.Tables, ft)
	}
	return json.MarshalIndent(f, "", " ")
}

func writeSchema(s expr.Schema) [][2]string {
	out := make([][2]string, len(s))
	for i, c := range s {
		out[i] = [2]string{c.Name, c.Type.String()}
	}
	return out
}

func readCase(text []byte) (*testCase, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	c := &testCase{Flow: f.Flow, SQL: f.SQL, Schema: readSchema(f.Schema)}
	for _, ft := range f.Tables {
		t := &table{Name: ft.Name, Schema: readSchema(ft.Schema)}
		for _, cells := range ft.Rows {
			row := make([]any, len(cells))
			for i, cell := range cells {
				if cell.Null {
					continue
				}
				var err error
				if row[i], err = readCell(cell.Text, t.Schema[i].Type); err != nil {
					return nil, err
				}
			}
			t.Rows = append(t.Rows, row)
		}
		c.Tables = append(c.Tables, t)
	}
	return c, nil
}

func readSchema(s [][2]string) expr.Schema {
	var out expr.Schema
	for _, c := range s {
		t, _ := expr.ParseType(c[1])
		out = append(out, expr.Column{Name: c[0], Type: t})
	}
	return out
}

func readCell(text string, t expr.Type) (any, error) {
	switch t { //nolint:exhaustive // the others are texts
	case expr.Bool:
		return strconv.ParseBool(text)
	case expr.Int, expr.Timestamp:
		return strconv.ParseInt(text, 10, 64)
	case expr.Float:
		return strconv.ParseFloat(text, 64)
	default:
		return text, nil
	}
}
