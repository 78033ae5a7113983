package fleet_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
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
		"Agents":        {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Agents(ctx, a); return err }},
		"Agent":         {fleet.Viewer, func(a fleet.Actor) error { _, err := w.Agent(ctx, a, "press-pc"); return err }},
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
		wg.Go(func() { _, errs[i] = w.Enroll(t.Context(), m.enroll(tok), m.public) })
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
	agents, err := w.Agents(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
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
	got, err := w.Enroll(t.Context(), m.enroll(tok), m.public)
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
	if g.Labels["line"] != "3" || g.Labels["site"] != "berlin" || g.Connected || g.Fingerprint != seal.Fingerprint(m.public) || g.Desired < 1 {
		t.Errorf("the agent is %+v", g)
	}

	_, err = w.Enroll(t.Context(), m.enroll(tok), m.public)
	wantCode(t, "the token again", err, fleet.TokenUsed)
	wrong := tok
	wrong.Secret[0] ^= 1
	_, err = w.Enroll(t.Context(), m.enroll(wrong), m.public)
	wantCode(t, "a wrong secret", err, fleet.TokenUnknown)
	for _, id := range []string{"", "x", "00000000-0000-7000-8000-000000000000"} {
		wrong.ID = id
		_, err = w.Enroll(t.Context(), m.enroll(wrong), m.public)
		wantCode(t, "the token id "+id, err, fleet.TokenUnknown)
	}
	late := w.token(t, a)
	super(t, w.db, "UPDATE enroll_tokens SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' WHERE id::text = $1", late.ID)
	_, err = w.Enroll(t.Context(), m.enroll(late), m.public)
	wantCode(t, "an expired token", err, fleet.TokenExpired)
	_, _, err = w.CreateToken(t.Context(), a, nil, time.Hour+time.Second)
	wantCode(t, "a token for longer than an hour", err, fleet.Invalid)
	short := newMachine(t)
	short.public = short.public[:31]
	_, err = w.Enroll(t.Context(), short.enroll(w.token(t, a)), short.public)
	wantCode(t, "a short key", err, fleet.Invalid)

	// A second machine of the same name gets a name of its own.
	other := w.agent(t, a)
	if g, err := w.Agent(t.Context(), a, string(other.id.Agent)); err != nil || g.Name != "press-pc-2" {
		t.Errorf("got %q, %v", g.Name, err)
	}
	// A machine whose answer got lost enrols again and stays the same agent.
	again, err := w.Enroll(t.Context(), m.enroll(w.token(t, a)), m.public)
	if err != nil || again.GetAgentId() != got.GetAgentId() {
		t.Errorf("got %v, %v, want the agent %s", again, err, got.GetAgentId())
	}
	// In another tenant the key is taken, until it is revoked here.
	b := w.tenant(t, "rival")
	_, err = w.Enroll(t.Context(), m.enroll(w.token(t, b)), m.public)
	wantCode(t, "a key of another tenant", err, fleet.Conflict)
	if err := w.RevokeAgent(t.Context(), a, "press-pc"); err != nil {
		t.Fatal(err)
	}
	_, err = w.AgentByKey(t.Context(), m.public)
	wantCode(t, "a revoked agent", err, fleet.AgentRevoked)
	if _, err = w.Enroll(t.Context(), m.enroll(w.token(t, b)), m.public); err != nil {
		t.Fatal(err)
	}
	if id, err := w.AgentByKey(t.Context(), m.public); err != nil || id.Tenant != b.Tenant {
		t.Errorf("got %+v, %v", id, err)
	}
	_, err = w.AgentByKey(t.Context(), newMachine(t).public)
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
	// A counter that was used: a copy of the data folder.
	_, err := w.Connect(t.Context(), m.id, hello(t, m.counter))
	wantCode(t, "a counter again", err, fleet.CloneSeen)
	_, err = w.Connect(t.Context(), m.id, hello(t, m.counter))
	wantCode(t, "a counter a third time", err, fleet.CloneSeen)
	log, err := w.Audit(t.Context(), a, 0)
	if err != nil {
		t.Fatal(err)
	}
	noted := 0
	for _, e := range log {
		if e.Action == "agent.clone_suspected" {
			noted++
		}
	}
	if noted != 1 {
		t.Errorf("the clone was noted %d times, want once an hour", noted)
	}
	if !connected() {
		t.Error("the refused copy ended the session of the first")
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
	_, err = w.Connect(t.Context(), m.id, hello(t, m.counter+1))
	wantCode(t, "a revoked agent connects", err, fleet.AgentRevoked)
	_, err = w.StoreInsights(t.Context(), m.id, insights(m.id.Agent, 1, 1))
	wantCode(t, "a revoked agent delivers", err, fleet.AgentRevoked)
	wantCode(t, "a revoked agent reports", w.StoreStatus(t.Context(), m.id, &wire.Status{}), fleet.AgentRevoked)
	_, _, err = w.Bundle(t.Context(), m.id)
	wantCode(t, "a revoked agent's bundle", err, fleet.AgentRevoked)
}

func TestConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	_, err := w.ApplyConnection(t.Context(), a, press())
	wantCode(t, "before an agent has connected", err, fleet.Conflict)
	p := w.plant(t, "globex")
	c := p.connection
	if c.Options["port"] != int64(1883) || len(c.SecretNames) != 1 || len(c.Secrets) != 0 {
		t.Errorf("got %+v", c)
	}
	serial := func() uint64 { t.Helper(); return w.bundle(t, p.agent).GetSerial() }
	before := serial()
	if _, err := w.ApplyConnection(t.Context(), p.owner, press()); err != nil {
		t.Fatal(err)
	}
	if serial() != before {
		t.Error("applying the same again disturbed the agent")
	}
	// A secret that is left out stays; one among the options is a secret all the same.
	next := press()
	next.Secrets = nil
	next.Options["host"] = "10.0.0.2"
	if _, err := w.ApplyConnection(t.Context(), p.owner, next); err != nil {
		t.Fatal(err)
	}
	if serial() != before+1 {
		t.Errorf("serial %d, want %d", serial(), before+1)
	}
	if got := secretOf(t, w, p); got != "hunter2" {
		t.Errorf("the secret is %q", got)
	}
	next.Options["password"] = "changed"
	c, err = w.ApplyConnection(t.Context(), p.owner, next)
	if err != nil {
		t.Fatal(err)
	}
	if _, shown := c.Options["password"]; shown {
		t.Error("a password given as an option is stored in clear")
	}
	if got := secretOf(t, w, p); got != "changed" || serial() != before+2 {
		t.Errorf("the secret is %q at serial %d", got, serial())
	}
	for what, bad := range map[string]fleet.Connection{
		"an unknown kind":   {Name: "x", Kind: "opcua"},
		"a missing option":  {Name: "x", Kind: "mqtt"},
		"an unknown option": {Name: "x", Kind: "mqtt", Options: map[string]any{"host": "h", "prot": 1}},
		"a bad port":        {Name: "x", Kind: "mqtt", Options: map[string]any{"host": "h", "port": 99999}},
		"an unknown secret": {Name: "x", Kind: "mqtt", Options: map[string]any{"host": "h"}, Secrets: map[string]secret.String{"pin": secret.New("1")}},
		"no name":           {Kind: "mqtt", Options: map[string]any{"host": "h"}},
		"a NUL in the name": {Name: "x\x00", Kind: "mqtt", Options: map[string]any{"host": "h"}},
	} {
		_, err := w.ApplyConnection(t.Context(), p.owner, bad)
		wantCode(t, what, err, fleet.Invalid)
	}
	wantCode(t, "delete what a flow reads", w.DeleteConnection(t.Context(), p.owner, "press"), fleet.Conflict)
	if err := w.Undeploy(t.Context(), p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	if b := w.bundle(t, p.agent); len(b.GetFlows()) != 0 || len(b.GetConnections()) != 0 || b.GetSerial() != before+3 {
		t.Errorf("after undeploying the bundle is %v", b)
	}
	if err := w.DeleteConnection(t.Context(), p.owner, "press"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Connection(t.Context(), p.owner, "press")
	wantCode(t, "a deleted connection", err, fleet.NotFound)
}

// secretOf opens the password in the agent's bundle with the agent's key.
func secretOf(t *testing.T, w *world, p *plant) string {
	t.Helper()
	b := w.bundle(t, p.agent)
	if len(b.GetConnections()) != 1 {
		t.Fatalf("the bundle has %d connections", len(b.GetConnections()))
	}
	c := b.GetConnections()[0]
	plain, err := seal.OpenSealed(p.agent.sealing, seal.SecretContext{
		Tenant: string(p.owner.Tenant), Agent: string(p.agent.id.Agent), Connection: c.GetConnectionId(), Field: "password",
	}, c.GetSealedSecrets()["password"])
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestFlows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	m := w.agent(t, a)
	ctx := t.Context()
	check, err := w.CheckFlow(ctx, a, hot)
	if err != nil || len(check.Problems) != 1 || !strings.Contains(check.Problems[0].Message, "press") || check.Problems[0].Line == 0 {
		t.Fatalf("a flow with an unknown connection: %+v, %v", check, err)
	}
	_, _, err = w.ApplyFlow(ctx, a, hot)
	wantCode(t, "apply with a problem", err, fleet.Invalid)
	if p, ok := errors.AsType[flowdef.Problems](err); !ok || len(p) == 0 {
		t.Errorf("the error holds no problems: %v", err)
	}
	if _, err := w.ApplyConnection(ctx, a, press()); err != nil {
		t.Fatal(err)
	}
	if check, err = w.CheckFlow(ctx, a, hot); err != nil || len(check.Problems) != 0 || len(check.Egress.Columns) == 0 || check.Name != "hot-presses" {
		t.Fatalf("got %+v, %v", check, err)
	}
	if check, err = w.CheckFlow(ctx, a, "flow: [\xff\x00"); err != nil || len(check.Problems) == 0 {
		t.Errorf("a text that is none: %+v, %v", check, err)
	}
	f, v, err := w.ApplyFlow(ctx, a, hot)
	if err != nil || v.Version != 1 || f.Latest != 1 || f.Published != 0 || v.Definition != hot || f.Description != "Presses that run hot" {
		t.Fatalf("got %+v %+v %v", f, v, err)
	}
	if _, v, err = w.ApplyFlow(ctx, a, hot); err != nil || v.Version != 1 {
		t.Errorf("the same text again made version %d, %v", v.Version, err)
	}
	if _, v, err = w.ApplyFlow(ctx, a, hotter); err != nil || v.Version != 2 || v.CreatedBy == "" {
		t.Errorf("got %+v, %v", v, err)
	}
	_, err = w.Deploy(ctx, a, "hot-presses", 0, []string{"press-pc"})
	wantCode(t, "deploy what is not published", err, fleet.Conflict)
	if v, err = w.Publish(ctx, a, "hot-presses", 1); err != nil || v.Published.IsZero() || len(v.Egress.Columns) == 0 {
		t.Fatalf("got %+v, %v", v, err)
	}
	_, err = w.Deploy(ctx, a, "hot-presses", 2, []string{"press-pc"})
	wantCode(t, "deploy a draft", err, fleet.Conflict)
	_, err = w.Publish(ctx, a, "hot-presses", 3)
	wantCode(t, "publish a version that is not there", err, fleet.NotFound)
	for what, refs := range map[string][]string{"an unknown agent": {"nobody"}, "an unknown label": {"site=paris"}} {
		_, err = w.Deploy(ctx, a, "hot-presses", 0, refs)
		wantCode(t, what, err, fleet.NotFound)
	}
	_, err = w.Deploy(ctx, a, "hot-presses", 0, nil)
	wantCode(t, "no agents", err, fleet.Invalid)

	before := w.bundle(t, m).GetSerial()
	d, err := w.Deploy(ctx, a, "hot-presses", 0, []string{"site=berlin", "press-pc", string(m.id.Agent)})
	if err != nil || len(d) != 1 || d[0].Version != 1 || d[0].Name != "hot-presses" {
		t.Fatalf("got %+v, %v", d, err)
	}
	if _, err := w.Deploy(ctx, a, "hot-presses", 1, []string{"press-pc"}); err != nil {
		t.Fatal(err)
	}
	b := w.bundle(t, m)
	if b.GetSerial() != before+1 {
		t.Errorf("serial %d after %d: deploying the same again must not disturb", b.GetSerial(), before)
	}
	if len(b.GetFlows()) != 1 || string(b.GetFlows()[0].GetDefinition()) != hot || b.GetTenantId() != string(a.Tenant) || b.GetAgentId() != string(m.id.Agent) {
		t.Errorf("got %v", b)
	}
	if _, err := w.Publish(ctx, a, "hot-presses", 0); err != nil {
		t.Fatal(err)
	}
	d2, err := w.Deploy(ctx, a, "hot-presses", 0, []string{"press-pc"})
	if err != nil || d2[0].Version != 2 || d2[0].ID != d[0].ID {
		t.Errorf("the next version: %+v, %v; the deployment stays %s", d2, err, d[0].ID)
	}
	f, err = w.Flow(ctx, a, string(f.ID))
	if err != nil || f.Latest != 2 || f.Published != 2 || len(f.Deployments) != 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	versions, err := w.FlowVersions(ctx, a, "hot-presses")
	if err != nil || len(versions) != 2 || versions[0].Version != 2 {
		t.Errorf("got %+v, %v", versions, err)
	}
}

func TestInsightsArriveOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx, id := t.Context(), p.agent.id
	const batches, size = 20, 10
	// Two connections deliver the same stream in parallel, each in order and with overlaps, as after a cut.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range batches {
				first := uint64(i*size + 1)
				for {
					stored, err := w.StoreInsights(ctx, id, insights(p.flow.ID, first, size+5))
					if err != nil {
						t.Errorf("batch %d: %v", i, err)
						return
					}
					if stored >= first+size-1 {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	const want = batches*size + 5
	page, err := w.Insights(ctx, p.owner, fleet.InsightFilter{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int64]int{}
	for _, in := range page.Insights {
		seen[in.Seq]++
	}
	for seq := int64(1); seq <= want; seq++ {
		if seen[seq] != 1 {
			t.Errorf("sequence %d is there %d times", seq, seen[seq])
		}
	}
	if len(page.Insights) != want {
		t.Errorf("%d insights, want %d", len(page.Insights), want)
	}
	if stored := w.connect(t, p.agent); stored != want {
		t.Errorf("the next session begins at %d, want %d", stored, want)
	}
	if stored, err := w.StoreInsights(ctx, id, insights(p.flow.ID, 1, 5)); err != nil || stored != want {
		t.Errorf("a resend: %d, %v", stored, err)
	}
	_, err = w.StoreInsights(ctx, id, insights(p.flow.ID, want+2, 1))
	wantCode(t, "a gap", err, fleet.Conflict)
	_, err = w.StoreInsights(ctx, id, insights(p.flow.ID, 0, 1))
	wantCode(t, "from zero", err, fleet.Invalid)
}

func TestInsightListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	up := insights(p.flow.ID, 1, 25)
	up.Insights[3].Name, up.Insights[3].KeyJson = "cold", []byte(`{"machine":"M2","shift":3}`)
	up.Insights[4].FlowId = "00000000-0000-7000-8000-000000000000"
	up.Insights[5].Time = 1 << 62
	up.Insights[6].ValuesJson = []byte(`{"b": "nul \u0000 and \ud800 and \\u0000 and \ud83d\ude00", "a":1.50}`)
	if _, err := w.StoreInsights(ctx, p.agent.id, up); err != nil {
		t.Fatal(err)
	}
	var all []fleet.Insight
	f := fleet.InsightFilter{Limit: 7}
	for range 10 {
		page, err := w.Insights(ctx, p.owner, f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Insights...)
		if f.After = page.Next; f.After == "" {
			break
		}
	}
	if len(all) != 25 || all[0].Seq != 6 || all[0].Time.Year() != 9999 || all[1].Seq != 25 || all[24].Seq != 1 {
		t.Fatalf("paging gave %d insights, beginning with %+v", len(all), all[0])
	}
	for _, in := range all {
		switch in.Seq {
		case 5:
			if in.FlowName != "" {
				t.Errorf("an unknown flow is named %q", in.FlowName)
			}
		case 7:
			if want := `{"b": "nul \ufffd and \ufffd and \\u0000 and \ud83d\ude00", "a":1.50}`; string(in.Values) != want {
				t.Errorf("values are %s, want %s", in.Values, want)
			}
		default:
			if in.FlowName != "hot-presses" {
				t.Errorf("the flow of %d is named %q", in.Seq, in.FlowName)
			}
		}
	}
	from := time.UnixMicro(1_700_000_000_000_000)
	for what, c := range map[string]struct {
		f    fleet.InsightFilter
		want int
	}{
		"name":          {fleet.InsightFilter{Name: "cold"}, 1},
		"key":           {fleet.InsightFilter{Key: map[string]string{"machine": "M2"}}, 1},
		"a number key":  {fleet.InsightFilter{Key: map[string]string{"shift": "3"}}, 1},
		"two keys":      {fleet.InsightFilter{Key: map[string]string{"machine": "M1", "shift": "3"}}, 0},
		"flow":          {fleet.InsightFilter{Flow: p.flow.ID}, 24},
		"agent":         {fleet.InsightFilter{Agent: p.agent.id.Agent}, 25},
		"another agent": {fleet.InsightFilter{Agent: p.flow.ID}, 0},
		"from, to":      {fleet.InsightFilter{From: from.Add(10 * time.Second), To: from.Add(12 * time.Second)}, 2},
	} {
		page, err := w.Insights(ctx, p.owner, c.f)
		if err != nil || len(page.Insights) != c.want {
			t.Errorf("%s: %d insights, %v; want %d", what, len(page.Insights), err, c.want)
		}
	}
	names, err := w.InsightNames(ctx, p.owner)
	if err != nil || len(names) != 3 {
		t.Errorf("got %+v, %v", names, err)
	}
	some, err := w.InsightsBySeq(ctx, p.owner, p.agent.id.Agent, 3, 5)
	if err != nil || len(some) != 3 || some[0].Seq != 3 {
		t.Errorf("got %+v, %v", some, err)
	}
	for what, f := range map[string]fleet.InsightFilter{"a cursor": {After: "!"}, "a limit": {Limit: 10_001}, "a flow": {Flow: "x"}} {
		_, err := w.Insights(ctx, p.owner, f)
		wantCode(t, "a bad "+what, err, fleet.Invalid)
	}
}

func TestRunsAndStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	r := &wire.RunReport{
		RunId: "00000000-0000-7000-8000-000000000001", FlowId: string(p.flow.ID), Version: 1, Status: "running", Started: 1_700_000_000_000_000,
		RecordsRead: 10, Steps: []*wire.StepCount{{Step: "readings", RowsIn: 10, RowsOut: 9}},
		FailedSample: []*wire.FailedRecord{{Step: "readings", Where: "line 3", Reason: "no number\x00", Record: "a;b\xff"}},
	}
	for _, status := range []string{"running", "ok"} {
		r.Status, r.Ended = status, 1_700_000_001_000_000
		if err := w.StoreRun(ctx, p.agent.id, r); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := w.Runs(ctx, p.owner, fleet.RunFilter{Flow: p.flow.ID})
	if err != nil || len(runs) != 1 || runs[0].Status != "ok" || runs[0].FlowName != "hot-presses" || len(runs[0].Steps) != 1 || runs[0].Sample[0].Where != "line 3" {
		t.Fatalf("got %+v, %v", runs, err)
	}
	if got, err := w.Run(ctx, p.owner, runs[0].ID); err != nil || got.RecordsRead != 10 {
		t.Errorf("got %+v, %v", got, err)
	}
	// Another agent cannot replace it.
	other := w.agent(t, p.owner)
	r.Status = "failed"
	if err := w.StoreRun(ctx, other.id, r); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Run(ctx, p.owner, runs[0].ID); err != nil || got.Status != "ok" || got.Agent != p.agent.id.Agent {
		t.Errorf("another agent changed the run: %+v, %v", got, err)
	}
	r.Status = "great"
	wantCode(t, "a status that is none", w.StoreRun(ctx, p.agent.id, r), fleet.Invalid)

	st := &wire.Status{
		Time: 1_700_000_000_000_000, DesiredSerial: 2, BundleError: "none\x00",
		Flows: []*wire.FlowStatus{{
			FlowId: string(p.flow.ID), Name: "hot-presses", State: "backing_off", Error: "the broker does not answer",
			Sources: []*wire.SourceStatus{{Step: "readings", State: "failing"}},
		}},
		Outbox: &wire.Outbox{Produced: 5, WaitingRecords: 3},
	}
	if err := w.StoreStatus(ctx, p.agent.id, st); err != nil {
		t.Fatal(err)
	}
	g, err := w.Agent(ctx, p.owner, string(p.agent.id.Agent))
	if err != nil || g.Applied != 2 || g.Status == nil || g.Status.Flows[0].Error == "" || g.Status.Outbox.WaitingRecords != 3 {
		t.Errorf("got %+v, %v", g, err)
	}
}

func TestEventsReachEveryReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := newReplica(t, w.db, "replica-2")
	p, rival := w.plant(t, "acme"), w.plant(t, "rival")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events, err := second.Subscribe(ctx, p.owner)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := second.Changes(ctx, p.agent.id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.StoreInsights(ctx, rival.agent.id, insights(rival.flow.ID, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.StoreInsights(ctx, p.agent.id, insights(p.flow.ID, 1, 3)); err != nil {
		t.Fatal(err)
	}
	e, ok := <-events
	if want := (fleet.Event{Tenant: p.owner.Tenant, Kind: "insights", ID: p.agent.id.Agent, FromSeq: 1, ToSeq: 3}); !ok || e != want {
		t.Errorf("got %+v, %v, want %+v", e, ok, want)
	}
	select {
	case <-changes:
		t.Error("insights count as a change of the desired state")
	default:
	}
	if err := w.Undeploy(ctx, p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-changes; !ok {
		t.Error("the channel of changes ended")
	}
	for e := range events {
		if e.Tenant != p.owner.Tenant || e.Kind == fleet.DesiredChanged {
			t.Errorf("got %+v", e)
		}
		if e.Kind == "flow" {
			break
		}
	}
	if err := w.RevokeAgent(ctx, p.owner, "press-pc"); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-changes; !ok {
		t.Error("the channel of changes ended")
	}
	cancel()
	for range events { // it drains: the test is that it ends
	}
	for range changes { // it drains: the test is that it ends
	}
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
		"Agents":      func() (int, error) { l, err := w.Agents(ctx, rival); return len(l), err },
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
		"Connect":       func() error { _, err := w.Connect(ctx, mixed, hello(t, 99)); return err },
		"Bundle":        func() error { _, _, err := w.Bundle(ctx, mixed); return err },
		"StoreInsights": func() error { _, err := w.StoreInsights(ctx, mixed, insights(acme.flow.ID, 1, 1)); return err },
		"StoreRun":      func() error { return w.StoreRun(ctx, mixed, report) },
	}
	for name, call := range gateway {
		wantCode(t, name, call(), fleet.AgentUnknown)
	}
	wantCode(t, "StoreStatus", w.StoreStatus(ctx, mixed, &wire.Status{}), fleet.AgentRevoked)
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
	if l, err := w.Agents(ctx, other); err != nil || len(l) != 0 {
		t.Errorf("agents: %v, %v", l, err)
	}
	if l, err := w.Connections(ctx, other); err != nil || len(l) != 0 {
		t.Errorf("connections: %v, %v", l, err)
	}
	_, err := w.Flow(ctx, other, string(acme.flow.ID))
	wantCode(t, "Flow", err, fleet.NotFound)
	wantCode(t, "RevokeAgent", w.RevokeAgent(ctx, other, string(acme.agent.id.Agent)), fleet.NotFound)
	wantCode(t, "DeleteConnection", w.DeleteConnection(ctx, other, string(acme.connection.ID)), fleet.NotFound)
}
