package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// bench is a control plane in memory and somebody at a terminal.
type bench struct {
	t     *testing.T
	fleet *apitest.Fleet
	url   string
	dir   string
	env   map[string]string
	stdin string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	f := apitest.New()
	f.AgentList = []fleet.Agent{{
		ID: apitest.ID(10), Name: "hall-3", Labels: map[string]string{"site": "berlin"}, Hostname: "edge", OS: "linux",
		Arch: "amd64", Version: "0.1.0", Connected: true, LastSeen: apitest.Clock(), Desired: 4, Applied: 3,
		StoredSeq: 90, RefusedInsights: 1, Receipts: map[string]int64{"damaged": 2, "expired_age": 5},
		Status: &fleet.AgentStatus{
			Flows: []fleet.FlowStatus{{
				Deployment: "d1", Name: "press-health", Version: 1, State: "waiting", Error: "the broker \x1b[31mrefused",
				Sources: []fleet.SourceStatus{{Step: "readings", Connection: "press-plc", State: "retrying"}},
			}},
			Time: apitest.Clock(),
			Outbox: fleet.OutboxStatus{
				Produced: 112, Sent: 105, Acknowledged: 90, WaitingRecords: 12, WaitingBytes: 3400, RoomBytes: 5 << 20, RunwaySeconds: 76 * 3600,
				Late: 4, Expired: map[string]uint64{"expired_age": 10}, Lost: 2, Degraded: "the disk is \x1bfull", Blocked: 3, BlockedBy: "64 MiB free",
				DamagedFiles: 2, Salvaged: 70, Damage: []fleet.DamagedFile{{
					File: "state.db.corrupt-1", At: apitest.Clock(), Reason: "page 3: it is \x1bno page", Salvaged: 60, Lost: 2,
					SetBack: []fleet.ID{"d1", "d2"},
				}},
			},
		},
	}}
	f.RefusedList = []fleet.RefusedInsight{
		{Agent: apitest.ID(10), Received: apitest.Clock(), Seq: 7, Reason: "it has \x1bno name"},
		{Agent: apitest.ID(10), Received: apitest.Clock(), Seq: 6, Reason: "its key is no JSON object"},
	}
	f.MissingList = []fleet.MissingInsights{
		{Agent: apitest.ID(10), FirstAt: apitest.Clock(), LastAt: apitest.Clock(), First: 20, Last: 24, Reason: "expired_age"},
		{Agent: apitest.ID(10), FirstAt: apitest.Clock(), LastAt: apitest.Clock(), First: 7, Last: 8, Reason: "damaged"},
	}
	f.RunList = []fleet.Run{{
		ID: apitest.ID(30), Agent: apitest.ID(10), FlowName: "lathe", Version: 2, Status: "failed", Started: apitest.Clock(),
		Ended: apitest.Clock().Add(1500 * time.Millisecond), RecordsRead: 9, Failed: 1, Error: "The file is damaged.",
		Steps:  []fleet.StepCount{{Step: "cycles", In: 9, Out: 8}},
		Sample: []fleet.FailedRecord{{Step: "cycles", Where: "a.csv:3", Reason: "not a number", Record: "x;y"}},
	}}
	f.ConnectorList = []flowdef.ConnectorSpec{
		{Kind: "mqtt", Title: "MQTT", Options: []flowdef.Option{
			{Name: "url", Type: flowdef.OptionString}, {Name: "keep_alive", Type: flowdef.OptionInt}, {Name: "password", Type: flowdef.OptionSecret},
		}},
		{Kind: "file", Title: "Files", Options: []flowdef.Option{{Name: "root", Type: flowdef.OptionString}}},
	}
	dir := t.TempDir()
	b := &bench{t: t, fleet: f, dir: dir, url: apitest.Serve(t, f, apitest.Options{}).URL}
	b.env = map[string]string{"OUTFEED_URL": b.url, "OUTFEED_API_KEY": apitest.OwnerKey}
	return b
}

// file writes a file and gives its path.
func (b *bench) file(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *bench) app(stdout, stderr io.Writer) *app {
	return &app{
		stdin: strings.NewReader(b.stdin), stdout: stdout, stderr: stderr,
		getenv: func(name string) string { return b.env[name] }, now: apitest.Clock,
	}
}

// run runs a command that must end with that exit code.
func (b *bench) run(code int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	if got := run(b.t.Context(), args, b.app(&out, &errs)); got != code {
		b.t.Fatalf("outfeed %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &errs)
	}
	return out.String(), errs.String()
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("there is no %q in:\n%s", part, text)
		}
	}
}

func TestLoginKeepsAddressAndKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := filepath.Join(b.dir, "config", "outfeed.json")
	b.env = map[string]string{"OUTFEED_CONFIG": path}
	_, stderr := b.run(1, "agent", "list")
	contains(t, stderr, "not logged in", path)

	key := b.file("key.txt", apitest.OwnerKey+"\n")
	stdout, stderr := b.run(0, "login", b.url, "--api-key-file", key)
	contains(t, stdout, "Logged in to "+b.url+" as owner (owner)")
	if strings.Contains(stderr, "Warning") {
		t.Errorf("a loopback address is warned of: %s", stderr)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the login has mode %v, %v", info.Mode(), err)
	}
	stdout, _ = b.run(0, "agent", "list")
	contains(t, stdout, "hall-3")

	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.stdin = "ofk_wrong\n"
	_, stderr = b.run(1, "login", b.url, "--api-key-stdin")
	contains(t, stderr, "unknown or revoked")
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a failed login changed the login: %v", err)
	}
	b.env["OUTFEED_API_KEY"] = apitest.ViewerKey
	stdout, _ = b.run(0, "login", b.url+"/")
	contains(t, stdout, "as viewer (viewer)")
}

func TestLoginRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.env = map[string]string{"OUTFEED_CONFIG": filepath.Join(b.dir, "c.json"), "OUTFEED_API_KEY": "ofk_x"}
	for url, want := range map[string]string{
		"outfeed.example":            "not the address",
		"https://me:hush@cp.example": "holds a user or a password",
		"ftp://outfeed.example":      "not the address",
		"https://outfeed.example/ui": "more than scheme",
		"http://127.0.0.1:1":         "cannot reach the control plane at http://127.0.0.1:1",
	} {
		_, stderr := b.run(1, "login", url)
		contains(t, stderr, want)
		if strings.Contains(stderr, "hush") {
			t.Errorf("a password is in %s", stderr)
		}
	}
	_, stderr := b.run(1, "login", b.url, "--ca", b.file("ca.pem", "not PEM"))
	contains(t, stderr, "no certificate")
	b.env["OUTFEED_API_KEY"] = ""
	_, stderr = b.run(2, "login", b.url)
	contains(t, stderr, "--api-key-file", "See outfeed login --help")
}

func TestStoredKeyIsNotSentToAnotherAddress(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := b.file("c.json", `{"url":"https://elsewhere.example","api_key":"`+apitest.OwnerKey+`"}`)
	b.env = map[string]string{"OUTFEED_CONFIG": path, "OUTFEED_URL": b.url}
	_, stderr := b.run(1, "agent", "list")
	contains(t, stderr, "OUTFEED_API_KEY is not")
}

func TestAgentCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stdout, _ := b.run(0, "agent", "list")
	contains(t, stdout, "NAME", "hall-3", "connected", "site=berlin", "0/1", "12 (3.3 KiB)", "3 days and 4 h", "degraded, 2 lost, 10 expired, 1 damaged file, 1 refused", "no (3 of 4)")
	stdout, _ = b.run(0, "agent", "list", "--json")
	var agents []api.Agent
	if err := json.Unmarshal([]byte(stdout), &agents); err != nil || len(agents) != 1 || agents[0].Name != "hall-3" {
		t.Errorf("JSON is %s, %v", stdout, err)
	}
	stdout, _ = b.run(0, "agent", "show", "hall-3")
	contains(t, stdout, "edge (linux/amd64)", "press-health", "retrying", "the broker \\x1b[31mrefused")

	for _, line := range []string{
		"Produced         112       staged on the agent, as of 2026-03-01T06:00:00Z", "Sent             105 ", "Acknowledged     90 ",
		"Waiting          12        3.3 KiB", "Room             5.0 MiB   cannot be used until the disk can be written", "Rows too late    4 ",
		"Expired          10        dropped by the agent's rule for age", "Lost             2 ", "Lost afterwards  0 ",
		"Staging          degraded  the disk is \\x1bfull", "Commits waiting  3         until the disk can be written", "Stored here      82 ", "Refused here     1 ",
		"Never came       2         damaged on the agent's disk", "Never came       5         dropped by the agent's rule for age",
		"Damaged files    2 ", "Salvaged         70 ", "outfeed insight missing --agent hall-3",
		"2026-03-01T06:00:00Z    state.db.corrupt-1  60        2     press-health, a flow that is gone (d2)  -             page 3: it is \\x1bno page",
		"Check the disk of edge:",
	} {
		contains(t, stdout, line)
	}

	stdout, stderr := b.run(0, "agent", "token", "--label", "site=berlin", "--label", "line=3", "--ttl", "15m")
	if !strings.HasPrefix(stdout, "oft_") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("a script would read %q", stdout)
	}
	contains(t, stderr, "outfeed-agent enroll --url "+b.url+" --token -\n", "2026-03-01T06:15:00Z")
	tokens, err := b.fleet.Tokens(t.Context(), fleet.Actor{})
	if err != nil || len(tokens) != 1 || !cmp.Equal(tokens[0].Labels, map[string]string{"site": "berlin", "line": "3"}) {
		t.Errorf("tokens are %+v, %v", tokens, err)
	}
	for _, args := range [][]string{{"--ttl", "2h"}, {"--ttl", "0s"}, {"--label", "site"}, {"--label", "a=1", "--label", "a=2"}} {
		b.run(2, append([]string{"agent", "token"}, args...)...)
	}
	b.run(0, "agent", "revoke", "hall-3")
	stdout, _ = b.run(0, "agent", "list")
	contains(t, stdout, "revoked")
	_, stderr = b.run(1, "agent", "show", "nobody")
	contains(t, stderr, `There is no agent "nobody".`)
}

func TestLockedAgent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lock := &fleet.AgentLock{
		Since: apitest.Clock(), Reason: fleet.LockSession,
		Connected: fleet.LockSide{Hostname: "edge", Address: "10.0.0.1", Seen: apitest.Clock(), Counter: 7},
		Other:     fleet.LockSide{Hostname: "evil\x1b[31m", Address: "10.0.0.2", Seen: apitest.Clock(), Counter: 6},
	}
	b.fleet.AgentList[0].Lock, b.fleet.AgentList[0].ClockSkew = lock, -56*365*86_400
	stdout, stderr := b.run(0, "agent", "list")
	contains(t, stdout, "LOCKED", "locked, clock 56 years behind, ")
	contains(t, stderr, "outfeed agent show hall-3")
	stdout, _ = b.run(0, "agent", "show", "hall-3")
	contains(t, stdout, "LOCKED", "edge from 10.0.0.1", `evil\x1b[31m from 10.0.0.2`, "connect 6", "outfeed agent unlock hall-3 --keep", "56 years behind")

	b.run(2, "agent", "unlock", "hall-3")
	b.run(2, "agent", "unlock", "hall-3", "--keep", "both")
	_, stderr = b.run(2, "agent", "unlock", "hall-3", "--keep", "other")
	contains(t, stderr, "goes on:", "--yes")
	b.stdin = "no\n"
	_, stderr = b.run(1, "agent", "unlock", "hall-3", "--keep", "other")
	contains(t, stderr, "nothing was changed")
	b.stdin = "yes\n"
	stdout, _ = b.run(0, "agent", "unlock", "hall-3", "--keep", "other")
	contains(t, stdout, "Unlocked agent hall-3")
	_, stderr = b.run(1, "agent", "unlock", "hall-3", "--keep", "connected", "--yes")
	contains(t, stderr, "not locked")
	b.fleet.AgentList[0].Lock = lock
	stdout, _ = b.run(0, "agent", "unlock", "hall-3", "--keep", "connected", "--yes", "--json")
	var g api.Agent
	if err := json.Unmarshal([]byte(stdout), &g); err != nil || g.Name != "hall-3" || g.Lock != nil {
		t.Errorf("JSON is %s, %v", stdout, err)
	}
	stdout, _ = b.run(0, "agent", "rotate", "hall-3")
	contains(t, stdout, "changes its keys now")
	stdout, _ = b.run(0, "agent", "show", "hall-3")
	contains(t, stdout, "shall change, asked at 2026")
	b.run(1, "agent", "rotate", "nobody")
}

func TestConnectionCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.env["PRESS_PASSWORD"] = "from the environment"
	b.file("mes.key", "from a file\n")
	path := b.file("conn.yaml", `
press-plc: {kind: mqtt, url: "tls://broker", keep_alive: 30, password: "${PRESS_PASSWORD}"}
mes: {kind: mqtt, url: "tls://${NOT_A_SECRET}", password: "@mes.key"}
lathe: {kind: file, root: "@incoming"}
odd: {kind: mqtt, password: "@@home"}
`)
	stdout, _ := b.run(0, "connection", "apply", "-f", path)
	contains(t, stdout, "Applied connection lathe (file).", "Applied connection press-plc (mqtt).")
	for name, want := range map[string]string{
		"press-plc": "from the environment", "mes": "from a file", "odd": "@home",
	} {
		if got := b.fleet.Secret(name, "password"); got != want {
			t.Errorf("the secret of %s is %q", name, got)
		}
	}
	stored, err := b.fleet.Connection(t.Context(), fleet.Actor{}, "press-plc")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"url": "tls://broker", "keep_alive": int64(30)}, stored.Options); diff != "" {
		t.Error(diff)
	}
	stdout, _ = b.run(0, "connection", "list")
	contains(t, stdout, "root=@incoming", "tls://${NOT_A_SECRET}", "password")
	if strings.Contains(stdout, "from a file") {
		t.Errorf("a secret is shown: %s", stdout)
	}
	b.run(0, "connection", "delete", "odd")
	_, stderr := b.run(1, "connection", "delete", "odd")
	contains(t, stderr, `There is no connection "odd".`)
	stdout, _ = b.run(0, "connector", "list")
	contains(t, stdout, "mqtt", "url keep_alive password")
}

// A mistake in the file changes nothing, and all mistakes are named.
func TestConnectionApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := b.file("conn.yaml", `
a: {kind: file, root: /data}
b: {kind: mqtt, password: "${UNSET}"}
c: {kind: opcua}
d: {url: x}
e: {kind: mqtt, password: 1234}
f: {kind: mqtt, password: "@missing.key"}
`)
	_, stderr := b.run(1, "connection", "apply", "-f", path)
	contains(t, stderr, `conn.yaml:3:27: option "password": the environment variable UNSET is not set`,
		`conn.yaml:4:5: connection "c": unknown kind "opcua"; there is mqtt, file`, `conn.yaml:5:1: connection "d" has no kind`,
		`conn.yaml:6:17: connection "e": option "password" must be a string`, `conn.yaml:7:17: option "password": cannot read its file`)
	if connections, err := b.fleet.Connections(t.Context(), fleet.Actor{}); err != nil || len(connections) != 0 {
		t.Errorf("connections are %v, %v", connections, err)
	}
	b.run(1, "connection", "apply", "-f", b.file("list.yaml", "- a\n- b\n"))
	b.run(1, "connection", "apply", "-f", b.file("empty.yaml", ""))
	b.run(2, "connection", "apply")
}

func TestFlowCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good := b.file("good.yaml", "flow: press-health\n")
	bad := b.file("bad.yaml", "flow: press-health\nsteps:\n  - filter: bogus > 1\n")
	stdout, _ := b.run(0, "flow", "check", good)
	contains(t, stdout, "press_health", "aggregated", "raw", "press-plc.temp", "It has no tests.", "mes", `key=["machine"] table=mes.results`, "machine temp_avg")
	stdout, _ = b.run(0, "flow", "check", b.file("tested.yaml", "flow: press-health\ntests:\n  - name: one\n  - name: two\n"))
	contains(t, stdout, "2 tests passed.")
	for _, verb := range []string{"check", "apply"} {
		_, stderr := b.run(1, "flow", verb, good, bad)
		want := bad + `:3:13: step running: there is no column "bogus"; the nearest is "count"` + "\n"
		if stderr != want {
			t.Errorf("flow %s says %q", verb, stderr)
		}
	}
	stdout, stderr := b.run(1, "flow", "check", "--json", bad)
	var checks map[string]api.FlowCheck
	if err := json.Unmarshal([]byte(stdout), &checks); err != nil || checks[bad].OK || len(checks[bad].Problems) != 1 {
		t.Errorf("JSON is %s (%s), %v", stdout, stderr, err)
	}
	b.stdin = "no name"
	_, stderr = b.run(1, "flow", "check", "-")
	contains(t, stderr, "-: the flow has no name")

	_, stderr = b.run(1, "flow", "deploy", "press-health", "hall-3")
	contains(t, stderr, "no published version")
	stdout, _ = b.run(0, "flow", "apply", good, "--publish", "--deploy", "site=berlin")
	contains(t, stdout, "version 1 is published", "version 1 is deployed to 1 agent(s): "+string(apitest.ID(10)))
	stdout, _ = b.run(0, "flow", "list")
	contains(t, stdout, "press-health", "PUBLISHED")

	next := b.file("next.yaml", "flow: press-health\ndescription: two\n")
	stdout, _ = b.run(0, "flow", "apply", next)
	contains(t, stdout, "version 2 is a draft")
	b.run(0, "flow", "publish", "press-health", "--version", "2")
	stdout, _ = b.run(0, "flow", "history", "press-health")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], "2 ") {
		t.Errorf("history is\n%s", stdout)
	}
	for version, want := range map[string]string{"0": "flow: press-health\ndescription: two\n", "1": "flow: press-health\n"} {
		if stdout, _ = b.run(0, "flow", "export", "press-health", "--version", version); stdout != want {
			t.Errorf("version %s is %q", version, stdout)
		}
	}
	b.run(1, "flow", "export", "press-health", "--version", "7")

	b.run(2, "flow", "undeploy", "press-health")
	b.run(2, "flow", "undeploy", "press-health", "hall-3", "--all")
	b.run(0, "flow", "undeploy", "press-health", "--all")
	flow, err := b.fleet.Flow(t.Context(), fleet.Actor{}, "press-health")
	if err != nil || len(flow.Deployments) != 0 {
		t.Errorf("flow is %+v, %v", flow, err)
	}
}

func TestRunCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stdout, _ := b.run(0, "run", "list", "--agent", "hall-3", "--status", "failed")
	contains(t, stdout, "lathe", "failed", "1.5s", "The file is damaged.")
	stdout, _ = b.run(0, "run", "show", string(apitest.ID(30)))
	contains(t, stdout, "lathe version 2", "ROWS IN", "cycles", "a.csv:3", "not a number", "x;y")
	_, stderr := b.run(1, "run", "show", "thirty")
	contains(t, stderr, "path.id")
	b.run(2, "run", "list", "--limit", "0")
}

func insight(seq int64, machine string) fleet.Insight {
	return fleet.Insight{
		Agent: apitest.ID(10), Seq: seq, FlowName: "press-health", Name: "press_health",
		Time: apitest.Clock().Add(time.Duration(seq) * time.Minute), Received: apitest.Clock(),
		Key: []byte(`{"machine":"` + machine + `"}`), Values: []byte(`{"n":3}`),
	}
}

func TestInsightQuery(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for seq := range int64(1500) {
		b.fleet.AddInsight(insight(seq+1, "M1"))
	}
	b.fleet.AddInsight(insight(1501, "M2"))
	stdout, _ := b.run(0, "insight", "query", "press_health", "--key", "machine=M2", "--from", "90m", "--agent", "hall-3")
	contains(t, stdout, `{"machine":"M2"}`, `{"n":3}`)
	if q := b.fleet.LastQuery(); !q.From.Equal(apitest.Clock().Add(-90*time.Minute)) || q.Agent != apitest.ID(10) {
		t.Errorf("query is %+v", q)
	}
	stdout, _ = b.run(0, "insight", "query", "--limit", "1200", "--json")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var first, last api.Insight
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1200 || first.Seq != 1501 || last.Seq != 302 {
		t.Errorf("%d lines from %d to %d", len(lines), first.Seq, last.Seq)
	}
	b.run(2, "insight", "query", "--from", "yesterday")
	b.run(2, "insight", "query", "--limit", "0")
	b.run(2, "insight", "query", "--key", "machine")
	b.run(1, "insight", "query", "--agent", "nobody")
}

func TestAPIKeyCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	key, stderr := b.run(0, "api-key", "create", "nightly", "--role", "viewer")
	contains(t, stderr, `"nightly" (viewer)`)
	b.env["OUTFEED_API_KEY"] = strings.TrimSpace(key)
	_, stderr = b.run(1, "api-key", "create", "more", "--role", "owner")
	contains(t, stderr, "A viewer may not change anything")
	b.env["OUTFEED_API_KEY"] = apitest.OwnerKey
	stdout, _ := b.run(0, "api-key", "list")
	contains(t, stdout, "nightly", "viewer")
	b.run(0, "api-key", "revoke", strings.Fields(strings.Split(stdout, "\n")[1])[0])
	_, stderr = b.run(1, "api-key", "create", "x", "--role", "king")
	contains(t, stderr, "body.role")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, args := range [][]string{
		{"fly"},
		{"agent", "fly"},
		{"agent", "list", "x"},
		{"agent", "show"},
		{"--fly"},
		{"flow", "check"},
		{"flow", "deploy", "x"},
		{"login", "--insecure", "x"},
	} {
		_, stderr := b.run(2, args...)
		contains(t, stderr, "Error: ", "--help")
	}
	stdout, _ := b.run(0, "version")
	contains(t, stdout, "outfeed 0.1.0")
	stdout, _ = b.run(0, "agent")
	contains(t, stdout, "token", "revoke")
	stdout, _ = b.run(0, "completion", "bash")
	contains(t, stdout, "complete")
}

// People script these names; every command that does something shows how.
func TestEveryCommandIsExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var walk func(*cobra.Command) []string
	walk = func(c *cobra.Command) []string {
		names := []string{}
		if !c.HasSubCommands() {
			if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
				t.Errorf("%s has no help with an example", c.CommandPath())
			}
			names = append(names, strings.TrimPrefix(c.CommandPath(), "outfeed "))
		}
		for _, sub := range c.Commands() {
			names = append(names, walk(sub)...)
		}
		return names
	}
	want := []string{
		"agent list", "agent revoke", "agent rotate", "agent show", "agent token", "agent unlock", "api-key create", "api-key list", "api-key revoke",
		"connection apply", "connection delete", "connection list", "connector list", "flow apply", "flow check",
		"flow deploy", "flow export", "flow history", "flow list", "flow publish", "flow undeploy", "insight missing", "insight query",
		"insight refused", "insight tail", "login", "run list", "run show", "version",
	}
	if diff := cmp.Diff(want, walk(b.app(io.Discard, io.Discard).root())); diff != "" {
		t.Error(diff)
	}
}

// lines gives what is written line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- strings.TrimSuffix(string(p), "\n")
	return len(p), nil
}

func TestInsightTailSurvivesACut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr := make(lines, 100), make(lines, 100)
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"insight", "tail", "press_health", "--key", "machine=M1", "--agent", "hall-3"}, b.app(stdout, stderr))
	}()
	b.followed(1)
	b.fleet.AddInsight(insight(1, "M1"))
	b.fleet.AddInsight(insight(2, "M2"))
	b.fleet.AddInsight(insight(3, "M1"))
	contains(t, next(t, stdout), "06:01:00Z press_health", `{"machine":"M1"} {"n":3}`)
	contains(t, next(t, stdout), "06:03:00Z")

	b.fleet.Cut()
	contains(t, next(t, stderr), "The stream was cut")
	b.fleet.AddInsight(insight(4, "M1"))
	b.fleet.AddInsight(insight(5, "M1"))
	contains(t, next(t, stdout), "06:04:00Z")
	contains(t, next(t, stdout), "06:05:00Z")
	b.followed(1)
	b.fleet.AddInsight(insight(6, "M1"))
	contains(t, next(t, stdout), "06:06:00Z")

	cancel()
	if code := <-done; code != 0 {
		t.Errorf("Ctrl-C: exit code %d", code)
	}
	if len(stdout) > 0 {
		t.Errorf("more was printed: %s", <-stdout)
	}
}

// followed waits until that many follow.
func (b *bench) followed(count int) {
	b.t.Helper()
	for {
		changed := b.fleet.Changed()
		if b.fleet.Listeners() == count {
			return
		}
		select {
		case <-b.t.Context().Done():
			b.t.Fatal("nobody follows")
		case <-changed:
		}
	}
}

func next(t *testing.T, from lines) string {
	t.Helper()
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case line := <-from:
		return line
	case <-timer.C:
		t.Fatal("nothing was printed")
		return ""
	}
}

func TestInsightTailSaysAtOnceWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, stderr := b.run(1, "insight", "tail", "--flow", "none")
	contains(t, stderr, `There is no flow "none".`)
	b.env["OUTFEED_API_KEY"] = "ofk_wrong"
	_, stderr = b.run(1, "insight", "tail")
	contains(t, stderr, "unknown or revoked")
	b.env["OUTFEED_URL"] = "http://127.0.0.1:1"
	_, stderr = b.run(1, "insight", "tail")
	contains(t, stderr, "cannot reach")
}
