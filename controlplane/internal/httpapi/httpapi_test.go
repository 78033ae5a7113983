package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// caller sends requests to one server.
type caller struct {
	t      *testing.T
	url    string
	key    string
	client *http.Client
	header http.Header
}

func serve(t *testing.T, f *apitest.Fleet, o apitest.Options) *caller {
	t.Helper()
	return &caller{t: t, url: apitest.Serve(t, f, o).URL, key: apitest.OwnerKey, client: &http.Client{}}
}

// as is the same caller with another key.
func (c *caller) as(key string) *caller {
	other := *c
	other.key = key
	return &other
}

func (c *caller) with(header, value string) *caller {
	other := *c
	other.header = http.Header{header: {value}}
	return &other
}

// reply is an answer that was read to its end.
type reply struct {
	StatusCode int
	Header     http.Header
}

func (c *caller) do(method, path, body string) (reply, []byte) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.key != "" {
		r.Header.Set("Authorization", "Bearer "+c.key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(r.Header, c.header)
	response, err := c.client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply{StatusCode: response.StatusCode, Header: response.Header}, text
}

// get decodes a good answer; members that T does not know fail the test.
func get[T any](c *caller, status int, method, path, body string) T {
	c.t.Helper()
	response, text := c.do(method, path, body)
	if response.StatusCode != status {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, response.StatusCode, status, text)
	}
	var out T
	if status == http.StatusNoContent {
		return out
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		c.t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return out
}

func problemOf(c *caller, status int, method, path, body string) api.Problem {
	c.t.Helper()
	response, _ := c.do(method, path, body)
	if got := response.Header.Get("Content-Type"); got != api.ProblemType {
		c.t.Errorf("%s %s: content type is %q", method, path, got)
	}
	p := get[api.Problem](c, status, method, path, body)
	if p.Status != status || p.Detail == "" || p.Title == "" || p.Code == "" || p.Type != "about:blank" {
		c.t.Errorf("%s %s: problem is %+v", method, path, p)
	}
	return p
}

func agent() fleet.Agent {
	return fleet.Agent{
		ID: apitest.ID(10), Workspace: apitest.ID(2), Name: "hall-3", Labels: map[string]string{"site": "berlin"},
		Hostname: "edge", OS: "linux", Arch: "amd64", Version: "0.1.0", Created: apitest.Clock(), Connected: true,
		LastSeen: apitest.Clock(), Desired: 4, Applied: 3, StoredSeq: 20, Receipts: map[string]int64{"damaged": 5}, RefusedInsights: 6,
		Status: &fleet.AgentStatus{
			Time:  apitest.Clock(),
			Flows: []fleet.FlowStatus{{Name: "press-health", State: "running", Sources: []fleet.SourceStatus{{Step: "readings"}}}},
			Outbox: fleet.OutboxStatus{
				Produced: 27, Sent: 24, Acknowledged: 19, WaitingRecords: 2, WaitingBytes: 100, RoomBytes: 1000, RunwaySeconds: 90, Late: 3,
				Expired: map[string]uint64{"expired_age": 6}, Lost: 5, LostRemotely: 1, Degraded: "the disk is full", Blocked: 2, BlockedBy: "1 GiB waits",
				DamagedFiles: 3, Salvaged: 70, Damage: []fleet.DamagedFile{{File: "state.db.corrupt-1", At: apitest.Clock(), Reason: "page 3", Lost: 1, SetBack: []fleet.ID{"d"}}},
				SetAside: []fleet.SetAside{{Dir: "stage.of-a-1", Agent: "a", Waiting: 8}},
			},
		},
		Connectors: []flowdef.ConnectorSpec{{Kind: "mqtt"}},
	}
}

func insight(seq int64, machine string) fleet.Insight {
	return fleet.Insight{
		Agent: apitest.ID(10), Seq: seq, Flow: apitest.ID(20), FlowName: "press-health", Version: 1, Name: "press_health",
		Time: apitest.Clock().Add(time.Duration(seq) * time.Minute), Received: apitest.Clock(),
		Key: []byte(`{"machine":"` + machine + `"}`), Values: []byte(`{"n":3,"temp_avg":60.125}`),
	}
}

// Every operation of the document that wants credentials refuses without them, and with wrong ones.
func TestEveryOperationWantsCredentials(t *testing.T) {
	t.Parallel()
	c := serve(t, apitest.New(), apitest.Options{})
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string                `json:"operationId"`
			Security    []map[string][]string `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for path, operations := range document.Paths {
		for method, operation := range operations {
			if operation.OperationID == "sign-in" {
				continue
			}
			if len(operation.Security) == 0 {
				t.Errorf("%s asks for no credentials", operation.OperationID)
			}
			tried++
			filled := strings.NewReplacer("{id}", string(apitest.ID(1)), "{", "", "}", "").Replace(path)
			for _, key := range []string{"", "ofk_wrong"} {
				p := problemOf(c.as(key), http.StatusUnauthorized, strings.ToUpper(method), filled, "")
				if p.Code != "unauthorized" {
					t.Errorf("%s with key %q: code is %s", operation.OperationID, key, p.Code)
				}
			}
		}
	}
	if tried < 25 {
		t.Errorf("only %d operations were found", tried)
	}
}

func TestAccount(t *testing.T) {
	t.Parallel()
	c := serve(t, apitest.New(), apitest.Options{})
	want := api.Me{
		TenantID: string(apitest.ID(1)), WorkspaceID: string(apitest.ID(2)), Kind: "api_key", ID: string(apitest.ID(3)),
		Name: "owner", Role: "owner",
	}
	if diff := cmp.Diff(want, get[api.Me](c, 200, "GET", "/api/v1/me", "")); diff != "" {
		t.Error(diff)
	}
	created := get[api.APIKeyCreated](c, 201, "POST", "/api/v1/api-keys", `{"name":"report","role":"viewer"}`)
	if created.APIKey.Role != "viewer" || created.Key == "" {
		t.Errorf("created %+v", created)
	}
	keys := get[api.List[api.APIKey]](c, 200, "GET", "/api/v1/api-keys", "")
	if diff := cmp.Diff([]api.APIKey{created.APIKey}, keys.Items); diff != "" {
		t.Error(diff)
	}
	if me := get[api.Me](c.as(created.Key), 200, "GET", "/api/v1/me", ""); me.Name != "report" {
		t.Errorf("the new key is %+v", me)
	}
	get[struct{}](c, 204, "DELETE", "/api/v1/api-keys/"+created.APIKey.ID, "")
	problemOf(c.as(created.Key), 401, "GET", "/api/v1/me", "")
	problemOf(c, 404, "DELETE", "/api/v1/api-keys/"+created.APIKey.ID, "")
}

func TestAgents(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.AgentList = []fleet.Agent{agent()}
	c := serve(t, f, apitest.Options{})
	created := get[api.AgentTokenCreated](c, 201, "POST", "/api/v1/agent-tokens", `{"labels":{"site":"berlin"},"ttl_seconds":600}`)
	if created.Token == "" || created.URL != "" || !created.AgentToken.ExpiresAt.Equal(apitest.Clock().Add(10*time.Minute)) {
		t.Errorf("created %+v", created)
	}
	if p := problemOf(c, 422, "POST", "/api/v1/agent-tokens", `{"ttl_seconds":3601}`); len(p.Errors) != 1 || p.Errors[0].Location != "body.ttl_seconds" {
		t.Errorf("two hours: %+v", p)
	}
	tokens := get[api.List[api.AgentToken]](c, 200, "GET", "/api/v1/agent-tokens", "")
	if diff := cmp.Diff([]api.AgentToken{created.AgentToken}, tokens.Items); diff != "" {
		t.Error(diff)
	}
	for _, ref := range []string{"hall-3", string(apitest.ID(10))} {
		got := get[api.Agent](c, 200, "GET", "/api/v1/agents/"+ref, "")
		if !got.Connected || got.DesiredSerial != 4 || got.AppliedSerial != 3 || got.Labels["site"] != "berlin" || got.Status.Flows[0].State != "running" || got.ConnectorKinds[0] != "mqtt" {
			t.Errorf("agent %s is %+v", ref, got)
		}
		want := api.Outbox{
			ReportedAt: apitest.Clock(), Produced: 27, Sent: 24, Acknowledged: 19, WaitingRecords: 2, WaitingBytes: 100, RoomBytes: 1000,
			RunwaySeconds: 90, Late: 3, Expired: map[string]uint64{"expired_age": 6}, Lost: 5, LostRemotely: 1, Degraded: "the disk is full",
			DamagedFiles: 3, Salvaged: 70, Damage: []api.DamagedFile{{
				File: "state.db.corrupt-1", At: apitest.Clock(), Reason: "page 3", Lost: 1, SetBack: []string{"d"}, StartedAnew: []string{},
			}},
			SetAside: []api.SetAside{{Dir: "stage.of-a-1", AgentID: "a", Waiting: 8}},
			Blocked:  2, BlockedBy: "1 GiB waits", Accounted: 20, Stored: 9, Refused: 6, Receipts: map[string]int64{"damaged": 5},
		}
		if diff := cmp.Diff(want, got.Outbox); diff != "" {
			t.Error(diff)
		}
	}
	get[struct{}](c, 204, "POST", "/api/v1/agents/hall-3/revoke", "")
	agents := get[api.AgentPage](c, 200, "GET", "/api/v1/agents", "")
	if len(agents.Items) != 1 || agents.Items[0].RevokedAt.IsZero() {
		t.Errorf("agents are %+v", agents)
	}
	problemOf(c, 404, "GET", "/api/v1/agents/nobody", "")
}

// What was given as a secret is never shown again, not even in an error.
func TestConnections(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.ConnectorList = []flowdef.ConnectorSpec{{Kind: "mqtt", Options: []flowdef.Option{{Name: "password", Type: flowdef.OptionSecret}}}}
	c := serve(t, f, apitest.Options{})
	const path = "/api/v1/connections/press-plc"
	applied := get[api.Connection](c, 200, "PUT", path,
		`{"kind":"mqtt","options":{"url":"tls://broker","keep_alive":30,"ratio":0.5},"secrets":{"password":"hush-hush"}}`)
	if diff := cmp.Diff([]string{"password"}, applied.SecretNames); diff != "" {
		t.Error(diff)
	}
	if got := f.Secret("press-plc", "password"); got != "hush-hush" {
		t.Errorf("stored secret is %q", got)
	}
	stored, err := f.Connection(t.Context(), fleet.Actor{}, "press-plc")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"url": "tls://broker", "keep_alive": int64(30), "ratio": 0.5}, stored.Options); diff != "" {
		t.Error(diff)
	}
	for _, look := range []string{path, "/api/v1/connections"} {
		if _, text := c.do("GET", look, ""); bytes.Contains(text, []byte("hush")) {
			t.Errorf("%s shows the secret: %s", look, text)
		}
	}
	if _, text := c.do("PUT", path, `{"kind":"mqtt","secrets":{"password":["hush-hush"]}}`); bytes.Contains(text, []byte("hush")) {
		t.Errorf("the error shows the secret: %s", text)
	}
	specs := get[api.List[flowdef.ConnectorSpec]](c, 200, "GET", "/api/v1/connectors", "")
	if len(specs.Items) != 1 || specs.Items[0].ReadOptions == nil {
		t.Errorf("connectors are %+v", specs)
	}
	get[struct{}](c, 204, "DELETE", path, "")
	if list := get[api.List[api.Connection]](c, 200, "GET", "/api/v1/connections", ""); len(list.Items) != 0 || list.Items == nil {
		t.Errorf("connections are %+v", list)
	}
}

func TestFlowFromCheckToUndeploy(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.AgentList = []fleet.Agent{agent()}
	c := serve(t, f, apitest.Options{})
	bad := `{"definition":"flow: press-health\nsteps:\n  - filter: bogus > 1\n"}`
	want := []api.FlowProblem{{Line: 3, Column: 13, Step: "running", Message: `there is no column "bogus"; the nearest is "count"`}}
	check := get[api.FlowCheck](c, 200, "POST", "/api/v1/flows/check", bad)
	if diff := cmp.Diff(want, check.Problems); diff != "" || check.OK {
		t.Error(check.OK, diff)
	}
	p := problemOf(c, 422, "POST", "/api/v1/flows", bad)
	if diff := cmp.Diff(want, p.Problems); diff != "" || p.Code != "invalid" {
		t.Error(p.Code, diff)
	}
	good := `{"definition":"flow: press-health\n"}`
	check = get[api.FlowCheck](c, 200, "POST", "/api/v1/flows/check", good)
	if !check.OK || len(check.Egress.Columns) != 2 || check.Egress.Columns[1].Sources == nil {
		t.Errorf("check is %+v", check)
	}
	write := api.FlowWrite{
		Step: "results", Connection: "mes", With: map[string]any{"table": "mes.results", "key": []any{"machine"}}, Columns: []string{"machine", "temp_avg"},
	}
	if diff := cmp.Diff([]api.FlowWrite{write}, check.Writes); diff != "" || check.Tests == nil {
		t.Error(check.Tests, diff)
	}
	applied := get[api.FlowApplied](c, 200, "POST", "/api/v1/flows", good)
	if applied.Flow.LatestVersion != 1 || applied.Version.SHA256 == "" || !applied.Version.PublishedAt.IsZero() {
		t.Errorf("applied %+v", applied)
	}
	if p := problemOf(c, 409, "POST", "/api/v1/flows/press-health/deploy", `{"agents":["hall-3"]}`); p.Code != "conflict" {
		t.Errorf("deploying a draft: %+v", p)
	}
	if v := get[api.FlowVersion](c, 200, "POST", "/api/v1/flows/press-health/publish", `{}`); v.Version != 1 || v.PublishedAt.IsZero() {
		t.Errorf("published %+v", v)
	}
	deployed := get[api.List[api.Deployment]](c, 200, "POST", "/api/v1/flows/press-health/deploy", `{"agents":["site=berlin"]}`)
	if len(deployed.Items) != 1 || deployed.Items[0].AgentID != string(apitest.ID(10)) {
		t.Errorf("deployed %+v", deployed)
	}
	if flow := get[api.Flow](c, 200, "GET", "/api/v1/flows/press-health", ""); len(flow.Deployments) != 1 || flow.PublishedVersion != 1 {
		t.Errorf("flow is %+v", flow)
	}
	versions := get[api.List[api.FlowVersion]](c, 200, "GET", "/api/v1/flows/press-health/versions", "")
	if len(versions.Items) != 1 || len(versions.Items[0].Writes) != 1 || versions.Items[0].Definition != "flow: press-health\n" {
		t.Errorf("versions are %+v", versions)
	}
	get[struct{}](c, 204, "POST", "/api/v1/flows/press-health/undeploy", `{}`)
	if flows := get[api.List[api.Flow]](c, 200, "GET", "/api/v1/flows", ""); len(flows.Items[0].Deployments) != 0 {
		t.Errorf("flows are %+v", flows)
	}
}

func TestRunsAndInsights(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.AgentList = []fleet.Agent{agent()}
	run := fleet.Run{
		ID: apitest.ID(30), Agent: apitest.ID(10), Flow: apitest.ID(20), FlowName: "press-health", Status: "failed",
		Started: apitest.Clock(), Error: "The broker cannot be reached.", Steps: []fleet.StepCount{{Step: "readings", In: 9, Out: 8, Failed: 1, Late: 2, Outside: 3}},
		Sample: []fleet.FailedRecord{{Step: "readings", Where: "line 3", Reason: "not a number", Record: "x"}},
	}
	f.RunList = []fleet.Run{run}
	f.InsightList = []fleet.Insight{insight(1, "M1"), insight(2, "M2"), insight(3, "M1")}
	c := serve(t, f, apitest.Options{})
	runs := get[api.List[api.Run]](c, 200, "GET", "/api/v1/runs?agent=hall-3&status=failed&limit=5", "")
	if len(runs.Items) != 1 || runs.Items[0].Steps[0] != (api.StepCount{Step: "readings", RowsIn: 9, RowsOut: 8, RowsFailed: 1, RowsLate: 2, RowsOutside: 3}) || runs.Items[0].Sample[0].Where != "line 3" {
		t.Errorf("runs are %+v", runs)
	}
	if diff := cmp.Diff(fleet.RunFilter{Agent: apitest.ID(10), Status: "failed", Limit: 5}, f.LastRuns()); diff != "" {
		t.Error(diff)
	}
	problemOf(c, 404, "GET", "/api/v1/runs?agent=nobody", "")
	problemOf(c, 422, "GET", "/api/v1/runs?agnet=hall-3", "")
	problemOf(c, 422, "GET", "/api/v1/runs/not-an-id", "")
	if got := get[api.Run](c, 200, "GET", "/api/v1/runs/"+string(apitest.ID(30)), ""); got.Error != run.Error || !got.EndedAt.IsZero() {
		t.Errorf("run is %+v", got)
	}

	query := url.Values{
		"name": {"press_health"}, "agent": {"hall-3"}, "from": {"2026-03-01T07:00:00+01:00"}, "limit": {"1"}, "key.machine": {"M1"},
	}
	page := get[api.InsightPage](c, 200, "GET", "/api/v1/insights?"+query.Encode(), "")
	if len(page.Items) != 1 || page.Items[0].Seq != 3 || page.Next == "" || string(page.Items[0].Values) != `{"n":3,"temp_avg":60.125}` {
		t.Errorf("page is %+v", page)
	}
	filter := f.LastQuery()
	if filter.Agent != apitest.ID(10) || !filter.From.Equal(apitest.Clock()) || filter.Key["machine"] != "M1" {
		t.Errorf("filter is %+v", filter)
	}
	query.Set("after", page.Next)
	if page = get[api.InsightPage](c, 200, "GET", "/api/v1/insights?"+query.Encode(), ""); page.Items[0].Seq != 1 || page.Next != "" {
		t.Errorf("second page is %+v", page)
	}
	for _, bad := range []string{"title=x", "key.=x", "key.a=1&key.a=2", "limit=10001", "from=yesterday"} {
		if p := problemOf(c, 422, "GET", "/api/v1/insights?"+bad, ""); len(p.Errors) != 1 {
			t.Errorf("%s: %+v", bad, p)
		}
	}
	names := get[api.List[api.InsightName]](c, 200, "GET", "/api/v1/insights/names", "")
	if len(names.Items) != 1 || names.Items[0].Name != "press_health" {
		t.Errorf("names are %+v", names)
	}
}

func TestViewerIsForbidden(t *testing.T) {
	t.Parallel()
	c := serve(t, apitest.New(), apitest.Options{}).as(apitest.ViewerKey)
	for path, body := range map[string]string{
		"/api/v1/api-keys": `{"name":"x","role":"owner"}`, "/api/v1/agent-tokens": `{}`, "/api/v1/flows": `{"definition":"flow: x"}`,
	} {
		if p := problemOf(c, 403, "POST", path, body); p.Code != "forbidden" {
			t.Errorf("%s: %+v", path, p)
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := serve(t, apitest.New(), apitest.Options{})
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"unknown member":  {"POST", "/api/v1/api-keys", `{"name":"x","role":"viewer","admin":true}`, 422, "invalid"},
		"missing member":  {"POST", "/api/v1/api-keys", `{"name":"x"}`, 422, "invalid"},
		"unknown role":    {"POST", "/api/v1/api-keys", `{"name":"x","role":"king"}`, 422, "invalid"},
		"null list":       {"POST", "/api/v1/flows/x/deploy", `{"agents":null}`, 422, "invalid"},
		"not JSON":        {"POST", "/api/v1/api-keys", `{"name"`, 400, "invalid"},
		"trailing text":   {"POST", "/api/v1/api-keys", `{"name":"x","role":"viewer"} {}`, 400, "invalid"},
		"no body":         {"POST", "/api/v1/api-keys", "", 400, "invalid"},
		"too large":       {"POST", "/api/v1/flows", `{"definition":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "too_large"},
		"unknown path":    {"GET", "/api/v1/nothing", "", 404, "not_found"},
		"unknown method":  {"DELETE", "/api/v1/flows", "", 405, "method_not_allowed"},
		"other version":   {"GET", "/api/v2/me", "", 404, "not_found"},
		"unknown in path": {"GET", "/api/v1/flows/none", "", 404, "not_found"},
	} {
		if p := problemOf(c, tc.status, tc.method, tc.path, tc.body); p.Code != tc.code {
			t.Errorf("%s: %+v", name, p)
		}
	}
	response, _ := c.with("Content-Type", "text/plain").do("POST", "/api/v1/api-keys", `{"name":"x","role":"viewer"}`)
	if response.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: status %d", response.StatusCode)
	}
	if response, _ = c.do("DELETE", "/api/v1/flows", ""); response.Header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow is %q", response.Header.Get("Allow"))
	}
}

// A browser gets a cookie, works with it from the dashboard's own pages only, and loses it by signing out.
func TestDashboardSession(t *testing.T) {
	t.Parallel()
	c := serve(t, apitest.New(), apitest.Options{}).as("")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.client.Jar = jar
	problemOf(c, 401, "POST", "/api/v1/session", `{"api_key":"ofk_wrong"}`)
	me := get[api.Me](c, 200, "POST", "/api/v1/session", `{"api_key":"`+apitest.OwnerKey+`"}`)
	if me.Name != "owner" {
		t.Errorf("signed in as %+v", me)
	}
	get[api.Me](c, 200, "GET", "/api/v1/me", "")
	body := `{"name":"x","role":"viewer"}`
	for _, foreign := range []*caller{
		c.with("Sec-Fetch-Site", "cross-site"), c.with("Sec-Fetch-Site", "same-site"), c.with("Origin", "https://evil.example"),
	} {
		if p := problemOf(foreign, 403, "POST", "/api/v1/api-keys", body); p.Code != "forbidden" {
			t.Errorf("%v: %+v", foreign.header, p)
		}
	}
	for _, own := range []*caller{c.with("Sec-Fetch-Site", "same-origin"), c.with("Origin", c.url)} {
		get[api.APIKeyCreated](own, 201, "POST", "/api/v1/api-keys", body)
	}
	get[struct{}](c, 204, "DELETE", "/api/v1/session", "")
	problemOf(c, 401, "GET", "/api/v1/me", "")
}

func TestSignInIsRateLimited(t *testing.T) {
	t.Parallel()
	c := serve(t, apitest.New(), apitest.Options{}).as("")
	for range 10 {
		c.do("POST", "/api/v1/session", `{"api_key":"ofk_wrong"}`)
	}
	p := problemOf(c, 429, "POST", "/api/v1/session", `{"api_key":"`+apitest.OwnerKey+`"}`)
	response, _ := c.do("POST", "/api/v1/session", `{"api_key":"`+apitest.OwnerKey+`"}`)
	if p.Code != "rate_limited" || response.Header.Get("Retry-After") == "" {
		t.Errorf("%+v, Retry-After %q", p, response.Header.Get("Retry-After"))
	}
}

// broken panics where the domain never should.
type broken struct{ *apitest.Fleet }

func (broken) Agents(context.Context, fleet.Actor, fleet.AgentFilter) (fleet.AgentPage, error) {
	panic("agents are broken")
}

func (broken) Flows(context.Context, fleet.Actor) ([]fleet.Flow, error) {
	return nil, &fleet.Error{Code: fleet.Internal, Message: "Flows cannot be read.", Err: errors.New("dial 10.1.2.3")}
}

// What goes wrong inside is logged and not shown.
func TestInternalErrorsAreHidden(t *testing.T) {
	t.Parallel()
	f := broken{apitest.New()}
	var log bytes.Buffer
	server := apitest.ServeHandler(t, httpapi.New(httpapi.Settings{
		Fleet: f, Auth: auth.New(auth.Settings{Keys: f, Sessions: f}), Registry: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}))
	c := &caller{t: t, url: server.URL, key: apitest.OwnerKey, client: &http.Client{}}
	for _, path := range []string{"/api/v1/agents", "/api/v1/flows"} {
		p := problemOf(c, 500, "GET", path, "")
		if p.Code != "internal" || strings.Contains(p.Detail, "10.1.2.3") || strings.Contains(p.Detail, "broken") {
			t.Errorf("%s: %+v", path, p)
		}
	}
	server.Stop()
	for _, want := range []string{"agents are broken", "dial 10.1.2.3"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
}

func TestListenerRoutesAndHeaders(t *testing.T) {
	t.Parallel()
	public, err := url.Parse("https://outfeed.example")
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	f := apitest.New()
	var draining atomic.Bool
	c := serve(t, f, apitest.Options{
		PublicURL: public, Web: named("dashboard"), Tunnel: named("tunnel"), Serving: func() bool { return !draining.Load() },
	})
	for path, want := range map[string]string{
		"/": "dashboard", "/flows/press-health": "dashboard", "/tunnel/v1": "tunnel", "/healthz": "ok\n", "/readyz": "ready\n",
	} {
		response, text := c.do("GET", path, "")
		if string(text) != want || response.Header.Get("X-Content-Type-Options") != "nosniff" ||
			response.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: %q %v", path, text, response.Header)
		}
	}
	response, _ := c.do("GET", "/", "")
	if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("the dashboard's policy is %q", policy)
	}
	response, _ = c.do("GET", "/api/v1/me", "")
	if response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers of the API: %v", response.Header)
	}
	if token := get[api.AgentTokenCreated](c, 201, "POST", "/api/v1/agent-tokens", `{}`); token.URL != "https://outfeed.example" {
		t.Errorf("agents are sent to %q", token.URL)
	}
	get[api.APIKeyCreated](c.with("Origin", "https://outfeed.example"), 201, "POST", "/api/v1/api-keys", `{"name":"x","role":"viewer"}`)

	f.NotReady = &fleet.Error{Code: fleet.Unavailable, Message: "The database cannot be reached.", Err: errors.New("dial 10.1.2.3")}
	p := problemOf(c, 503, "GET", "/readyz", "")
	if p.Detail != "The database cannot be reached." {
		t.Errorf("not ready: %+v", p)
	}
	f.NotReady = nil
	draining.Store(true)
	if p := problemOf(c, 503, "GET", "/readyz", ""); !strings.Contains(p.Detail, "lets no agents in") {
		t.Errorf("not serving tunnels: %+v", p)
	}
}
