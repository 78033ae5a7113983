package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/fleet/fleettest"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/wire"
)

// long is set by make faults.
var long = flag.Bool("long", false, "run the tests of faults at length")

func TestMain(m *testing.M) { fleettest.Main(m) }

// whole is the API over the real domain and a real database, with one organization that has one agent.
type whole struct {
	*caller
	fleet *fleet.Service
	db    *pgtest.DB
	agent fleet.AgentIdentity
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{db: pgtest.New(t)}
	w.fleet = fleettest.Start(t, w.db, fleet.Settings{Replica: "replica-1", Tenancy: fleet.ManyTenants})
	owner, key := fleettest.Tenant(t, w.fleet, "acme")
	server := apitest.ServeHandler(t, httpapi.New(httpapi.Settings{
		Fleet: w.fleet, Auth: auth.New(auth.Settings{Keys: w.fleet, Sessions: w.fleet}), Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	}))
	w.caller = &caller{t: t, url: server.URL, key: key.Reveal(), client: &http.Client{Transport: &http.Transport{DisableCompression: true}}}
	w.connect(owner)
	return w
}

// connect enrols the agent and connects it.
func (w *whole) connect(owner fleet.Actor) {
	w.t.Helper()
	ctx, machine := w.t.Context(), fleettest.NewMachine(w.t)
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	token := fleettest.Token(w.t, w.fleet, owner, map[string]string{"site": "berlin", "line": "3"})
	w.agent = machine.Enroll(w.t, w.fleet, token)
	hello := &wire.Hello{Host: machine.Request(token).GetHost(), Counter: 1}
	for i := range 20 {
		spec := flowdef.ConnectorSpec{Kind: fmt.Sprintf("kind-%d", i), Title: "A kind of plant system", Options: []flowdef.Option{}}
		for n := range 20 {
			spec.Options = append(spec.Options, flowdef.Option{Name: fmt.Sprintf("option-%d", n), Type: flowdef.OptionString, Help: strings.Repeat("What it means. ", 12)})
		}
		encoded, err := json.Marshal(spec)
		must(err)
		hello.ConnectorSpecs = append(hello.ConnectorSpecs, encoded)
	}
	_, err := w.fleet.Connect(ctx, w.agent, fleet.Caller{Key: machine.Public, Address: "10.0.0.7"}, hello)
	must(err)
	w.agent.Session = 1
	must(w.fleet.Keep(ctx, w.agent))
}

// report sends a status with so many flows, of which each fails with a text of so many bytes; 0 for flows that run.
func (w *whole) report(flows, size int) {
	w.t.Helper()
	s := &wire.Status{Time: time.Now().UnixMicro(), Outbox: &wire.Outbox{Produced: 1000, Sent: 990, Acknowledged: 980, WaitingRecords: 20, WaitingBytes: 4000, RoomBytes: 1 << 30, RunwaySeconds: -1}}
	for i := range flows {
		f := &wire.FlowStatus{
			DeploymentId: fmt.Sprintf("01950000-0000-7000-8000-%012d", i), FlowId: fmt.Sprintf("01950000-0000-7001-8000-%012d", i), Name: fmt.Sprintf("press-health-%d", i),
			Version: 3, State: "running", Since: s.GetTime(), Sources: []*wire.SourceStatus{{Step: "readings", Connection: "press-plc", State: "reading", LastRecord: s.GetTime()}},
		}
		if size > 0 {
			why := "dial tcp 10.0.0.1:1883: connection refused\n" + strings.Repeat("goroutine 7 [running] ", size/22)
			f.State, f.Error, f.Sources[0].State, f.Sources[0].Error = "backing_off", "readings: "+why, "failing", why
		}
		s.Flows = append(s.Flows, f)
	}
	if err := w.fleet.StoreStatus(w.t.Context(), w.agent, s); err != nil {
		w.t.Fatal(err)
	}
}

// multiply makes n agents of the one, each with a connected session and three older ones.
func (w *whole) multiply(n int) {
	w.t.Helper()
	c, err := sql.Open("pgx", w.db.SuperURL())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the statements are done
	for _, statement := range []string{
		`CREATE TEMP TABLE copies AS SELECT a.*, i FROM agents a, generate_series(2, $1::int) i`,
		`UPDATE copies SET id = gen_random_uuid(), name = name || '-' || lpad(i::text, 5, '0'), fingerprint = md5(i::text),
			public_key = sha256(i::text::bytea), sealing_key = sha256(i::text::bytea)`,
		`ALTER TABLE copies DROP COLUMN i`,
		`INSERT INTO agents SELECT * FROM copies`,
		`INSERT INTO agent_sessions (tenant_id, agent_id, counter, replica, hostname, address, ended_at)
			SELECT tenant_id, id, n, 'replica-1', hostname, '10.0.0.7', CASE WHEN n < 4 THEN now() END FROM agents, generate_series(1, 4) n ON CONFLICT DO NOTHING`,
		`ANALYZE agents, agent_sessions`,
	} {
		var args []any
		if strings.Contains(statement, "$1") {
			args = append(args, n)
		}
		if _, err := c.ExecContext(w.t.Context(), statement, args...); err != nil {
			w.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// fetch follows the pages of the list, and gives the agents, how many bytes came, and how long each page took.
func (w *whole) fetch() (agents []api.Agent, size int, took []time.Duration) {
	w.t.Helper()
	next := ""
	for {
		begun := time.Now()
		response, text := w.do(http.MethodGet, "/api/v1/agents"+next, "")
		took, size = append(took, time.Since(begun)), size+len(text)
		if response.StatusCode != http.StatusOK {
			w.t.Fatalf("status %d: %s", response.StatusCode, text)
		}
		if response.Header.Get("Content-Encoding") == "gzip" {
			text = unzip(w.t, text)
		}
		var page api.AgentPage
		if err := json.Unmarshal(text, &page); err != nil {
			w.t.Fatal(err)
		}
		agents = append(agents, page.Items...)
		if page.Next == "" {
			return agents, size, took
		}
		next = "?after=" + page.Next
	}
}

func unzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// One agent that says very much, and very many agents: the list stays small, and each page quick.
func TestListOfAgentsIsBounded(t *testing.T) {
	t.Parallel()
	// How many agents are many, and how many pages are timed.
	many, timed := 1200, 3
	if *long {
		many, timed = 5000, 100
	}
	for _, c := range []struct {
		name                string
		agents, flows, size int
		most, mostZipped    int
	}{
		{"one agent with 1,000 flows that fail", 1, 1000, 7000, 700 << 10, 100 << 10},
		{"many agents", many, 3, 0, many * 2300, many * 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWhole(t)
			w.t = t
			w.report(c.flows, c.size)
			if c.agents > 1 {
				w.multiply(c.agents)
			}
			for _, encoding := range []string{"", "gzip"} {
				of := *w
				of.caller = w.with("Accept-Encoding", encoding)
				var took []time.Duration
				agents, size, _ := of.fetch()
				for len(took) < timed {
					_, _, pages := of.fetch()
					took = append(took, pages...)
				}
				slices.Sort(took)
				t.Logf("%q: %d agents are %d bytes; of %d pages the 50th percentile took %s and the 99th %s", encoding, len(agents), size, len(took), took[len(took)/2], took[len(took)*99/100])
				if most := map[string]int{"": c.most, "gzip": c.mostZipped}[encoding]; size > most {
					t.Errorf("%q: the list has %d bytes, more than %d", encoding, size, most)
				}
				seen := map[string]bool{}
				for _, a := range agents {
					seen[a.ID] = true
					if len(a.ConnectorKinds) != 20 || len(a.Status.Flows) != c.flows || a.Status.FlowsLeftOut != 0 || a.LastSeenAt.IsZero() {
						t.Fatalf("an agent is listed as %+v", a)
					}
				}
				if len(seen) != c.agents || len(agents) != c.agents {
					t.Errorf("%d agents are listed, %d of them apart", len(agents), len(seen))
				}
			}
		})
	}
}

// What a list leaves out is there when one asks for the agent.
func TestOneAgentIsWhole(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	w.report(2, 3000)
	agents, _, _ := w.fetch()
	brief := agents[0].Status.Flows[0]
	full := get[api.Agent](w.caller, http.StatusOK, http.MethodGet, "/api/v1/agents/press-pc", "").Status.Flows[0]
	const why = "dial tcp 10.0.0.1:1883: connection refused…"
	if brief.Error != "readings: "+why || brief.Sources[0].Error != why {
		t.Errorf("the list has %+v", brief)
	}
	if len(full.Error) < 2900 || !strings.HasPrefix(full.Error, "readings: dial tcp") || len(full.Sources[0].Error) < 2900 {
		t.Errorf("the agent has %+v", full)
	}
	stream := follow(t, w.url, w.key)
	w.report(2, 3000)
	if got := event[api.AgentEvent](stream, "agent"); got.Agent.Status.Flows[0].Error != brief.Error {
		t.Errorf("the event has %+v", got.Agent.Status.Flows[0])
	}
}
