package gatewaytest_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/gateway/gatewaytest"
)

// TestReconnects has agents come and go, after which the gateway holds no more than before.
func TestReconnects(t *testing.T) {
	inTurn(t)
	n, warmUp := 200, 200
	if *long {
		n, warmUp = 5000, 1500
	}
	h := startHost(t, t.TempDir(), "-admit", "5000")
	h.visits(t, warmUp)
	before := h.stats("?collect")
	h.visits(t, n)
	after := h.stats("?collect")
	t.Logf("%d reconnects: files %d -> %d, goroutines %d -> %d, resident %.1f -> %.1f MiB, heap %.2f -> %.2f MiB", n, before.Files, after.Files,
		before.Goroutines, after.Goroutines, mib(before.RSS), mib(after.RSS), mib(before.Heap), mib(after.Heap))
	for what, pair := range map[string][2]int64{
		"files": {int64(before.Files), int64(after.Files)}, "goroutines": {int64(before.Goroutines), int64(after.Goroutines)},
		"resident": {before.RSS, after.RSS},
	} {
		if float64(pair[1]) > 1.05*float64(pair[0]) {
			t.Errorf("%s went from %d to %d", what, pair[0], pair[1])
		}
	}
}

// inTurn lets the short forms run side by side; the long ones need the machine for themselves.
func inTurn(t *testing.T) {
	t.Helper()
	if !*long {
		t.Parallel()
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// visits has so many agents connect, some at the same time, and waits until all are gone.
func (h *host) visits(t *testing.T, n int) {
	t.Helper()
	const atOnce = 8
	err := crowd(atOnce, func() error {
		for range n / atOnce {
			a, err := h.connect(t.Context())
			if err != nil {
				return err
			}
			if err = a.streams.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	idle := 0
	eventually(t, "all are gone", func() error {
		s := h.stats("")
		if idle == 0 || s.Goroutines < idle {
			idle = s.Goroutines
		}
		if s.Connected > 0 {
			return fmt.Errorf("%d are still connected", s.Connected)
		}
		// One connection asks, and the server keeps it.
		if s.Goroutines > 16 || s.Files > 16 {
			return fmt.Errorf("%d goroutines and %d files are left", s.Goroutines, s.Files)
		}
		return nil
	})
}

// swarm is for a look with fewer agents, of which more than a share comes back in a second.
var swarm = flag.Int("swarm", 10_000, "how many agents come back after a restart, at length")

// TestRestart kills the gateway under its agents and starts it again: all come back in time, and not all at once.
func TestRestart(t *testing.T) {
	inTurn(t)
	restart(t, (*child).kill)
}

// TestDrain stops it in an orderly way, so that the agents are told when to come back.
func TestDrain(t *testing.T) {
	inTurn(t)
	restart(t, (*child).stop)
}

// TestMove has the agents of a control plane that has died come to one that has run for long, and has no reason to expect them.
func TestMove(t *testing.T) {
	inTurn(t)
	restart(t, (*child).kill, "-rush", "1ns")
}

// restart ends a host under its agents, and starts the next one with these arguments.
func restart(t *testing.T, end func(*child), args ...string) {
	t.Helper()
	// Of few agents, a busy machine can finish the handshakes of several seconds in one.
	agents, processes, before, admit, share := 150, 1, "2000", "11", 0.2
	if *long {
		agents, processes, before, admit, share = *swarm, 2, "0", "0", 0.05
	}
	dir := t.TempDir()
	h := startHost(t, dir, "-admit", before)
	address := strings.TrimPrefix(h.URL, "https://")
	swarms := make([]*child, processes)
	for n := range swarms {
		swarms[n] = start(t, "swarm", "-url", h.URL, "-fingerprint", h.Fingerprint, "-ca", filepath.Join(dir, gatewaytest.CAFile),
			"-agents", strconv.Itoa(agents/processes), "-start", "75")
	}
	h.all(agents)
	began, spent := time.Now(), seconds(t, swarms)
	h.cost(h.stats(""), agents, spent)
	end(h.child)
	h = startHost(t, dir, append([]string{"-admit", admit, "-listen", address}, args...)...)
	h.all(agents)
	took := time.Since(began)
	stats := h.stats("")
	perSecond := stats.PerSecond
	most := slices.Max(perSecond)
	h.cost(stats, agents, seconds(t, swarms)-spent)
	t.Logf("%d agents: all back after %.1f s, at most %d in one second (%.1f %%); per second %v", agents, took.Seconds(), most,
		100*float64(most)/float64(agents), perSecond)
	if took > 2*time.Minute {
		t.Errorf("it took %v until all were back", took)
	}
	if float64(most) > share*float64(agents) {
		t.Errorf("%d of %d came back in one second", most, agents)
	}
}

// cost logs what it took until so many agents were there. Unlike the time, it depends little on what else the machine does.
func (h *host) cost(s gatewaytest.Stats, agents int, theirs time.Duration) {
	h.t.Helper()
	h.handshakes(s)
	ours := seconds(h.t, []*child{h.child})
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) / float64(agents) }
	h.t.Logf("processor time for each agent: %.1f ms of the gateway, %.1f ms of the agent", each(ours), each(theirs))
}

// handshakes logs how the handshakes went that were begun until now.
func (h *host) handshakes(s gatewaytest.Stats) {
	h.t.Helper()
	ended := func(result string) int { return int(s.Counters["outfeed_tls_handshakes_total "+result]) }
	finished, begun := ended("finished"), ended("finished")+ended("failed")+ended("cut")
	h.t.Logf("of %d outer handshakes that were computed %d finished (%.0f %%), %d failed, %d were cut; %d were refused before; %d tunnels were told to come later",
		begun, finished, 100*float64(finished)/float64(max(begun, 1)), ended("failed"), ended("cut"), ended("refused"), int(s.Counters["outfeed_gateway_turned_away_total"]))
}

// seconds is the processor time of processes.
func seconds(t *testing.T, of []*child) (sum time.Duration) {
	t.Helper()
	for _, c := range of {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		// Behind the program's name, which is in brackets: user and system time are the fields 14 and 15 of all.
		_, rest, _ := strings.Cut(string(text), ") ")
		for _, field := range strings.Fields(rest)[11:13] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	return sum
}

// ticksPerSecond is the unit of processor times in /proc, on every Linux of today.
const ticksPerSecond = 100

// all waits until so many agents are connected.
func (h *host) all(agents int) {
	h.t.Helper()
	limit := time.NewTimer(2 * deadline)
	defer limit.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		if n = h.stats("").Connected; n >= agents {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			s := h.stats("")
			h.t.Fatalf("%d of %d agents are connected; per second %v; %v", n, agents, s.PerSecond, s.Counters)
		}
	}
}
