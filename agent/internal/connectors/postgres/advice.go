package postgres

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outfeed/outfeed/protocol/expr"
)

// explainedError says in a sentence what the server's error, which it wraps, says in SQL.
type explainedError struct {
	text string
	err  error
}

func (e *explainedError) Error() string { return e.text }
func (e *explainedError) Unwrap() error { return e.err }

// The SQLSTATEs that a lookup or a write can lead to by itself.
const (
	undefinedTable    = "42P01"
	undefinedSchema   = "3F000"
	undefinedColumn   = "42703"
	undefinedOperator = "42883"
	wrongType         = "42804"
	noConflictIndex   = "42P10"
	noRight           = "42501"
)

// aliased is a column of the tables as the connector's own SQL calls it, which the server repeats without its quotes.
var aliased = regexp.MustCompile(`column outfeed_rows\.(.*) does not exist`)

// mismatch names the types that the server cannot compare.
var mismatch = regexp.MustCompile(`operator does not exist: (.+) = (.+)`)

// advice says what an error of the server means and what to do; "" for one that is not known.
func (s *settings) advice(e *pgconn.PgError) string {
	switch e.Code {
	case undefinedTable, undefinedSchema:
		if s.written != nil || strings.HasPrefix(s.what, "table ") {
			return "there is no such table or view in this database; look at its name and its schema, as in mes.orders"
		}
	case undefinedColumn:
		if name := aliased.FindStringSubmatch(e.Message); name != nil {
			return fmt.Sprintf("%s has no column %q; correct the name in the step, where upper and lower case count", s.what, name[1])
		}
	case undefinedOperator:
		if types := mismatch.FindStringSubmatch(e.Message); types != nil && s.written == nil {
			return s.mismatched(types[1], types[2])
		}
	case wrongType:
		if s.written != nil {
			return e.Message + "; convert the column in a map step before the write"
		}
	case noConflictIndex:
		return fmt.Sprintf("%s has no primary key and no unique index on exactly the columns of key (%s), which upsert needs; create one, or name the columns of the one it has", s.what, strings.Join(s.written, ", "))
	case noRight:
		return fmt.Sprintf("the database user of the connection has not the right for this (%s); grant it SELECT, and INSERT and UPDATE where the step writes", e.Message)
	}
	return ""
}

// mismatched explains that a key and its column have types which cannot be compared.
func (s *settings) mismatched(theirs, ours string) string {
	ofFlow := map[string]expr.Type{"text": expr.String, "bigint": expr.Int, "double precision": expr.Float, "boolean": expr.Bool, "timestamp with time zone": expr.Timestamp}
	t := ofFlow[ours]
	var names []string
	for _, k := range s.compared {
		if k.Type == t || k.Type == expr.JSON && t == expr.String {
			names = append(names, k.Name)
		}
	}
	return fmt.Sprintf("the key (%s) is of type %s in the flow and %s in the database, which cannot be compared; convert the key in a map step before the lookup, such as int(x) or string(x), or read the table by a query with a cast, such as SELECT id::text AS id, …",
		strings.Join(names, ", "), t, theirs)
}
