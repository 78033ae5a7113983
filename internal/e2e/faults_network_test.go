package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent"
)

// The goals: how long a dead link may go unnoticed, how long the agent may take once it has healed, and how long once one
// address works.
func noticed() time.Duration { return goal(45 * time.Second) }
func back() time.Duration    { return goal(time.Minute) }
func reached() time.Duration { return goal(10 * time.Second) }

// TestFaultNetworks holds the tunnel's promises over real networks: every agent has a network of its own and real programs
// stand in between. Nearly all of its time is waiting, so everything runs at once.
func TestFaultNetworks(t *testing.T) {
	t.Parallel()
	if !inLab(t) {
		return
	}
	l := newLab(t)
	// What is held to seconds from the program's start comes first: all that starts after it would be in its way.
	l.run(t, "Quick", map[string]func(trial){
		"DNSSlow":    dnsSlow,
		"BlackHole6": blackHole6,
		"DNSDeaf6":   dnsDeaf6,
		"ManyDead":   manyDead,
	})
	trials := map[string]func(trial){
		"DeadBothWays":    func(x trial) { dead(x, quality{}, func(w *wire) { w.set(quality{cut: true}) }) },
		"DeadUp":          func(x trial) { dead(x, quality{}, func(w *wire) { w.up.set(quality{cut: true}) }) },
		"DeadDown":        func(x trial) { dead(x, quality{}, func(w *wire) { w.down.set(quality{cut: true}) }) },
		"BadThenDead":     func(x trial) { dead(x, badQuality, func(w *wire) { w.set(quality{cut: true}) }) },
		"BadThenDeadUp":   func(x trial) { dead(x, badQuality, func(w *wire) { w.up.set(quality{cut: true}) }) },
		"BadThenDeadDown": func(x trial) { dead(x, badQuality, func(w *wire) { w.down.set(quality{cut: true}) }) },
		"DNSFails":        func(x trial) { dnsBroken(x, fails) },
		"DNSSilent":       func(x trial) { dnsBroken(x, silent) },
		"DNSDiesLater":    dnsDiesLater,
		"AddressChanges":  addressChanges,
		"Nginx":           behindNginx,
		"HAProxy":         behindHAProxy,
		"Squid":           behindSquid,
		"SquidLife":       squidLife,
		"Inspected":       inspected,
		"OddProxies":      oddProxies,
		"NoProxies":       noProxies,
		"HalfDead":        halfDeadPath,
		"Delay2sLoss20":   farAway,
		"Rate32k":         narrow,
	}
	if *long {
		// It takes a minute to connect over it.
		trials["Delay4sLoss20"] = farther
	}
	l.run(t, "All", trials)
}

// run runs trials beside each other and waits for them.
func (l *lab) run(t *testing.T, name string, trials map[string]func(trial)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		for name, test := range trials {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(trial{t, l})
			})
		}
	})
}

// trial is one fault in the lab.
type trial struct {
	t   *testing.T
	lab *lab
}

// direct enrols a machine in a plant of its own, and gives its DNS server.
func (l *lab) direct(t *testing.T) (*machine, *nameServer) {
	t.Helper()
	p := newPlant(t, l.number(), "")
	dns := newNameServer(t, p.cloud, map[string][]string{"cp.outfeed.test": {p.cloud}})
	return l.enrol(t, p, "cp.outfeed.test:"+portTLS), dns
}

// badQuality is a link on which signs of life are late.
var badQuality = quality{delay: time.Second, loss: 0.2} //nolint:gochecknoglobals // a constant

// dead cuts a wire without a word, waits until both sides have noticed, and mends it.
func dead(x trial, before quality, cut func(*wire)) {
	t, l := x.t, x.lab
	m, _ := l.direct(t)
	m.plant.wire.set(before)
	m.start()
	m.untilConnected(deadline)
	m.untilSeen(deadline, true)
	if before != (quality{}) {
		// Until both sides have measured the link.
		wait(t, 10*time.Second)
	}
	cut(m.plant.wire)
	at := time.Now()
	m.until("the agent has noticed", noticed(), func(s agent.LocalStatus) bool { return !s.Tunnel.Connected })
	agentTook := time.Since(at)
	m.untilSeen(noticed()-time.Since(at), false)
	t.Logf("the agent noticed after %s, the control plane after %s", agentTook.Round(time.Second), time.Since(at).Round(time.Second))
	m.untilConnections(0, noticed()-time.Since(at))
	if *long {
		wait(t, 6*time.Minute)
	}
	m.plant.wire.set(quality{})
	at = time.Now()
	m.untilConnected(back())
	t.Logf("connected again %s after the path has healed", time.Since(at).Round(time.Second))
	m.untilSeen(back()-time.Since(at), true)
	m.untilConnections(1, back()-time.Since(at))
}

// untilConnections waits until the control plane holds so many connections of the agent.
func (m *machine) untilConnections(want int, limit time.Duration) {
	m.t.Helper()
	m.within(fmt.Sprintf("the control plane holds %d connections", want), limit, func() error {
		out, err := exec.CommandContext(m.t.Context(), "ss", "-Htn", "state", "established", "src", m.plant.cloud, "and", "sport", "=", ":"+portTLS).CombinedOutput() //nolint:gosec // fixed words
		if err != nil {
			return fmt.Errorf("ss: %w: %s", err, out)
		}
		if n := strings.Count(string(out), "\n"); n != want {
			return fmt.Errorf("the control plane holds %d:\n%s", n, out)
		}
		return nil
	})
}

// dnsBroken starts an agent while the DNS is broken, and mends it.
func dnsBroken(x trial, how answer) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	dns.change(func(s *nameServer) { s.answer = how })
	m.start()
	m.untilError(back(), "cp.outfeed.test cannot be resolved", "DNS server of this machine")
	if *long {
		wait(t, 6*time.Minute)
	}
	dns.change(func(s *nameServer) { s.answer = answers })
	m.connects()
}

// connects holds how long it takes from now on.
func (m *machine) connects() {
	m.t.Helper()
	at := time.Now()
	m.untilConnected(reached())
	m.t.Logf("connected after %s", time.Since(at).Round(100*time.Millisecond))
}

// dnsSlow answers every question after 5 s, as long as Go's resolver waits.
func dnsSlow(x trial) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	dns.change(func(s *nameServer) { s.delay = 5 * time.Second })
	m.start()
	m.connects()
}

// dnsDiesLater loses the DNS and then the connection: the address that worked still does.
func dnsDiesLater(x trial) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	m.start()
	since := m.untilConnected(deadline)
	dns.change(func(s *nameServer) { s.answer = silent })
	m.killConnection()
	m.untilConnectedAfter(since, reached())
}

// killConnection resets the agent's connection.
func (m *machine) killConnection() {
	m.t.Helper()
	out, err := exec.CommandContext(m.t.Context(), "ss", "-K", "src", m.plant.cloud, "and", "sport", "=", ":"+portTLS).CombinedOutput() //nolint:gosec // fixed words
	if err != nil {
		m.t.Fatalf("ss -K: %v: %s", err, out)
	}
}

// addressChanges moves the name while the agent is connected; then the old address dies.
func addressChanges(x trial) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	const second = "10.99.0.1"
	if err := ip("addr add " + second + "/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	m.start()
	since := m.untilConnected(deadline)
	dns.change(func(s *nameServer) { s.records["cp.outfeed.test"] = []string{second} })
	// The old address dies without a word.
	m.plant.wire.set(quality{dead: netip.MustParseAddr(m.plant.cloud)})
	at := time.Now()
	m.untilConnectedAfter(since, noticed()+reached())
	t.Logf("at the new address %s after the old one died", time.Since(at).Round(time.Second))
}

// blackHole6 has an IPv6 address that swallows everything beside an IPv4 address that works.
func blackHole6(x trial) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	dns.change(func(s *nameServer) {
		s.records["cp.outfeed.test"] = []string{m.plant.cloud6, "fd99::1", "fd99::2", m.plant.cloud}
	})
	m.plant.wire.set(quality{cut6: true})
	m.start()
	m.connects()
}

// dnsDeaf6 has a DNS server that never answers a question for IPv6.
func dnsDeaf6(x trial) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	dns.change(func(s *nameServer) { s.deaf6 = true })
	m.start()
	m.connects()
}

// manyDead has seven dead addresses for one that works.
func manyDead(x trial) {
	t, l := x.t, x.lab
	m, dns := l.direct(t)
	dns.change(func(s *nameServer) {
		s.records["cp.outfeed.test"] = []string{"10.98.0.1", "10.98.0.2", "10.98.0.3", "10.98.0.4", "fd98::1", "fd98::2", "10.98.0.5", m.plant.cloud}
	})
	m.start()
	m.connects()
}

// farAway has a delay of 2 s there and back, and loses every fifth packet in both directions.
func farAway(x trial) { bad(x, badQuality) }

// farther has a delay of 2 s in each direction: 4 s there and back. Its sessions may end now and then, and all that was
// staged must still arrive.
func farther(x trial) {
	m := onBadLink(x, quality{delay: 2 * time.Second, loss: 0.2})
	m.untilConnected(deadline)
	m.untilAcknowledged(deadline)
	x.t.Logf("%d sessions in 10 minutes", m.sessions())
}

// narrow has 32 kbit/s.
func narrow(x trial) { bad(x, quality{rate: 32_000}) }

// bad holds that insights arrive over a bad link, and that no more than one session ends.
func bad(x trial, q quality) {
	m := onBadLink(x, q)
	since := m.untilConnected(deadline)
	n := m.sessions()
	if n > 2 {
		x.t.Errorf("%d sessions ended, that is more than one an hour\n%s", n-1, tail(m.log(), 3000))
	}
	x.t.Logf("%d sessions ended; the last one has lasted for %s", n-1, time.Since(since).Round(time.Second))
}

// onBadLink connects an agent over a bad link, waits until its insights have arrived, and in the long form 10 minutes more.
func onBadLink(x trial, q quality) *machine {
	m, _ := x.lab.direct(x.t)
	m.plant.wire.set(q)
	at := time.Now()
	m.start()
	m.untilConnected(deadline)
	x.t.Logf("connected after %s", time.Since(at).Round(100*time.Millisecond))
	m.deploy()
	at = time.Now()
	m.untilAcknowledged(deadline)
	x.t.Logf("%d insights stored after %s", flowRows, time.Since(at).Round(100*time.Millisecond))
	if *long {
		wait(x.t, 10*time.Minute)
	}
	return m
}

// sessions is how many the agent has had.
func (m *machine) sessions() int {
	m.t.Helper()
	text, err := os.ReadFile(m.log())
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Count(string(text), "the tunnel is up")
}

// TestFaultStoppedControlPlane stops the control plane's process without ending it, so that its kernel goes on to answer.
func TestFaultStoppedControlPlane(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := &machine{lab: &lab{site: s}, t: t, process: s.agent, at: s.path("agent")}
	m.untilConnected(deadline)
	s.controlPlane.signal(t, syscall.SIGSTOP)
	defer s.controlPlane.signal(t, syscall.SIGCONT)
	at := time.Now()
	m.until("the agent has noticed", noticed(), func(s agent.LocalStatus) bool { return !s.Tunnel.Connected })
	t.Logf("the agent noticed after %s", time.Since(at).Round(time.Second))
	if *long {
		wait(t, 5*time.Minute-time.Since(at))
	}
	at = time.Now()
	s.controlPlane.signal(t, syscall.SIGCONT)
	m.goesOn(at)
}

// TestFaultStoppedAgent stops the agent's process instead.
func TestFaultStoppedAgent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := &machine{lab: &lab{site: s}, t: t, process: s.agent, at: s.path("agent")}
	m.untilConnected(deadline)
	s.agent.signal(t, syscall.SIGSTOP)
	defer s.agent.signal(t, syscall.SIGCONT)
	at := time.Now()
	m.untilSessions("0", noticed())
	t.Logf("the control plane noticed after %s", time.Since(at).Round(time.Second))
	if *long {
		wait(t, 5*time.Minute-time.Since(at))
	}
	at = time.Now()
	s.agent.signal(t, syscall.SIGCONT)
	m.goesOn(at)
}

// signal sends a signal to the process.
func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// goesOn holds that the agent is back in time after what was stopped goes on, with no session left of before.
func (m *machine) goesOn(at time.Time) {
	m.t.Helper()
	// The agent may not know yet that its session is gone.
	m.untilConnectedAfter(at, back())
	m.untilSeen(back()-time.Since(at), true)
	m.t.Logf("connected again %s after it went on", time.Since(at).Round(100*time.Millisecond))
	m.untilSessions("1", back()-time.Since(at))
}

// untilSessions waits until the gateway has so many sessions.
func (m *machine) untilSessions(want string, limit time.Duration) {
	m.t.Helper()
	within(m.t, limit, want+" sessions on the gateway", func() error {
		text, err := m.metric("outfeed_gateway_agents_connected")
		if err == nil && text != want {
			err = fmt.Errorf("it has %s", text)
		}
		return err
	})
}

// metric is a number of the control plane.
func (s *site) metric(name string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	token, err := os.ReadFile(s.path("cp", "admin-token"))
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close() //nolint:errcheck // it has been read
	text, err := io.ReadAll(answer.Body)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value), err
		}
	}
	return "", fmt.Errorf("no %s among the metrics (%s), %w", name, answer.Status, err)
}
