package fleet_test

import (
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func open(t *testing.T, envelope []byte, key ed25519.PublicKey) *wire.Bundle {
	t.Helper()
	payload, err := seal.Open(envelope, []ed25519.PublicKey{key}, seal.BundlePayload)
	if err != nil {
		t.Fatal(err)
	}
	var b wire.Bundle
	if err := proto.Unmarshal(payload, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// super runs SQL past every protection, to make times pass.
func super(t *testing.T, db *pgtest.DB, statement string, args ...any) {
	t.Helper()
	c, err := sql.Open("pgx", db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the statement is done
	done, err := c.ExecContext(t.Context(), statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s touched %d rows, %v", statement, n, err)
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	if a.Role != fleet.Owner || a.Kind != "api_key" || a.Tenant == "" || a.Workspace == "" {
		t.Fatalf("the first key belongs to %+v", a)
	}
	k, text, err := w.CreateAPIKey(t.Context(), a, "robot", fleet.Operator)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text.Reveal(), "ofk_") || len(text.Reveal()) < 40 {
		t.Errorf("the key is %d characters and begins with %.4s", len(text.Reveal()), text.Reveal())
	}
	robot, err := w.Authenticate(t.Context(), text)
	if err != nil || robot.Role != fleet.Operator || robot.Ref != k.ID || robot.Name != "robot" {
		t.Fatalf("got %+v, %v", robot, err)
	}
	keys, err := w.APIKeys(t.Context(), a)
	if err != nil || len(keys) != 2 || keys[1].LastUsed.IsZero() {
		t.Errorf("got %+v, %v", keys, err)
	}
	for _, bad := range []string{"", "ofk_", text.Reveal() + "x", "oft_" + text.Reveal()[4:]} {
		_, err := w.Authenticate(t.Context(), secret.New(bad))
		wantCode(t, "authenticate "+bad, err, fleet.Unauthorized)
	}
	wantCode(t, "revoke the last owner", w.RevokeAPIKey(t.Context(), a, a.Ref), fleet.Conflict)
	if err := w.RevokeAPIKey(t.Context(), a, k.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), text)
	wantCode(t, "a revoked key", err, fleet.Unauthorized)
	wantCode(t, "revoke again", w.RevokeAPIKey(t.Context(), a, k.ID), fleet.NotFound)
	_, _, err = w.CreateAPIKey(t.Context(), a, "x", "admin")
	wantCode(t, "a role that is none", err, fleet.Invalid)
	_, _, err = w.CreateTenant(t.Context(), "x", "nobody")
	wantCode(t, "an address that is none", err, fleet.Invalid)
}

func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	calls := map[string]struct {
		needs fleet.Role
		call  func(a fleet.Actor) error
	}{
		"APIKeys":      {fleet.Owner, func(a fleet.Actor) error { _, err := w.APIKeys(ctx, a); return err }},
		"CreateAPIKey": {fleet.Owner, func(a fleet.Actor) error { _, _, err := w.CreateAPIKey(ctx, a, "k", fleet.Viewer); return err }},
		"RevokeAPIKey": {fleet.Owner, func(a fleet.Actor) error { return w.RevokeAPIKey(ctx, a, "none") }},
		"CreateToken":  {fleet.Owner, func(a fleet.Actor) error { _, _, err := w.CreateToken(ctx, a, nil, 0); return err }},
		"Tokens":       {fleet.Owner, func(a fleet.Actor) error { _, err := w.Tokens(ctx, a); return err }},
		"RevokeAgent":  {fleet.Owner, func(a fleet.Actor) error { return w.RevokeAgent(ctx, a, "none") }},
		"Audit":        {fleet.Owner, func(a fleet.Actor) error { _, err := w.Audit(ctx, a, 0); return err }},
		"ApplyConn":    {fleet.Editor, func(a fleet.Actor) error { _, err := w.ApplyConnection(ctx, a, press()); return err }},
		"DeleteConn":   {fleet.Editor, func(a fleet.Actor) error { return w.DeleteConnection(ctx, a, "none") }},
		"ApplyFlow":    {fleet.Editor, func(a fleet.Actor) error { _, _, err := w.ApplyFlow(ctx, a, hot); return err }},
		"Publish":      {fleet.Editor, func(a fleet.Actor) error { _, err := w.Publish(ctx, a, "hot-presses", 1); return err }},
		"Deploy": {fleet.Operator, func(a fleet.Actor) error {
			_, err := w.Deploy(ctx, a, "hot-presses", 1, []string{"press-pc"})
			return err
		}},
		"Undeploy":      {fleet.Operator, func(a fleet.Actor) error { return w.Undeploy(ctx, a, "none", nil) }},
		"CheckFlow":     {fleet.Viewer, func(a fleet.Actor) error { _, err := w.CheckFlow(ctx, a, hot); return err }},
		"Agents":        {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Agents(ctx, a, fleet.AgentFilter{}); return err }},
		"Agent":         {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Agent(ctx, a, "press-pc"); return err }},
		"BriefAgent":    {fleet.Viewer, func(a fleet.Actor) error { _, err := w.BriefAgent(ctx, a, "press-pc"); return err }},
		"Connections":   {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Connections(ctx, a); return err }},
		"Connection":    {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Connection(ctx, a, "press"); return err }},
		"Connectors":    {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Connectors(ctx, a); return err }},
		"Flows":         {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Flows(ctx, a); return err }},
		"Flow":          {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Flow(ctx, a, "hot-presses"); return err }},
		"FlowVersions":  {fleet.Viewer, func(a fleet.Actor) error { _, err := w.FlowVersions(ctx, a, "hot-presses"); return err }},
		"Runs":          {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Runs(ctx, a, fleet.RunFilter{}); return err }},
		"Run":           {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Run(ctx, a, "none"); return err }},
		"Insights":      {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Insights(ctx, a, fleet.InsightFilter{}); return err }},
		"InsightNames":  {fleet.Viewer, func(a fleet.Actor) error { _, err := w.InsightNames(ctx, a); return err }},
		"InsightsBySeq": {fleet.Viewer, func(a fleet.Actor) error { _, err := w.InsightsBySeq(ctx, a, p.agent.id.Agent, 1, 1); return err }},
		"Subscribe":     {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Subscribe(ctx, a); return err }},
		"VerifyAudit":   {fleet.Viewer, func(a fleet.Actor) error { _, err := w.VerifyAudit(ctx, a); return err }},
	}
	order := []fleet.Role{fleet.Viewer, fleet.Operator, fleet.Editor, fleet.Owner}
	place := func(r fleet.Role) int {
		for i := range order {
			if order[i] == r {
				return i
			}
		}
		return -1
	}
	for name, c := range calls {
		for _, r := range order {
			a := p.owner
			a.Role = r
			err := c.call(a)
			allowed := place(r) >= place(c.needs)
			if refused := err != nil && fleet.CodeOf(err) == fleet.Forbidden; refused == allowed {
				t.Errorf("%s as %s: got %v, allowed should be %v", name, r, err, allowed)
			}
		}
		wantCode(t, name+" as nobody", c.call(fleet.Actor{}), fleet.Unauthorized)
	}
}

func TestOfFiftyUsesOfATokenOneWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	tok := w.token(t, a)
	machines := make([]*machine, 50)
	for i := range machines {
		machines[i] = newMachine(t)
	}
	errs := make([]error, len(machines))
	var wg sync.WaitGroup
	for i, m := range machines {
		wg.Go(func() { _, errs[i] = w.Enroll(t.Context(), m.Request(tok), m.Public) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantCode(t, "a token used by another", err, fleet.TokenUsed)
		}
	}
	page, err := w.Agents(t.Context(), a, fleet.AgentFilter{})
	if err != nil {
		t.Fatal(err)
	}
	agents := page.Agents
	if won != 1 || len(agents) != 1 {
		t.Errorf("%d uses won and there are %d agents, want one", won, len(agents))
	}
	tokens, err := w.Tokens(t.Context(), a)
	if err != nil || len(tokens) != 1 || tokens[0].Used.IsZero() || tokens[0].Agent != agents[0].ID {
		t.Errorf("the token is %+v, %v", tokens, err)
	}
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	m := newMachine(t)
	tok := w.token(t, a)
	got, err := w.Enroll(t.Context(), m.Request(tok), m.Public)
	if err != nil {
		t.Fatal(err)
	}
	if got.GetTenantId() != string(a.Tenant) || got.GetWorkspaceId() != string(a.Workspace) || string(got.GetBundleKeys()[0]) != string(w.bundleKey) {
		t.Errorf("got %v", got)
	}
	if tok.Fingerprint != w.Fingerprint() || tok.Tenant != string(a.Tenant) {
		t.Errorf("the token pins %s of %s", tok.Fingerprint, tok.Tenant)
	}
	g, err := w.Agent(t.Context(), a, "press-pc")
	if err != nil {
		t.Fatal(err)
	}
	if g.Labels["line"] != "3" || g.Labels["site"] != "berlin" || g.Connected || g.Fingerprint != seal.Fingerprint(m.Public) || g.Desired < 1 {
		t.Errorf("the agent is %+v", g)
	}

	_, err = w.Enroll(t.Context(), m.Request(tok), m.Public)
	wantCode(t, "the token again", err, fleet.TokenUsed)
	wrong := tok
	wrong.Secret[0] ^= 1
	_, err = w.Enroll(t.Context(), m.Request(wrong), m.Public)
	wantCode(t, "a wrong secret", err, fleet.TokenUnknown)
	for _, id := range []string{"", "x", "00000000-0000-7000-8000-000000000000"} {
		wrong.ID = id
		_, err = w.Enroll(t.Context(), m.Request(wrong), m.Public)
		wantCode(t, "the token id "+id, err, fleet.TokenUnknown)
	}
	late := w.token(t, a)
	super(t, w.db, "UPDATE enroll_tokens SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' WHERE id::text = $1", late.ID)
	_, err = w.Enroll(t.Context(), m.Request(late), m.Public)
	wantCode(t, "an expired token", err, fleet.TokenExpired)
	_, _, err = w.CreateToken(t.Context(), a, nil, time.Hour+time.Second)
	wantCode(t, "a token for longer than an hour", err, fleet.Invalid)
	short := newMachine(t)
	short.Public = short.Public[:31]
	_, err = w.Enroll(t.Context(), short.Request(w.token(t, a)), short.Public)
	wantCode(t, "a short key", err, fleet.Invalid)

	// A second machine of the same name gets a name of its own.
	other := w.agent(t, a)
	if g, err := w.Agent(t.Context(), a, string(other.id.Agent)); err != nil || g.Name != "press-pc-2" {
		t.Errorf("got %q, %v", g.Name, err)
	}
	// A machine whose answer got lost enrols again and stays the same agent.
	again, err := w.Enroll(t.Context(), m.Request(w.token(t, a)), m.Public)
	if err != nil || again.GetAgentId() != got.GetAgentId() {
		t.Errorf("got %v, %v, want the agent %s", again, err, got.GetAgentId())
	}
	// In another tenant the key is taken, until it is revoked here.
	b := w.tenant(t, "rival")
	_, err = w.Enroll(t.Context(), m.Request(w.token(t, b)), m.Public)
	wantCode(t, "a key of another tenant", err, fleet.Conflict)
	if err := w.RevokeAgent(t.Context(), a, "press-pc"); err != nil {
		t.Fatal(err)
	}
	_, err = w.AgentByKey(t.Context(), m.Public)
	wantCode(t, "a revoked agent", err, fleet.AgentRevoked)
	if _, err = w.Enroll(t.Context(), m.Request(w.token(t, b)), m.Public); err != nil {
		t.Fatal(err)
	}
	if id, err := w.AgentByKey(t.Context(), m.Public); err != nil || id.Tenant != b.Tenant {
		t.Errorf("got %+v, %v", id, err)
	}
	_, err = w.AgentByKey(t.Context(), newMachine(t).Public)
	wantCode(t, "an unknown key", err, fleet.AgentUnknown)
}

func TestSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	m := w.agent(t, a)
	connected := func() bool {
		t.Helper()
		g, err := w.Agent(t.Context(), a, "press-pc")
		if err != nil {
			t.Fatal(err)
		}
		return g.Connected
	}
	if !connected() {
		t.Fatal("it does not count as connected")
	}
	// A later session takes over, and the end of the first one does not end it.
	w.connect(t, m)
	if err := w.Disconnect(t.Context(), m.id, m.counter-1); err != nil {
		t.Fatal(err)
	}
	if !connected() {
		t.Error("the end of an old session ended the new one")
	}
	if err := w.Disconnect(t.Context(), m.id, m.counter); err != nil {
		t.Fatal(err)
	}
	if connected() {
		t.Error("it counts as connected after its session's end")
	}
	// A control plane that was killed leaves a session that nobody refreshes.
	w.connect(t, m)
	super(t, w.db, "UPDATE agent_sessions SET seen_at = now() - interval '61 seconds'")
	if connected() {
		t.Error("it counts as connected a minute after it was last heard of")
	}
	if err := w.StoreStatus(t.Context(), m.id, &wire.Status{Time: time.Now().UnixMicro(), DesiredSerial: 1}); err != nil {
		t.Fatal(err)
	}
	if !connected() {
		t.Error("a status report does not refresh the session")
	}
	if err := w.RevokeAgent(t.Context(), a, "press-pc"); err != nil {
		t.Fatal(err)
	}
	_, err := w.hello(t, m)
	wantCode(t, "a revoked agent connects", err, fleet.AgentRevoked)
	_, err = w.StoreInsights(t.Context(), m.id, insights(m.id.Agent, 1, 1))
	wantCode(t, "a revoked agent delivers", err, fleet.AgentRevoked)
	wantCode(t, "a revoked agent reports", w.StoreStatus(t.Context(), m.id, &wire.Status{}), fleet.AgentRevoked)
	_, _, err = w.Bundle(t.Context(), m.id)
	wantCode(t, "a revoked agent's bundle", err, fleet.AgentRevoked)
}

func TestTheAuditLogShowsTampering(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ sql, want string }{
		"nothing":           {"", ""},
		"an altered entry":  {"UPDATE audit_log SET detail = '{}' WHERE seq = 3 AND tenant_id::text = $1", "entry 3 was altered"},
		"a removed entry":   {"DELETE FROM audit_log WHERE seq = 2 AND tenant_id::text = $1", "entry 2 is missing"},
		"the newest is cut": {"DELETE FROM audit_log WHERE seq > 4 AND tenant_id::text = $1", "the newest were removed"},
		"a cut with a lie":  {"WITH x AS (DELETE FROM audit_log WHERE seq > 4 AND tenant_id::text = $1) UPDATE tenants SET audit_seq = 4 WHERE tenant_id::text = $1", "not the one that was written last"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := w.plant(t, "acme")
			if c.sql != "" {
				super(t, w.db, c.sql, string(p.owner.Tenant))
			}
			rep, err := w.VerifyAudit(t.Context(), p.owner)
			if err != nil {
				t.Fatal(err)
			}
			if (c.want == "") != (rep.Broken == "") || !strings.Contains(rep.Broken, c.want) {
				t.Errorf("got %+v, want %q", rep, c.want)
			}
			if c.want != "" {
				return
			}
			log, err := w.Audit(t.Context(), p.owner, 0)
			if err != nil {
				t.Fatal(err)
			}
			var actions []string
			for _, e := range log {
				actions = append(actions, e.Action)
				if strings.Contains(e.Detail, "hunter2") || !json.Valid([]byte(e.Detail)) {
					t.Errorf("the detail of %s is %s", e.Action, e.Detail)
				}
			}
			want := "[tenant.create token.create agent.enroll connection.create flow.apply flow.publish flow.deploy]"
			if fmt.Sprint(actions) != want || rep.Entries != int64(len(log)) {
				t.Errorf("the log has %v, want %s", actions, want)
			}
		})
	}
}

// Everything of one tenant is invisible to another: each call of the API with the ids and names of the other's things.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acme := w.plant(t, "acme")
	rival := w.tenant(t, "rival")
	ctx := t.Context()
	if _, err := w.StoreInsights(ctx, acme.agent.id, insights(acme.flow.ID, 1, 3)); err != nil {
		t.Fatal(err)
	}
	run := fleet.ID("00000000-0000-7000-8000-000000000001")
	report := &wire.RunReport{RunId: string(run), FlowId: string(acme.flow.ID), Status: "ok", Started: 1}
	if err := w.StoreRun(ctx, acme.agent.id, report); err != nil {
		t.Fatal(err)
	}
	w.token(t, acme.owner)
	agentID, flowID, connID := string(acme.agent.id.Agent), string(acme.flow.ID), string(acme.connection.ID)

	missing := map[string]func() error{
		"RevokeAPIKey":     func() error { return w.RevokeAPIKey(ctx, rival, acme.owner.Ref) },
		"Agent":            func() error { _, err := w.Agent(ctx, rival, agentID); return err },
		"Agent by name":    func() error { _, err := w.Agent(ctx, rival, "press-pc"); return err },
		"RevokeAgent":      func() error { return w.RevokeAgent(ctx, rival, agentID) },
		"Connection":       func() error { _, err := w.Connection(ctx, rival, connID); return err },
		"DeleteConnection": func() error { return w.DeleteConnection(ctx, rival, connID) },
		"Publish":          func() error { _, err := w.Publish(ctx, rival, flowID, 1); return err },
		"Flow":             func() error { _, err := w.Flow(ctx, rival, flowID); return err },
		"Flow by name":     func() error { _, err := w.Flow(ctx, rival, "hot-presses"); return err },
		"FlowVersions":     func() error { _, err := w.FlowVersions(ctx, rival, flowID); return err },
		"Deploy":           func() error { _, err := w.Deploy(ctx, rival, flowID, 1, []string{agentID}); return err },
		"Undeploy":         func() error { return w.Undeploy(ctx, rival, flowID, nil) },
		"Run":              func() error { _, err := w.Run(ctx, rival, run); return err },
	}
	for name, call := range missing {
		wantCode(t, name, call(), fleet.NotFound)
	}
	empty := map[string]func() (int, error){
		"Tokens":      func() (int, error) { l, err := w.Tokens(ctx, rival); return len(l), err },
		"Agents":      func() (int, error) { p, err := w.Agents(ctx, rival, fleet.AgentFilter{}); return len(p.Agents), err },
		"Connections": func() (int, error) { l, err := w.Connections(ctx, rival); return len(l), err },
		"Connectors":  func() (int, error) { l, err := w.Connectors(ctx, rival); return len(l), err },
		"Flows":       func() (int, error) { l, err := w.Flows(ctx, rival); return len(l), err },
		"Runs":        func() (int, error) { l, err := w.Runs(ctx, rival, fleet.RunFilter{}); return len(l), err },
		"Runs of it": func() (int, error) {
			l, err := w.Runs(ctx, rival, fleet.RunFilter{Flow: acme.flow.ID})
			return len(l), err
		},
		"Insights": func() (int, error) {
			l, err := w.Insights(ctx, rival, fleet.InsightFilter{Agent: acme.agent.id.Agent})
			return len(l.Insights), err
		},
		"InsightNames": func() (int, error) { l, err := w.InsightNames(ctx, rival); return len(l), err },
		"InsightsBySeq": func() (int, error) {
			l, err := w.InsightsBySeq(ctx, rival, acme.agent.id.Agent, 1, 10)
			return len(l), err
		},
		"APIKeys but its own": func() (int, error) { l, err := w.APIKeys(ctx, rival); return len(l) - 1, err },
		"Audit but its own":   func() (int, error) { l, err := w.Audit(ctx, rival, 0); return len(l) - 1, err },
	}
	for name, call := range empty {
		if n, err := call(); err != nil || n != 0 {
			t.Errorf("%s: %d things of the other tenant, %v", name, n, err)
		}
	}
	if c, err := w.CheckFlow(ctx, rival, hot); err != nil || len(c.Problems) == 0 {
		t.Errorf("the other tenant's connection counts as known: %+v, %v", c, err)
	}

	// An identity that mixes tenants, which the gateway never makes, gets nowhere either.
	mixed := fleet.AgentIdentity{Tenant: rival.Tenant, Workspace: rival.Workspace, Agent: acme.agent.id.Agent}
	gateway := map[string]func() error{
		"Connect": func() error {
			_, err := w.Connect(ctx, mixed, fleet.Caller{Key: acme.agent.Public}, hello(t, 99))
			return err
		},
		"Bundle":        func() error { _, _, err := w.Bundle(ctx, mixed); return err },
		"StoreInsights": func() error { _, err := w.StoreInsights(ctx, mixed, insights(acme.flow.ID, 1, 1)); return err },
		"StoreRun":      func() error { return w.StoreRun(ctx, mixed, report) },
	}
	for name, call := range gateway {
		wantCode(t, name, call(), fleet.AgentUnknown)
	}
	wantCode(t, "StoreStatus", w.StoreStatus(ctx, mixed, &wire.Status{}), fleet.AgentUnknown)
	if err := w.Disconnect(ctx, mixed, acme.agent.counter); err != nil {
		t.Error(err)
	}
	if g, err := w.Agent(ctx, acme.owner, agentID); err != nil || !g.Connected {
		t.Errorf("the other tenant cut the session: %+v, %v", g, err)
	}
}

// A workspace of the same tenant is as closed as another tenant.
func TestWorkspacesAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acme := w.plant(t, "acme")
	other := acme.owner
	other.Workspace = "00000000-0000-7000-8000-000000000002"
	super(t, w.db, "INSERT INTO workspaces (tenant_id, id, name) VALUES ($1::text::uuid, $2::text::uuid, 'second')", string(other.Tenant), string(other.Workspace))
	ctx := t.Context()
	if p, err := w.Agents(ctx, other, fleet.AgentFilter{}); err != nil || len(p.Agents) != 0 {
		t.Errorf("agents: %v, %v", p, err)
	}
	if l, err := w.Connections(ctx, other); err != nil || len(l) != 0 {
		t.Errorf("connections: %v, %v", l, err)
	}
	_, err := w.Flow(ctx, other, string(acme.flow.ID))
	wantCode(t, "Flow", err, fleet.NotFound)
	wantCode(t, "RevokeAgent", w.RevokeAgent(ctx, other, string(acme.agent.id.Agent)), fleet.NotFound)
	wantCode(t, "DeleteConnection", w.DeleteConnection(ctx, other, string(acme.connection.ID)), fleet.NotFound)
}

// TestABundleHasATime wants a bundle to be signed for a day from when it is sent, each time anew.
func TestABundleHasATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "Acme")
	m := w.agent(t, a)
	before := time.Now()
	first := w.bundle(t, m)
	again := w.bundle(t, m)
	for _, b := range []*wire.Bundle{first, again} {
		life := time.UnixMicro(b.GetExpires()).Sub(time.UnixMicro(b.GetIssued()))
		if life != 24*time.Hour || time.UnixMicro(b.GetIssued()).Before(before.Add(-time.Millisecond)) {
			t.Errorf("issued at %d, expires at %d", b.GetIssued(), b.GetExpires())
		}
	}
	if again.GetIssued() <= first.GetIssued() {
		t.Error("the bundle was not signed anew")
	}
}
