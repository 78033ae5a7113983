package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// place is a connection to an address.
type place struct {
	net.Conn
	at netip.Addr
}

func (p place) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.at, 443))
}

// places are addresses that answer after a time, or never; what is behind them is the test's.
type places struct {
	t       *testing.T
	answers map[string]time.Duration
	dialer  *dialer

	mu    sync.Mutex
	order []string
}

func newPlaces(t *testing.T, answers map[string]time.Duration) *places {
	t.Helper()
	p := &places{t: t, answers: answers, dialer: &dialer{names: newNames()}}
	p.dialer.names.ask = func(_ context.Context, network, _ string) found {
		var out []netip.Addr
		for a := range answers {
			if at := netip.MustParseAddr(a); at.Is4() == (network == "ip4") {
				out = append(out, at)
			}
		}
		slices.SortFunc(out, netip.Addr.Compare)
		return found{addrs: out}
	}
	return p
}

func (p *places) open(ctx context.Context, address string, _ func() func()) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.order = append(p.order, host)
	p.mu.Unlock()
	after, ok := p.answers[host]
	if !ok {
		return nil, io.EOF
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client, server := net.Pipe()
	p.t.Cleanup(func() { _ = server.Close() })
	return place{client, netip.MustParseAddr(host)}, nil
}

// reach gives the address that won, and how long that took.
func (p *places) reach() (string, time.Duration) {
	p.t.Helper()
	began := time.Now()
	conn, err := p.dialer.reach(p.t.Context(), "cp.example", "443", p.open)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	at, ok := addressOf(conn)
	if !ok {
		p.t.Fatalf("%v is no address", conn.RemoteAddr())
	}
	return at.String(), time.Since(began)
}

const never = time.Hour

// TestAnAddressThatLedNowhereIsHeldBack has a quick address that leads nowhere beside others.
func TestAnAddressThatLedNowhereIsHeldBack(t *testing.T) {
	t.Parallel()
	const quick, second, third = "10.0.0.1", "10.0.0.2", "10.0.0.3"
	for name, c := range map[string]struct {
		answers map[string]time.Duration
		wins    []string
		// took is the longest of the searches.
		took     time.Duration
		untried  bool
		comeback bool
	}{
		"a far one":             {map[string]time.Duration{quick: 0, second: 2 * time.Second}, []string{quick, second, quick}, heldBack, false, false},
		"a black hole":          {map[string]time.Duration{quick: 0, second: never}, []string{quick, quick, quick}, heldBack, false, false},
		"two lead nowhere":      {map[string]time.Duration{quick: 0, second: 0, third: 2 * time.Second}, []string{quick, second, third}, 2 * time.Second, false, false},
		"all lead nowhere":      {map[string]time.Duration{quick: 0, second: 0}, []string{quick, second, quick, second, quick}, 0, false, false},
		"not tried for a while": {map[string]time.Duration{quick: 0, second: 2 * time.Second}, []string{quick, quick}, 0, true, true},
		"the only one":          {map[string]time.Duration{quick: 0}, []string{quick, quick}, 0, false, false},
		"the first of a try":    {map[string]time.Duration{quick: 0, second: 0}, []string{quick}, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPlaces(t, c.answers)
				var wins []string
				var longest time.Duration
				for range c.wins {
					at, took := p.reach()
					wins, longest = append(wins, at), max(longest, took)
					<-time.NewTimer(time.Second).C
					if c.comeback {
						p.dialer.names.through()
					}
				}
				if !slices.Equal(wins, c.wins) || longest > c.took {
					t.Errorf("%v won, within %s; want %v within %s", wins, longest, c.wins, c.took)
				}
				if got := p.dialer.names.hasUntried(); got != c.untried {
					t.Errorf("there is one that was not tried: %v", got)
				}
			})
		})
	}
}

// TestTrialsAreForgotten looks at what bounds them: time and number.
func TestTrialsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, map[string]time.Duration{"10.0.0.1": 0, "10.0.0.2": time.Second})
		p.reach()
		<-time.NewTimer(trialsFor).C
		if at, _ := p.reach(); at != "10.0.0.1" {
			t.Errorf("after %s, %s won", trialsFor, at)
		}
		n := p.dialer.names
		for i := range 1000 {
			n.failed(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
		}
		if len(n.trials) != maxTrials {
			t.Errorf("%d addresses are remembered, want %d", len(n.trials), maxTrials)
		}
	})
}

// TestGoesElsewhereABoundedNumberOfTimes has a name with new addresses at each lookup, none of which leads anywhere.
func TestGoesElsewhereABoundedNumberOfTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, goElsewhere)
}

func goElsewhere(t *testing.T) {
	d := &dialer{names: newNames()}
	count := func() (times int) {
		for i := range 100 {
			d.names.found([]netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
			if !d.goesElsewhere(io.EOF) {
				break
			}
			times++
		}
		return times
	}
	if d.names.found([]netip.Addr{netip.MustParseAddr("10.0.0.1")}); d.goesElsewhere(errors.Join(&ProxyError{Host: "proxy"})) {
		t.Error("it goes elsewhere after a proxy's no")
	}
	if first, second := count(), count(); first != maxElsewhere || second != 0 {
		t.Errorf("it went elsewhere %d and %d times, want %d and none", first, second, maxElsewhere)
	}
	d.names.through()
	if again := count(); again != maxElsewhere {
		t.Errorf("after a success it went elsewhere %d times, want %d", again, maxElsewhere)
	}
	<-time.NewTimer(trialsFor).C
	if again := count(); again != maxElsewhere {
		t.Errorf("after %s it went elsewhere %d times, want %d", trialsFor, again, maxElsewhere)
	}
}

// TestTheEndOfALookupHoldsNothingBack has the lookup end after an address was held back for a while.
func TestTheEndOfALookupHoldsNothingBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad, good := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		l := lineup{names: newNames()}
		l.names.note(bad, trial{time.Now(), true})
		l.add([]netip.Addr{bad, good})
		if a, _, ok := l.next(true); !ok || a != good {
			t.Errorf("the first is %v", a)
		}
		<-time.NewTimer(time.Second).C
		l.add(nil)
		if _, wait, ok := l.next(true); ok || wait != heldBack-time.Second {
			t.Errorf("the other one is still held back for %s, want %s", wait, heldBack-time.Second)
		}
		if a, _, ok := l.next(false); !ok || a != bad {
			t.Errorf("when no other is left, the next is %v", a)
		}
	})
}
