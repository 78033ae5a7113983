package postgres

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// accepted lists the PostgreSQL types that fit a column type. Any type fits a string, as its text.
func accepted(t expr.Type) []uint32 {
	switch t {
	case expr.Bool:
		return []uint32{pgtype.BoolOID}
	case expr.Int:
		return []uint32{pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.NumericOID}
	case expr.Float:
		return []uint32{pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID}
	case expr.Timestamp:
		return []uint32{pgtype.TimestamptzOID, pgtype.TimestampOID, pgtype.DateOID}
	case expr.JSON:
		return []uint32{pgtype.JSONOID, pgtype.JSONBOID}
	case expr.String, expr.Invalid, expr.Null:
	}
	return nil
}

// checkTypes says which column of the database does not fit the schema.
func (s *settings) checkTypes(fields []pgconn.FieldDescription) error {
	types := pgtype.NewMap()
	for i, c := range s.Schema {
		oid := fields[i].DataTypeOID
		if c.Type == expr.String || slices.Contains(accepted(c.Type), oid) {
			continue
		}
		name := "a type of its own"
		if t, found := types.TypeForOID(oid); found {
			name = t.Name
		}
		return &connector.PermanentError{Err: fmt.Errorf(
			"column %s of %s is %s, which does not fit the schema's %s; write the type that fits, or string", c.Name, s.what, name, c.Type)}
	}
	return nil
}

// appendRow adds a row of values in PostgreSQL's text form. When one does not convert it adds nothing and says why.
func (s *settings) appendRow(b *column.Batch, values [][]byte, fields []pgconn.FieldDescription) (reason string) {
	for i := range b.Cols {
		c := &b.Cols[i]
		if values[i] == nil {
			c.AppendNull()
			continue
		}
		if reason := s.appendValue(c, values[i], fields[i].DataTypeOID); reason != "" {
			undo(b, i)
			return "column " + s.Schema[i].Name + ": " + reason
		}
	}
	b.Len++
	return ""
}

func (s *settings) appendValue(c *column.Column, text []byte, oid uint32) (reason string) {
	switch c.Type {
	case expr.Bool:
		c.Bools = append(c.Bools, text[0] == 't')
	case expr.Int:
		n, err := strconv.ParseInt(string(wholePart(text)), 10, 64)
		if err != nil {
			return excerpt.Of(text) + " is not a whole number of 64 bits"
		}
		c.Ints = append(c.Ints, n)
	case expr.Float:
		f, err := strconv.ParseFloat(string(text), 64)
		if err != nil || f != f || f-f != 0 {
			return excerpt.Of(text) + " is not a number that a float can hold"
		}
		c.Floats = append(c.Floats, f)
	case expr.Timestamp:
		if oid == pgtype.DateOID {
			text = append(bytes.Clone(text), " 00:00:00"...)
		}
		t, good := decode.ParseTime(text, s.loc)
		if !good {
			return excerpt.Of(text) + " is not a time between the years 1 and 9999"
		}
		c.Ints = append(c.Ints, t)
	case expr.String, expr.JSON:
		c.AppendStr(text)
	case expr.Invalid, expr.Null:
		return "a column of no type"
	}
	return ""
}

// wholePart takes the zeros after the point off a numeric.
func wholePart(text []byte) []byte {
	whole, fraction, has := bytes.Cut(text, []byte{'.'})
	if has && len(bytes.Trim(fraction, "0")) == 0 {
		return whole
	}
	return text
}

// undo takes the last value off the first n columns.
func undo(b *column.Batch, n int) {
	for i := range n {
		c := &b.Cols[i]
		if w := b.Len >> 6; w < len(c.Nulls) {
			c.Nulls[w] &^= 1 << (uint(b.Len) & 63)
		}
		switch c.Type {
		case expr.Bool:
			c.Bools = c.Bools[:b.Len]
		case expr.Int, expr.Timestamp:
			c.Ints = c.Ints[:b.Len]
		case expr.Float:
			c.Floats = c.Floats[:b.Len]
		case expr.String, expr.JSON:
			c.Strs = c.Strs[:b.Len]
		case expr.Invalid, expr.Null:
		}
	}
}
