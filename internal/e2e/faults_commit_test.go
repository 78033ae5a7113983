package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// ingest is a plant that works, and a control plane that takes its insights in.
type ingest struct {
	t      *testing.T
	random *rand.Rand
	plant  *production
	site   *site
	// database is the address of the control plane's database for a superuser.
	database string
	stop     context.CancelFunc
	ended    chan error
}

// newIngest is an ingest into a control plane's private PostgreSQL.
func newIngest(t *testing.T) *ingest {
	t.Helper()
	i := &ingest{t: t, random: random(t), plant: newProduction(t), site: prepareSite(t), ended: make(chan error, 1)}
	address := url.Values{"host": {i.site.path("cp", "postgres", "socket")}, "port": {"5432"}, "user": {pgserver.Superuser}}
	i.database = "postgres:///outfeed?" + address.Encode()
	i.begin()
	return i
}

// begin starts everything, and the plant's work.
func (i *ingest) begin() {
	i.t.Helper()
	i.site.serve(i.plant)
	var ctx context.Context
	ctx, i.stop = context.WithCancel(i.t.Context())
	go func() { i.ended <- i.plant.run(ctx, 5*time.Millisecond) }()
}

// finish ends the plant's work and wants everything to be stored once.
func (i *ingest) finish() {
	i.t.Helper()
	i.stop()
	if err := <-i.ended; err != nil {
		i.t.Fatal(err)
	}
	i.site.checkArrived(i.plant)
	i.site.checkAgentIsWell(32 << 20)
}

// stored is what the database holds: the last sequence of the agent, and whether just so many insights are there, each
// once.
func (i *ingest) stored() (last uint64, err error) {
	ctx, cancel := context.WithTimeout(i.t.Context(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, i.database)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx) //nolint:errcheck // it was only read from
	var rows, different uint64
	err = c.QueryRow(ctx, `SELECT a.stored_seq, count(i.seq), count(DISTINCT i.seq) FROM agents a LEFT JOIN insights i ON i.agent_id = a.id GROUP BY a.stored_seq`).
		Scan(&last, &rows, &different)
	if err == nil && (rows != last || different != last) {
		i.t.Errorf("the agent's sequence is stored up to %d, with %d insights of %d numbers", last, rows, different)
	}
	return last, err
}

// acknowledged is what the agent takes for stored.
func (i *ingest) acknowledged() (n uint64) {
	i.t.Helper()
	i.site.eventually("the agent answers", func() error {
		st := i.site.agentStatus()
		if n = st.Outbox.Acknowledged; st.Outbox.Produced == 0 {
			return errors.New("it does not")
		}
		return nil
	})
	return n
}

// pause waits for a random time.
func (i *ingest) pause(most time.Duration) {
	timer := time.NewTimer(time.Duration(i.random.Int64N(int64(most))))
	defer timer.Stop()
	<-timer.C
}

// heal mends the link. The agent's pauses between tries grow with each session that was short, so that in every other
// round it is killed, and begins anew with short ones. It waits until more is acknowledged than was stored before.
func (i *ingest) heal(round int, stored uint64) {
	i.t.Helper()
	i.site.link.setDeaf(false)
	i.site.link.setCut(false)
	if round%2 == 1 {
		i.site.agent.kill()
		i.site.startAgent()
	}
	i.awaitMore(stored)
}

// awaitMore waits until more is acknowledged than was stored before.
func (i *ingest) awaitMore(stored uint64) {
	i.t.Helper()
	i.site.eventually("more is acknowledged", func() error {
		if st := i.site.agentStatus(); !st.Tunnel.Connected || st.Outbox.Acknowledged <= stored {
			return fmt.Errorf("the agent says %+v", st)
		}
		return nil
	})
}

// TestFaultPostgreSQLStopsDuringIngest stops the control plane's private PostgreSQL as pg_ctl stop -m immediate does, kills
// it, and kills the process of a connection. What the agent takes for stored is stored, right after each time.
func TestFaultPostgreSQLStopsDuringIngest(t *testing.T) {
	t.Parallel()
	rounds := 3
	if *long {
		rounds = 60
	}
	i := newIngest(t)
	faults := []func(){
		func() { kill(t, i.site.postmaster(), syscall.SIGQUIT) }, // what -m immediate sends
		func() { kill(t, i.site.postmaster(), syscall.SIGKILL) },
		i.killConnection,
	}
	atStake := uint64(0)
	for round := range rounds {
		i.pause(1500 * time.Millisecond)
		faults[round%len(faults)]()
		// Nothing more may be stored until the two are compared, which would hide what is missing. But in every third round
		// the session outlives the fault, so that the control plane tries a commit again whose outcome it does not know.
		if round%len(faults) != 1 {
			i.site.link.setCut(true)
		}
		acknowledged := i.acknowledged()
		var last uint64
		i.site.eventually("the database is back", func() (err error) {
			last, err = i.stored()
			return err
		})
		if acknowledged > last {
			t.Errorf("round %d: the agent takes insights up to %d for stored, and the database has those up to %d", round, acknowledged, last)
		}
		atStake += last - min(last, acknowledged)
		i.heal(round, last)
	}
	i.finish()
	t.Logf("%d times the database ended during ingest: 0 insights were acknowledged and not stored; %d were stored and not acknowledged, and are there once", rounds, atStake)
}

// killConnection kills a process of PostgreSQL that serves the control plane, upon which PostgreSQL ends all connections
// and recovers.
func (i *ingest) killConnection() {
	i.t.Helper()
	c, err := pgx.Connect(i.t.Context(), i.database)
	if err != nil {
		i.t.Fatal(err)
	}
	defer c.Close(i.t.Context()) //nolint:errcheck // it is about to break
	var pids []int
	i.site.eventually("the control plane uses its database", func() error {
		rows, err := c.Query(i.t.Context(), "SELECT pid FROM pg_stat_activity WHERE application_name = 'outfeed-controlplane' AND backend_type = 'client backend'")
		if err != nil {
			return err
		}
		if pids, err = pgx.CollectRows(rows, pgx.RowTo[int]); err == nil && len(pids) == 0 {
			err = errors.New("it has no connection")
		}
		return err
	})
	slices.Sort(pids)
	kill(i.t, pids[i.random.IntN(len(pids))], syscall.SIGKILL)
}

// TestFaultLinkCutBeforeTheAcknowledgement cuts the link when insights are committed whose acknowledgement has not arrived:
// it drops what the control plane says until that is so.
func TestFaultLinkCutBeforeTheAcknowledgement(t *testing.T) {
	t.Parallel()
	rounds := 10
	if *long {
		rounds = 100
	}
	i := newIngest(t)
	atStake := uint64(0)
	for round := range rounds {
		i.pause(300 * time.Millisecond)
		i.site.link.setDeaf(true)
		acknowledged := i.acknowledged()
		var last uint64
		i.site.eventually("insights are stored that are not acknowledged", func() (err error) {
			if last, err = i.stored(); err == nil && last <= acknowledged {
				err = fmt.Errorf("%d are stored and %d acknowledged", last, acknowledged)
			}
			return err
		})
		// An acknowledgement that had passed the link before it was deaf may have been on its way to the agent's disk.
		now := i.acknowledged()
		if now > last {
			t.Errorf("round %d: the agent takes insights up to %d for stored, and the database has those up to %d", round, now, last)
		}
		atStake += last - min(last, now)
		i.site.link.setCut(true)
		i.heal(round, last)
	}
	i.finish()
	t.Logf("%d cuts between commit and acknowledgement, which %d insights were caught in: each is stored once", rounds, atStake)
}

// committing waits for the commit of a transaction that stores insights, and lets its answer not arrive.
type committing struct {
	link *link
	// armed says that the next such commit is to be caught, storing which connections have sent insights.
	mu      sync.Mutex
	armed   bool
	storing map[net.Conn]bool
	caught  chan struct{}
}

// spy sees what the control plane sends to its database. Values of insights begin with the column n.
func (c *committing) spy(from net.Conn, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(p, []byte(`{"n":`)) {
		c.storing[from] = true
	}
	if !bytes.Contains(p, []byte("commit\x00")) {
		return
	}
	stored := c.storing[from]
	delete(c.storing, from)
	if c.armed && stored {
		c.armed = false
		c.link.setDeaf(true)
		c.caught <- struct{}{}
	}
}

// arm has the next commit caught.
func (c *committing) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = true
}

// TestFaultDatabaseCutDuringCommit cuts the connections to the database when a commit was sent whose answer has not
// arrived, so that the control plane does not know its outcome.
func TestFaultDatabaseCutDuringCommit(t *testing.T) {
	t.Parallel()
	rounds := 10
	if *long {
		rounds = 200
	}
	i := &ingest{t: t, random: random(t), plant: newProduction(t), site: prepareSite(t), ended: make(chan error, 1)}
	i.site.controlPlaneDatabase(i.plant.database)
	i.database = i.plant.database.server.URL(pgserver.Superuser, "outfeed")
	c := &committing{storing: map[net.Conn]bool{}, caught: make(chan struct{}, 1)}
	c.link = newSpiedLink(t, filepath.Join(i.plant.database.socket, ".s.PGSQL.5432"), c.spy)
	i.site.controlPlaneExtra = []string{"OUTFEED_DATABASE_URL=postgres://outfeed_app@" + c.link.address + "/outfeed?sslmode=disable"}
	i.begin()
	atStake := uint64(0)
	for round := range rounds {
		i.pause(100 * time.Millisecond)
		c.arm()
		i.await(c.caught)
		acknowledged := i.acknowledged()
		var last uint64
		i.site.eventually("the commit has landed", func() (err error) {
			if last, err = i.stored(); err == nil && last <= acknowledged {
				err = fmt.Errorf("%d are stored and %d acknowledged", last, acknowledged)
			}
			return err
		})
		// What was committed before may have been on its way to the agent.
		now := i.acknowledged()
		if now >= last {
			t.Errorf("round %d: the database was deaf, and the agent takes insights up to %d of %d for stored", round, now, last)
		}
		atStake += last - min(last, now)
		c.link.setCut(true)
		c.link.setDeaf(false)
		c.link.setCut(false)
		i.awaitMore(last)
	}
	i.finish()
	t.Logf("%d commits of unknown outcome, of %d insights: each is stored once", rounds, atStake)
}

func (i *ingest) await(caught <-chan struct{}) {
	i.t.Helper()
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-caught:
	case <-timer.C:
		i.t.Fatal("no insights were committed")
	}
}
