package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/excerpt"
)

const (
	// pieces is how many batches are in memory: one being used, one ready, one being read.
	pieces = 3
	// connectTimeout bounds reaching the database.
	connectTimeout = 10 * time.Second
	// batchBytes is about how much text a batch takes.
	batchBytes = 4 << 20
)

type ahead = connector.Ahead[*column.Batch]

// source is what a caller reads from; the reader is behind it.
type source struct {
	*ahead
	traits connector.Traits
}

func newSource(s settings, at position) *source {
	r := &reader{settings: s, at: at}
	return &source{
		ahead:  connector.NewAhead(pieces, r.run),
		traits: connector.Traits{Bounded: !s.follow, Replayable: s.cursor != ""},
	}
}

// Traits says that a read with a cursor can go on anywhere, and one without must begin anew.
func (s *source) Traits() connector.Traits { return s.traits }

// Committed has nothing to do: rows stay.
func (s *source) Committed(context.Context, connector.Cursor) error { return nil }

// reader reads in its own goroutine.
type reader struct {
	settings
	ahead *ahead
	// at is where the next page starts.
	at position
	// delivered counts the rows handed over; row is the number of the row being read.
	delivered, row int64
	// told says that the caller has heard, by a delivery, that the source can read since it began or failed.
	told bool
}

// run reads until everything is read, or for ever when it follows, or until Close.
func (r *reader) run(ctx context.Context, a *ahead) {
	r.ahead = a
	for {
		err := r.pass(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, connector.ErrClosed):
			return
		case err != nil:
			r.told = false
			if !a.Fail(r.explain(err)) {
				return
			}
		case !r.follow:
			a.End()
			return
		case !r.tell() || !a.Wait(r.every):
			return
		}
	}
}

// tell says once that the source reads and has nothing.
func (r *reader) tell() bool {
	if r.told {
		return true
	}
	r.told = true
	return r.ahead.Quiet()
}

// explain says what was being read, and whether it can pass.
func (r *reader) explain(err error) error {
	if p := (*connector.PermanentError)(nil); errors.As(err, &p) {
		return err
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		if advice := r.advice(server); advice != "" {
			err = &explainedError{text: advice, err: err}
		}
	}
	wrapped := fmt.Errorf("reading %s from PostgreSQL at %s: %w", r.what, r.server, err)
	if errors.As(err, &server) && permanentCode(server.Code) {
		return &connector.PermanentError{Err: wrapped}
	}
	if r.cursor == "" && r.delivered > 0 {
		return &connector.PermanentError{Err: fmt.Errorf("%w; %d rows were read before and a read without a cursor cannot go on in the middle, so the run must begin anew", wrapped, r.delivered)}
	}
	return wrapped
}

// permanentCode says whether an error's SQLSTATE is one that only a person can mend: authorization, a missing database,
// syntax, names and rights, and refused writes. Cancelled statements and resources pass.
func permanentCode(code string) bool {
	return strings.HasPrefix(code, "28") || strings.HasPrefix(code, "3D") || strings.HasPrefix(code, "42") || code == "25006"
}

// pass reads what there is now.
func (r *reader) pass(ctx context.Context) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer r.disconnect(ctx, conn)
	for {
		n, err := r.page(ctx, conn)
		if err != nil {
			return err
		}
		if r.cursor == "" || n < r.pageSize {
			return nil
		}
	}
}

func (r *reader) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(r.dsn)
	if err != nil {
		return nil, &connector.PermanentError{Err: fmt.Errorf("connection %s to PostgreSQL at %s: %w", r.Connection.Name, r.server, err)}
	}
	config.Password = r.password.Reveal()
	config.RuntimeParams["application_name"] = "outfeed-agent"
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

func (*reader) disconnect(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the server notices the end as well
}

// statement is the SQL and its arguments. The cursor column comes last, as text.
func (r *reader) statement() (string, pgx.NamedArgs) {
	names := make([]string, 0, len(r.Schema)+1)
	for _, c := range r.Schema {
		names = append(names, "outfeed_rows."+quoteName([]string{c.Name}))
	}
	if r.cursor == "" {
		if len(names) == 0 {
			names = []string{"1"}
		}
		return "SELECT " + strings.Join(names, ", ") + " FROM " + r.from, nil
	}
	by := "outfeed_rows." + quoteName([]string{r.cursor})
	sql := "SELECT " + strings.Join(append(names, by+"::text AS outfeed_cursor"), ", ") + " FROM " + r.from
	args := pgx.NamedArgs{"limit": r.pageSize}
	if r.at.Value != nil {
		sql += " WHERE " + by + " > @after"
		args["after"] = *r.at.Value
	} else {
		sql += " WHERE " + by + " IS NOT NULL"
	}
	return sql + " ORDER BY " + by + " LIMIT @limit", args
}

// page runs the statement once and hands its rows over. It gives how many there were.
func (r *reader) page(ctx context.Context, conn *pgx.Conn) (int64, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it only read
	_, err = tx.Exec(ctx, `SELECT set_config('statement_timeout', @timeout, true), set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true)`,
		pgx.NamedArgs{"timeout": int64Text(r.statementTimeout.Milliseconds())})
	if err != nil {
		return 0, fmt.Errorf("prepare the transaction: %w", err)
	}
	sql, args := r.statement()
	arguments := []any{pgx.QueryResultFormats{pgx.TextFormatCode}}
	if args != nil {
		arguments = append(arguments, args)
	}
	rows, err := tx.Query(ctx, sql, arguments...)
	if err != nil {
		return 0, fmt.Errorf("query: %w", err)
	}
	defer rows.Close()
	fields := rows.FieldDescriptions()
	if len(fields) >= len(r.Schema) {
		if err := r.checkTypes(fields); err != nil {
			return 0, err
		}
	}
	var n int64
	for more := true; more; {
		var got int64
		got, more, err = r.batch(rows, fields)
		if err != nil {
			return 0, err
		}
		n += got
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("read rows: %w", err)
	}
	return n, nil
}

// batch reads the rows of one batch and hands it over. more says that there may be others.
func (r *reader) batch(rows pgx.Rows, fields []pgconn.FieldDescription) (n int64, more bool, err error) {
	p, open := r.ahead.Take()
	if !open {
		return 0, false, connector.ErrClosed
	}
	if p.Buffer == nil {
		p.Buffer = column.NewBatch(r.Schema)
	}
	b := p.Buffer
	b.Reset()
	d := connector.Delivery{Batch: b}
	for b.Len < column.TargetRows && d.Bytes < batchBytes {
		if more = rows.Next(); !more {
			break
		}
		values := rows.RawValues()
		r.row++
		d.Read++
		for _, v := range values {
			d.Bytes += int64(len(v))
		}
		if r.cursor != "" {
			last := string(values[len(r.Schema)])
			r.at.Value = &last
		}
		if reason := r.appendRow(b, values, fields); reason != "" {
			d.Failed.Add(connector.FailedRecord{Where: r.where(), Reason: reason, Record: recordText(values)})
		}
	}
	// An error that cuts a page short leaves the rows before it whole, so they count.
	if d.Read > 0 {
		d.Cursor = r.at.encode()
		p.Deliveries = append(p.Deliveries, d)
		r.delivered += d.Read
		r.told = true
	}
	if !r.ahead.Send(p) {
		return 0, false, connector.ErrClosed
	}
	return d.Read, more, nil
}

func (r *reader) where() string {
	if r.cursor != "" {
		return fmt.Sprintf("%s, %s = %s", r.what, r.cursor, *r.at.Value)
	}
	return fmt.Sprintf("%s, row %d", r.what, r.row)
}

// recordText is the start of a row for the sample.
func recordText(values [][]byte) string {
	var text strings.Builder
	for i, v := range values {
		if i > 0 {
			text.WriteByte('\t')
		}
		text.WriteString(excerpt.Of(v))
	}
	return text.String()
}
