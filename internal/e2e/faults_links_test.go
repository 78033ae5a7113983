package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent"
)

// badLinksFor is how long the sessions over bad links are watched; 0 for the length of the test's form.
var badLinksFor = flag.Duration("links", 0, "how long sessions over bad links are watched; 0 for half a minute, and for 20 minutes with -long")

// badLink is a link and how many agents are watched over it at the same time, each over one of its own.
type badLink struct {
	name     string
	up, down quality
	// agents are those of the long form; the short one has one.
	agents int
}

// Delay and loss are those of each direction.
var badLinks = []badLink{ //nolint:gochecknoglobals // a table
	{"Delay2sLoss20OneWay", quality{delay: 2 * time.Second, loss: 0.2}, quality{}, 4},
	{"Delay1sLoss20", quality{delay: time.Second, loss: 0.2}, quality{delay: time.Second, loss: 0.2}, 4},
	{"Delay2sLoss20", quality{delay: 2 * time.Second, loss: 0.2}, quality{delay: 2 * time.Second, loss: 0.2}, 12},
	{"Rate32k", quality{rate: 32_000}, quality{rate: 32_000}, 4},
}

// TestFaultBadLinks holds sessions over bad links: insights arrive all the time, and at most one session an hour ends.
func TestFaultBadLinks(t *testing.T) {
	t.Parallel()
	if !inLab(t) {
		return
	}
	l := newLab(t)
	random := random(t)
	watch := *badLinksFor
	if watch == 0 {
		if watch = 30 * time.Second; *long {
			watch = 20 * time.Minute
		}
	}
	stop := make(chan struct{})
	var appending sync.WaitGroup
	appending.Go(func() { l.more(stop) })
	t.Cleanup(func() {
		close(stop)
		appending.Wait()
	})
	for _, link := range badLinks {
		n := 1
		if *long {
			n = link.agents
		}
		seeds := make([]uint64, n)
		for i := range seeds {
			seeds[i] = random.Uint64()
		}
		t.Run(link.name, func(t *testing.T) {
			t.Parallel()
			l.watch(t, link, seeds, watch)
		})
	}
}

// more adds a row every few seconds.
func (l *lab) more(stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for n := flowRows; ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		f, err := os.OpenFile(filepath.Join(l.flow, "rows.csv"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			l.t.Error(err)
			return
		}
		_, err = fmt.Fprintf(f, "2026-01-01T00:00:00Z,press-17,%s,%d\n", flowMark, n)
		if closed := f.Close(); err != nil || closed != nil {
			l.t.Error(err, closed)
			return
		}
	}
}

// watch holds sessions over links of one kind, and counts those that end.
func (l *lab) watch(t *testing.T, link badLink, seeds []uint64, d time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var all time.Duration
	drops := 0
	t.Run("Agents", func(t *testing.T) {
		for i, seed := range seeds {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				took, n := l.hold(t, link, seed, d)
				mu.Lock()
				defer mu.Unlock()
				all += took
				drops += n
			})
		}
	})
	t.Logf("%s: %d sessions ended in %.1f hours", link.name, drops, all.Hours())
	if float64(drops) > max(1, all.Hours()) {
		t.Errorf("%d sessions ended in %s, that is more than one an hour", drops, all)
	}
}

// hold connects an agent over a bad link and gives for how long it was watched, and how many of its sessions ended.
func (l *lab) hold(t *testing.T, link badLink, seed uint64, d time.Duration) (watched time.Duration, drops int) {
	t.Helper()
	m, _ := l.direct(t)
	m.plant.wire.seed(seed)
	m.plant.wire.up.set(link.up)
	m.plant.wire.down.set(link.down)
	at := time.Now()
	m.start()
	m.untilConnected(3 * deadline)
	t.Logf("connected after %s", time.Since(at).Round(100*time.Millisecond))
	began := time.Now()
	before := m.sessions()
	m.deploy()
	m.until("the insights are stored", 3*deadline, func(s agent.LocalStatus) bool { return s.Outbox.Acknowledged >= flowRows })
	t.Logf("%d insights stored after %s", flowRows, time.Since(began).Round(100*time.Millisecond))
	var longest, behind time.Duration
	last := uint64(0)
	for since := time.Now(); time.Since(began) < d; {
		wait(t, 2*time.Second)
		// On a busy machine the agent may not answer at once.
		if s, err := m.status(); err == nil && s.Outbox.Acknowledged > last {
			last, since = s.Outbox.Acknowledged, time.Now()
		}
		behind = time.Since(since)
		longest = max(longest, behind)
	}
	watched = time.Since(began)
	drops = m.sessions() - before
	t.Logf("watched for %s: %d sessions ended, %d insights stored, at most %s without one", watched.Round(time.Second), drops, last, longest.Round(time.Second))
	if drops > 0 {
		t.Logf("the agent's log:\n%s", tail(m.log(), 6000))
	}
	if longest > 2*time.Minute {
		t.Errorf("for %s no insight was stored", longest)
	}
	return watched, drops
}

// seed makes what is lost another sequence.
func (w *wire) seed(seed uint64) {
	for i, l := range []*lane{w.up, w.down} {
		l.mu.Lock()
		l.rand = rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // a repeatable sequence is wanted
		l.mu.Unlock()
	}
}
