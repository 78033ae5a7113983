//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const qualityFlow = `flow: press-quality
trigger: continuous
steps:
  - id: pieces
    read: files
    with: {path: "*.csv", format: csv, follow: true}
    schema: {ts: timestamp, machine: string, order_no: int, temp: float}
    drift: report
  - id: order
    lookup: erp
    with: {table: orders}
    on: {order_no: id}
    schema: {product: string}
    cache: {size: 50, age: 1s}
  - id: good
    validate:
      temp: {required: true, min: 0, max: 200}
      product: {required: true}
  - insight: piece
    key: [machine, order_no]
    time: ts
  - id: hot
    detect: temp
    from: good
    threshold: {above: 80, clear: 75}
    by: [machine]
    time: ts
  - insight: hot_press
    key: [machine]
tests:
  - name: a hot press opens an event, and a piece of no order is none
    given:
      pieces:
        - {ts: "2026-01-01T06:00:00Z", machine: M1, order_no: 1, temp: 90}
        - {ts: "2026-01-01T06:00:10Z", machine: M1, order_no: 7, temp: 20}
      order: [{id: 1, product: cap}]
    expect:
      piece: [{machine: M1, order_no: 1, product: cap, temp: 90}]
      hot_press: [{time: "2026-01-01T06:00:00Z", machine: M1, event_state: open, value: 90}]
`

const qualityRows = `ts,machine,order_no,temp,operator
2026-01-01T06:00:00Z,M1,1,60,Ann
2026-01-01T06:00:10Z,M1,1,90,Ann
2026-01-01T06:00:20Z,M1,2,300,Ann
2026-01-01T06:00:30Z,M1,9,70,Ann
2026-01-01T06:00:40Z,M1,2,70,Ann
`

// erp makes a database with orders that a role reads with a password, which nothing else lets in.
func erp(t *testing.T, password string) *database {
	t.Helper()
	d := newDatabase(t)
	d.exec(t, "CREATE TABLE orders (id int PRIMARY KEY, product text)", "INSERT INTO orders VALUES (1, 'cap'), (2, 'lid')",
		"CREATE TABLE results (machine text, temp double precision)",
		"CREATE ROLE outfeed_erp LOGIN PASSWORD '"+password+"'", "GRANT SELECT ON orders TO outfeed_erp", "GRANT INSERT, SELECT ON results TO outfeed_erp")
	rules := filepath.Join(filepath.Dir(d.socket), "pgdata", "pg_hba.conf")
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rules, append([]byte("local all outfeed_erp scram-sha-256\n"), text...), 0o600); err != nil { //nolint:gosec // a file of this test
		t.Fatal(err)
	}
	d.exec(t, "SELECT pg_reload_conf()")
	eventually(t, "the database wants the password", func() error {
		c, err := pgx.Connect(t.Context(), d.server.URL("outfeed_erp", "postgres"))
		if err != nil {
			return nil //nolint:nilerr // that is what is waited for
		}
		return fmt.Errorf("it let outfeed_erp in: %w", c.Close(t.Context()))
	})
	return d
}

// fleetFlow is a flow as an agent's status in the API shows it.
type fleetFlow struct {
	State   string `json:"state"`
	Error   string `json:"error"`
	Sources []struct {
		Step  string `json:"step"`
		State string `json:"state"`
		Error string `json:"error"`
	} `json:"sources"`
}

// fleetFlow is the only flow of the only agent.
func (s *site) fleetFlow() (fleetFlow, error) {
	var agent struct {
		Status struct {
			Flows []fleetFlow `json:"flows"`
		} `json:"status"`
	}
	if err := s.whole(&agent); err != nil {
		return fleetFlow{}, err
	}
	if len(agent.Status.Flows) != 1 {
		return fleetFlow{}, fmt.Errorf("the control plane says %+v", agent.Status)
	}
	return agent.Status.Flows[0], nil
}

// feed makes a folder of files, with one file in it, and its connection.
func (s *site) feed(rows string) string {
	s.t.Helper()
	folder := s.path("in")
	if err := os.Mkdir(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "a.csv"), []byte(rows), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("files: {kind: file, root: %q}\n", folder)
}

// TestLookedUpValidatedDetected deploys a flow that looks orders up with a sealed password, validates and detects.
func TestLookedUpValidatedDetected(t *testing.T) {
	const password = "right-and-secret"
	d := erp(t, password)
	s := newSite(t)
	files := s.feed(qualityRows)
	connect := func(password string) {
		t.Helper()
		s.connections(files + fmt.Sprintf("erp: {kind: postgres, host: %q, database: postgres, user: outfeed_erp, password: %q}\n", d.socket, password))
	}
	connect("wrong-and-secret")
	if said := string(s.check(qualityFlow)); !strings.Contains(said, "1 test passed") || !strings.Contains(said, "erp.product") {
		t.Errorf("flow check says %s", said)
	}
	s.apply(qualityFlow)
	s.eventually("the control plane shows that the lookup is not let in", func() error {
		f, err := s.fleetFlow()
		if err != nil {
			return err
		}
		for _, source := range f.Sources {
			if source.Step == "order" && source.State == "failing" && strings.Contains(source.Error, "password") {
				if strings.Contains(source.Error, "wrong-and-secret") {
					t.Errorf("the password is shown: %s", source.Error)
				}
				return nil
			}
		}
		return fmt.Errorf("the control plane says %+v", f)
	})

	connect(password)
	want := map[string][]string{
		"piece": {
			`{"machine":"M1","order_no":1} {"temp":60,"product":"cap"}`, `{"machine":"M1","order_no":1} {"temp":90,"product":"cap"}`,
			`{"machine":"M1","order_no":2} {"temp":70,"product":"lid"}`,
		},
		"hot_press": {`open 90`, `closed 90`},
	}
	s.eventually("the insights arrive", func() error {
		for name, list := range want {
			all, err := s.insights(name)
			if err != nil {
				return err
			}
			if len(all) < len(list) {
				return fmt.Errorf("%d of %d of %s", len(all), len(list), name)
			}
		}
		return nil
	})
	for name, list := range want {
		all, err := s.insights(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range all {
			got = append(got, shown(t, i))
		}
		if strings.Join(got, "\n") != strings.Join(list, "\n") {
			t.Errorf("%s is\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(list, "\n"))
		}
	}
	s.wantQualityReport()
}

// shown is an insight as text: of an event its state and value, of another key and values.
func shown(t *testing.T, i insight) string {
	t.Helper()
	var event struct {
		State string  `json:"event_state"`
		Value float64 `json:"value"`
	}
	if err := json.Unmarshal(i.Values, &event); err != nil {
		t.Fatal(err)
	}
	if event.State != "" {
		return fmt.Sprint(event.State, " ", event.Value)
	}
	return string(i.Key) + " " + string(i.Values)
}

// wantQualityReport waits for the runs that tell of the two pieces that broke a rule and of the column that is not declared.
func (s *site) wantQualityReport() {
	s.t.Helper()
	s.eventually("the runs tell what was wrong, step by step", func() error {
		var runs struct {
			Items []struct {
				Failed int `json:"failed"`
				Steps  []struct {
					Step   string `json:"step"`
					Failed int    `json:"rows_failed"`
				} `json:"steps"`
				Sample []struct {
					Step   string `json:"step"`
					Reason string `json:"reason"`
				} `json:"sample"`
			} `json:"items"`
		}
		if err := s.get("/runs", &runs); err != nil {
			return err
		}
		failed, steps := 0, map[string]int{}
		var told strings.Builder
		for _, r := range runs.Items {
			failed += r.Failed
			for _, step := range r.Steps {
				steps[step.Step] += step.Failed
			}
			for _, f := range r.Sample {
				fmt.Fprintf(&told, "%s: %s\n", f.Step, f.Reason)
			}
		}
		reasons := told.String()
		if failed != 2 || steps["good"] != 2 || steps["pieces"] != 0 || !strings.Contains(reasons, "good: ") || !strings.Contains(reasons, "operator") {
			return fmt.Errorf("%d failed, by step %v: %s", failed, steps, reasons)
		}
		return nil
	})
}

// check asks the control plane what it thinks of a definition that has no problems.
func (s *site) check(definition string) []byte {
	s.t.Helper()
	file := s.path("checked.yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.outfeed(nil, "flow", "check", file)
}

const writingFlow = `flow: back-to-the-mes
trigger: continuous
steps:
  - read: files
    with: {path: "*.csv", format: csv, follow: true}
    schema: {machine: string, temp: float}
  - id: results
    write: erp
    with: {table: results}
  - insight: written
    key: [machine]
`

// TestWritesWantThePlantsConsent deploys a flow that writes: it is refused, visibly, until the machine itself allows it.
func TestWritesWantThePlantsConsent(t *testing.T) {
	d := erp(t, "secret")
	s := newSite(t)
	s.connections(s.feed("machine,temp\nM1,60\nM2,61\n") +
		fmt.Sprintf("erp: {kind: postgres, host: %q, database: postgres, user: outfeed_erp, password: secret}\n", d.socket))
	said := string(s.check(writingFlow))
	for _, want := range []string{"It has no tests", "would be written", "results", "table=results"} {
		if !strings.Contains(said, want) {
			t.Errorf("flow check does not say %q: %s", want, said)
		}
	}
	s.apply(writingFlow)
	s.eventually("the control plane shows the refusal", func() error {
		f, err := s.fleetFlow()
		if err == nil && (f.State != "refused" || !strings.Contains(f.Error, "step results") || !strings.Contains(f.Error, "writes: allow")) {
			err = fmt.Errorf("the control plane says %+v", f)
		}
		return err
	})
	var versions struct {
		Items []struct {
			Writes []struct {
				Connection string   `json:"connection"`
				Columns    []string `json:"columns"`
			} `json:"writes"`
		} `json:"items"`
	}
	if err := s.get("/flows/back-to-the-mes/versions", &versions); err != nil || len(versions.Items) != 1 || len(versions.Items[0].Writes) != 1 ||
		versions.Items[0].Writes[0].Connection != "erp" || len(versions.Items[0].Writes[0].Columns) != 2 {
		t.Errorf("the version is %+v, %v", versions, err)
	}
	s.agent.stop()
	written := func() (n int) {
		t.Helper()
		if err := d.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM results").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := written(); n != 0 {
		t.Errorf("the refused flow wrote %d rows", n)
	}
	s.agent = start(t, s.path("agent.log"), append(s.agentEnv(), "OUTFEED_AGENT_WRITES=allow"), bin(t, "outfeed-agent"), "run")
	s.eventually("the rows are written and told", func() error {
		all, err := s.insights("written")
		if n := written(); err == nil && (n != 2 || len(all) != 2) {
			err = fmt.Errorf("%d rows and %d insights of 2", n, len(all))
		}
		return err
	})
}
