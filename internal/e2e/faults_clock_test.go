package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// year is long enough for a clock that is wrong by some of it.
const year = 365 * 24 * time.Hour

// minuteFlow runs by the time of day. It makes no insights, so that what the plant makes is all that arrives.
const minuteFlow = `
flow: minute
trigger: {cron: "* * * * *"}
steps:
  - read: mes
    with: {table: public.orders, cursor: n}
    schema: {n: int, product: string}
  - filter: n < 0
  - insight: minute
`

// clocks is a production site whose programs go by clocks that the test sets. The plant works from the start to finish.
type clocks struct {
	t     *testing.T
	plant *production
	site  *site
	sql   *pgx.Conn
	// agent and controlPlane are their clocks.
	agent, controlPlane *wallClock
	began               time.Time
	ended               chan error
	stop                context.CancelFunc
	// agentID is the one of the first agent; moves counts how often its clock was set.
	agentID string
	moves   int
}

// prepareClocks starts nothing but the plant's systems. It takes a rebuild of Go's standard library.
func prepareClocks(t *testing.T) *clocks {
	t.Helper()
	c := &clocks{t: t, plant: newProduction(t), site: prepareSite(t), agent: newWallClock(t), controlPlane: newWallClock(t)}
	c.site.programs = movableBin
	c.site.controlPlaneExtra = append(c.site.controlPlaneDatabase(c.plant.database), c.controlPlane.env())
	c.sql = c.plant.database.superuser(t)
	return c
}

// newClocks has everything run, with the plant's flows and one by the time of day.
func newClocks(t *testing.T) *clocks {
	t.Helper()
	c := prepareClocks(t)
	c.site.agentExtra = []string{c.agent.env(), "OUTFEED_AGENT_STAGING_MAX_AGE=1h", "OUTFEED_AGENT_LOG_LEVEL=info"}
	c.site.serve(c.plant)
	c.site.apply(minuteFlow)
	c.agentID = c.seen().ID
	c.work()
	c.flows(5)
	return c
}

// work has the plant work until finish.
func (c *clocks) work() {
	ctx, stop := context.WithCancel(c.t.Context())
	c.stop, c.ended, c.began = stop, make(chan error, 1), time.Now()
	go func() { c.ended <- c.plant.run(ctx, 50*time.Millisecond) }()
}

// finish stops the plant and wants everything once, in order, and nothing expired.
func (c *clocks) finish() {
	c.t.Helper()
	c.stop()
	if err := <-c.ended; err != nil {
		c.t.Fatal(err)
	}
	took := time.Since(c.began)
	c.site.checkArrived(c.plant)
	for name, n := range map[string]int{"raw": c.plant.messages, "pieces": c.plant.lines, "orders": c.plant.rows} {
		(&backlogTest{t: c.t}).checkNames(c.sql, name, n)
	}
	c.site.checkAgentIsWell(32 << 20)
	st := c.seen()
	if st.expired() != 0 || st.BundleError != "" {
		c.t.Errorf("expired: %v, bundle: %q", st.Outbox.Expired, st.BundleError)
	}
	c.checkRuns(took)
}

// checkRuns wants each flow to have run as often as the time that has passed has it, and no run longer than that.
func (c *clocks) checkRuns(took time.Duration) {
	c.t.Helper()
	count := func(flow string) (n int) {
		err := c.sql.QueryRow(c.t.Context(), "SELECT count(*) FROM runs r JOIN flows f ON f.id = r.flow_id WHERE f.name = $1 AND r.agent_id = $2", flow, c.agentID).Scan(&n)
		if err != nil {
			c.t.Fatal(err)
		}
		return n
	}
	var odd int
	err := c.sql.QueryRow(c.t.Context(), "SELECT count(*) FROM runs WHERE ended_at < started_at OR ended_at > started_at + $1::interval", took.String()).Scan(&odd)
	if err != nil || odd != 0 {
		c.t.Errorf("%d runs ended before they began or lasted longer than %v: %v", odd, took, err)
	}
	seconds, minutes := count("orders"), count("minute")
	c.t.Logf("in %v: %d runs of the flow of every second, %d of the one of every minute, with the clock set %d times", took.Round(time.Second), seconds, minutes, c.moves)
	if most := int(took.Seconds()) + 20; seconds > most || seconds < most/3 {
		c.t.Errorf("the flow of every second ran %d times in %v", seconds, took)
	}
	if whole := int(took.Minutes()); minutes > whole+c.moves+2 || minutes < whole/3 {
		c.t.Errorf("the flow of every minute ran %d times in %v", minutes, took)
	}
}

// clockSeen is what outfeed-agent status says, as far as it matters here.
type clockSeen struct {
	// Refused is why the command failed; the rest is empty then.
	Refused     string `json:"-"`
	ID          string `json:"agent_id"`
	BundleError string `json:"bundle_error"`
	Tunnel      struct {
		Connected bool  `json:"connected"`
		Skew      int64 `json:"clock_skew_seconds"`
	} `json:"tunnel"`
	Outbox account `json:"outbox"`
	Flows  []struct {
		Name  string `json:"name"`
		State string `json:"state"`
	} `json:"flows"`
}

// expired is how many insights a rule has dropped.
func (s *clockSeen) expired() (n uint64) {
	for _, dropped := range s.Outbox.Expired {
		n += dropped
	}
	return n
}

func (c *clocks) seen() clockSeen {
	c.t.Helper()
	return seenBy(c.site)
}

func seenBy(s *site) (st clockSeen) {
	s.t.Helper()
	out, said, err := s.try(s.agentEnv(), nil, s.bin("outfeed-agent"), "status", "--json")
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil {
		st.Refused = fmt.Sprintf("%v: %s", err, said)
	}
	return st
}

// view is what the API says of an agent.
func (c *clocks) view(id string) (v agentView, err error) {
	err = c.site.get("/agents/"+id, &v)
	return v, err
}

// flows waits until so many flows are deployed, and the newest bundle accepted.
func (c *clocks) flows(want int) {
	c.t.Helper()
	c.site.eventually(fmt.Sprintf("%d flows are there", want), func() error {
		if st := c.seen(); len(st.Flows) != want || st.BundleError != "" {
			return fmt.Errorf("the agent says %+v", st)
		}
		return nil
	})
}

// connected waits until an agent is connected, as itself and the API say, and both tell how far its clock is from the control
// plane's, which is ahead by what is given.
func (c *clocks) connected(s *site, clock, other *wallClock) {
	c.t.Helper()
	began := time.Now()
	want := clock.skew() - other.skew()
	within(c.t, goal(time.Minute), "the agent is connected and tells its skew", func() error {
		s.agent.mustLive()
		here := seenBy(s)
		there, err := c.view(here.ID)
		if err != nil {
			return err
		}
		if there.Lock != nil {
			c.t.Fatalf("the agent is locked: %+v", *there.Lock)
		}
		if !here.Tunnel.Connected || !there.Connected || !near(here.Tunnel.Skew, want) || !near(there.Skew, want) {
			return fmt.Errorf("the agent says %+v, the API %+v; want %d s", here.Tunnel, there, want)
		}
		return nil
	})
	c.t.Logf("%d s ahead: connected and told within %v", want, time.Since(began).Round(time.Second))
}

// watch looks on for a while and says for how long the agent was not connected at most.
func (c *clocks) watch(last time.Duration) (gap time.Duration) {
	c.t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	produced, up := c.seen().Outbox.Produced, time.Now()
	for began := time.Now(); time.Since(began) < last; {
		<-tick.C
		c.site.agent.mustLive()
		c.site.controlPlane.mustLive()
		there, err := c.view(c.agentID)
		if err == nil && there.Connected && c.seen().Tunnel.Connected {
			up = time.Now()
		}
		gap = max(gap, time.Since(up))
	}
	if now := c.seen().Outbox; now.Produced <= produced {
		c.t.Errorf("nothing was made in %v: %+v", last, now)
	}
	return gap
}

// drained waits until the control plane has what was made until now.
func (c *clocks) drained() {
	c.t.Helper()
	want := max(c.seen().Outbox.Produced, 1)
	c.site.eventually(fmt.Sprintf("%d insights are stored", want), func() error {
		if o := c.seen().Outbox; o.Acknowledged < want {
			return fmt.Errorf("the agent says %+v", o)
		}
		return nil
	})
}

// counter is the agent's connect counter as the control plane knows it.
func (c *clocks) counter() (n int64) {
	c.t.Helper()
	if err := c.sql.QueryRow(c.t.Context(), "SELECT counter FROM agents WHERE id = $1", c.agentID).Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// atLength skips a test that rebuilds the standard library, which costs a minute of processor time.
func atLength(t *testing.T) {
	t.Helper()
	if !*long {
		t.Skip("it rebuilds Go's standard library with a clock that can be set: make faults runs it")
	}
}

// TestFaultClockFirstStart enrols and starts agents whose clocks are wrong from the beginning.
func TestFaultClockFirstStart(t *testing.T) {
	atLength(t)
	c := prepareClocks(t)
	c.site.startControlPlane()
	c.site.createTenant()
	type wrong struct {
		*site
		clock *wallClock
		id    string
	}
	var agents []wrong
	for name, at := range map[string]time.Time{
		"agent-1901": time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC), // before what 32 bits hold
		"agent-1969": time.Date(1969, 12, 31, 23, 59, 30, 0, time.UTC),
		"agent-1970": time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		"agent-2107": time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC), // after what 32 bits hold without a sign
		"agent-2200": time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), // after what Go's time.Now tells with the monotonic time
	} {
		a := wrong{site: c.site.another(name), clock: newWallClock(t)}
		a.agentExtra = []string{a.clock.env()}
		a.clock.show(at)
		a.enrol(a.link.address)
		a.startAgent()
		c.connected(a.site, a.clock, c.controlPlane)
		a.id = seenBy(a.site).ID
		agents = append(agents, a)
		if out := string(a.outfeed(nil, "agent", "show", a.id)); !strings.Contains(out, " years ") || !strings.Contains(out, "timedatectl set-ntp true") {
			t.Errorf("%s: agent show does not tell the skew:\n%s", name, out)
		}
		if out := string(a.command(a.agentEnv(), nil, a.bin("outfeed-agent"), "status")); !strings.Contains(out, "off by") || !strings.Contains(out, "timedatectl set-ntp true") {
			t.Errorf("%s: status does not tell the skew:\n%s", name, out)
		}
		a.look(a.id, name, "years", "timedatectl set-ntp true")
	}
	c.site.connections(c.plant.connections())
	for _, flow := range []string{rawFlow, windowFlow, filesFlow, ordersFlow} {
		c.site.apply(flow)
	}
	for _, a := range agents {
		a.eventually("its flows run", func() error {
			if st := seenBy(a.site); len(st.Flows) != 4 || st.BundleError != "" {
				return fmt.Errorf("the agent says %+v", st)
			}
			return nil
		})
		a.waitRunning(3)
	}
	p := c.plant
	for range 200 {
		if err := p.work(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := p.messages + p.lines + p.rows + len(wantedWindows(p.messages))
	for _, a := range agents {
		var stored, last int
		a.eventually(fmt.Sprintf("%d insights of %s are stored", want, filepath.Base(a.agentDir)), func() error {
			err := c.sql.QueryRow(t.Context(), "SELECT count(DISTINCT seq), coalesce(max(seq), 0) FROM insights WHERE agent_id = $1", a.id).Scan(&stored, &last)
			if err == nil && stored < want {
				err = fmt.Errorf("%d are; the agent says %+v", stored, seenBy(a.site))
			}
			return err
		})
		if stored != want || last != want {
			t.Errorf("%s: %d insights up to %d, want %d", a.agentDir, stored, last, want)
		}
		a.checkAgentIsWell(32 << 20)
		a.agent.stop()
	}
	t.Logf("%d agents with clocks from 1901 to 2200: each delivered its %d insights", len(agents), want)
}

// TestFaultClockOfTheAgentMoved sets an agent's clock by ten and twenty years while it works: without a link, with one, and
// around restarts.
func TestFaultClockOfTheAgentMoved(t *testing.T) {
	atLength(t)
	c := newClocks(t)
	c.drained()
	c.site.link.setCut(true)
	// A flow of the time of day looks at the clock once a minute.
	const phase = 130 * time.Second
	for _, ahead := range []time.Duration{10 * year, -10 * year, 0} {
		c.set(ahead)
		produced := c.seen().Outbox.Produced
		c.watch(phase)
		st := c.seen()
		t.Logf("%v ahead without a link: %d more insights wait", ahead, st.Outbox.Produced-produced)
		if st.expired() != 0 || st.Outbox.Lost != 0 || !near(st.Tunnel.Skew, c.agent.skew()) {
			t.Errorf("%v ahead: the agent says %+v", ahead, st)
		}
	}
	began := time.Now()
	c.site.link.setCut(false)
	c.connected(c.site, c.agent, c.controlPlane)
	c.drained()
	t.Logf("connected and drained within %v", time.Since(began).Round(time.Second))
	c.checkPhases("orders", 20)
	c.checkPhases("minute", 1)
	flows := 5
	for i, ahead := range []time.Duration{10 * year, -10 * year} {
		before := c.counter()
		c.set(ahead)
		c.connected(c.site, c.agent, c.controlPlane)
		gap := c.watch(time.Minute)
		t.Logf("%v ahead with a link: not connected for at most %v, %d sessions began", ahead, gap.Round(time.Second), c.counter()-before)
		if gap > goal(time.Minute) {
			t.Errorf("not connected for %v", gap)
		}
		c.site.apply(strings.Replace(minuteFlow, "flow: minute", fmt.Sprintf("flow: more-%d", i), 1))
		flows++
		c.flows(flows)
		c.restart(flows)
		c.drained()
	}
	c.set(0)
	c.connected(c.site, c.agent, c.controlPlane)
	c.finish()
}

// set sets the agent's clock.
func (c *clocks) set(ahead time.Duration) {
	c.agent.put(ahead)
	c.moves++
}

// checkPhases wants runs of a flow whose times are those of each clock that the agent had.
func (c *clocks) checkPhases(flow string, least int) {
	c.t.Helper()
	for _, ahead := range []time.Duration{10 * year, -10 * year, 0} {
		c.site.eventually(fmt.Sprintf("the runs of %s are told", flow), func() error {
			var n int
			err := c.sql.QueryRow(c.t.Context(), `SELECT count(*) FROM runs r JOIN flows f ON f.id = r.flow_id
				WHERE f.name = $1 AND r.started_at BETWEEN now() + $2::interval - interval '1 hour' AND now() + $2::interval + interval '1 hour'`,
				flow, ahead.String()).Scan(&n)
			if err == nil && n < least {
				err = fmt.Errorf("%d runs %v ahead, want %d", n, ahead, least)
			}
			return err
		})
	}
}

// restart kills and stops the agent, and has it change its keys.
func (c *clocks) restart(flows int) {
	c.t.Helper()
	before := c.counter()
	c.site.agent.kill()
	c.site.startAgent()
	c.connected(c.site, c.agent, c.controlPlane)
	old, err := c.view(c.agentID)
	if err != nil {
		c.t.Fatal(err)
	}
	c.site.outfeed(nil, "agent", "rotate", c.agentID)
	c.site.eventually("the agent has other keys", func() error {
		v, err := c.view(c.agentID)
		if err == nil && (v.Fingerprint == old.Fingerprint || !v.Connected || !v.Asked.IsZero()) {
			err = fmt.Errorf("the agent: %+v", v)
		}
		return err
	})
	c.site.agent.stop()
	c.site.startAgent()
	c.connected(c.site, c.agent, c.controlPlane)
	c.flows(flows)
	if after := c.counter(); after < before+3 {
		c.t.Errorf("the connect counter is %d, and was %d", after, before)
	}
}

// near says whether a skew that was told is the one that is, but for what passes on the way, in seconds.
func near(told, is int64) bool {
	const tolerance = 20
	return told >= is-tolerance && told <= is+tolerance
}

// TestFaultClockOfTheControlPlaneMoved sets the control plane's clock by ten years: alone, so that its database has another
// time, and together with its database's.
func TestFaultClockOfTheControlPlaneMoved(t *testing.T) {
	atLength(t)
	t.Run("alone", func(t *testing.T) {
		c := newClocks(t)
		c.moveControlPlane(c.controlPlane.put)
	})
	t.Run("with its database", func(t *testing.T) {
		move := movablePostgres(t)
		c := newClocks(t)
		c.moveControlPlane(func(ahead time.Duration) {
			c.controlPlane.put(ahead)
			move(ahead)
			c.site.eventually("the database has that time", func() error {
				var off float64
				err := c.sql.QueryRow(t.Context(), "SELECT extract(epoch FROM clock_timestamp())").Scan(&off)
				if off -= float64(time.Now().Unix()); err == nil && !near(int64(off), c.controlPlane.skew()) {
					err = fmt.Errorf("it is %.0f s ahead", off)
				}
				return err
			})
		})
	})
}

// movablePostgres puts a PostgreSQL before the system's whose clock can be set while it runs; it gives what sets it.
func movablePostgres(t *testing.T) func(ahead time.Duration) {
	t.Helper()
	libraries, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("libfaketime is missing, which sets PostgreSQL's clock: apt-get install libfaketime (%v)", err)
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(installed) == 0 {
		t.Fatalf("PostgreSQL is missing: apt-get install postgresql (%v)", err)
	}
	dir, newest := enterable(t), installed[len(installed)-1]
	clock := filepath.Join(dir, "clock")
	set := func(ahead time.Duration) {
		text := fmt.Sprintf("%+d\n", int64(ahead/time.Second))
		// In one rename, since somebody reads it all the time.
		err := errors.Join(os.WriteFile(clock+".next", []byte(text), 0o644), os.Rename(clock+".next", clock)) //nolint:gosec // PostgreSQL's account reads it
		if err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	script := fmt.Sprintf("#!/bin/sh\nexport LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\nexec %s/postgres \"$@\"\n",
		libraries[0], clock, newest)
	if err := os.WriteFile(filepath.Join(dir, "postgres"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "pg_ctl", "pg_isready"} {
		if err := os.Symlink(filepath.Join(newest, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return set
}

// moveControlPlane sets the control plane's clock back and forth while the plant works.
func (c *clocks) moveControlPlane(move func(ahead time.Duration)) {
	c.t.Helper()
	c.drained()
	flows := 5
	for i, ahead := range []time.Duration{10 * year, -10 * year, 0} {
		before := c.counter()
		move(ahead)
		gap := c.watch(70 * time.Second)
		c.t.Logf("%v ahead: not connected for at most %v, %d sessions began", ahead, gap.Round(time.Second), c.counter()-before)
		if gap > goal(time.Minute) {
			c.t.Errorf("not connected for %v", gap)
		}
		// The session of before goes on, and what is signed by the new time is accepted.
		c.site.apply(strings.Replace(minuteFlow, "flow: minute", fmt.Sprintf("flow: more-%d", i), 1))
		flows++
		c.flows(flows)
		c.connected(c.site, c.agent, c.controlPlane)
		c.drained()
		c.newcomer(fmt.Sprintf("newcomer-%d", i))
		c.site.controlPlane.kill()
		c.site.startControlPlane()
		c.connected(c.site, c.agent, c.controlPlane)
		c.drained()
	}
	c.finish()
}

// newcomer enrols another agent, which runs nothing.
func (c *clocks) newcomer(name string) {
	c.t.Helper()
	s := c.site.another(name)
	clock := newWallClock(c.t)
	s.agentExtra = []string{clock.env()}
	var token struct {
		Token string `json:"token"`
	}
	out := s.outfeed(nil, "agent", "token", "--label", "site=other", "--json")
	if err := json.Unmarshal(out, &token); err != nil {
		c.t.Fatal(err)
	}
	s.command(s.agentEnv(), strings.NewReader(token.Token+"\n"), s.bin("outfeed-agent"), "enroll", "--url", "https://"+s.link.address, "--token", "-")
	s.startAgent()
	c.connected(s, clock, c.controlPlane)
	s.agent.stop()
}
