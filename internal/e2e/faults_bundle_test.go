package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// countFlow gives an insight of each line of the files that it follows.
const countFlow = `flow: counts
trigger: continuous
steps:
  - read: files
    with: {path: "*.jsonl", format: jsonl, follow: true}
    schema: {n: int}
  - insight: counts
`

// fileSite is a site whose agent follows files in the folder that it gives.
func fileSite(t *testing.T) (s *site, folder string) {
	t.Helper()
	s = newSite(t)
	folder = s.path("plant")
	if err := os.Mkdir(folder, 0o755); err != nil { //nolint:gosec // nothing secret
		t.Fatal(err)
	}
	s.connections(fmt.Sprintf("files: {kind: file, root: %q}\n", folder))
	return s, folder
}

// line appends a line to what the flow follows, and waits for its insight.
func (s *site) line(folder string, n int) {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(folder, "a.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "{\"n\":%d}\n", n)
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.eventually(fmt.Sprintf("insight %d arrives", n), func() error {
		all, err := s.insights("counts")
		if err == nil && len(all) != n {
			err = fmt.Errorf("%d insights are there", len(all))
		}
		return err
	})
}

// flowSeen is how a flow is, as the agent says on the machine and as the API does.
type flowSeen struct {
	Version     int    `json:"version"`
	SetBackFrom int    `json:"set_back_from"`
	State       string `json:"state"`
	Error       string `json:"error"`
}

type statusSeen struct {
	BundleError string     `json:"bundle_error"`
	Flows       []flowSeen `json:"flows"`
}

// seen gives the status on the machine and that of the API.
func (s *site) seen() (here, there statusSeen, err error) {
	out, said, err := s.try(s.agentEnv(), nil, bin(s.t, "outfeed-agent"), "status", "--json")
	if err != nil {
		return here, there, fmt.Errorf("status: %w: %s", err, said)
	}
	if err = json.Unmarshal(out, &here); err != nil {
		return here, there, err
	}
	var agent struct {
		Status statusSeen `json:"status"`
	}
	err = s.whole(&agent)
	return here, agent.Status, err
}

// waitSeen waits until both sides say what the test wants.
func (s *site) waitSeen(what string, wanted func(statusSeen) bool) {
	s.t.Helper()
	s.eventually(what, func() error {
		here, there, err := s.seen()
		if err == nil && (!wanted(here) || !wanted(there)) {
			err = fmt.Errorf("the agent says %+v, the API %+v", here, there)
		}
		return err
	})
}

// sql changes what the control plane's PostgreSQL holds, past the control plane.
func (s *site) sql(statement string) {
	s.t.Helper()
	server, err := pgserver.New(pgserver.Settings{Dir: s.path("cp", "postgres")})
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := pgx.Connect(s.t.Context(), server.URL(pgserver.Superuser, "outfeed"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close(s.t.Context()) //nolint:errcheck // the statement counts
	if tag, err := c.Exec(s.t.Context(), statement); err != nil || tag.RowsAffected() != 1 {
		s.t.Fatalf("%s: %v, %v", statement, tag, err)
	}
}

// reconnect cuts the link and heals it, so that the agent is told its desired state again while its flows run.
func (s *site) reconnect() {
	s.t.Helper()
	s.link.setCut(true)
	s.link.setCut(false)
}

// restart is reconnect without the wait of an agent that was cut off often.
func (s *site) restart() {
	s.t.Helper()
	s.agent.stop()
	s.startAgent()
}

// listed holds that a person who lists the agents sees these.
func (s *site) listed(all ...string) {
	s.t.Helper()
	out := string(s.outfeed(nil, "agent", "list"))
	for _, want := range all {
		if !strings.Contains(out, want) {
			s.t.Errorf("outfeed agent list does not say %q:\n%s", want, out)
		}
	}
}

// TestFaultsOfTheBundle alters what the control plane signs, and who signs it. The agent refuses it, says so everywhere, and
// its flow goes on.
func TestFaultsOfTheBundle(t *testing.T) {
	s, folder := fileSite(t)
	s.apply(countFlow)
	s.line(folder, 1)
	refused := func(word string) func(statusSeen) bool {
		return func(v statusSeen) bool {
			return strings.Contains(v.BundleError, "refused ("+word+")") && len(v.Flows) == 1 && v.Flows[0].State == "running"
		}
	}
	well := func(v statusSeen) bool {
		return v.BundleError == "" && len(v.Flows) == 1 && v.Flows[0].State == "running"
	}

	s.sql("UPDATE flow_versions SET definition = definition || ' '")
	s.reconnect()
	s.waitSeen("an altered definition is refused", refused("hash_mismatch"))
	s.line(folder, 2)
	s.sql("UPDATE flow_versions SET definition = rtrim(definition, ' ')")
	s.restart()
	s.waitSeen("the right definition is taken again", well)

	s.sql("UPDATE agents SET desired = desired - 1")
	s.restart()
	s.waitSeen("an older serial is refused", refused("older"))
	s.listed("flows refused", "no (")
	s.line(folder, 3)
	s.sql("UPDATE agents SET desired = desired + 1")
	s.restart()
	s.waitSeen("the right serial is taken again", well)

	s.sql("UPDATE deployments SET id = gen_random_uuid()")
	s.restart()
	s.waitSeen("another content under the same serial is refused", refused("conflicting"))
	s.line(folder, 4)
	s.sql("UPDATE agents SET desired = desired + 1")
	s.restart()
	s.waitSeen("the next serial is taken", well)

	// A control plane with another key: what it signs is refused, also after the agent has been killed and started again.
	s.controlPlane.stop()
	s.command(s.controlPlaneEnv(), nil, bin(t, "outfeed-controlplane"), "keys", "replace", "bundle", "--yes")
	s.startControlPlane()
	s.waitSeen("another signature is refused", refused("untrusted"))
	s.picture(s.only(), "refused-bundle", "newest configuration is not in use")
	s.agent.kill()
	s.startAgent()
	s.waitSeen("it is refused after a restart, and the flow runs", refused("untrusted"))
}
