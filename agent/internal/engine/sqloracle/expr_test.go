package sqloracle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// both is one expression in two languages.
type both struct{ ours, sql string }

func f2(format string, sqlFormat string, args ...both) both {
	ours, sql := make([]any, len(args)), make([]any, len(args))
	for i, a := range args {
		ours[i], sql[i] = a.ours, a.sql
	}
	return both{fmt.Sprintf(format, ours...), fmt.Sprintf(sqlFormat, sql...)}
}

// sqlType is PostgreSQL's name of a type.
func sqlType(t expr.Type) string {
	switch t { //nolint:exhaustive // the others have no column here
	case expr.Bool:
		return "boolean"
	case expr.Int:
		return "bigint"
	case expr.Float:
		return "double precision"
	case expr.Timestamp:
		return "timestamptz"
	default:
		return "text"
	}
}

// exprs makes random expressions over the columns of a schema.
type exprs struct {
	*rand.Rand
	schema expr.Schema
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func quote(name string) string { return `"` + name + `"` }

func text(s string) both {
	return both{strconv.Quote(s), "'" + strings.ReplaceAll(s, "'", "''") + "'::text"}
}

// of makes an expression of a type, at most depth levels deep.
func (e exprs) of(t expr.Type, depth int) both {
	if depth <= 0 || e.IntN(4) == 0 {
		return e.leaf(t)
	}
	if e.IntN(6) == 0 {
		return e.choice(t, depth-1)
	}
	switch t { //nolint:exhaustive // the others have no column here
	case expr.Bool:
		return e.bool(depth - 1)
	case expr.Int:
		return e.int(depth - 1)
	case expr.Float:
		return e.float(depth - 1)
	case expr.Timestamp:
		return e.time(depth - 1)
	default:
		return e.text(depth - 1)
	}
}

// leaf is a column or, where there is none of the type and now and then otherwise, a constant.
func (e exprs) leaf(t expr.Type) both {
	var columns []both
	for _, c := range e.schema {
		if c.Type == t {
			columns = append(columns, both{"`" + c.Name + "`", quote(c.Name)})
		}
	}
	if len(columns) > 0 && e.IntN(4) > 0 {
		return pick(e.Rand, columns...)
	}
	switch t { //nolint:exhaustive // the others have no column here
	case expr.Bool:
		v := strconv.FormatBool(e.IntN(2) == 0)
		return both{v, v}
	case expr.Int:
		v := pick(e.Rand, 0, 1, 2, 3, 7, 10, 60, math.MaxInt64)
		return both{strconv.Itoa(v), strconv.Itoa(v) + "::bigint"}
	case expr.Float:
		v := pick(e.Rand, "0.0", "0.5", "1.0", "2.25", "60.0", "1e3", "1e300")
		return both{v, v + "::float8"}
	case expr.Timestamp:
		v := moment(e.Rand).UTC().Format(time.RFC3339Nano)
		return both{fmt.Sprintf("timestamp(%q)", v), "timestamptz '" + v + "'"}
	default:
		return text(word(e.Rand))
	}
}

// choice is what works for every type.
func (e exprs) choice(t expr.Type, depth int) both {
	switch e.IntN(4) {
	case 0:
		return f2("(%s ? %s : %s)", "(CASE WHEN %s THEN %s ELSE %s END)", e.of(expr.Bool, depth), e.of(t, depth), e.of(t, depth))
	case 1:
		return f2("(%s ? %s : null)", "(CASE WHEN %s THEN %s END)", e.of(expr.Bool, depth), e.of(t, depth))
	case 2:
		return f2("coalesce(%s, %s)", "coalesce(%s, %s)", e.of(t, depth), e.of(t, depth))
	default:
		return f2("(%s ?? %s)", "coalesce(%s, %s)", e.of(t, depth), e.of(t, depth))
	}
}

func (e exprs) bool(depth int) both {
	b := func() both { return e.of(expr.Bool, depth) }
	s := func() both { return e.of(expr.String, depth) }
	switch e.IntN(12) {
	case 0:
		return f2("(%s and %s)", "(%s AND %s)", b(), b())
	case 1:
		return f2("(%s or %s)", "(%s OR %s)", b(), b())
	case 2:
		return f2("(not %s)", "(NOT %s)", b())
	case 3:
		return f2("contains(%s, %s)", "(strpos(%s, %s) > 0)", s(), s())
	case 4:
		return f2("starts_with(%s, %s)", "starts_with(%s, %s)", s(), s())
	case 5:
		return f2(`(%s matches "^M[0-9]+$")`, `(%s ~ '^M[0-9]+$')`, s())
	case 6:
		t := pick(e.Rand, types()...)
		return f2("is_null(%s)", "((%s) IS NULL)", e.of(t, depth))
	case 7:
		return f2(`(%s in ["RUN", "M1", ""])`, `(%s IN ('RUN', 'M1', ''))`, s())
	case 8:
		return f2("(%s not in [1, 2, -3])", "(%s NOT IN (1, 2, -3))", e.of(expr.Int, depth))
	default:
		return e.comparison(depth)
	}
}

func (e exprs) comparison(depth int) both {
	op := pick(e.Rand, "==", "!=", "<", "<=", ">", ">=")
	sqlOp := map[string]string{"==": "=", "!=": "<>"}[op]
	if sqlOp == "" {
		sqlOp = op
	}
	t := pick(e.Rand, expr.Int, expr.Float, expr.String, expr.Timestamp)
	l, r := e.of(t, depth), e.of(t, depth)
	switch {
	case t == expr.String:
		return f2("(%s "+op+" %s)", `(%s COLLATE "C" `+sqlOp+` %s COLLATE "C")`, l, r)
	case t == expr.Float && e.IntN(2) == 0:
		return f2("(%s "+op+" %s)", "(%s "+sqlOp+" (%s)::float8)", l, e.of(expr.Int, depth))
	}
	return f2("(%s "+op+" %s)", "(%s "+sqlOp+" %s)", l, r)
}

func (e exprs) int(depth int) both {
	i := func() both { return e.of(expr.Int, depth) }
	ts := func() both { return e.of(expr.Timestamp, depth) }
	switch e.IntN(13) {
	case 0:
		return f2("(%s + %s)", "of_int((%s)::numeric + (%s)::numeric)", i(), i())
	case 1:
		return f2("(%s - %s)", "of_int((%s)::numeric - (%s)::numeric)", i(), i())
	case 2:
		return f2("(%s * %s)", "of_int((%s)::numeric * (%s)::numeric)", i(), i())
	case 3:
		return f2("(%s %% %s)", "of_mod(%s, %s)", i(), i())
	case 4:
		return f2("(-%s)", "of_int(-(%s)::numeric)", i())
	case 5:
		return f2("abs(%s)", "of_int(abs((%s)::numeric))", i())
	case 6:
		return f2("length(%s)", "char_length(%s)::bigint", e.of(expr.String, depth))
	case 7:
		return f2("int(%s)", "of_trunc(%s)", e.of(expr.Float, depth))
	case 8:
		return f2("int(%s)", "(%s)::int::bigint", e.of(expr.Bool, depth))
	case 9:
		part := pick(e.Rand, "year", "month", "day", "hour", "minute")
		return f2(part+"(%s)", "extract("+part+" FROM %s)::bigint", ts())
	case 10:
		return f2("epoch_ms(%s)", "floor(extract(epoch FROM %s) * 1000)::bigint", ts())
	case 11:
		return f2("least(%s, %s)", "of_least(%s, %s)", i(), i())
	default:
		return f2("greatest(%s, %s)", "of_greatest(%s, %s)", i(), i())
	}
}

func (e exprs) float(depth int) both {
	x := func() both { return e.of(expr.Float, depth) }
	switch e.IntN(11) {
	case 0:
		return f2("(%s + %s)", "of_add(%s, %s)", x(), x())
	case 1:
		return f2("(%s - %s)", "of_sub(%s, %s)", x(), x())
	case 2:
		return f2("(%s * %s)", "of_mul(%s, %s)", x(), x())
	case 3:
		return f2("(%s / %s)", "of_div(%s, %s)", x(), x())
	case 4:
		return f2("(%s / %s)", "of_div((%s)::float8, (%s)::float8)", e.of(expr.Int, depth), e.of(expr.Int, depth))
	case 5:
		return f2("abs(%s)", "of_finite(abs(%s))", x())
	case 6:
		return f2("floor(%s)", "of_finite(floor(%s))", x())
	case 7:
		return f2("ceil(%s)", "of_finite(ceil(%s))", x())
	case 8:
		return f2("round(%s)", "of_round(%s)", x())
	case 9:
		return f2("sqrt(%s)", "of_sqrt(%s)", x())
	default:
		return f2("float(%s)", "(%s)::float8", e.of(expr.Int, depth))
	}
}

func (e exprs) text(depth int) both {
	s := func() both { return e.of(expr.String, depth) }
	switch e.IntN(7) {
	case 0:
		return f2("(%s + %s)", "(%s || %s)", s(), s())
	case 1:
		return f2("replace(%s, %s, %s)", "replace(%s, %s, %s)", s(), s(), s())
	case 2:
		return f2("substring(%s, 1, 2)", "substr(%s, 2, 2)", s())
	case 3:
		return f2("string(%s)", "(%s)::text", e.of(expr.Int, depth))
	case 4:
		return f2("string(%s)", "(%s)::text", e.of(expr.Bool, depth))
	case 5:
		return f2("trim(%s)", "btrim(%s)", s())
	default:
		return f2("concat(%s, %s)", "(%s || %s)", s(), s())
	}
}

func (e exprs) time(depth int) both {
	unit := pick(e.Rand, [2]string{"1m", "minute"}, [2]string{"1h", "hour"}, [2]string{"1d", "day"})
	return f2(`truncate(%s, "`+unit[0]+`")`, "date_trunc('"+unit[1]+"', %s)", e.of(expr.Timestamp, depth))
}

func types() []expr.Type {
	return []expr.Type{expr.Bool, expr.Int, expr.Float, expr.String, expr.Timestamp}
}

// prelude are PostgreSQL's ways to say what the language says, where its own operators fail instead.
const prelude = `
CREATE FUNCTION of_int(v numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN v BETWEEN -9223372036854775808 AND 9223372036854775807 THEN v::bigint END $$;
CREATE FUNCTION of_mod(a bigint, b bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN b <> 0 THEN (a::numeric % b::numeric)::bigint END $$;
CREATE FUNCTION of_finite(v float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN v < 'Infinity' AND v > '-Infinity' THEN v END $$;
CREATE FUNCTION of_trunc(v float8) RETURNS bigint LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN v >= -9223372036854775808::float8 AND v < 9223372036854775808::float8 THEN trunc(v)::bigint END $$;
CREATE FUNCTION of_round(v float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN abs(v) >= 4503599627370496 THEN of_finite(v)
    ELSE trunc(v) + CASE WHEN abs(v - trunc(v)) >= 0.5 THEN sign(v) ELSE 0 END END $$;
CREATE FUNCTION of_sqrt(v float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN v >= 0 THEN of_finite(sqrt(v)) END $$;
CREATE FUNCTION of_least(a bigint, b bigint) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT least(a, b) $$;
CREATE FUNCTION of_greatest(a bigint, b bigint) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT greatest(a, b) $$;
CREATE FUNCTION of_time(v timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS
 $$ SELECT to_char(v AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
    || CASE WHEN extract(microsecond FROM v)::bigint % 1000000 <> 0
       THEN rtrim('.' || to_char(extract(microsecond FROM v)::bigint % 1000000, 'FM000000'), '0') ELSE '' END || 'Z' $$;
CREATE FUNCTION of_huge(a float8, b float8, way int) RETURNS float8 LANGUAGE sql IMMUTABLE AS
 $$ SELECT CASE WHEN ln(abs(a)::numeric) + way * ln(abs(b)::numeric) < 0 THEN 0
    WHEN (a < 0) = (b < 0) THEN 'Infinity'::float8 ELSE '-Infinity'::float8 END $$;
CREATE FUNCTION of_add(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT AS
 $$ BEGIN RETURN a + b; EXCEPTION WHEN numeric_value_out_of_range THEN
    RETURN CASE WHEN a > 0 THEN 'Infinity'::float8 ELSE '-Infinity'::float8 END; END $$;
CREATE FUNCTION of_sub(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT AS
 $$ BEGIN RETURN a - b; EXCEPTION WHEN numeric_value_out_of_range THEN
    RETURN CASE WHEN a > 0 THEN 'Infinity'::float8 ELSE '-Infinity'::float8 END; END $$;
CREATE FUNCTION of_mul(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT AS
 $$ BEGIN RETURN a * b; EXCEPTION WHEN numeric_value_out_of_range THEN RETURN of_huge(a, b, 1); END $$;
CREATE FUNCTION of_div(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT AS
 $$ BEGIN IF b = 0 THEN RETURN NULL; END IF; RETURN a / b;
    EXCEPTION WHEN numeric_value_out_of_range THEN RETURN of_huge(a, b, -1); END $$;
`
