package engine

import (
	"errors"
	"io"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// merge puts results together: for each left key those of the results that choose names, one after the other. The
// results are removed.
func (s *spilledJoin) merge(left *spillWriter, results []*spillWriter, choose func(hash uint64) (from, to int)) (*spillWriter, error) {
	if len(results) == 1 {
		return results[0], nil
	}
	m := &merger{s: s, prober: newProber(s, nil), cursors: cursorsOf(results), choose: choose}
	r := left.reader()
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = m.add(b)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, w := range results {
		if err := w.remove(); err != nil {
			return nil, err
		}
	}
	return m.prober.finish()
}

// merger puts results together.
type merger struct {
	s       *spilledJoin
	prober  *prober
	cursors []*resultCursor
	choose  func(hash uint64) (from, to int)
	n       int
}

func (m *merger) add(b *column.Batch) error {
	keys := m.s.side.load(b)
	hashes := m.s.table.hasher.hash(keys)
	for i := range keys.rows {
		from, to := m.choose(hashes[i])
		matches := 0
		for _, c := range m.cursors[from:to] {
			n, err := m.take(c)
			if err != nil {
				return err
			}
			matches += n
		}
		if matches > 0 {
			more := m.prober.cols[resultMore].Bools
			more[len(more)-1] = false
		} else {
			for k := range m.prober.cols {
				m.prober.cols[k].AppendNull()
			}
			m.n++
		}
		if m.full() {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	return m.flush()
}

// take copies the matches of the next left key out of one result.
func (m *merger) take(c *resultCursor) (matches int, err error) {
	for {
		b, row, err := c.next()
		if err != nil {
			return 0, err
		}
		if b.Cols[resultMatch].Bools[row] {
			// A left key with very many matches must not gather here, so its last one alone stays behind.
			if m.n > 1 && matches > 0 && m.full() {
				if err := m.flushBut(); err != nil {
					return 0, err
				}
			}
			for k := range m.prober.cols {
				m.prober.cols[k].AppendFrom(&b.Cols[k], row)
			}
			more := m.prober.cols[resultMore].Bools
			more[len(more)-1] = true
			m.n++
			matches++
		}
		if !b.Cols[resultMore].Bools[row] {
			return matches, nil
		}
	}
}

// full says that what was gathered is to be written.
func (m *merger) full() bool { return m.n >= spillRows || ownText(m.prober.cols) >= batchText }

// flush writes what was gathered. A row of no match was added as one of nulls, whose flags count as false.
func (m *merger) flush() error { return m.write(m.n) }

// flushBut is flush for all but the last row, whose flag may still change.
func (m *merger) flushBut() error { return m.write(m.n - 1) }

func (m *merger) write(n int) error {
	p := m.prober
	p.all = sequence(p.all, m.n)
	for _, flag := range p.cols[:resultKept] {
		clear(flag.Nulls)
	}
	if err := p.out.append(p.refs, p.all[:n]); err != nil {
		return err
	}
	last := p.all[n:m.n]
	kept := make([]column.Column, len(p.cols))
	for k := range p.cols {
		kept[k].Type = p.cols[k].Type
		for _, row := range last {
			kept[k].AppendFrom(&p.cols[k], int(row))
		}
		p.cols[k].Reset()
		for row := range last {
			p.cols[k].AppendFrom(&kept[k], row)
		}
	}
	m.n = len(last)
	return nil
}

// resultCursor goes through a result row by row.
type resultCursor struct {
	file  *spillWriter
	r     *spillReader
	batch *column.Batch
	at    int
}

func cursorsOf(results []*spillWriter) []*resultCursor {
	list := make([]*resultCursor, len(results))
	for i, w := range results {
		list[i] = &resultCursor{file: w, r: w.reader()}
	}
	return list
}

// next gives a row, which is valid until the next call.
func (c *resultCursor) next() (b *column.Batch, row int, err error) {
	if c.batch == nil || c.at == c.batch.Len {
		if c.batch, err = c.r.next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = errSpillDamaged
			}
			return nil, 0, err
		}
		c.at = 0
	}
	row = c.at
	c.at++
	return c.batch, row, nil
}
