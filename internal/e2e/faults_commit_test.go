package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
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
	plant  *plant
	site   *site
	// database is the address of the control plane's database for a superuser.
	database string
	stop     context.CancelFunc
	ended    chan error
}

// newIngest is an ingest into a control plane's private PostgreSQL.
func newIngest(t *testing.T) *ingest {
	t.Helper()
	i := &ingest{t: t, random: random(t), plant: newPlant(t), site: prepareSite(t), ended: make(chan error, 1)}
	i.site.serve(i.plant)
	address := url.Values{"host": {i.site.path("cp", "postgres", "socket")}, "port": {"5432"}, "user": {pgserver.Superuser}}
	i.database = "postgres:///outfeed?" + address.Encode()
	var ctx context.Context
	ctx, i.stop = context.WithCancel(t.Context())
	go func() { i.ended <- i.plant.run(ctx, 5*time.Millisecond) }()
	return i
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
// round it is killed, and begins anew with short ones.
func (i *ingest) heal(round int) {
	i.t.Helper()
	i.site.link.setDeaf(false)
	i.site.link.setCut(false)
	if round%2 == 1 {
		i.site.agent.kill()
		i.site.startAgent()
	}
	i.site.eventually("the agent is connected", func() error {
		if st := i.site.agentStatus(); !st.Tunnel.Connected {
			return fmt.Errorf("the agent says %+v", st.Tunnel)
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
		i.heal(round)
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
	rows, err := c.Query(i.t.Context(), "SELECT pid FROM pg_stat_activity WHERE application_name = 'outfeed-controlplane' AND backend_type = 'client backend'")
	if err != nil {
		i.t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(pids) == 0 {
		i.t.Fatalf("connections of the control plane: %v %v", pids, err)
	}
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
		i.site.eventually("insights are stored that are not acknowledged", func() error {
			last, err := i.stored()
			if err == nil && last <= acknowledged {
				err = fmt.Errorf("%d are stored and %d acknowledged", last, acknowledged)
			}
			atStake += last - min(last, acknowledged)
			return err
		})
		if now := i.acknowledged(); now != acknowledged {
			t.Errorf("round %d: the link was deaf and %d were acknowledged after %d", round, now, acknowledged)
		}
		i.site.link.setCut(true)
		i.heal(round)
	}
	i.finish()
	t.Logf("%d cuts between commit and acknowledgement, which %d insights were caught in: each is stored once", rounds, atStake)
}
