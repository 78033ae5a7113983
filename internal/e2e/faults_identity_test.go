package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// member is one of several agents of a site, or a copy of one.
type member struct {
	s       *site
	id, dir string
	process *process
}

// agentView is what the API says of an agent, as far as it matters here.
type agentView struct {
	Name        string    `json:"name"`
	Connected   bool      `json:"connected"`
	Fingerprint string    `json:"fingerprint"`
	Asked       time.Time `json:"rotation_asked_at"`
	Rotated     time.Time `json:"rotated_at"`
	Skew        int64     `json:"clock_skew_seconds"`
	Lock        *struct {
		Reason    string   `json:"reason"`
		Connected sideView `json:"connected"`
		Other     sideView `json:"other"`
	} `json:"lock"`
}

type sideView struct {
	Hostname string    `json:"hostname"`
	Address  string    `json:"address"`
	Seen     time.Time `json:"seen_at"`
	Counter  int64     `json:"counter"`
}

// member enrols an agent with a data directory of that name.
func (s *site) member(name string) *member {
	s.t.Helper()
	m := &member{s: s, dir: s.path(name)}
	token := s.token()
	out := s.command(m.env(), strings.NewReader(token+"\n"), bin(s.t, "outfeed-agent"), "enroll", "--url", "https://"+s.link.address, "--token", "-")
	words := strings.Fields(string(out))
	if len(words) < 5 {
		s.t.Fatalf("enroll printed %q", out)
	}
	m.id = words[4]
	return m
}

func (m *member) env() []string {
	return []string{"OUTFEED_AGENT_DATA_DIR=" + m.dir, "OUTFEED_AGENT_CA_FILE=" + m.s.path("cp", "tls", "cert.pem"), "OUTFEED_AGENT_LOG_LEVEL=debug"}
}

func (m *member) logFile() string { return m.dir + ".log" }

func (m *member) start() {
	m.s.t.Helper()
	m.process = start(m.s.t, m.logFile(), m.env(), bin(m.s.t, "outfeed-agent"), "run")
}

// copy makes a copy of the data directory, as of a disk or a virtual machine.
func (m *member) copy(name string) *member {
	m.s.t.Helper()
	c := &member{s: m.s, id: m.id, dir: m.s.path(name)}
	if out, err := exec.CommandContext(m.s.t.Context(), "cp", "-a", m.dir, c.dir).CombinedOutput(); err != nil { //nolint:gosec // paths of this test
		m.s.t.Fatalf("%v: %s", err, out)
	}
	return c
}

func (m *member) view() (agentView, error) {
	var v agentView
	err := m.s.get("/agents/"+m.id, &v)
	return v, err
}

// until asks the API until something holds of the agent.
func (m *member) until(what string, holds func(agentView) bool) agentView {
	m.s.t.Helper()
	var v agentView
	m.s.eventually(what, func() (err error) {
		if v, err = m.view(); err == nil && !holds(v) {
			err = fmt.Errorf("the agent: %+v", v)
		}
		return err
	})
	return v
}

func (m *member) untilConnected() {
	m.s.t.Helper()
	m.until("the agent is connected", func(v agentView) bool { return v.Connected })
}

// proven waits until the control plane has had a status in this session, which proves that its value was kept.
func (m *member) proven() {
	m.s.t.Helper()
	m.s.eventually("the agent has reported", func() error {
		var v struct {
			Status *struct {
				Time time.Time `json:"time"`
			} `json:"status"`
		}
		if err := m.s.get("/agents/"+m.id, &v); err != nil {
			return err
		}
		if v.Status == nil || v.Status.Time.Before(m.process.began) {
			return errors.New("not in this session")
		}
		return nil
	})
}

// said waits until the agent's status says something of its connection.
func (m *member) said(what string) {
	m.s.t.Helper()
	m.s.eventually("the agent says "+what, func() error {
		out, said, err := m.s.try(m.env(), nil, bin(m.s.t, "outfeed-agent"), "status")
		if err == nil && !strings.Contains(string(out), what) {
			err = fmt.Errorf("it says %s%s", out, said)
		}
		return err
	})
}

// TestFaultCopiedDataDirectory copies a real data directory at different moments and runs both: both copies are locked, an owner
// decides, the chosen one goes on and the other is refused for good.
func TestFaultCopiedDataDirectory(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	for name, c := range map[string]struct {
		// story runs both, and gives the one that had connected before and the other one.
		story func(m *member) (connected, other *member)
		keep  string
	}{
		"stopped-then-both": {func(m *member) (*member, *member) {
			m.start()
			m.proven()
			m.process.stop()
			copied := m.copy("stopped-then-both-copy")
			m.start()
			m.proven()
			copied.start()
			return m, copied
		}, "connected"},
		"copy-while-original-offline": {func(m *member) (*member, *member) {
			m.start()
			m.proven()
			copied := m.copy("copy-while-original-offline-copy")
			m.process.stop()
			copied.start()
			copied.proven()
			m.start()
			return copied, m
		}, "other"},
		"snapshot-restored": {func(m *member) (*member, *member) {
			var snapshot *member
			for range 3 {
				m.start()
				m.proven()
				m.process.kill()
				if snapshot == nil {
					snapshot = m.copy("snapshot-restored-copy")
				}
			}
			snapshot.start()
			return m, snapshot
		}, "other"},
	} {
		t.Run(name, func(t *testing.T) {
			m := s.member(name)
			connected, other := c.story(m)
			v := m.until("it is locked", func(v agentView) bool { return v.Lock != nil })
			if v.Lock.Connected.Hostname == "" || v.Lock.Other.Hostname == "" || v.Lock.Other.Address != "127.0.0.1" {
				t.Errorf("the lock is %+v", *v.Lock)
			}
			other.said("agent_locked")
			if connected.process.lives() {
				connected.said("agent_locked")
			}
			out := string(s.outfeed(nil, "agent", "show", m.id))
			s.agentDir = connected.dir
			s.picture(m.id, name, "This agent is locked")
			if !strings.Contains(out, "LOCKED") || !strings.Contains(out, "unlock") {
				t.Errorf("agent show: %s", out)
			}
			s.outfeed(nil, "agent", "unlock", m.id, "--keep", c.keep, "--yes", "--json")
			kept, lost := connected, other
			if c.keep == "other" {
				kept, lost = other, connected
			}
			// Starting again saves the wait for the next try by itself.
			kept.again()
			m.until("the kept copy is connected", func(v agentView) bool { return v.Connected && v.Lock == nil })
			kept.proven()
			lost.again()
			lost.said("clone_suspected")
			if v, err := m.view(); err != nil || v.Lock != nil || !v.Connected {
				t.Errorf("the lost copy disturbs the kept one: %+v, %v", v, err)
			}
			kept.process.stop()
			lost.process.stop()
		})
	}
}

// again stops the agent if it runs, and starts it.
func (m *member) again() {
	m.s.t.Helper()
	if m.process.lives() {
		m.process.stop()
	}
	m.start()
}

// lives says whether the process has not ended.
func (p *process) lives() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// seeded gives random numbers that a run can be repeated with: OUTFEED_SEED=N.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("OUTFEED_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64() //nolint:gosec // a test's
	}
	t.Logf("OUTFEED_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's
}

// TestFaultKilledWhileConnecting kills an agent at random moments around its connect: between the counter, the hello, the welcome,
// keeping its value, and the first status. None of it may look like a copy.
func TestFaultKilledWhileConnecting(t *testing.T) {
	t.Parallel()
	kills := 20
	if *long {
		kills = 200
	}
	random := seeded(t)
	s := newControlPlane(t)
	m := s.member("agent")
	m.start()
	m.proven()
	m.process.kill()
	for n := range kills {
		m.start()
		pause(t, time.Duration(random.IntN(int(400*time.Millisecond))))
		m.process.kill()
		if v, err := m.view(); err != nil || v.Lock != nil {
			t.Fatalf("after %d kills: %+v, %v", n+1, v, err)
		}
	}
	m.start()
	m.until("it is connected", func(v agentView) bool { return v.Connected && v.Lock == nil })
	m.proven()
	t.Logf("%d kills of the connect, 0 false alarms", kills)
}

// pause waits for a time that a test has drawn.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.Context().Done():
	case <-timer.C:
	}
}

// startTraced starts the agent so that something happens at its calls of that kind on a path: signal=KILL has the kernel
// kill it at the first, before it is done; delay_enter and delay_exit (in microseconds) give a test the time to do so.
func (m *member) startTraced(calls, path, what string) {
	m.s.t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		m.s.t.Fatal("this test needs strace: apt-get install strace")
	}
	m.process = start(m.s.t, m.logFile(), m.env(), "strace", "-f", "-qq", "-o", os.DevNull, "-P", path, "-e", "trace="+calls,
		"-e", "inject="+calls+":"+what, bin(m.s.t, "outfeed-agent"), "run")
}

// killAll ends the agent and who traces it at once.
func (m *member) killAll() {
	m.s.t.Helper()
	if err := syscall.Kill(-m.process.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		m.s.t.Fatal(err)
	}
	<-m.process.gone
}

// TestFaultRotationKilledAtEveryStep kills the agent at each step of a rotation. After a start it goes on to the end, and nothing
// looks like a copy.
func TestFaultRotationKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	m := s.member("agent")
	m.start()
	m.proven()
	m.process.stop()
	in := func(name string) string { return filepath.Join(m.dir, "identity", name) }
	content := func(name string) string {
		raw, err := os.ReadFile(in(name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(raw)
	}
	const (
		rename      = "rename,renameat,renameat2"
		kill        = "signal=KILL"
		lateEnter   = "delay_enter=1500000"
		lateExit    = "delay_exit=1500000"
		keys, state = "keys.pem", "connect.state"
	)
	var old agentView
	var oldKeys string
	swapped := func() bool { return content(keys) != oldKeys }
	for _, step := range []struct {
		name, calls, path, what string
		// reached is when to kill the agent; nil where the kernel does it.
		reached func() bool
	}{
		{"the next keys are being written", "fsync", in("keys.next.pem.new"), kill, nil},
		{"the next keys are written, not in place", rename, in("keys.next.pem"), kill, nil},
		{"the next keys are in place, not synced", rename, in("keys.next.pem"), lateExit, func() bool {
			// On a busy machine they may be swapped before anyone has looked.
			return content("keys.next.pem") != "" || swapped()
		}},
		{"the next keys are stored by the control plane", rename, in(keys), kill, nil},
		{"the keys are swapped, not synced", rename, in(keys), lateExit, swapped},
		{"the keys are swapped, the next counter is not written", "pwrite64", in(state), lateEnter, swapped},
		{"the new keys were shown, the value is not kept", "pwrite64", in(state), lateEnter, func() bool {
			v, err := m.view()
			return err == nil && v.Fingerprint != old.Fingerprint
		}},
	} {
		var err error
		if old, err = m.view(); err != nil {
			t.Fatal(err)
		}
		oldKeys = content(keys)
		s.outfeed(nil, "agent", "rotate", m.id)
		m.startTraced(step.calls, step.path, step.what)
		s.eventually("the agent is killed when "+step.name, func() error {
			if step.reached != nil && step.reached() {
				m.killAll()
				return nil
			}
			if m.process.lives() {
				return errors.New("it lives")
			}
			return nil
		})
		if v, err := m.view(); err != nil || v.Lock != nil {
			t.Fatalf("%s: %+v, %v", step.name, v, err)
		}
		m.start()
		m.rotated(old, step.name)
		m.process.stop()
	}
	entries, err := os.ReadDir(in(""))
	if err != nil || len(entries) != 3 {
		t.Errorf("the identity holds %v, %v", entries, err)
	}
}

// rotated waits until the agent is connected with new keys.
func (m *member) rotated(before agentView, what string) {
	m.s.t.Helper()
	v := m.until("the keys have changed although "+what, func(v agentView) bool {
		return v.Lock != nil || v.Connected && v.Asked.IsZero() && v.Fingerprint != before.Fingerprint
	})
	if v.Lock != nil {
		m.s.t.Fatalf("%s: locked: %+v", what, *v.Lock)
	}
	m.proven()
}

// TestFaultRotationUnderRandomKills rotates again and again while the agent and the control plane are killed at random.
func TestFaultRotationUnderRandomKills(t *testing.T) {
	t.Parallel()
	agents, planes := 10, 2
	if *long {
		agents, planes = 100, 10
	}
	random := seeded(t)
	s := newControlPlane(t)
	m := s.member("agent")
	m.start()
	m.proven()
	for n := range agents + planes {
		before, err := m.view()
		if err != nil {
			t.Fatal(err)
		}
		s.outfeed(nil, "agent", "rotate", m.id)
		pause(t, time.Duration(random.IntN(int(300*time.Millisecond))))
		if n%(agents/planes+1) == 0 {
			s.controlPlane.kill()
			s.startControlPlane()
		}
		m.process.kill()
		m.start()
		m.rotated(before, fmt.Sprintf("of kill %d", n))
	}
	t.Logf("%d kills of the agent and %d of the control plane, every rotation came to its end, 0 false alarms", agents+planes, planes)
}

// TestFaultRotateOnTheMachine has the machine's own administrator change the keys.
func TestFaultRotateOnTheMachine(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	m := s.member("agent")
	m.start()
	m.proven()
	before, err := m.view()
	if err != nil {
		t.Fatal(err)
	}
	s.command(m.env(), nil, bin(t, "outfeed-agent"), "rotate-keys")
	m.rotated(before, "nobody but the machine asked")
}

// TestFaultOneTokenTwoMachines uses one token on two machines at the same moment: one of them becomes an agent.
func TestFaultOneTokenTwoMachines(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	const rounds, machines = 3, 4
	for round := range rounds {
		token := s.token() + "\n"
		errs := make([]error, machines)
		said := make([]string, machines)
		var wg sync.WaitGroup
		for n := range machines {
			m := &member{s: s, dir: s.path(fmt.Sprintf("machine-%d-%d", round, n))}
			wg.Go(func() {
				_, said[n], errs[n] = s.try(m.env(), strings.NewReader(token), bin(t, "outfeed-agent"), "enroll", "--url", "https://"+s.link.address, "--token", "-")
			})
		}
		wg.Wait()
		enrolled := 0
		for n := range machines {
			if errs[n] == nil {
				enrolled++
			} else if !strings.Contains(said[n], "token_used") {
				t.Errorf("it was refused with %s", said[n])
			}
		}
		if enrolled != 1 {
			t.Errorf("%d machines became agents of one token", enrolled)
		}
	}
}

// TestFaultRevokedWithinTenSeconds cuts a live session.
func TestFaultRevokedWithinTenSeconds(t *testing.T) {
	t.Parallel()
	s := newControlPlane(t)
	m := s.member("agent")
	m.start()
	m.proven()
	began := time.Now()
	s.outfeed(nil, "agent", "revoke", m.id)
	m.said("agent_revoked")
	if took := time.Since(began); took > goal(10*time.Second) {
		t.Errorf("the session was cut after %s", took)
	} else {
		t.Logf("cut after %s", took)
	}
	s.agentDir = m.dir
	s.picture(m.id, "revoked", "Revoked")
}
