package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

var budgetSeed = flag.Uint64("budget.seed", 0, "repeats the random test of the budget") //nolint:gochecknoglobals // a test flag

// feed is a stream that gives one message, step bytes every pause, and stops for ever after so many bytes.
type feed struct {
	message  io.Reader
	step     int
	pause    time.Duration
	left     int
	deadline atomic.Pointer[time.Time]
	moved    chan struct{}
}

// newFeed is a stream with one large insight.
func newFeed(t *testing.T, size int) *feed {
	t.Helper()
	var framed bytes.Buffer
	if err := wire.WriteMessage(&framed, &wire.InsightRecord{ValuesJson: make([]byte, size)}); err != nil {
		t.Fatal(err)
	}
	return &feed{message: &framed, step: size, left: framed.Len(), moved: make(chan struct{}, 1)}
}

// holding is a stream of which the last byte does not come.
func holding(t *testing.T, size int) *feed {
	t.Helper()
	f := newFeed(t, size)
	f.left--
	return f
}

// Read gives what comes.
func (f *feed) Read(p []byte) (int, error) {
	for {
		limit := time.NewTimer(time.Until(*f.deadline.Load()))
		var next <-chan time.Time
		if f.left > 0 {
			next = time.NewTimer(f.pause).C
		}
		select {
		case <-next:
			n, err := f.message.Read(p[:min(len(p), f.step, f.left)])
			f.left -= n
			return n, err
		case <-limit.C:
			return 0, errTestTimeout
		case <-f.moved:
			limit.Stop()
		}
	}
}

var errTestTimeout = errors.New("the deadline has passed")

// SetReadDeadline ends reads at that time.
func (f *feed) SetReadDeadline(at time.Time) error {
	f.deadline.Store(&at)
	select {
	case f.moved <- struct{}{}:
	default:
	}
	return nil
}

func agentNamed(tenant, agent string) fleet.AgentIdentity {
	return fleet.AgentIdentity{Tenant: fleet.ID(tenant), Agent: fleet.ID(agent)}
}

// take reads a message, and then calls stored while it still has its memory.
func (b *budget) take(id fleet.AgentIdentity, f *feed, stored func()) error {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	share := b.begin(id, f, end)
	defer share.release()
	err := wire.ReadMessageIn(share, &wire.InsightRecord{}, func(more, left int) error { return share.room(ctx, more, left) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		share.finish()
		stored()
	}
	return err
}

const mega = 1 << 20

// TestBudgetEndsThoseThatHold has as many agents hold large messages as there is memory for. Another one gets its message
// through after the time that each has, and at once from then on, as those that held come after others and are told to stay away.
func TestBudgetEndsThoseThatHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		var all sync.WaitGroup
		var stalled atomic.Int32
		hog := func(n int) {
			all.Go(func() {
				err := b.take(agentNamed("bad", strconv.Itoa(n)), holding(t, 3*mega), func() { t.Error("it was whole") })
				if errors.Is(err, errTestTimeout) {
					stalled.Add(1)
					return
				}
				r, ok := errors.AsType[*refusal](err)
				if !ok || r.code != wire.RefusalUnavailable || r.after != comeBack {
					t.Errorf("a message that was held ended with %v", err)
				}
			})
		}
		for n := range 3 {
			hog(n)
			synctest.Wait()
		}
		honest := func() time.Duration {
			began := time.Now()
			if err := b.take(agentNamed("good", "g"), newFeed(t, wire.MaxMessage-100), func() {}); err != nil {
				t.Errorf("another agent's message: %v", err)
			}
			return time.Since(began)
		}
		if took := honest(); took < dueAfter || took > dueAfter+lookEvery {
			t.Errorf("another agent's message took %v", took)
		}
		if wait := b.early("0"); wait <= 0 || wait > comeBack || b.early("g") != 0 {
			t.Errorf("one that held may come back in %v, another in %v", wait, b.early("g"))
		}
		for n := range 3 {
			hog(n)
			synctest.Wait()
		}
		if took := honest(); took > lookEvery {
			t.Errorf("the next message of another agent took %v", took)
		}
		// Nobody wants what one more holds: it goes as nothing comes of it.
		began := time.Now()
		hog(7)
		all.Wait()
		if took := time.Since(began); took != stalledAfter || stalled.Load() != 1 {
			t.Errorf("%d have stalled, the last one after %v", stalled.Load(), took)
		}
		if b.free != budgetBytes || len(b.holding) > 0 {
			t.Errorf("%d bytes of %d are free", b.free, budgetBytes)
		}
	})
}

// TestBudgetRandomly has many agents of a few organizations send messages of any size at the same time, none of them slowly:
// there is never more in memory than there may be, and all of it arrives.
func TestBudgetRandomly(t *testing.T) {
	t.Parallel()
	seed := *budgetSeed
	if seed == 0 {
		seed = rand.Uint64() //nolint:gosec // a test's
	}
	t.Logf("-budget.seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 8)) //nolint:gosec // as above
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		var all sync.WaitGroup
		for n := range budgetWaiters {
			f := newFeed(t, 1+random.IntN(wire.MaxMessage-100))
			f.step, f.pause = f.left/(1+random.IntN(50))+1, 10*time.Millisecond
			all.Go(func() {
				id := agentNamed(fmt.Sprint("t", n%3), strconv.Itoa(n))
				err := b.take(id, f, func() {
					b.mu.Lock()
					defer b.mu.Unlock()
					held := 0
					for s := range b.holding {
						held += s.held
					}
					if b.free < 0 || held+b.free != budgetBytes {
						t.Errorf("%d are held and %d free", held, b.free)
					}
				})
				if err != nil {
					t.Errorf("agent %d: %v", n, err)
				}
			})
		}
		all.Wait()
		if b.free != budgetBytes || len(b.holding)+b.waiting.Len() > 0 {
			t.Errorf("%d bytes are free, %d wait", b.free, b.waiting.Len())
		}
	})
}

// TestBudgetTooManyWait has more wait than may: of the organization that has the most, and not of the other.
func TestBudgetTooManyWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		ended := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			// One that is whole and is being stored keeps all.
			if err := b.take(agentNamed("x", "x"), newFeed(t, wire.MaxMessage-100), func() { <-ended }); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := b.take(agentNamed("y", "y"), newFeed(t, budgetBytes-wire.MaxMessage), func() { <-ended }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if err := b.take(agentNamed("good", "g"), newFeed(t, mega), func() {}); err != nil {
				t.Errorf("the only one of its organization: %v", err)
			}
		})
		synctest.Wait()
		var refused atomic.Int32
		for n := range budgetWaiters + 3 {
			all.Go(func() {
				if err := b.take(agentNamed("bad", strconv.Itoa(n)), newFeed(t, mega), func() {}); err != nil {
					refused.Add(1)
				}
			})
			synctest.Wait()
		}
		close(ended)
		all.Wait()
		if refused.Load() != 4 {
			t.Errorf("%d were refused, want 4", refused.Load())
		}
	})
}

// TestPrefixAlone announces much and costs nothing.
func TestPrefixAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		f := newFeed(t, 1)
		f.message, f.left = bytes.NewReader(binary.BigEndian.AppendUint32(nil, wire.MaxMessage)), 4
		if err := b.take(agentNamed("t", "a"), f, func() {}); !errors.Is(err, errTestTimeout) || b.free != budgetBytes {
			t.Errorf("%v, and %d bytes are free", err, b.free)
		}
	})
}
