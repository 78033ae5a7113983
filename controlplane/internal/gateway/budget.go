package gateway

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/internal/source"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// budgetBytes is what the messages under way of all agents may take together, each beyond its first wire.FreeBody bytes:
	// the largest message, and a quarter of that for others beside it.
	budgetBytes = 10 << 20
	// budgetWaiters is how many may wait for some of it. What each has sent ahead waits in memory too.
	budgetWaiters = 16
	// dueAfter is how long a message may take when others wait for its memory, not counting when it waits itself; the
	// slowest goes. lookEvery is how often that is looked at.
	dueAfter  = 3 * time.Second
	lookEvery = 250 * time.Millisecond
	// stalledAfter is how long nothing may come of a message that has begun. A bad link has 90 s to give a sign of life.
	stalledAfter = 2 * time.Minute
	// comeBack is when an agent whose message was ended may try again; shameLasts for how long it comes after others, and
	// maxShamed how many are remembered.
	comeBack   = 30 * time.Second
	shameLasts = 5 * time.Minute
	maxShamed  = 10_000
)

// budget is the memory for messages under way. Who wants more than there is waits, and is not read meanwhile. While somebody
// waits, the messages that come the slowest are ended, those of agents first that this has befallen lately, and of the
// organization first that holds the most: so whoever begins many and finishes none keeps nobody else from finishing theirs.
type budget struct {
	mu   sync.Mutex
	free int
	// holding are those that have some, in no order; waiting those that want more, the oldest first.
	holding map[*share]struct{}
	waiting source.Crowd[fleet.ID, *share]
	// shamed are the agents whose message was ended, and until when that counts.
	shamed map[fleet.ID]time.Time
	// next is when those that wait are looked at again; nil when nobody waits.
	next *time.Timer
}

// share is what one message has of the budget, from its first byte until it is stored. It reads the message.
type share struct {
	budget *budget
	id     fleet.AgentIdentity
	stream incoming
	end    context.CancelCauseFunc

	// The budget's mutex protects the rest. held is what it has, left what it needs beside that to be whole, of which it
	// waits for want, and ended that it has to go.
	held, want, left int
	ended            bool
	member           *source.Member[fleet.ID, *share]
	granted          chan struct{}
	// got is how much of the message came, in active and since resumed; resumed is zero while it waits, and whole says that
	// all has come.
	got     int
	active  time.Duration
	resumed time.Time
	whole   bool
}

// incoming is a stream that is read.
type incoming interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}

func newBudget() *budget {
	return &budget{free: budgetBytes, holding: map[*share]struct{}{}, shamed: map[fleet.ID]time.Time{}}
}

// crowdedOut is what is said to an agent whose message was ended.
func crowdedOut(after time.Duration, err error) error {
	return &refusal{
		code: wire.RefusalUnavailable, after: after, err: err,
		message: "too many large messages are under way, and this agent's came too slowly; it is to be sent again later",
	}
}

var (
	// errSlow is why a message was ended when others waited, errWaiting why one that waited was.
	errSlow    = errors.New("the message came more slowly than others, which wait for its memory")
	errWaiting = errors.New("too many messages wait for memory")
	// errEarly is why the agent of such a message is not let in again at once.
	errEarly = errors.New("the agent came back too early")
	// errStalled is why a message that does not come was ended.
	errStalled = errors.New("the rest of a message did not come within " + stalledAfter.String())
)

// message reads the message that has begun on a stream and calls then with it. end ends the session.
func (p *peer) message(ctx context.Context, s *session, stream *mux.Stream, into proto.Message, then func() error) error {
	share := p.gateway.budget.begin(p.id, stream, s.end)
	defer share.release()
	err := wire.ReadMessageIn(share, into, func(more, left int) error { return share.room(ctx, more, left) })
	if err == nil {
		err = stream.SetReadDeadline(time.Time{})
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, mux.ErrReadTimeout):
		return &refusal{code: wire.RefusalProtocol, message: errStalled.Error()}
	case err != nil:
		return oversized(err)
	}
	share.finish()
	return then()
}

// begin is for a message of an agent that has begun on a stream. end ends the session.
func (b *budget) begin(id fleet.AgentIdentity, stream incoming, end context.CancelCauseFunc) *share {
	return &share{budget: b, id: id, stream: stream, end: end, resumed: time.Now()}
}

// Read reads the message, of which something has to come now and then.
func (s *share) Read(p []byte) (int, error) {
	s.budget.mu.Lock()
	ended := s.ended
	if !ended {
		// Under the mutex, so that a deadline that has ended it stays.
		_ = s.stream.SetReadDeadline(time.Now().Add(stalledAfter)) // it gives no error
	}
	s.budget.mu.Unlock()
	if ended {
		return 0, errSlow
	}
	n, err := s.stream.Read(p)
	s.budget.mu.Lock()
	s.got += n
	s.budget.mu.Unlock()
	return n, err //nolint:wrapcheck // ReadMessageIn compares it with io.EOF
}

// room waits for so many bytes more, after which so many are still to come.
func (s *share) room(ctx context.Context, more, left int) error {
	b := s.budget
	b.mu.Lock()
	if s.ended {
		b.mu.Unlock()
		return errSlow
	}
	now := time.Now()
	s.active += now.Sub(s.resumed)
	s.resumed = time.Time{}
	s.want, s.left, s.granted = more, more+left, make(chan struct{})
	s.member = b.waiting.Add(s.id.Tenant, s)
	b.proceed(now)
	if b.waiting.Len() > budgetWaiters {
		b.oust(b.last(now), errWaiting)
	}
	granted := s.granted
	b.mu.Unlock()
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish notes that the message is whole: what it has is given back once it is stored, which takes as long as it takes.
func (s *share) finish() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.whole = true
}

// release gives back what it has.
func (s *share) release() {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.held == 0 && s.member == nil {
		return
	}
	b.waiting.Remove(s.member)
	s.member = nil
	b.free += s.held
	s.held = 0
	delete(b.holding, s)
	b.proceed(time.Now())
}

// proceed gives to those that wait, as long as there is enough, and makes room for the first of the others. mu is held.
func (b *budget) proceed(now time.Time) {
	if b.next != nil {
		b.next.Stop()
		b.next = nil
	}
	for b.waiting.Len() > 0 {
		queue := b.queue(now)
		n := slices.IndexFunc(queue, func(s *share) bool { return b.fits(s, b.free) })
		if n < 0 {
			b.makeRoom(queue[0], now)
			b.next = time.AfterFunc(lookEvery, func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.proceed(time.Now())
			})
			return
		}
		s := queue[n]
		b.free -= s.want
		s.held += s.want
		s.left -= s.want
		b.holding[s] = struct{}{}
		b.waiting.Remove(s.member)
		s.member, s.want, s.resumed = nil, 0, now
		close(s.granted)
	}
}

// queue are those that wait, the next first: those of agents that have no other message under way and whose last was not
// ended, and of them those that need the least. mu is held.
func (b *budget) queue(now time.Time) []*share {
	holders := map[fleet.ID]int{}
	for s := range b.holding {
		holders[s.id.Agent]++
	}
	rank := func(s *share) int {
		others := holders[s.id.Agent]
		if s.held > 0 {
			others--
		}
		return min(others, 1) + 2*b.shame(s, now)
	}
	queue := make([]*share, 0, b.waiting.Len())
	for m := range b.waiting.All() {
		queue = append(queue, m.Value)
	}
	slices.SortFunc(queue, func(x, y *share) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.left, y.left))
	})
	return queue
}

// fits says whether one that waits can have what it wants of what is free, such that all that have some can still be whole, one
// after the other: no two wait for each other for ever. mu is held.
func (b *budget) fits(waiting *share, free int) bool {
	type need struct{ held, left int }
	needs := []need{{waiting.held + waiting.want, waiting.left - waiting.want}}
	for s := range b.holding {
		if s != waiting && !s.ended {
			needs = append(needs, need{s.held, s.left})
		}
	}
	slices.SortFunc(needs, func(x, y need) int { return cmp.Compare(x.left, y.left) })
	if free -= waiting.want; free < 0 {
		return false
	}
	for _, n := range needs {
		if n.left > free {
			return false
		}
		free += n.held
	}
	return true
}

// last is who goes when too many wait: one of an agent whose last message was ended, or that has another under way, and else
// the oldest of the organization that has the most. mu is held.
func (b *budget) last(now time.Time) *share {
	under := map[fleet.ID]int{}
	for s := range b.holding {
		under[s.id.Agent]++
	}
	for m := range b.waiting.All() {
		if m.Value.held == 0 {
			under[m.Value.id.Agent]++
		}
	}
	last, most := b.waiting.Next().Value, 0
	for m := range b.waiting.All() {
		if rank := 2*b.shame(m.Value, now) + min(1, under[m.Value.id.Agent]-1); rank > most {
			last, most = m.Value, rank
		}
	}
	if most > 0 {
		b.blame(last, now)
	}
	return last
}

// shame is 1 for a message of an agent whose last was ended, 0 for others. mu is held.
func (b *budget) shame(s *share, now time.Time) int {
	if b.shamed[s.id.Agent].After(now) {
		return 1
	}
	return 0
}

// makeRoom ends messages until there will be enough for one that waits, if some may be ended. mu is held.
func (b *budget) makeRoom(waiting *share, now time.Time) {
	coming := b.free
	var due []*share
	for s := range b.holding {
		switch {
		case s.ended:
			coming += s.held
		case s != waiting && b.due(s, waiting, now):
			due = append(due, s)
		}
	}
	b.sort(due, now)
	for _, s := range due {
		if b.fits(waiting, coming) {
			return
		}
		coming += s.held
		b.oust(s, errSlow)
		b.blame(s, now)
	}
}

// due says whether a message may be ended for one that waits: it was given its time, or is of an agent whose last was ended.
// mu is held.
func (b *budget) due(s, waiting *share, now time.Time) bool {
	switch {
	case s.whole:
		return false
	case b.shame(s, now) > b.shame(waiting, now):
		return true
	default:
		return s.member == nil && s.active+now.Sub(s.resumed) >= dueAfter
	}
}

// sort puts those first that go first. mu is held.
func (b *budget) sort(due []*share, now time.Time) {
	tenants := map[fleet.ID]int{}
	for s := range b.holding {
		tenants[s.id.Tenant] += s.held
	}
	slices.SortFunc(due, func(x, y *share) int {
		return cmp.Or(
			cmp.Compare(b.shame(y, now), b.shame(x, now)),
			cmp.Compare(tenants[y.id.Tenant], tenants[x.id.Tenant]),
			cmp.Compare(x.rate(now), y.rate(now)),
		)
	})
}

// early is for how long an agent whose message was ended has yet to stay away; 0 for others.
func (b *budget) early(agent fleet.ID) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, time.Until(b.shamed[agent].Add(comeBack-shameLasts)))
}

// rate is how many bytes of it came in a second.
func (s *share) rate(now time.Time) float64 {
	took := s.active
	if !s.resumed.IsZero() {
		took += now.Sub(s.resumed)
	}
	return float64(s.got) / max(took, time.Millisecond).Seconds()
}

// oust ends one. Its memory comes back when its reader notices, which is at once. mu is held.
func (b *budget) oust(s *share, why error) {
	s.ended = true
	b.waiting.Remove(s.member)
	s.member = nil
	s.end(crowdedOut(comeBack, why))
	_ = s.stream.SetReadDeadline(time.Unix(1, 0)) // it gives no error
}

// blame remembers whose message was ended. mu is held.
func (b *budget) blame(s *share, now time.Time) {
	if len(b.shamed) >= maxShamed {
		for agent, until := range b.shamed {
			if !until.After(now) {
				delete(b.shamed, agent)
			}
		}
	}
	if len(b.shamed) < maxShamed {
		b.shamed[s.id.Agent] = now.Add(shameLasts)
	}
}
