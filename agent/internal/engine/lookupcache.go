package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// lookupCache remembers what a lookup was told about keys: at most size of them, and those of the batch at hand beside
// them. What was not asked for longest goes first, a quarter of the cache at a time, so that the cost of choosing is
// spread over many keys.
type lookupCache struct {
	size  int
	age   time.Duration
	keys  expr.Schema
	table *keyTable
	// By entry of the table: the row that was found (noEntry for none; below that, the reason why the key cannot be used:
	// see reason), when it was asked for (unasked for never), and the turn in which it was last wanted.
	row    []int32
	loaded []time.Duration
	wanted []int64
	// turn counts the batches.
	turn int64
	// rows are what was found, n how many, replaced ones included.
	rows    []column.Column
	n       int
	reasons []string

	absent []int32
	all    []int32
	batch  *column.Batch
}

const unasked = time.Duration(-1 << 63)

func newLookupCache(keys, schema expr.Schema, size int, age time.Duration) *lookupCache {
	c := &lookupCache{
		size: max(size, 1), age: age, keys: keys, table: newKeyTable(typesOf(keys, firstPositions(len(keys)))),
		rows: make([]column.Column, len(schema)), batch: column.NewBatch(keys),
	}
	for i := range schema {
		c.rows[i].Type = schema[i].Type
	}
	return c
}

// find gives the entry of every key, new ones for those that are not known.
func (c *lookupCache) find(keys keyRows, entries []int32) ([]int32, error) {
	c.turn++
	entries, err := c.table.assign(keys, entries)
	if err != nil {
		return nil, errors.New("the keys that the lookup remembers need more than 2 GiB of text; give its cache a smaller size")
	}
	for len(c.row) < c.table.len() {
		c.row, c.loaded, c.wanted = append(c.row, noEntry), append(c.loaded, unasked), append(c.wanted, 0)
	}
	return entries, nil
}

// missing lists those of the entries, each once, of which nothing is known that is young enough.
func (c *lookupCache) missing(entries []int32, now time.Duration) []int32 {
	c.absent = c.absent[:0]
	for _, e := range entries {
		if c.wanted[e] == c.turn {
			continue
		}
		c.wanted[e] = c.turn
		if c.loaded[e] == unasked || now-c.loaded[e] >= c.age {
			c.absent = append(c.absent, e)
		}
	}
	return c.absent
}

// question is the batch of these entries' keys.
func (c *lookupCache) question(entries []int32) (*column.Batch, error) {
	c.batch.Reset()
	for i := range c.batch.Cols {
		if err := c.batch.Cols[i].AppendRows(&c.table.cols[i], entries); err != nil {
			return nil, fmt.Errorf("the keys of one batch are too long: %w", err)
		}
	}
	c.batch.Len = len(entries)
	return c.batch, nil
}

// store keeps the answer to a question.
func (c *lookupCache) store(entries []int32, found *connector.Found, now time.Duration, connection string) error {
	if found.Rows == nil || found.Rows.Len != len(found.Key) || len(found.Rows.Cols) != len(c.rows) {
		return errors.New("the connector's answer does not fit the question; please report it")
	}
	for _, e := range entries {
		c.row[e], c.loaded[e] = noEntry, now
	}
	c.all = c.all[:0]
	for i, key := range found.Key {
		if key < 0 || int(key) >= len(entries) {
			return errors.New("the connector's answer names a key that was not asked for; please report it")
		}
		c.all = append(c.all, i32(i))
		e := entries[key]
		if c.row[e] == noEntry {
			c.row[e] = i32(c.n + i)
		} else if c.row[e] >= 0 {
			c.refuse(e, fmt.Sprintf("connection %s has more than one row for %s; compare more columns in on, or make the key unique", connection, c.describe(e)))
		}
	}
	for i := range c.rows {
		if err := c.rows[i].AppendRows(&found.Rows.Cols[i], c.all); err != nil {
			return fmt.Errorf("what the lookup remembers is too large, give its cache a smaller size: %w", err)
		}
	}
	c.n += len(c.all)
	for _, key := range sortedInts(found.Unreadable) {
		if key >= 0 && int(key) < len(entries) {
			c.refuse(entries[key], fmt.Sprintf("the row of connection %s for %s cannot be used: %s", connection, c.describe(entries[key]), found.Unreadable[key]))
		}
	}
	return nil
}

func sortedInts(m map[int32]string) []int32 {
	keys := make([]int32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// refuse notes why an entry's key cannot be used.
func (c *lookupCache) refuse(e int32, why string) {
	c.reasons = append(c.reasons, why)
	c.row[e] = i32(-1 - len(c.reasons))
}

// reason is why a key with that row cannot be used.
func (c *lookupCache) reason(row int32) string { return c.reasons[-2-row] }

// describe is a key for people.
func (c *lookupCache) describe(e int32) string {
	var text []byte
	for i := range c.table.cols {
		if i > 0 {
			text = append(text, ", "...)
		}
		text = append(append(text, c.keys[i].Name...), " = "...)
		text = column.AppendJSON(text, &c.table.cols[i], int(e))
	}
	return excerpt.Bytes(text, 200)
}

// trim makes room. It must not run between find and the last use of its entries.
func (c *lookupCache) trim() {
	if c.table.len() <= c.size && c.n <= 2*c.size+maxQuestion {
		return
	}
	keep := make([]int32, c.table.len())
	for i := range keep {
		keep[i] = i32(i)
	}
	if len(keep) > c.size {
		slices.SortStableFunc(keep, func(a, b int32) int {
			switch {
			case c.wanted[a] > c.wanted[b]:
				return -1
			case c.wanted[a] < c.wanted[b]:
				return 1
			}
			return 0
		})
		keep = keep[:max(c.size-c.size/4, 1)]
		slices.Sort(keep)
	}
	c.keep(keep)
}

// keep forgets all other entries, and the rows that none of these has.
func (c *lookupCache) keep(entries []int32) {
	c.table.compact(entries, nil)
	c.row, c.loaded, c.wanted = compactSlice(c.row, entries), compactSlice(c.loaded, entries), compactSlice(c.wanted, entries)
	// Rows do not rise with the entries, since one may have been asked for again, so they are put in a new order.
	var rows []int32
	var reasons []string
	for e, row := range c.row {
		switch {
		case row >= 0:
			c.row[e] = i32(len(rows))
			rows = append(rows, row)
		case row < noEntry:
			reasons = append(reasons, c.reason(row))
			c.row[e] = i32(-1 - len(reasons))
		}
	}
	c.reasons, c.n = reasons, len(rows)
	for i := range c.rows {
		fresh := column.Column{Type: c.rows[i].Type}
		if err := fresh.AppendRows(&c.rows[i], rows); err != nil {
			panic("engine: a part of a column is larger than the whole: " + err.Error())
		}
		c.rows[i] = fresh
	}
}
