package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kills is how many kills the storm at length has.
var kills = flag.Int("kills", 1000, "with -long: how often TestFaultKilledUnderLoad kills")

// TestFaultKilledUnderLoad kills the agent and the control plane at random moments, while the plant works, and starts them
// again at once. In the end everything is there once.
func TestFaultKilledUnderLoad(t *testing.T) {
	t.Parallel()
	st := &storm{t: t, random: random(t), kills: 12}
	if *long {
		st.kills = *kills
	}
	var p *production
	p, st.site = newProductionSite(t)
	st.site.agentExtra = []string{"OUTFEED_AGENT_LOG_LEVEL=info"}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, 10*time.Millisecond) }()
	began := time.Now()
	st.rage()
	took := time.Since(began)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	st.site.waitReady()
	st.site.checkArrived(p)
	st.site.checkAgentIsWell(32 << 20)
	st.report(took)
}

// TestFaultKilledInItsFirstStart kills agents that have just been enrolled while they make their data directory, and
// starts them again.
func TestFaultKilledInItsFirstStart(t *testing.T) {
	t.Parallel()
	rounds := 4
	if *long {
		rounds = 200
	}
	st := &storm{t: t, random: random(t), site: newControlPlane(t)}
	for round := range rounds {
		fresh := st.site.another(fmt.Sprintf("fresh-%d", round))
		fresh.enrol(fresh.link.address)
		fresh.startAgent()
		st.pause(time.Duration(st.random.Int64N(int64(50 * time.Millisecond))))
		fresh.agent.kill()
		fresh.startAgent()
		fresh.eventually("the agent is connected", func() error {
			if fresh.agent.mustLive(); !fresh.agentStatus().Tunnel.Connected {
				return errors.New("it is not")
			}
			return nil
		})
		fresh.checkAgentIsWell(9 << 20) // of which the journal takes 8 MiB
		fresh.agent.stop()
	}
	t.Logf("%d agents killed within 50 ms of their first start: 0 that did not start again", rounds)
}

// storm kills.
type storm struct {
	t      *testing.T
	site   *site
	random *rand.Rand
	kills  int
	// agents and controlPlanes count the kills, early those in the first 30 ms of a start.
	agents, controlPlanes, early int
	// stopped counts the agents that had stopped before they were killed.
	stopped int
	// started is when each agent was started.
	started []time.Time
}

// rage kills until the number is reached.
func (s *storm) rage() {
	each := []int{0, 45, 50, 62, 74, 87}
	for round := 0; s.agents+s.controlPlanes < s.kills; round++ {
		s.pause(s.life())
		n := s.random.IntN(100)
		if round < len(each) { // so that a short storm has one of each
			n = each[round]
		}
		switch {
		case n < 45:
			s.killAgent()
		case n < 50:
			s.killStopping()
		case n < 62:
			s.killControlPlane()
		case n < 74:
			s.killBoth()
		case n < 87:
			s.killEarly(30 * time.Millisecond)
		default:
			s.killEarly(0)
		}
	}
}

// life is how long all is well: often short, sometimes long enough for a run, a reconnect and an acknowledgement.
func (s *storm) life() time.Duration {
	most := time.Second
	switch n := s.random.IntN(100); {
	case n < 20:
		most = 60 * time.Millisecond
	case n < 35:
		most = 4 * time.Second
	}
	return time.Duration(s.random.Int64N(int64(most)))
}

// pause waits for a moment that was drawn.
func (s *storm) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func (s *storm) killAgent() {
	s.endAgent()
	s.startAgent()
}

func (s *storm) endAgent() {
	s.site.agent.mustLive()
	s.site.agent.kill()
	s.agents++
}

func (s *storm) startAgent() {
	s.started = append(s.started, time.Now())
	s.site.startAgent()
}

// killStopping tells the agent to stop and kills it in the middle of that, unless it was quicker.
func (s *storm) killStopping() {
	s.site.agent.mustLive()
	kill(s.t, s.site.agent.cmd.Process.Pid, syscall.SIGTERM)
	s.pause(time.Duration(s.random.Int64N(int64(40 * time.Millisecond))))
	select {
	case <-s.site.agent.gone:
		s.stopped++
	default:
		s.agents++
	}
	s.site.agent.end()
	s.startAgent()
}

func (s *storm) killControlPlane() {
	s.site.controlPlane.mustLive()
	s.site.controlPlane.kill()
	s.controlPlanes++
	s.site.launchControlPlane()
}

func (s *storm) killBoth() {
	s.endAgent()
	s.killControlPlane()
	s.startAgent()
}

// killEarly kills the agent, or one time in four the control plane, starts it, and kills that one within a moment.
func (s *storm) killEarly(within time.Duration) {
	kill := s.killAgent
	if s.random.IntN(4) == 0 {
		kill = s.killControlPlane
	}
	kill()
	if within > 0 {
		s.pause(time.Duration(s.random.Int64N(int64(within))))
	}
	kill()
	s.early++
}

// report says how long the starts after a kill took, by the agent's own log.
func (s *storm) report(took time.Duration) {
	s.t.Helper()
	s.t.Logf("%d kills (%d of the agent, %d of the control plane; %d of them within 30 ms of a start) and %d stops in %v",
		s.agents+s.controlPlanes, s.agents, s.controlPlanes, s.early, s.stopped, took.Round(time.Second))
	for what, line := range map[string]string{"staging verified and open": "agent starts", "connected": "the tunnel is up"} {
		var all []time.Duration
		i := 0
		for _, at := range logTimes(s.t, s.site.agentLog(), line) {
			for i+1 < len(s.started) && !s.started[i+1].After(at) {
				i++
			}
			if i < len(s.started) && !s.started[i].After(at) {
				all = append(all, at.Sub(s.started[i]))
				i++
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		s.t.Logf("from an agent's start until %s: median %v, at most %v (%d starts)", what,
			all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
	}
}

var logTime = regexp.MustCompile(`^time=(\S+) `)

// logTimes gives the times of the lines of a log that have a text in them.
func logTimes(t *testing.T, file, text string) (all []time.Time) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := logTime.FindStringSubmatch(lines.Text())
		if m == nil || !strings.Contains(lines.Text(), text) {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, at)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
