package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

func lookupOptions() []flowdef.Option {
	return []flowdef.Option{
		{Name: "table", Type: flowdef.OptionString, Help: "The table or view, as schema.name; either this or query is needed."},
		{Name: "query", Type: flowdef.OptionString, Help: "One SELECT instead of a table; the keys are compared with its columns."},
		{Name: "statement_timeout", Type: flowdef.OptionDuration, Default: "10s", Help: "After how long the database gives a statement up."},
	}
}

// lookup asks with one statement, in a READ ONLY transaction, on a connection that it keeps.
type lookup struct {
	settings
	keys expr.Schema
	sql  string
	conn *pgx.Conn
	rows *column.Batch
	seen []uint8
}

// NewLookup checks the settings.
func (c postgresConnector) NewLookup(in connector.LookupSettings) (connector.Lookup, error) {
	s, with, err := c.useSettings(in.Connection, lookupOptions(), in.With)
	if err != nil {
		return nil, err
	}
	s.Schema, s.Logger, s.compared = in.Schema, in.Logger, in.Keys
	if err := s.relation(with); err != nil {
		return nil, err
	}
	l := &lookup{settings: s, keys: in.Keys, rows: column.NewBatch(in.Schema)}
	l.sql, err = l.statement()
	return l, err
}

// useSettings checks the options of a connection and of a step that looks up or writes.
func (c postgresConnector) useSettings(of connector.Connection, spec []flowdef.Option, values map[string]any) (settings, connector.Options, error) {
	conn, err := connector.ParseOptions(c.Spec().Options, of.Options, of.Secrets)
	if err != nil {
		return settings{}, connector.Options{}, err
	}
	with, err := connector.ParseOptions(spec, values, nil)
	if err != nil {
		return settings{}, connector.Options{}, err
	}
	s := settings{
		SourceSettings:   connector.SourceSettings{Connection: of, With: values},
		password:         conn.Secret("password"),
		statementTimeout: with.Duration("statement_timeout"),
	}
	if err := s.connection(conn); err != nil {
		return settings{}, connector.Options{}, err
	}
	s.loc, err = conn.Location("time_zone")
	return s, with, err
}

// arrayType is the type of a parameter that holds a column's values.
func arrayType(t expr.Type) (string, error) {
	switch t {
	case expr.Bool:
		return "boolean[]", nil
	case expr.Int:
		return "bigint[]", nil
	case expr.Float:
		return "double precision[]", nil
	case expr.String, expr.JSON:
		return "text[]", nil
	case expr.Timestamp:
		return "timestamptz[]", nil
	case expr.Invalid, expr.Null:
	}
	return "", fmt.Errorf("a column of type %s has no counterpart in PostgreSQL", t)
}

// arrayOf is the rows of a column as a parameter.
func arrayOf(c *column.Column, rows []int32) any {
	switch c.Type {
	case expr.Bool:
		return pointers(c, rows, func(i int32) bool { return c.Bools[i] })
	case expr.Int:
		return pointers(c, rows, func(i int32) int64 { return c.Ints[i] })
	case expr.Float:
		return pointers(c, rows, func(i int32) float64 { return c.Floats[i] })
	case expr.Timestamp:
		return pointers(c, rows, func(i int32) time.Time { return time.UnixMicro(c.Ints[i]).UTC() })
	case expr.String, expr.JSON:
		return pointers(c, rows, func(i int32) string { return string(c.Bytes(int(i))) })
	case expr.Invalid, expr.Null:
	}
	return nil
}

func pointers[T any](c *column.Column, rows []int32, value func(int32) T) []*T {
	values, list := make([]T, len(rows)), make([]*T, len(rows))
	for i, row := range rows {
		if !c.Null(int(row)) {
			values[i] = value(row)
			list[i] = &values[i]
		}
	}
	return list
}

// statement asks for the rows of many keys at once. Each key has a number, which comes back with its rows.
func (l *lookup) statement() (string, error) {
	if len(l.keys) == 0 {
		return "", errors.New("a lookup needs a key")
	}
	columns, arrays, names, on := []string{"outfeed_keys.n::text"}, []string{"$1::integer[]"}, []string{"n"}, []string{}
	for _, c := range l.Schema {
		columns = append(columns, "outfeed_rows."+quoteName([]string{c.Name}))
	}
	for i, k := range l.keys {
		array, err := arrayType(k.Type)
		if err != nil {
			return "", err
		}
		number := strconv.Itoa(i + 2)
		arrays, names = append(arrays, "$"+number+"::"+array), append(names, "k"+number)
		on = append(on, "outfeed_rows."+quoteName([]string{k.Name})+" = outfeed_keys.k"+number)
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM unnest(" + strings.Join(arrays, ", ") + ") AS outfeed_keys(" +
		strings.Join(names, ", ") + ") JOIN " + l.from + " ON " + strings.Join(on, " AND "), nil
}

// storable says whether PostgreSQL can hold a text, which is all that it could compare it with.
func storable(text []byte) bool { return utf8.Valid(text) && bytes.IndexByte(text, 0) < 0 }

// askable lists the keys that the database could have.
func (l *lookup) askable(keys *column.Batch) []int32 {
	list := make([]int32, 0, keys.Len)
	for row := range keys.Len {
		good := true
		for i := range keys.Cols {
			c := &keys.Cols[i]
			good = good && (c.Type != expr.String || storable(c.Bytes(row)))
		}
		if good {
			list = append(list, int32(row))
		}
	}
	return list
}

// Fetch asks for the keys. A kept connection that turns out to be cut is replaced without a word.
func (l *lookup) Fetch(ctx context.Context, keys *column.Batch) (connector.Found, error) {
	kept := l.conn != nil
	found, err := l.ask(ctx, keys)
	if err != nil && kept && ctx.Err() == nil && serverError(err) == nil {
		found, err = l.ask(ctx, keys)
	}
	if err != nil {
		return connector.Found{}, l.explainUse(err, "looking rows up in")
	}
	return found, nil
}

func serverError(err error) *pgconn.PgError {
	e, _ := errors.AsType[*pgconn.PgError](err)
	return e
}

// explainUse says what was being done, and whether trying again can help.
func (s *settings) explainUse(err error, doing string) error {
	if _, permanent := errors.AsType[*connector.PermanentError](err); permanent {
		return err
	}
	e := serverError(err)
	if e != nil {
		if advice := s.advice(e); advice != "" {
			return &connector.PermanentError{Err: &explainedError{text: fmt.Sprintf("%s %s in PostgreSQL at %s: %s", doing, s.what, s.server, advice), err: err}}
		}
	}
	wrapped := fmt.Errorf("%s %s in PostgreSQL at %s: %w", doing, s.what, s.server, err)
	if e != nil && (permanentCode(e.Code) || dataCode(e.Code)) {
		return &connector.PermanentError{Err: wrapped}
	}
	return wrapped
}

// dataCode says whether an error's SQLSTATE is about the data: one that cannot be converted, or that a constraint or a
// trigger refuses.
func dataCode(code string) bool {
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || code == "P0001"
}

func (l *lookup) ask(ctx context.Context, keys *column.Batch) (found connector.Found, err error) {
	l.rows.Reset()
	found.Rows = l.rows
	rows := l.askable(keys)
	if len(rows) == 0 {
		return found, nil
	}
	r := reader{settings: l.settings}
	if l.conn == nil {
		if l.conn, err = r.connect(ctx); err != nil {
			return found, err
		}
	}
	defer func() {
		if err != nil {
			r.disconnect(ctx, l.conn)
			l.conn = nil
		}
	}()
	tx, err := l.begin(ctx, l.conn, pgx.ReadOnly)
	if err != nil {
		return found, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it only read
	args := []any{pgx.QueryResultFormats{pgx.TextFormatCode}, rows}
	for i := range keys.Cols {
		args = append(args, arrayOf(&keys.Cols[i], rows))
	}
	answer, err := tx.Query(ctx, l.sql, args...)
	if err != nil {
		return found, fmt.Errorf("query: %w", err)
	}
	defer answer.Close()
	err = l.read(answer, keys.Len, &found)
	return found, err
}

// begin starts a transaction with the connection's time zone and the step's timeout.
func (s *settings) begin(ctx context.Context, conn *pgx.Conn, mode pgx.TxAccessMode) (pgx.Tx, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: mode})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	_, err = tx.Exec(ctx, `SELECT set_config('statement_timeout', @timeout, true), set_config('TimeZone', @zone, true), set_config('DateStyle', 'ISO', true)`,
		pgx.NamedArgs{"timeout": int64Text(s.statementTimeout.Milliseconds()), "zone": s.loc.String()})
	if err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx)) // the error is what counts
		return nil, fmt.Errorf("prepare the transaction: %w", err)
	}
	return tx, nil
}

// read takes the answer in. Of the rows of one key two are enough to know that there are several.
func (l *lookup) read(answer pgx.Rows, keys int, found *connector.Found) error {
	fields := answer.FieldDescriptions()
	if len(fields) != len(l.Schema)+1 {
		answer.Close()
		if err := answer.Err(); err != nil {
			return fmt.Errorf("query: %w", err)
		}
		return errors.New("the server describes another answer")
	}
	if err := l.checkTypes(fields[1:]); err != nil {
		return err
	}
	l.seen = append(l.seen[:0], make([]uint8, keys)...)
	for answer.Next() {
		values := answer.RawValues()
		n, err := strconv.ParseInt(string(values[0]), 10, 32)
		if err != nil || n < 0 || int(n) >= keys {
			return errors.New("the server answers for a key that was not asked for")
		}
		if l.seen[n] == 2 {
			continue
		}
		l.seen[n]++
		if reason := l.appendRow(l.rows, values[1:], fields[1:]); reason != "" {
			if found.Unreadable == nil {
				found.Unreadable = map[int32]string{}
			}
			found.Unreadable[int32(n)] = reason
			continue
		}
		found.Key = append(found.Key, int32(n))
	}
	if err := answer.Err(); err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	return nil
}

// Close ends the connection.
func (l *lookup) Close() error {
	if l.conn != nil {
		(&reader{settings: l.settings}).disconnect(context.Background(), l.conn)
		l.conn = nil
	}
	return nil
}
