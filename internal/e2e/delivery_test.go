//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
)

// stream is how many messages the delivery test sends, one every few milliseconds.
const stream = 6000

// TestEveryInsightArrivesOnce kills the agent, the control plane and PostgreSQL in turn while messages stream, and cuts
// the link.
func TestEveryInsightArrivesOnce(t *testing.T) {
	b := newBroker(t)
	s := newSite(t)
	s.connections(b.connection())
	s.apply(rawFlow)
	s.apply(windowFlow)
	s.waitRunning(2)

	faults := map[int]func(){
		700:  func() { s.agent.kill(); s.startAgent() },
		1500: func() { s.controlPlane.kill(); s.startControlPlane() },
		2300: func() { kill(t, s.postmaster(), syscall.SIGKILL) },
		3000: func() { s.link.setCut(true) },
		3600: func() { s.link.setCut(false) },
		4200: func() { s.agent.kill(); s.startAgent() },
		4300: func() { s.agent.kill(); s.startAgent() },
		4800: func() { kill(t, s.postmaster(), syscall.SIGKILL); s.controlPlane.kill(); s.startControlPlane() },
		5400: func() { s.link.setCut(true); s.agent.kill(); s.startAgent(); s.link.setCut(false) },
	}
	p := b.publisher()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := range stream {
		<-tick.C
		if fault := faults[n]; fault != nil {
			fault()
		}
		p.send(fmt.Sprintf("plant/press/P%d/state", n%2), message(n))
	}
	s.checkRaw()
	s.checkWindows()
}

// checkRaw wants each number of the stream exactly once, in a sequence without a gap or a double.
func (s *site) checkRaw() {
	s.t.Helper()
	var all []insight
	s.eventually("every raw insight has arrived", func() (err error) {
		if all, err = s.insights("raw"); err != nil {
			return err
		}
		if len(all) < stream {
			return fmt.Errorf("%d of %d", len(all), stream)
		}
		return nil
	})
	seen := make(map[int]int, stream)
	for _, in := range all {
		var v struct {
			N int `json:"n"`
		}
		if err := json.Unmarshal(in.Values, &v); err != nil {
			s.t.Fatal(err)
		}
		seen[v.N]++
	}
	for n := range stream {
		if seen[n] != 1 {
			s.t.Errorf("message %d gave %d insights, want exactly one", n, seen[n])
		}
	}
}

// checkWindows compares each closed window with what was sent.
func (s *site) checkWindows() {
	s.t.Helper()
	want := map[string]windowSum{}
	for n := range stream {
		k := fmt.Sprintf("P%d %s", n%2, origin.Add(time.Duration(n/100)*10*time.Second).Format(time.RFC3339))
		w := want[k]
		want[k] = windowSum{w.Messages + 1, w.Total + n}
	}
	// The last window stays open: nothing has come after it.
	closed := len(want) - 2
	var all []insight
	s.eventually("every window has arrived", func() (err error) {
		if all, err = s.insights("per_ten_seconds"); err != nil {
			return err
		}
		if len(all) < closed {
			return fmt.Errorf("%d of %d", len(all), closed)
		}
		return nil
	})
	for name, g := range s.windows(all) {
		if g != want[name] {
			s.t.Errorf("window %s is %+v, want %+v", name, g, want[name])
		}
	}
}

// TestFlowsRunWithoutTheControlPlane starts an agent whose control plane is gone.
func TestFlowsRunWithoutTheControlPlane(t *testing.T) {
	b := newBroker(t)
	s := newSite(t)
	s.connections(b.connection())
	s.apply(rawFlow)
	s.waitRunning(1)
	s.agent.stop()
	s.controlPlane.stop()

	s.startAgent()
	s.waitRunning(1)
	p := b.publisher()
	for n := range 50 {
		p.send("plant/press/P0/state", message(n))
	}
	s.eventually("fifty insights wait on the agent", func() error {
		if st := s.agentStatus(); st.Outbox.Waiting != 50 {
			return fmt.Errorf("the agent says %+v", st.Outbox)
		}
		return nil
	})
	s.startControlPlane()
	s.eventually("they arrive when the control plane is back", func() error {
		all, err := s.insights("raw")
		if err == nil && len(all) != 50 {
			err = fmt.Errorf("%d of 50", len(all))
		}
		return err
	})
}

// TestAnUnreachableBrokerShowsAndPasses takes the broker away and brings it back.
func TestAnUnreachableBrokerShowsAndPasses(t *testing.T) {
	b := newBroker(t)
	s := newSite(t)
	s.connections(b.connection())
	b.process.kill()
	s.apply(rawFlow)
	s.eventually("the agent says that the source is failing, and why", func() error {
		st := s.agentStatus()
		if len(st.Flows) != 1 || len(st.Flows[0].Sources) != 1 || st.Flows[0].Sources[0].State != "failing" || st.Flows[0].Sources[0].Error == "" {
			return fmt.Errorf("the agent says %+v", st.Flows)
		}
		return nil
	})
	s.eventually("the control plane shows it", func() error {
		var list struct {
			Items []struct {
				Status struct {
					Flows []struct {
						Sources []struct {
							State string `json:"state"`
							Error string `json:"error"`
						} `json:"sources"`
					} `json:"flows"`
				} `json:"status"`
			} `json:"items"`
		}
		if err := s.get("/agents", &list); err != nil {
			return err
		}
		if f := list.Items[0].Status.Flows; len(f) != 1 || len(f[0].Sources) != 1 || f[0].Sources[0].State != "failing" || f[0].Sources[0].Error == "" {
			return fmt.Errorf("the control plane says %+v", f)
		}
		return nil
	})
	if err := os.Remove(b.config + ".log"); err != nil {
		t.Fatal(err)
	}
	b.start()
	s.eventually("the agent reads again", func() error {
		st := s.agentStatus()
		if len(st.Flows) != 1 || len(st.Flows[0].Sources) != 1 || st.Flows[0].Sources[0].State != "reading" {
			return fmt.Errorf("the agent says %+v", st.Flows)
		}
		return nil
	})
	b.publisher().send("plant/press/P0/state", message(1))
	s.eventually("and its insight arrives", func() error {
		all, err := s.insights("raw")
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d insights", len(all))
		}
		return err
	})
}
