package fleet_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
)

// signIn begins a session of a new key with that role, and gives the key's actor.
func (w *world) signIn(t *testing.T, owner fleet.Actor, role fleet.Role) (fleet.Actor, secret.String) {
	t.Helper()
	_, key, err := w.CreateAPIKey(t.Context(), owner, "browser", role)
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.Authenticate(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	session, err := w.CreateSession(t.Context(), a, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a, session
}

func TestDashboardSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	owner := w.tenant(t, "acme")
	key, session := w.signIn(t, owner, fleet.Editor)
	if text := session.Reveal(); !strings.HasPrefix(text, "ofs_") || len(text) != len("ofs_")+43 {
		t.Errorf("the session is %d characters and begins with %.4s", len(text), text)
	}
	a, err := w.AuthenticateSession(ctx, session)
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.Actor{Tenant: key.Tenant, Workspace: key.Workspace, Kind: "session", Ref: a.Ref, Name: "browser", Role: fleet.Editor}
	if a != want || a.Ref == key.Ref || a.Ref == "" {
		t.Errorf("got %+v, want %+v", a, want)
	}
	// It may do what its key's role may, and begins no other session.
	wantCode(t, "what an editor may do", w.DeleteConnection(ctx, a, "none"), fleet.NotFound)
	_, err = w.APIKeys(ctx, a)
	wantCode(t, "more than the key's role", err, fleet.Forbidden)
	_, err = w.CreateSession(ctx, a, time.Hour)
	wantCode(t, "a session from a session", err, fleet.Forbidden)
	for _, ttl := range []time.Duration{0, -time.Hour, 31 * 24 * time.Hour} {
		_, err = w.CreateSession(ctx, key, ttl)
		wantCode(t, "a session for "+ttl.String(), err, fleet.Invalid)
	}
	_, err = w.CreateSession(ctx, fleet.Actor{Kind: "api_key"}, time.Hour)
	wantCode(t, "a session of nobody", err, fleet.Unauthorized)
	for _, bad := range []string{"", "ofs_", session.Reveal() + "x", "ofk_" + session.Reveal()[4:]} {
		_, err := w.AuthenticateSession(ctx, secret.New(bad))
		wantCode(t, "authenticate "+bad, err, fleet.Unauthorized)
		if err := w.EndSession(ctx, secret.New(bad)); err != nil {
			t.Errorf("end %q: %v", bad, err)
		}
	}
	_, err = w.Authenticate(ctx, session)
	wantCode(t, "a session as a key", err, fleet.Unauthorized)

	// Two at once end it, and it is audited once.
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := w.EndSession(ctx, session); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	_, err = w.AuthenticateSession(ctx, session)
	wantCode(t, "after its end", err, fleet.Unauthorized)
	if err := w.EndSession(ctx, session); err != nil {
		t.Errorf("ending it again: %v", err)
	}
	log, err := w.Audit(ctx, owner, 0)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range log {
		if e.ObjectKind != "session" {
			continue
		}
		actions = append(actions, e.Action+" by "+e.ActorKind)
		if e.ObjectID != a.Ref || e.ActorName != "browser" || strings.Contains(e.Detail, session.Reveal()) {
			t.Errorf("the entry is %+v", e)
		}
	}
	if got := strings.Join(actions, ", "); got != "session.create by api_key, session.end by session" {
		t.Errorf("the audit log has %s", got)
	}
}

func TestASessionEndsWithItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	owner := w.tenant(t, "acme")
	key, session := w.signIn(t, owner, fleet.Editor)
	if err := w.RevokeAPIKey(ctx, owner, key.Ref); err != nil {
		t.Fatal(err)
	}
	_, err := w.AuthenticateSession(ctx, session)
	wantCode(t, "after its key was revoked", err, fleet.Unauthorized)
	_, err = w.CreateSession(ctx, key, time.Hour)
	wantCode(t, "a session of a revoked key", err, fleet.Unauthorized)
}

func TestASessionExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	owner := w.tenant(t, "acme")
	_, expired := w.signIn(t, owner, fleet.Viewer)
	_, living := w.signIn(t, owner, fleet.Viewer)
	a, err := w.AuthenticateSession(ctx, expired)
	if err != nil {
		t.Fatal(err)
	}
	super(t, w.db, "UPDATE sessions SET created_at = now() - interval '1 day', expires_at = now() WHERE id = $1::text::uuid", string(a.Ref))
	_, err = w.AuthenticateSession(ctx, expired)
	wantCode(t, "after its expiry", err, fleet.Unauthorized)
	if _, err := w.AuthenticateSession(ctx, living); err != nil {
		t.Error(err)
	}
}

// A session is its tenant's, and its workspace's: a key of elsewhere begins none here.
func TestSessionsAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	acme, rival := w.tenant(t, "acme"), w.tenant(t, "rival")
	_, session := w.signIn(t, acme, fleet.Owner)
	a, err := w.AuthenticateSession(ctx, session)
	if err != nil || a.Tenant != acme.Tenant {
		t.Errorf("got %+v, %v", a, err)
	}
	mixed := rival
	mixed.Ref = acme.Ref
	_, err = w.CreateSession(ctx, mixed, time.Hour)
	wantCode(t, "another tenant's key", err, fleet.Unauthorized)
	mixed = acme
	mixed.Workspace = "00000000-0000-7000-8000-000000000002"
	_, err = w.CreateSession(ctx, mixed, time.Hour)
	wantCode(t, "another workspace's key", err, fleet.Unauthorized)
}
