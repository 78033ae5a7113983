package postgres

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// cursorVersion is the version of a cursor's encoding.
const cursorVersion = 1

// position is what a cursor holds: the last value of the cursor column. A read without one has nothing to hold.
type position struct {
	Version int    `json:"v"`
	Column  string `json:"column,omitempty"`
	// Value is the value as PostgreSQL writes it; nil before the first row.
	Value *string `json:"value,omitempty"`
}

func (p position) encode() connector.Cursor {
	p.Version = cursorVersion
	text, err := json.Marshal(p)
	if err != nil {
		panic("postgres: a position cannot be written: " + err.Error()) // two strings and a number
	}
	return text
}

var errCursor = errors.New("the saved position of the PostgreSQL source is not readable; the agent that saved it may be newer, or its staging is damaged")

// decodeCursor reads a cursor; nil, and one of another column, begins anew.
func decodeCursor(c connector.Cursor, column string) (position, error) {
	begin := position{Column: column}
	if len(c) == 0 {
		return begin, nil
	}
	var p position
	if err := json.Unmarshal(c, &p); err != nil || p.Version != cursorVersion {
		return position{}, errCursor
	}
	if p.Column != column {
		return begin, nil
	}
	return p, nil
}

func int64Text(n int64) string { return strconv.FormatInt(n, 10) }

func quoteName(parts []string) string { return pgx.Identifier(parts).Sanitize() }
