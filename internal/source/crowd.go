package source

import "container/list"

// Crowd keeps members in the order in which they came, and knows whose they are. K is the source, T what a member is.
// The zero Crowd is empty.
type Crowd[K comparable, T any] struct {
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

// Sources is how many sources have a member.
func (c *Crowd[K, T]) Sources() int { return len(c.shares) }

// Oldest is the one that came first; nil when there is none. It looks at every source, of which there are no more than
// members.
func (c *Crowd[K, T]) Oldest() *Member[K, T] {
	return c.pick(func(*list.List, *list.List) int { return 0 })
}

// Next is the one to go when there are too many: the oldest of the source that has the most; of sources that have the
// same number, the oldest of all. It is nil when there is none. So who comes seldom is not touched by who comes often,
// and of one source those that are slow go first.
func (c *Crowd[K, T]) Next() *Member[K, T] {
	return c.pick(func(a, b *list.List) int { return a.Len() - b.Len() })
}

func (c *Crowd[K, T]) pick(compare func(a, b *list.List) int) *Member[K, T] {
	var most *list.List
	var oldest *Member[K, T]
	for _, share := range c.shares {
		first, ok := share.Front().Value.(*Member[K, T])
		if !ok {
			continue
		}
		if most != nil {
			if d := compare(share, most); d < 0 || d == 0 && first.came > oldest.came {
				continue
			}
		}
		most, oldest = share, first
	}
	return oldest
}
