package fleet_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/internal/secret"
)

func TestNoPasswordInClear(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	for what, change := range map[string]func(c *fleet.Connection){
		"a URL":         func(c *fleet.Connection) { c.Options["host"] = "mqtt://plant:hunter3@broker" },
		"no scheme":     func(c *fleet.Connection) { c.Options["host"] = "plant:hunter3@broker" },
		"a query":       func(c *fleet.Connection) { c.Options["host"] = "mqtt://broker?password=hunter3" },
		"a NUL":         func(c *fleet.Connection) { c.Options["host"] = "hunter3\x00" },
		"a NUL, secret": func(c *fleet.Connection) { c.Secrets["password"] = secret.New("hunter3\x00") },
	} {
		for _, name := range []string{"press", "another"} {
			c := press()
			c.Name = name
			change(&c)
			_, err := w.ApplyConnection(t.Context(), p.owner, c)
			wantCode(t, what, err, fleet.Invalid)
			if err != nil && strings.Contains(err.Error(), "hunter3") {
				t.Errorf("%s: the error repeats the value: %v", what, err)
			}
		}
	}
	if got := secretOf(t, w, p); got != "hunter2" {
		t.Errorf("a refused call changed the secret to %q", got)
	}
}

func TestEnrolmentWithAnAlteredTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.tenant(t, "acme"), w.tenant(t, "globex")
	tok := w.token(t, a)
	m := newMachine(t)
	for _, tenant := range []string{"", string(other.Tenant), "x", strings.ToUpper(tok.Tenant)} {
		e := m.Request(tok)
		e.TokenTenant = tenant
		_, err := w.Enroll(t.Context(), e, m.Public)
		wantCode(t, "the tenant "+tenant, err, fleet.TokenUnknown)
	}
	for _, a := range []fleet.Actor{a, other} {
		if page, err := w.Agents(t.Context(), a, fleet.AgentFilter{}); err != nil || len(page.Agents) != 0 {
			t.Errorf("there are %d agents, %v", len(page.Agents), err)
		}
	}
	if _, err := w.Enroll(t.Context(), m.Request(tok), m.Public); err != nil {
		t.Errorf("the token was used up: %v", err)
	}
}

func TestApplyConnectionByID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	c := press()
	c.Name, c.Options["host"] = string(p.connection.ID), "10.0.0.9"
	got, err := w.ApplyConnection(t.Context(), p.owner, c)
	if err != nil || got.ID != p.connection.ID || got.Name != "press" || got.Options["host"] != "10.0.0.9" {
		t.Errorf("got %+v, %v", got, err)
	}
	all, err := w.Connections(t.Context(), p.owner)
	if err != nil || len(all) != 1 {
		t.Errorf("there are %d connections, %v", len(all), err)
	}
	c.Name = string(p.agent.id.Agent)
	_, err = w.ApplyConnection(t.Context(), p.owner, c)
	wantCode(t, "an id that is no connection's", err, fleet.Invalid)
	c.Name = "another"
	delete(c.Options, "host")
	_, err = w.ApplyConnection(t.Context(), p.owner, c)
	if e := fleet.CodeOf(err); e != fleet.Invalid || !strings.Contains(err.Error(), `"host" is missing`) {
		t.Errorf("got %v, want to hear what is missing", err)
	}
}

func TestDeployWithoutItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	if err := w.Undeploy(ctx, p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	other := press()
	other.Name = "press2"
	if _, err := w.ApplyConnection(ctx, p.owner, other); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteConnection(ctx, p.owner, "press"); err != nil {
		t.Fatal(err)
	}
	_, deploy := w.Deploy(ctx, p.owner, "hot-presses", 0, []string{"press-pc"})
	_, publish := w.Publish(ctx, p.owner, "hot-presses", 1)
	for what, err := range map[string]error{"deploy": deploy, "publish": publish} {
		wantCode(t, what, err, fleet.Conflict)
		if err != nil && !strings.Contains(err.Error(), `unknown connection "press"; did you mean "press2"?`) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if b := w.bundle(t, p.agent); len(b.GetFlows()) != 0 {
		t.Errorf("the bundle is %v", b)
	}
	if _, err := w.ApplyConnection(ctx, p.owner, press()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Deploy(ctx, p.owner, "hot-presses", 0, []string{"press-pc"}); err != nil {
		t.Error(err)
	}
}

func TestNoControlCharactersInFlows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	for _, text := range []string{
		strings.Replace(hot, "Presses that run hot", `"a\0b"`, 1), strings.Replace(hot, "Presses that run hot", `"a\eb"`, 1),
		strings.Replace(hot, "plant/press", `"a\0b"`, 1), hot + "# \x00", hot + "# \xff",
	} {
		check, err := w.CheckFlow(t.Context(), p.owner, text)
		if err != nil || len(check.Problems) == 0 || check.Problems[0].Line == 0 {
			t.Errorf("%q: got %+v, %v", text, check.Problems, err)
		}
		_, _, err = w.ApplyFlow(t.Context(), p.owner, text)
		wantCode(t, text, err, fleet.Invalid)
	}
}

func TestOneTenantOnly(t *testing.T) {
	t.Parallel()
	w := startReplica(t, pgtest.New(t), "replica-1", fleet.OneTenant)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = w.CreateTenant(t.Context(), "acme", "owner@acme.example") })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
			continue
		}
		wantCode(t, "a second tenant", err, fleet.Conflict)
	}
	if made != 1 {
		t.Errorf("%d tenants were made, want 1", made)
	}
}
