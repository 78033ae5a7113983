package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// The modes of a write.
const (
	modeInsert = "insert"
	modeUpsert = "upsert"
)

func writeOptions() []flowdef.Option {
	return []flowdef.Option{
		{Name: "table", Type: flowdef.OptionString, Required: true, Help: "The table, as schema.name; it must have the columns of the rows."},
		{Name: "mode", Type: flowdef.OptionEnum, Enum: []string{modeInsert, modeUpsert}, Default: modeInsert, Help: "insert adds every row, upsert puts it in the place of the row with the same key."},
		{Name: "key", Type: flowdef.OptionColumns, Help: "For upsert: the columns of the key, on which the table must have a primary key or a unique index."},
		{Name: "statement_timeout", Type: flowdef.OptionDuration, Default: "30s", Help: "After how long the database gives a statement up."},
	}
}

// statementRows is how many rows one statement writes at most.
const statementRows = 4096

// sink writes what waits in one transaction, with an array for each column. Rows that the database refuses are found by
// halving: the good ones of a statement are written all the same.
type sink struct {
	settings
	table []string
	// key is the positions of the key columns, nil for inserts.
	key  []int
	held *column.Batch
	size int64
	conn *pgx.Conn
	sql  string
}

// NewSink checks the settings.
func (c postgresConnector) NewSink(in connector.SinkSettings) (connector.Sink, error) {
	s, with, err := c.useSettings(in.Connection, writeOptions(), in.With)
	if err != nil {
		return nil, err
	}
	s.Schema, s.Logger = in.Schema, in.Logger
	parts, good := splitName(with.String("table"))
	if !good {
		return nil, &connector.OptionError{Option: "table", Message: `is not a name like mes.results; a part with other characters stands in quotes, as in mes."Press Results"`}
	}
	s.what = "table " + with.String("table")
	w := &sink{settings: s, table: parts, held: column.NewBatch(in.Schema)}
	upsert := with.String("mode") == modeUpsert
	names := with.Columns("key")
	w.written = append([]string{}, names...)
	switch {
	case upsert && len(names) == 0:
		return nil, &connector.OptionError{Option: "key", Message: "is missing: upsert needs the columns of the key, as in key: [order_no]"}
	case !upsert && len(names) > 0:
		return nil, &connector.OptionError{Option: "key", Message: "belongs to mode: upsert"}
	}
	for _, name := range names {
		i := in.Schema.Index(name)
		if i < 0 {
			return nil, &connector.OptionError{Option: "key", Message: "names no column of the rows: " + expr.Unknown("column", name, in.Schema.Names())}
		}
		w.key = append(w.key, i)
	}
	return w, nil
}

// Write takes the rows over.
func (w *sink) Write(b *column.Batch) (held int64, failed connector.Failures) {
	for row := range b.Len {
		if i := slices.IndexFunc(w.key, func(i int) bool { return b.Cols[i].Null(row) }); i >= 0 {
			// A unique index does not find a null again, so such a row would be added anew each time.
			failed.Add(connector.FailedRecord{Where: w.what, Reason: "the key column " + w.Schema[w.key[i]].Name + " is null", Record: rowText(b, row)})
			continue
		}
		w.held.AppendRow(b, row)
		for i := range b.Cols {
			w.size += 8
			if t := b.Cols[i].Type; (t == expr.String || t == expr.JSON) && !b.Cols[i].Null(row) {
				w.size += int64(b.Cols[i].Strs[row].Len)
			}
		}
	}
	return w.size, failed
}

// rowText is a row for the sample.
func rowText(b *column.Batch, row int) string { return string(connector.AppendRowJSON(nil, b, row)) }

// Flush writes what waits.
func (w *sink) Flush(ctx context.Context) (connector.Failures, error) {
	if w.held.Len == 0 {
		return connector.Failures{}, nil
	}
	kept := w.conn != nil
	failed, err := w.write(ctx)
	if err != nil && kept && ctx.Err() == nil && serverError(err) == nil {
		failed, err = w.write(ctx)
	}
	if err != nil {
		return connector.Failures{}, w.explainUse(err, "writing to")
	}
	w.held.Reset()
	w.size = 0
	return failed, nil
}

func (w *sink) write(ctx context.Context) (failed connector.Failures, err error) {
	r := reader{settings: w.settings}
	if w.conn == nil {
		if w.conn, err = r.connect(ctx); err != nil {
			return failed, err
		}
	}
	defer func() {
		if err != nil {
			r.disconnect(ctx, w.conn)
			w.conn, w.sql = nil, ""
		}
	}()
	tx, err := w.begin(ctx, w.conn, pgx.ReadWrite)
	if err != nil {
		return failed, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after the commit it does nothing
	if w.sql == "" {
		if w.sql, err = w.statement(ctx, tx); err != nil {
			return failed, err
		}
	}
	rows := w.lastOfEachKey()
	for part := range slices.Chunk(rows, statementRows) {
		if err = w.insert(ctx, tx, part, &failed); err != nil {
			return failed, err
		}
	}
	if err = tx.Commit(ctx); err != nil {
		return failed, fmt.Errorf("commit: %w", err)
	}
	return failed, nil
}

// casts gives what a text must be cast to for each column of the table, "" where it fits as it is. A cast to a text type
// could cut a text short, which must be an error instead.
func (w *sink) casts(ctx context.Context, tx pgx.Tx) (map[string]string, error) {
	rows, err := tx.Query(ctx, `SELECT a.attname::text, CASE WHEN t.typcategory = 'S' THEN '' ELSE format_type(a.atttypid, NULL) END
		FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
		WHERE a.attrelid = @table::text::regclass AND a.attnum > 0 AND NOT a.attisdropped`, pgx.NamedArgs{"table": quoteName(w.table)})
	if err != nil {
		return nil, fmt.Errorf("read the columns: %w", err)
	}
	casts := map[string]string{}
	var name, cast string
	_, err = pgx.ForEachRow(rows, []any{&name, &cast}, func() error { casts[name] = cast; return nil })
	if err != nil {
		return nil, fmt.Errorf("read the columns: %w", err)
	}
	return casts, nil
}

// statement makes the SQL, which takes an array for each column.
func (w *sink) statement(ctx context.Context, tx pgx.Tx) (string, error) {
	casts, err := w.casts(ctx, tx)
	if err != nil {
		return "", err
	}
	var columns, values, arrays, names, keys, updates []string
	for i, c := range w.Schema {
		cast, known := casts[c.Name]
		if !known {
			return "", &connector.PermanentError{Err: fmt.Errorf("%s of PostgreSQL at %s has no column %q; give the rows the table's columns with select before the write", w.what, w.server, c.Name)}
		}
		array, err := arrayType(c.Type)
		if err != nil {
			return "", &connector.PermanentError{Err: err}
		}
		number, quoted := strconv.Itoa(i+1), quoteName([]string{c.Name})
		value := "outfeed_rows.c" + number
		if (c.Type == expr.String || c.Type == expr.JSON) && cast != "" {
			value += "::" + cast
		}
		columns, values = append(columns, quoted), append(values, value)
		arrays, names = append(arrays, "$"+number+"::"+array), append(names, "c"+number)
		if slices.Contains(w.key, i) {
			keys = append(keys, quoted)
		} else {
			updates = append(updates, quoted+" = EXCLUDED."+quoted)
		}
	}
	sql := "INSERT INTO " + quoteName(w.table) + " (" + strings.Join(columns, ", ") + ") SELECT " + strings.Join(values, ", ") +
		" FROM unnest(" + strings.Join(arrays, ", ") + ") AS outfeed_rows(" + strings.Join(names, ", ") + ")"
	switch {
	case len(keys) > 0 && len(updates) > 0:
		sql += " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO UPDATE SET " + strings.Join(updates, ", ")
	case len(keys) > 0:
		sql += " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO NOTHING"
	}
	return sql, nil
}

// lastOfEachKey lists what to write: with a key the last row of each, because one statement cannot write a row twice.
func (w *sink) lastOfEachKey() []int32 {
	rows := make([]int32, 0, w.held.Len)
	if w.key == nil {
		for row := range w.held.Len {
			rows = append(rows, int32(row))
		}
		return rows
	}
	seen := make(map[string]bool, w.held.Len)
	var key bytes.Buffer
	for row := w.held.Len - 1; row >= 0; row-- {
		key.Reset()
		for _, i := range w.key {
			c := &w.held.Cols[i]
			switch c.Type {
			case expr.Bool:
				key.WriteString(strconv.FormatBool(c.Bools[row]))
			case expr.Int, expr.Timestamp:
				key.WriteString(int64Text(c.Ints[row]))
			case expr.Float:
				key.WriteString(strconv.FormatFloat(c.Floats[row]+0, 'g', -1, 64))
			case expr.String, expr.JSON:
				key.WriteString(int64Text(int64(c.Strs[row].Len)) + ":")
				key.Write(c.Bytes(row))
			case expr.Invalid, expr.Null:
			}
			key.WriteByte(';')
		}
		if !seen[key.String()] {
			seen[key.String()] = true
			rows = append(rows, int32(row)) //nolint:gosec // what waits is bounded
		}
	}
	slices.Reverse(rows)
	return rows
}

// insert writes rows. When the database refuses them for what they hold, it tries each half, down to single rows.
func (w *sink) insert(ctx context.Context, tx pgx.Tx, rows []int32, failed *connector.Failures) error {
	args := make([]any, len(w.Schema))
	for i := range w.held.Cols {
		args[i] = arrayOf(&w.held.Cols[i], rows)
	}
	inner, err := tx.Begin(ctx) // a savepoint
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if _, err = inner.Exec(ctx, w.sql, args...); err == nil {
		if err = inner.Commit(ctx); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	}
	refused := serverError(err)
	if refused == nil || !dataCode(refused.Code) && (refused.Code != twiceCode || len(rows) == 1) {
		return fmt.Errorf("write: %w", err)
	}
	if err = inner.Rollback(ctx); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if len(rows) == 1 {
		failed.Add(connector.FailedRecord{Where: w.what, Reason: "the database refuses it: " + refused.Message, Record: rowText(w.held, int(rows[0]))})
		return nil
	}
	half := len(rows) / 2
	if err = w.insert(ctx, tx, rows[:half], failed); err != nil {
		return err
	}
	return w.insert(ctx, tx, rows[half:], failed)
}

// twiceCode is the SQLSTATE of an upsert that has two rows of one key, as texts can be that only the database takes for
// equal.
const twiceCode = "21000"

// Close ends the connection and forgets what waits.
func (w *sink) Close() error {
	if w.conn != nil {
		(&reader{settings: w.settings}).disconnect(context.Background(), w.conn)
		w.conn = nil
	}
	w.held.Reset()
	w.size = 0
	return nil
}
