package sqloracle

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/protocol/expr"
)

// testCase is a flow, its tables and the query that must give the same rows. A failing one is kept as a file.
type testCase struct {
	Flow   string
	Tables []*table
	SQL    string
	// Schema is the columns of the result, in its order.
	Schema expr.Schema
}

// builder makes a flow step by step, and the query along with it.
type builder struct {
	*rand.Rand
	steps  []string
	tables []*table
	serial int
	// wild are the columns whose values an expression made: they may be too large for PostgreSQL to add up.
	wild map[string]bool
}

// rows is what a step gives: its id, its columns, and the query for the same.
type rows struct {
	id     string
	schema expr.Schema
	sql    string
	// ordered says that the rows still come in the order of their row number, the column order.
	ordered bool
	order   string
}

func randomCase(r *rand.Rand) *testCase {
	b := &builder{Rand: r, wild: map[string]bool{}}
	out := b.source("t0", "", nil)
	for range 1 + r.IntN(4) {
		out = b.step(out)
	}
	// Times leave as texts, so that no column is the insight's time and no row fails for the lack of one.
	for _, c := range slices.Clone(out.schema) {
		if c.Type == expr.Timestamp {
			out = b.assign(out, c.Name, expr.String, both{"string(`" + c.Name + "`)", "of_time(" + quote(c.Name) + ")"})
		}
	}
	b.add("- insight: out\n    from: " + out.id)
	return &testCase{
		Flow:   "flow: random\ntrigger: manual\nsteps:\n  " + strings.Join(b.steps, "\n  ") + "\n",
		Tables: b.tables, SQL: out.sql, Schema: out.schema,
	}
}

func (b *builder) add(text string) { b.steps = append(b.steps, text) }

func (b *builder) id(verb string) string {
	b.serial++
	return fmt.Sprintf("%s%d", verb, b.serial)
}

// yaml is a text that YAML reads as itself.
func yaml(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func names(schema expr.Schema) []string {
	list := make([]string, len(schema))
	for i, c := range schema {
		list[i] = quote(c.Name)
	}
	return list
}

func list(columns []string) string {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = yaml(c)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// source reads a new random table, of that schema where one is given.
func (b *builder) source(name, prefix string, schema expr.Schema) rows {
	t := randomTable(b.Rand, name, prefix, schema)
	b.tables = append(b.tables, t)
	columns := make([]string, len(t.Schema))
	for i, c := range t.Schema {
		columns[i] = yaml(c.Name) + ": " + c.Type.String()
	}
	id := b.id("read")
	b.add(fmt.Sprintf("- id: %s\n    read: %s\n    schema: {%s}", id, t.Name, strings.Join(columns, ", ")))
	return rows{id, t.Schema, "SELECT " + strings.Join(names(t.Schema), ", ") + " FROM " + t.Name, true, t.Schema[0].Name}
}

func (b *builder) step(in rows) rows {
	switch b.IntN(11) {
	case 0, 1:
		return b.filter(in)
	case 2, 3:
		t := pick(b.Rand, types()...)
		name := fmt.Sprintf("m%d", b.serial)
		if b.IntN(3) == 0 && len(in.schema) > 2 {
			name = in.schema[1+b.IntN(len(in.schema)-1)].Name
		}
		return b.assign(in, name, t, exprs{b.Rand, in.schema}.of(t, 3))
	case 4:
		return b.selectColumns(in)
	case 5, 6:
		return b.aggregate(in)
	case 7:
		return b.join(in)
	case 8:
		return b.union(in)
	case 9:
		return b.distinct(in)
	default:
		return b.top(in)
	}
}

func (b *builder) filter(in rows) rows {
	cond := exprs{b.Rand, in.schema}.of(expr.Bool, 3)
	id := b.id("filter")
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    filter: %s", id, in.id, yaml(cond.ours)))
	in.id, in.sql = id, "SELECT * FROM ("+in.sql+") q WHERE "+cond.sql
	return in
}

// assign sets a column, which keeps its place when it is there.
func (b *builder) assign(in rows, name string, t expr.Type, v both) rows {
	b.wild[name] = true
	schema := slices.Clone(in.schema)
	columns := names(schema)
	at := schema.Index(name)
	if at < 0 {
		at = len(schema)
		schema, columns = append(schema, expr.Column{}), append(columns, "")
	}
	schema[at] = expr.Column{Name: name, Type: t}
	columns[at] = "(" + v.sql + ")::" + sqlType(t) + " AS " + quote(name)
	id := b.id("map")
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    map: {%s: %s}", id, in.id, yaml(name), yaml(v.ours)))
	return rows{id, schema, "SELECT " + strings.Join(columns, ", ") + " FROM (" + in.sql + ") q", in.ordered && name != in.order, in.order}
}

// selectColumns keeps some columns, in another order, and renames some.
func (b *builder) selectColumns(in rows) rows {
	var schema expr.Schema
	var ours, sql []string
	out := rows{ordered: false}
	for _, i := range b.Perm(len(in.schema))[:1+b.IntN(len(in.schema))] {
		c := in.schema[i]
		name := c.Name
		if b.IntN(4) == 0 {
			name = fmt.Sprintf("s%d_%d", b.serial, i)
			b.wild[name] = b.wild[c.Name]
		}
		if in.ordered && c.Name == in.order {
			out.ordered, out.order = true, name
		}
		schema = append(schema, expr.Column{Name: name, Type: c.Type})
		ours, sql = append(ours, "{"+yaml(name)+": "+yaml(c.Name)+"}"), append(sql, quote(c.Name)+" AS "+quote(name))
	}
	out.id, out.schema, out.sql = b.id("select"), schema, "SELECT "+strings.Join(sql, ", ")+" FROM ("+in.sql+") q"
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    select: [%s]", out.id, in.id, strings.Join(ours, ", ")))
	return out
}

// some gives the names of up to n columns that fit.
func (b *builder) some(schema expr.Schema, n int, fits func(expr.Column) bool) []string {
	var found []string
	for _, i := range b.Perm(len(schema)) {
		if len(found) < n && fits(schema[i]) {
			found = append(found, schema[i].Name)
		}
	}
	return found
}

func (b *builder) join(in rows) rows {
	right := b.source(fmt.Sprintf("t%d", len(b.tables)), fmt.Sprintf("j%d_", len(b.tables)), nil)
	if b.IntN(2) == 0 {
		right = b.filter(right)
	}
	var left, rightKeys, conditions, pairs []string
	for _, i := range b.Perm(len(in.schema)) {
		for _, j := range b.Perm(len(right.schema)) {
			l, r := in.schema[i], right.schema[j]
			if l.Type == r.Type && len(left) < 1+b.IntN(2) && !slices.Contains(rightKeys, r.Name) && !slices.Contains(left, l.Name) {
				left, rightKeys = append(left, l.Name), append(rightKeys, r.Name)
				conditions = append(conditions, "l."+quote(l.Name)+" = r."+quote(r.Name))
				pairs = append(pairs, yaml(l.Name)+": "+yaml(r.Name))
			}
		}
	}
	if len(left) == 0 {
		// Both sides have a row number unless a select dropped it; then a constant column serves.
		in = b.assign(in, "one", expr.Int, both{"1", "1"})
		left, rightKeys = []string{"one"}, []string{right.schema[0].Name}
		conditions, pairs = []string{`l."one" = r.` + quote(rightKeys[0])}, []string{"one: " + yaml(rightKeys[0])}
	}
	kind := pick(b.Rand, joinKinds()...)
	out := rows{id: b.id("join")}
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    join: %s\n    on: {%s}\n    type: %s", out.id, in.id, right.id, strings.Join(pairs, ", "), kind))
	on := strings.Join(conditions, " AND ")
	if kind == "semi" || kind == "anti" {
		not := map[string]string{"anti": "NOT "}[kind]
		out.schema, out.ordered, out.order = in.schema, in.ordered, in.order
		out.sql = "SELECT * FROM (" + in.sql + ") l WHERE " + not + "EXISTS (SELECT 1 FROM (" + right.sql + ") r WHERE " + on + ")"
		return out
	}
	var columns []string
	for _, c := range in.schema {
		column := "l." + quote(c.Name)
		if k := slices.Index(left, c.Name); k >= 0 && kind == "full" {
			column = "coalesce(l." + quote(c.Name) + ", r." + quote(rightKeys[k]) + ") AS " + quote(c.Name)
		}
		columns = append(columns, column)
	}
	out.schema = slices.Clone(in.schema)
	for _, c := range right.schema {
		if !slices.Contains(rightKeys, c.Name) {
			out.schema, columns = append(out.schema, c), append(columns, "r."+quote(c.Name))
		}
	}
	out.sql = "SELECT " + strings.Join(columns, ", ") + " FROM (" + in.sql + ") l " + strings.ToUpper(kind) + " JOIN (" + right.sql + ") r ON " + on
	return out
}

func (b *builder) union(in rows) rows {
	other := b.source(fmt.Sprintf("t%d", len(b.tables)), "", in.schemaWithRowNumber())
	out := rows{id: b.id("union"), schema: in.schema}
	// The source has a row number and a time of its own in front.
	keep := make([]string, len(in.schema))
	for i, c := range in.schema {
		keep[i] = c.Name
	}
	narrow := b.id("select")
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    select: %s", narrow, other.id, list(keep)))
	b.add(fmt.Sprintf("- id: %s\n    union: [%s, %s]", out.id, in.id, narrow))
	out.sql = "SELECT * FROM (" + in.sql + ") q UNION ALL SELECT " + strings.Join(names(in.schema), ", ") + " FROM (" + other.sql + ") q"
	return out
}

// schemaWithRowNumber is the schema of a table whose rows can follow these.
func (r rows) schemaWithRowNumber() expr.Schema {
	return append(expr.Schema{{Name: "u_rid", Type: expr.Int}, {Name: "u_ts", Type: expr.Timestamp}}, r.schema...)
}

func (b *builder) distinct(in rows) rows {
	out := rows{id: b.id("distinct"), schema: in.schema}
	by := b.some(in.schema, 1+b.IntN(2), func(expr.Column) bool { return true })
	if !in.ordered { // which row of a key comes first is not known, so all columns are the key
		by = nil
		for _, c := range in.schema {
			by = append(by, c.Name)
		}
	}
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    distinct: %s", out.id, in.id, list(by)))
	quoted := make([]string, len(by))
	for i, name := range by {
		quoted[i] = quote(name)
	}
	columns := strings.Join(quoted, ", ")
	out.sql = "SELECT DISTINCT ON (" + columns + ") * FROM (" + in.sql + ") q ORDER BY " + columns
	if in.ordered {
		out.sql += ", " + quote(in.order)
	}
	out.sql = "SELECT * FROM (" + out.sql + ") q"
	out.ordered, out.order = in.ordered, in.order
	return out
}

// top sorts by all columns, so that equal rows alone are in no order, and keeps the first ones.
func (b *builder) top(in rows) rows {
	var ours, sql []string
	for _, i := range b.Perm(len(in.schema)) {
		c := in.schema[i]
		column := quote(c.Name)
		if c.Type == expr.String {
			column += ` COLLATE "C"`
		}
		if b.IntN(2) == 0 {
			ours, sql = append(ours, "{"+yaml(c.Name)+": desc}"), append(sql, column+" DESC NULLS LAST")
		} else {
			ours, sql = append(ours, yaml(c.Name)), append(sql, column+" ASC NULLS LAST")
		}
	}
	sorted, out := b.id("sort"), rows{id: b.id("limit"), schema: in.schema}
	n := b.IntN(12) + 1
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    sort: [%s]", sorted, in.id, strings.Join(ours, ", ")))
	b.add(fmt.Sprintf("- id: %s\n    from: %s\n    limit: %d", out.id, sorted, n))
	out.sql = "SELECT * FROM (SELECT * FROM (" + in.sql + ") q ORDER BY " + strings.Join(sql, ", ") + fmt.Sprintf(" LIMIT %d) q", n)
	return out
}
