package source

import (
	"container/list"
	"iter"
)

// Crowd keeps members in the order in which they came, and knows whose they are. K is the source, T what a member is.
// The zero Crowd is empty.
type Crowd[K comparable, T any] struct {
	// Modest is how many members a source may have without being called greedy. Where each of many sources has one, who
	// happens to have two is no reason for them to go.
	Modest int

	shares map[K]*list.List
	count  int
	// came is the number of the newest member.
	came uint64
}

// Member is one of a Crowd.
type Member[K comparable, T any] struct {
	Value   T
	from    K
	came    uint64
	element *list.Element
}

// From is the source.
func (m *Member[K, T]) From() K { return m.from }

// Add takes one in, as the newest.
func (c *Crowd[K, T]) Add(from K, value T) *Member[K, T] {
	if c.shares == nil {
		c.shares = map[K]*list.List{}
	}
	share := c.shares[from]
	if share == nil {
		share = list.New()
		c.shares[from] = share
	}
	c.came++
	c.count++
	m := &Member[K, T]{Value: value, from: from, came: c.came}
	m.element = share.PushBack(m)
	return m
}

// Remove takes one out; one that is out already, or nil, changes nothing.
func (c *Crowd[K, T]) Remove(m *Member[K, T]) {
	if m == nil || m.element == nil {
		return
	}
	share := c.shares[m.from]
	share.Remove(m.element)
	m.element = nil
	c.count--
	if share.Len() == 0 {
		delete(c.shares, m.from)
	}
}

// Len is how many there are.
func (c *Crowd[K, T]) Len() int { return c.count }

// Of is how many of a source there are.
func (c *Crowd[K, T]) Of(from K) int {
	if share := c.shares[from]; share != nil {
		return share.Len()
	}
	return 0
}

// Around is how many there are for a source to make way for: all of its own, and of each other one as many as most, so that
// no other source decides alone.
func (c *Crowd[K, T]) Around(from K, most int) int {
	n := 0
	for other, share := range c.shares {
		if other == from {
			n += share.Len()
		} else {
			n += min(share.Len(), most)
		}
	}
	return n
}

// All gives every member, those of a source together and its oldest first.
func (c *Crowd[K, T]) All() iter.Seq[*Member[K, T]] {
	return func(yield func(*Member[K, T]) bool) {
		for _, share := range c.shares {
			for e := share.Front(); e != nil; e = e.Next() {
				if m, ok := e.Value.(*Member[K, T]); ok && !yield(m) {
					return
				}
			}
		}
	}
}

// Sources is how many sources have a member.
func (c *Crowd[K, T]) Sources() int { return len(c.shares) }

// Next is the one to go when there are too many: the oldest of the source that has the most; of sources that have the
// same number, or are modest, the oldest of all. It is nil when there is none. So who comes seldom is not touched by who
// comes often, and of one source those that are slow go first. It looks at every source, of which there are no more than
// members.
func (c *Crowd[K, T]) Next() *Member[K, T] {
	return c.pick((*list.List).Front, func(more int, came, before uint64) bool { return more > 0 || more == 0 && came < before })
}

// First is the one to be served first when not all can be: the opposite of Next. It is the newest of the source that has the
// fewest; of sources that have the same number, or are modest, the newest of all. Where more come than can be served, those
// that are served are served at once, instead of all being served too late. It is nil when there is none.
func (c *Crowd[K, T]) First() *Member[K, T] {
	return c.pick((*list.List).Back, func(more int, came, before uint64) bool { return more < 0 || more == 0 && came > before })
}

// pick compares one member of each source with the best one before: by how many more its source has, and when they came.
func (c *Crowd[K, T]) pick(of func(*list.List) *list.Element, better func(more int, came, before uint64) bool) *Member[K, T] {
	var best *Member[K, T]
	count := 0
	for _, share := range c.shares {
		m, ok := of(share).Value.(*Member[K, T])
		n := max(share.Len(), c.Modest)
		if ok && (best == nil || better(n-count, m.came, best.came)) {
			best, count = m, n
		}
	}
	return best
}
