package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFaultStoppedWhileVerifying has a service manager stop the agent, with all its processes, while a child verifies the
// staging after an unclean stop: that is no damage. A second agent of the same control plane does not notice.
func TestFaultStoppedWhileVerifying(t *testing.T) {
	t.Parallel()
	rounds := 5
	if *long {
		rounds = 100
	}
	b, s := newBroker(t), newSite(t)
	second := s.another("second")
	second.enrol(s.link.address)
	second.startAgent()
	s.connections(b.connection())
	s.apply(rawFlow)
	s.waitRunning(1)
	second.waitRunning(1)
	p := b.publisher()
	hit := 0
	for round := range rounds {
		p.send("plant/press/P0/state", message(round))
		s.agent.kill()
		s.startAgent()
		if _, found := s.agent.awaitChild(""); !found {
			continue
		}
		hit++
		s.agent.stopAll()
		s.startAgent()
	}
	for _, a := range []*site{s, second} {
		a.eventually("the insights are stored", func() error {
			st := a.agentStatus()
			if st.Outbox.Acknowledged != uint64(rounds) { //nolint:gosec // a count
				return fmt.Errorf("the agent says %+v", st.Outbox)
			}
			return nil
		})
		a.checkAgentIsWell(32 << 20)
	}
	all, err := s.insights("raw")
	if err != nil || len(all) != 2*rounds {
		t.Errorf("%d insights of two agents, want %d: %v", len(all), 2*rounds, err)
	}
	t.Logf("stopped %d times while the staging was verified: 0 files set aside, 0 lost", hit)
	if hit == 0 {
		t.Error("no verification was hit")
	}
}

// awaitLock waits until a process has locked a file, or has ended.
func awaitLock(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		text, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), fmt.Sprintf("FLOCK  ADVISORY  READ %d ", pid)) {
			return
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/fd/0", pid)); err != nil {
			return
		}
	}
}

// awaitChild waits until the process has a child whose command line has a text, in a loop because it lives for milliseconds.
func (p *process) awaitChild(text string) (child int, found bool) {
	p.t.Helper()
	pid := p.cmd.Process.Pid
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return 0, false
		}
		if err != nil {
			p.t.Fatal(err)
		}
		for _, task := range tasks {
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
			if err != nil {
				continue
			}
			if _, err := fmt.Sscan(string(children), &child); err != nil {
				continue
			}
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
			if err == nil && strings.Contains(string(line), text) {
				return child, true
			}
		}
	}
	return 0, false
}
