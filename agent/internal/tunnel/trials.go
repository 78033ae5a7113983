package tunnel

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// trialsFor is how long it counts that an address led nowhere, and maxTrials how many addresses that is kept of.
	trialsFor = 5 * time.Minute
	maxTrials = 4 * maxAddresses
	// heldBack is how long the other addresses are tried before one that has answered and then led nowhere.
	heldBack = 3 * time.Second
	// fairTry is how long an address must have been tried to count as tried when another was quicker.
	fairTry = time.Second
	// elsewherePatience is how long a step may take while there is an address that has not been tried.
	elsewherePatience = 5 * time.Second
	// maxElsewhere bounds how often in trialsFor an agent does not wait because there is another address: some names have new
	// ones at each lookup.
	maxElsewhere = maxAddresses
)

// trial is how an address did since one got through to the control plane.
type trial struct {
	at time.Time
	// used says that it answered, and the connection ran over it. What became of that is not known before the control plane's
	// word, which ends all trials.
	used bool
}

// begin forgets which addresses the host had.
func (n *names) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = nil
}

// found notes addresses that the host has.
func (n *names) found(addrs []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addrs {
		if a = a.Unmap(); len(n.known) < maxAddresses && !slices.Contains(n.known, a) {
			n.known = append(n.known, a)
		}
	}
}

// failed notes that an address was tried in vain.
func (n *names) failed(at netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note(at, trial{time.Now(), n.trials[at].used})
}

// through is when the control plane has answered with its own key: no address is worse than another then.
func (n *names) through() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.trials)
	n.elsewhere = 0
}

// note keeps a trial in place of the oldest, if there are too many. Call with mu held.
func (n *names) note(at netip.Addr, t trial) {
	n.trials[at] = t
	if len(n.trials) <= maxTrials {
		return
	}
	oldest := at
	for a, old := range n.trials {
		if old.at.Before(n.trials[oldest].at) {
			oldest = a
		}
	}
	delete(n.trials, oldest)
}

// trial is what counts of an address. Call with mu held.
func (n *names) trial(of netip.Addr) (trial, bool) {
	t, ok := n.trials[of]
	if ok && time.Since(t.at) >= trialsFor {
		delete(n.trials, of)
		return trial{}, false
	}
	return t, ok
}

// all are the addresses that the last search has found, and those that were tried since one got through.
func (n *names) all() (known, tried []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.known), slices.Collect(maps.Keys(n.trials))
}

// hasUntried says whether the host has an address that has not been tried.
func (n *names) hasUntried() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.known, func(a netip.Addr) bool {
		_, tried := n.trial(a)
		return !tried
	})
}

// mayGoElsewhere counts the times that an agent does not wait because there is another address, and says whether it may.
func (n *names) mayGoElsewhere() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.since) >= trialsFor {
		n.since, n.elsewhere = time.Now(), 0
	}
	n.elsewhere++
	return n.elsewhere <= maxElsewhere
}

// patience is how long a step behind the TLS handshake may take.
func (n *names) patience() time.Duration {
	if n.hasUntried() {
		return elsewherePatience
	}
	return stepPatience
}

// lineup holds the addresses that wait to be tried in a round: those which have not been tried first, then those which have,
// and at last, held back until a time, those which were used and led nowhere, the one that was used last behind.
type lineup struct {
	names       *names
	first, last []netip.Addr
	until       time.Time
}

func (l *lineup) add(addrs []netip.Addr) {
	l.names.mu.Lock()
	defer l.names.mu.Unlock()
	var untried, tried []netip.Addr
	for _, a := range addrs {
		switch t, ok := l.names.trial(a); {
		case t.used:
			l.last = append(l.last, a)
		case ok:
			tried = append(tried, a)
		default:
			untried = append(untried, a)
		}
	}
	slices.SortStableFunc(l.last, func(a, b netip.Addr) int { return l.names.trials[a].at.Compare(l.names.trials[b].at) })
	others := slices.Concat(untried, tried)
	if len(l.first) == 0 && len(others) > 0 {
		l.until = time.Now().Add(heldBack)
	}
	l.first = interleave(l.first, others)
}

func (l *lineup) isEmpty() bool { return len(l.first)+len(l.last) == 0 }

// next takes the next address off. When there is none yet, wait is when to ask again; 0 for after the next event. others says
// that others are being tried or looked up.
func (l *lineup) next(others bool) (a netip.Addr, wait time.Duration, ok bool) {
	if len(l.first) > 0 {
		a, l.first = l.first[0], l.first[1:]
		return a, 0, true
	}
	if len(l.last) == 0 {
		return netip.Addr{}, 0, false
	}
	if wait = time.Until(l.until); others && wait > 0 {
		return netip.Addr{}, wait, false
	}
	l.until = time.Time{}
	a, l.last = l.last[0], l.last[1:]
	return a, 0, true
}

// addressOf is the address of the other end; false for what is none of IP.
func addressOf(conn net.Conn) (netip.Addr, bool) {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	return tcp.AddrPort().Addr().Unmap(), true
}
