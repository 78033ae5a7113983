// Package postgres reads rows from a PostgreSQL database of the plant: a table or a query, as a whole or from where the
// last read ended. It also looks rows up by key, and writes rows into a table.
//
// What reads and looks up runs in a READ ONLY transaction; only a sink writes. A source has one goroutine, which reads
// ahead of the caller and ends with Close; a lookup and a sink have none.
package postgres

import (
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Kind is the connector's name in a connection.
const Kind = "postgres"

type postgresConnector struct{}

// New makes the connector.
func New() connector.Connector { return postgresConnector{} }

// Spec describes the options.
func (postgresConnector) Spec() flowdef.ConnectorSpec {
	return flowdef.ConnectorSpec{
		Kind:  Kind,
		Title: "PostgreSQL",
		Help:  "Tables and queries of a PostgreSQL database: read, looked up by key, and written where a flow says so and the plant allows it.",
		Options: []flowdef.Option{
			{Name: "url", Type: flowdef.OptionString, Help: "The database as a URL without a password: postgres://user@host:5432/database. It replaces host, port, database, user and sslmode."},
			{Name: "host", Type: flowdef.OptionString, Help: "The server, or the folder of its socket."},
			{Name: "port", Type: flowdef.OptionInt, Default: "5432", Min: 1, Max: 65535, Help: "The server's port."},
			{Name: "database", Type: flowdef.OptionString, Help: "The database's name."},
			{Name: "user", Type: flowdef.OptionString, Help: "The role to connect as; it needs no more than the right to read."},
			{Name: "password", Type: flowdef.OptionSecret, Help: "The role's password."},
			{Name: "sslmode", Type: flowdef.OptionEnum, Enum: []string{"verify-full", "verify-ca", "require", "disable"}, Default: "verify-full", Help: "How TLS is used: only verify-full makes sure which server it is. A socket needs none."},
			{Name: "ca_file", Type: flowdef.OptionString, Help: "A PEM file with the certificates to trust instead of the system's."},
			{Name: "time_zone", Type: flowdef.OptionString, Default: "UTC", Help: "The IANA time zone of timestamp columns without a time zone, and of dates."},
		},
		ReadOptions: []flowdef.Option{
			{Name: "table", Type: flowdef.OptionString, Help: "The table or view, as schema.name; either this or query is needed."},
			{Name: "query", Type: flowdef.OptionString, Help: "One SELECT instead of a table."},
			{Name: "cursor", Type: flowdef.OptionString, Help: "A column that only grows with every new row, such as a serial number: rows are read in its order and each only once."},
			{Name: "follow", Type: flowdef.OptionBool, Default: "false", Help: "Whether to look for new rows again and again; it needs a cursor."},
			{Name: "every", Type: flowdef.OptionDuration, Default: "5s", Help: "How often to look for new rows."},
			{Name: "page_size", Type: flowdef.OptionInt, Default: "4096", Min: 1, Max: 100000, Help: "How many rows one statement reads when there is a cursor."},
			{Name: "statement_timeout", Type: flowdef.OptionDuration, Default: "1m", Help: "After how long the database gives a statement up."},
		},
		LookupOptions: lookupOptions(),
		WriteOptions:  writeOptions(),
		Example:       "mes:\n  kind: postgres\n  host: mes.plant.example\n  database: mes\n  user: outfeed\n",
		ReadExample:   "with: {table: mes.work_orders}\n",
	}
}

// settings is the checked options of a source.
type settings struct {
	connector.SourceSettings
	// dsn is the connection string without the password, what names table or query in messages, from is its SQL.
	dsn, what, from  string
	server           string
	password         secret.String
	loc              *time.Location
	cursor           string
	follow           bool
	every            time.Duration
	pageSize         int64
	statementTimeout time.Duration
	// compared is the key columns of a lookup, written those of a write, for messages; written is nil unless it writes.
	compared expr.Schema
	written  []string
}

// NewSource checks the settings.
func (c postgresConnector) NewSource(in connector.SourceSettings) (connector.Source, error) {
	spec := c.Spec()
	conn, err := connector.ParseOptions(spec.Options, in.Connection.Options, in.Connection.Secrets)
	if err != nil {
		return nil, err
	}
	with, err := connector.ParseOptions(spec.ReadOptions, in.With, nil)
	if err != nil {
		return nil, err
	}
	s := settings{
		SourceSettings:   in,
		password:         conn.Secret("password"),
		cursor:           with.String("cursor"),
		follow:           with.Bool("follow"),
		every:            with.Duration("every"),
		pageSize:         with.Int("page_size"),
		statementTimeout: with.Duration("statement_timeout"),
	}
	if err := s.connection(conn); err != nil {
		return nil, err
	}
	if err := s.relation(with); err != nil {
		return nil, err
	}
	if s.loc, err = conn.Location("time_zone"); err != nil {
		return nil, err
	}
	if s.follow && s.cursor == "" {
		return nil, &connector.OptionError{Option: "follow", Message: "needs a cursor: name the column that grows with every new row, or leave follow out"}
	}
	at, err := decodeCursor(in.Resume, s.cursor)
	if err != nil {
		return nil, err
	}
	return newSource(s, at), nil
}

// connection makes the connection string.
func (s *settings) connection(o connector.Options) error {
	u, err := addressOf(o)
	if err != nil {
		return err
	}
	query := u.Query()
	s.server = u.Host
	if s.server == "" {
		s.server = query.Get("host")
	}
	if s.server == "" {
		return &connector.OptionError{Option: "url", Message: "names no host"}
	}
	switch {
	case strings.HasPrefix(s.server, "/"):
		query.Set("sslmode", "disable") // a socket has no TLS
	case !query.Has("sslmode"):
		query.Set("sslmode", o.String("sslmode"))
	}
	if o.Given("ca_file") {
		query.Set("sslrootcert", o.String("ca_file"))
	}
	u.RawQuery = query.Encode()
	s.dsn = u.String()
	return nil
}

// addressOf makes a URL of host, port, database and user, or takes the written one.
func addressOf(o connector.Options) (*url.URL, error) {
	if o.Given("url") {
		return writtenURL(o)
	}
	for _, name := range []string{"host", "database", "user"} {
		if o.String(name) == "" {
			return nil, &connector.OptionError{Option: name, Message: "is missing: name the database by host, database and user, or by url"}
		}
	}
	u := &url.URL{Scheme: "postgres", Path: "/" + o.String("database"), User: url.User(o.String("user"))}
	if host, port := o.String("host"), int64Text(o.Int("port")); strings.HasPrefix(host, "/") {
		u.RawQuery = url.Values{"host": {host}, "port": {port}}.Encode()
	} else {
		u.Host = net.JoinHostPort(host, port)
	}
	return u, nil
}

func writtenURL(o connector.Options) (*url.URL, error) {
	for _, name := range []string{"host", "port", "database", "user", "sslmode"} {
		if o.Given(name) {
			return nil, &connector.OptionError{Option: name, Message: "stands beside url, which says it already; leave one of them out"}
		}
	}
	u, err := url.Parse(o.String("url"))
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, &connector.OptionError{Option: "url", Message: "is not a URL like postgres://user@host:5432/database"}
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return nil, &connector.OptionError{Option: "url", Message: "holds a password; give it as the secret option password"}
	}
	return u, nil
}

// relation makes the SQL of what to read from.
func (s *settings) relation(o connector.Options) error {
	table, query := o.String("table"), strings.TrimRight(strings.TrimSpace(o.String("query")), "; \n\t")
	switch {
	case table != "" && query != "":
		return &connector.OptionError{Option: "query", Message: "stands beside table; leave one of them out"}
	case table != "":
		parts, good := splitName(table)
		if !good {
			return &connector.OptionError{Option: "table", Message: `is not a name like mes.work_orders; a part with other characters stands in quotes, as in mes."Work Orders"`}
		}
		s.what, s.from = "table "+table, quoteName(parts)+" AS outfeed_rows"
	case query != "":
		word, _, _ := strings.Cut(strings.ToLower(strings.NewReplacer("\n", " ", "\t", " ", "(", " ").Replace(query)), " ")
		if word != "select" && word != "with" && word != "" {
			return &connector.OptionError{Option: "query", Message: "must be one SELECT"}
		}
		s.what, s.from = "the query", "(\n"+query+"\n) AS outfeed_rows"
	default:
		return &connector.OptionError{Option: "table", Message: "is missing: name a table, or write a query"}
	}
	return nil
}

// splitName reads name or schema.name, each part plain or in double quotes.
func splitName(text string) (parts []string, good bool) {
	for rest := text; ; {
		var part string
		if quoted, isQuoted := strings.CutPrefix(rest, `"`); isQuoted {
			before, after, closed := strings.Cut(quoted, `"`)
			if !closed {
				return nil, false
			}
			part, rest = before, after
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
			if strings.ContainsAny(part, "\"'; \t\n\\") {
				return nil, false
			}
			part = strings.ToLower(part) // as PostgreSQL reads a plain name
		}
		if part == "" || strings.ContainsRune(part, 0) || len(parts) == 2 {
			return nil, false
		}
		parts = append(parts, part)
		if rest == "" {
			return parts, true
		}
		if rest[0] != '.' {
			return nil, false
		}
		rest = rest[1:]
	}
}
