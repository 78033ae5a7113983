package agent

import (
	"sync"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// counterAhead is how many connect counters are kept in memory: so many times the agent can connect again while its disk
// takes no writes.
const counterAhead = 8

// counters gives the connect counters of an identity, which are on the disk before they are used, some connections ahead.
// What is kept in memory is skipped by the next start, so that no number is ever used twice.
type counters struct {
	identity interface{ NextCounter() (uint64, error) }
	// spare frees a little room on a full disk and says whether there was any.
	spare func() bool

	mu    sync.Mutex
	ahead []uint64
}

// NextCounter is for the tunnel. It fails only when the disk takes no writes and nothing is left in memory.
func (c *counters) NextCounter() (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed error
	for len(c.ahead) <= counterAhead && failed == nil {
		var n uint64
		n, failed = c.identity.NextCounter()
		if failed != nil && len(c.ahead) == 0 && stage.IsNoSpace(failed) && c.spare() {
			n, failed = c.identity.NextCounter()
		}
		if failed == nil {
			c.ahead = append(c.ahead, n)
		}
	}
	if len(c.ahead) == 0 {
		return 0, failed
	}
	n := c.ahead[0]
	c.ahead = c.ahead[1:]
	return n, nil
}
