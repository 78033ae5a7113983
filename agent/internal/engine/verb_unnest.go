package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

func requireUnnest(step *flowdef.PlanStep, live, from []bool) {
	for i, pos := range step.UnnestPlan.Keep {
		from[pos] = from[pos] || live[i]
	}
	from[step.UnnestPlan.Column] = true
}

// unnest makes a row of each element of a json column. The elements are decoded as records are.
type unnest struct {
	outputs
	counts *stepCounts
	plan   *flowdef.UnnestPlan
	name   string
	left   bool
	live   []bool
	// only is `{"name":` where the schema has one column, whose value an element can also be itself; nil otherwise.
	only []byte
	// decoder fills elements, whose columns are those of the output at places; text is what they were decoded from.
	decoder  *decode.JSON
	elements *column.Batch
	places   []int
	text     []byte
	// sel is the row of the input that each row of the output is of, index the place of its element, -1 for none.
	sel   []int32
	index []int64
	out   *column.Batch
}

func (m *maker) unnest(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	u := &unnest{
		counts: counts, plan: step.UnnestPlan, name: input[step.UnnestPlan.Column].Name, left: step.Unnest.Kind == "left",
		live: live, out: column.NewBatch(step.Output),
	}
	var schema expr.Schema
	for k, member := range step.Unnest.Schema {
		if pos := len(u.plan.Keep) + k; live[pos] {
			schema, u.places = append(schema, member.Column), append(u.places, pos)
		}
	}
	if len(step.Unnest.Schema) == 1 {
		u.only = append(column.AppendJSONString([]byte{'{'}, []byte(step.Unnest.Schema[0].Name)), ':')
	}
	u.decoder, u.elements = decode.NewJSON(schema, time.UTC), column.NewBatch(schema)
	return u, &u.outputs, nil
}

func (u *unnest) push(b *column.Batch) error {
	u.counts.in += int64(b.Len)
	c := &b.Cols[u.plan.Column]
	u.begin()
	for row := range b.Len {
		var err error
		if c.Null(row) {
			err = u.empty(b, row)
		} else {
			err = u.array(b, row, c.Bytes(row))
		}
		if err != nil {
			return err
		}
	}
	return u.flush(b)
}

// begin readies the output for the next rows.
func (u *unnest) begin() {
	u.text, u.sel, u.index = u.text[:0], u.sel[:0], u.index[:0]
	u.decoder.Begin(u.elements, column.TargetRows)
}

// array adds a row for each element.
func (u *unnest) array(b *column.Batch, row int, text []byte) error {
	for place, next := int64(0), 0; next >= 0; place++ {
		start, end, after, good := decode.Element(text, next)
		switch {
		case !good && place == 0:
			return u.counts.failRow(failedRow{b, row, "column " + u.name + " holds no array"})
		case !good:
			return u.counts.failRow(failedRow{b, row, fmt.Sprintf("the array in column %s is no JSON behind its element %d", u.name, place-1)})
		case start < 0:
			return u.empty(b, row)
		}
		if err := u.element(b, rowElement{row, place, text[start:end]}); err != nil {
			return err
		}
		next = after
	}
	return nil
}

// rowElement is an element of a row's array.
type rowElement struct {
	row   int
	place int64
	text  []byte
}

// element adds a row, or fails the element alone: the others of its array go on.
func (u *unnest) element(b *column.Batch, e rowElement) error {
	start := len(u.text)
	switch {
	case e.text[0] == '{':
		u.text = append(u.text, e.text...)
	case u.only != nil:
		u.text = append(append(append(u.text, u.only...), e.text...), '}')
	default:
		return u.fail(e, errNoObject)
	}
	if err := u.decoder.Record(u.text, start, len(u.text)); err != nil {
		u.text = u.text[:start]
		return u.fail(e, err)
	}
	return u.added(b, e.row, e.place)
}

// maxElementText is how much text of elements is decoded into one batch.
const maxElementText = 32 << 20

var errNoObject = errors.New("it is not an object, and the schema has more than one column to take out of it")

// empty adds a row without an element, where such rows stay.
func (u *unnest) empty(b *column.Batch, row int) error {
	if !u.left {
		return nil
	}
	start := len(u.text)
	u.text = append(u.text, "{}"...)
	if err := u.decoder.Record(u.text, start, len(u.text)); err != nil {
		return fmt.Errorf("an element without members cannot be decoded: %w", err)
	}
	return u.added(b, row, -1)
}

// added notes the row that the decoder has added, and emits when there are enough.
func (u *unnest) added(b *column.Batch, row int, place int64) error {
	u.sel, u.index = append(u.sel, i32(row)), append(u.index, place)
	if len(u.sel) < column.TargetRows && len(u.text) < maxElementText {
		return nil
	}
	if err := u.flush(b); err != nil {
		return err
	}
	u.begin()
	return nil
}

func (u *unnest) fail(e rowElement, err error) error {
	if !u.counts.sampling() {
		return u.counts.countFailed()
	}
	return u.counts.fail(connector.FailedRecord{
		Where: "step " + u.counts.step, Record: excerpt.Bytes(e.text, connector.MaxSampled),
		Reason: fmt.Sprintf("element %d of column %s: %s", e.place, u.name, err),
	})
}

// flush emits what was added.
func (u *unnest) flush(b *column.Batch) error {
	u.decoder.Finish(u.text)
	u.out.Len = len(u.sel)
	u.counts.out += int64(len(u.sel))
	if len(u.sel) == 0 {
		return nil
	}
	for i, pos := range u.plan.Keep {
		if u.live[i] {
			u.out.Cols[i].Gather(&b.Cols[pos], u.sel)
		}
	}
	for i, pos := range u.places {
		u.out.Cols[pos] = u.elements.Cols[i]
	}
	if at := u.plan.Index; at >= 0 && u.live[at] {
		c := &u.out.Cols[at]
		c.Reset()
		for row, place := range u.index {
			c.AppendInt(place)
			if place < 0 {
				c.SetNull(row)
			}
		}
	}
	return u.emit(u.out)
}
