package sqloracle

import (
	"fmt"
	"strings"

	"github.com/outfeed/outfeed/protocol/expr"
)

// call is an aggregate in both languages.
type call struct {
	both
	result expr.Type
}

// aggregate groups by some columns and, where there is a time, mostly by a window.
func (b *builder) aggregate(in rows) rows {
	by := b.some(in.schema, b.IntN(3), func(expr.Column) bool { return true })
	out := rows{id: b.id("agg")}
	var columns, groups []string
	for _, name := range by {
		out.schema = append(out.schema, in.schema[in.schema.Index(name)])
		columns, groups = append(columns, quote(name)), append(groups, quote(name))
	}
	from, window := in.sql, ""
	times := b.some(in.schema, 1, func(c expr.Column) bool { return c.Type == expr.Timestamp })
	if len(times) == 1 && b.IntN(4) > 0 && in.schema.Index("window_start") < 0 && in.schema.Index("window_end") < 0 {
		window, from = b.window(in, times[0], groups)
		for _, name := range []string{"window_start", "window_end"} {
			out.schema = append(out.schema, expr.Column{Name: name, Type: expr.Timestamp})
			columns, groups = append(columns, quote(name)), append(groups, quote(name))
		}
	}
	var ours []string
	for i := range 1 + b.IntN(4) {
		time := ""
		if window != "" {
			time = times[0]
		}
		c := b.call(in, time)
		name := fmt.Sprintf("g%d_%d", b.serial, i)
		b.wild[name] = true
		out.schema = append(out.schema, expr.Column{Name: name, Type: c.result})
		ours = append(ours, name+": "+yaml(c.ours))
		columns = append(columns, "("+c.sql+")::"+sqlType(c.result)+" AS "+name)
	}
	text := fmt.Sprintf("- id: %s\n    from: %s\n    aggregate: {%s}", out.id, in.id, strings.Join(ours, ", "))
	if len(by) > 0 {
		text += "\n    by: " + list(by)
	}
	b.add(text + window)
	out.sql = "SELECT " + strings.Join(columns, ", ") + " FROM (" + from + ") q"
	if len(groups) > 0 {
		out.sql += " GROUP BY " + strings.Join(groups, ", ")
	}
	out.sql += " HAVING count(*) > 0"
	return out
}

// window cuts time: the key of the step, and the rows with window_start and window_end.
func (b *builder) window(in rows, time string, by []string) (yamlText, sql string) {
	column := quote(time)
	rows := "(SELECT * FROM (" + in.sql + ") q WHERE " + column + " IS NOT NULL) q"
	floor := func(seconds int) string {
		return fmt.Sprintf("to_timestamp(floor(extract(epoch FROM %s) / %d) * %d)", column, seconds, seconds)
	}
	switch b.IntN(5) {
	case 0:
		every, times := pick(b.Rand, 7, 60, 900), 1+b.IntN(5)
		return fmt.Sprintf("\n    window: {hopping: %ds, every: %ds, time: %s}", every*times, every, yaml(time)),
			fmt.Sprintf("SELECT q.*, w AS window_start, w + interval '%d seconds' AS window_end FROM %s, LATERAL (SELECT %s - k * interval '%d seconds' AS w FROM generate_series(0, %d) k) w",
				every*times, rows, floor(every), every, times-1)
	case 1:
		gap := pick(b.Rand, 15, 16, 120)
		if len(by) == 0 {
			by = []string{"true"}
		}
		partition := strings.Join(by, ", ")
		return fmt.Sprintf("\n    window: {session: %ds, time: %s}", gap, yaml(time)),
			fmt.Sprintf("SELECT *, min(%[1]s) OVER w AS window_start, max(%[1]s) OVER w + interval '%[2]d seconds' AS window_end FROM ("+
				"SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY %[3]s ORDER BY %[1]s RANGE UNBOUNDED PRECEDING) AS session FROM ("+
				"SELECT *, coalesce(%[1]s - lag(%[1]s) OVER (PARTITION BY %[3]s ORDER BY %[1]s) >= interval '%[2]d seconds', true) AS begins FROM %[4]s) q) q "+
				"WINDOW w AS (PARTITION BY %[3]s, session)", column, gap, partition, rows)
	case 2:
		hours, zone := pick(b.Rand, 2, 8, 24), pick(b.Rand, "Europe/Berlin", "America/St_Johns", "Asia/Kolkata")
		local := fmt.Sprintf("(date_trunc('day', %[1]s AT TIME ZONE '%[2]s') + floor(extract(hour FROM %[1]s AT TIME ZONE '%[2]s') / %[3]d) * interval '%[3]d hours')", column, zone, hours)
		return fmt.Sprintf("\n    window: {tumbling: %dh, timezone: %s, time: %s}", hours, zone, yaml(time)),
			fmt.Sprintf("SELECT *, %[1]s AT TIME ZONE '%[2]s' AS window_start, (%[1]s + interval '%[3]d hours') AT TIME ZONE '%[2]s' AS window_end FROM %[4]s", local, zone, hours, rows)
	}
	seconds := pick(b.Rand, 7, 60, 300, 3600, 21600)
	return fmt.Sprintf("\n    window: {tumbling: %ds, time: %s}", seconds, yaml(time)),
		fmt.Sprintf("SELECT *, %s AS window_start, %s + interval '%d seconds' AS window_end FROM %s", floor(seconds), floor(seconds), seconds, rows)
}

// call is a random aggregate. Floats are summed only from columns, whose values are gentle.
func (b *builder) call(in rows, time string) call {
	e := exprs{b.Rand, in.schema}
	column := func(t expr.Type) (both, bool) {
		found := b.some(in.schema, 1, func(c expr.Column) bool { return c.Type == t && !b.wild[c.Name] })
		if len(found) == 0 {
			return both{}, false
		}
		return both{"`" + found[0] + "`", quote(found[0])}, true
	}
	switch b.IntN(9) {
	case 0:
		return call{both{"count()", "count(*)"}, expr.Int}
	case 1:
		t := pick(b.Rand, types()...)
		return call{f2("count(%s)", "count(%s)", e.of(t, 2)), expr.Int}
	case 2:
		return call{f2("sum(%s)", "of_int(sum((%s)::numeric))", e.of(expr.Int, 2)), expr.Int}
	case 3:
		t := pick(b.Rand, types()...)
		x := e.of(t, 2)
		if t == expr.String {
			x.sql += ` COLLATE "C"`
		}
		return call{f2("count_distinct(%s)", "count(DISTINCT %s)", x), expr.Int}
	case 4, 5:
		t := pick(b.Rand, expr.Int, expr.Float, expr.String, expr.Timestamp)
		x := e.of(t, 2)
		if t == expr.String {
			x.sql += ` COLLATE "C"`
		}
		return call{f2(pick(b.Rand, "min", "max")+"(%s)", "%s", x).aggregate(), t}
	case 6:
		if x, ok := column(expr.Float); ok {
			if b.IntN(3) == 0 {
				q := pick(b.Rand, "0.5", "0.0", "1.0", "0.95")
				return call{f2("quantile(%s, "+q+")", "percentile_cont("+q+") WITHIN GROUP (ORDER BY %s)", x), expr.Float}
			}
			name := pick(b.Rand, [2]string{"sum", "sum"}, [2]string{"avg", "avg"}, [2]string{"stddev", "stddev_samp"})
			return call{f2(name[0]+"(%s)", name[1]+"(%s)", x), expr.Float}
		}
	case 7:
		if x, ok := column(pick(b.Rand, expr.Int, expr.Float, expr.String)); ok && time != "" && in.ordered {
			t := in.schema[in.schema.Index(strings.Trim(x.sql, `"`))].Type
			order := quote(time) + ", " + quote(in.order)
			if b.IntN(2) == 0 {
				return call{f2("first(%s)", "(array_agg(%[1]s ORDER BY "+order+") FILTER (WHERE %[1]s IS NOT NULL))[1]", x), t}
			}
			order = quote(time) + " DESC, " + quote(in.order) + " DESC"
			return call{f2("last(%s)", "(array_agg(%[1]s ORDER BY "+order+") FILTER (WHERE %[1]s IS NOT NULL))[1]", x), t}
		}
	}
	return call{both{"count()", "count(*)"}, expr.Int}
}

// aggregate gives the query the name of the aggregate that the language has.
func (x both) aggregate() both {
	name, _, _ := strings.Cut(x.ours, "(")
	return both{x.ours, name + "(" + x.sql + ")"}
}
