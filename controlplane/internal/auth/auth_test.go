package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
)

const goodKey = "ofk_good"

// domain knows one key and the sessions made from it.
type domain struct {
	mu       sync.Mutex
	sessions map[string]fleet.Actor
	ttl      time.Duration
	broken   error
}

func owner() fleet.Actor {
	return fleet.Actor{Tenant: "t1", Workspace: "w1", Kind: "api_key", Ref: "k1", Name: "first", Role: fleet.Owner}
}

func (d *domain) Authenticate(_ context.Context, key secret.String) (fleet.Actor, error) {
	if d.broken != nil {
		return fleet.Actor{}, d.broken
	}
	if key.Reveal() != goodKey {
		return fleet.Actor{}, &fleet.Error{Code: fleet.Unauthorized, Message: "No such key."}
	}
	return owner(), nil
}

func (d *domain) CreateSession(_ context.Context, a fleet.Actor, ttl time.Duration) (secret.String, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions == nil {
		d.sessions = map[string]fleet.Actor{}
	}
	text := fmt.Sprintf("session-%d", len(d.sessions))
	d.sessions[text], d.ttl = a, ttl
	return secret.New(text), nil
}

func (d *domain) AuthenticateSession(_ context.Context, session secret.String) (fleet.Actor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.sessions[session.Reveal()]
	if !ok {
		return fleet.Actor{}, &fleet.Error{Code: fleet.Unauthorized, Message: "The session has ended."}
	}
	return a, nil
}

func (d *domain) EndSession(_ context.Context, session secret.String) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, session.Reveal())
	return nil
}

// request comes from an address and has at most one header, given as name and value.
func request(t *testing.T, from string, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/session", nil)
	r.RemoteAddr = from
	if len(header) == 2 {
		r.Header.Set(header[0], header[1])
	}
	return r
}

func TestAuthenticateBearer(t *testing.T) {
	t.Parallel()
	d := &domain{}
	a := auth.New(auth.Settings{Keys: d, Sessions: d})
	for header, want := range map[string]bool{
		"Bearer " + goodKey:                  true,
		"bearer  " + goodKey + " ":           true,
		"Bearer ofk_bad":                     false,
		"Bearer":                             false,
		"Bearer ":                            false,
		"Basic " + goodKey:                   false,
		goodKey:                              false,
		"Bearer " + strings.Repeat("x", 513): false,
	} {
		actor, err := a.Authenticate(request(t, "192.0.2.1:1", "Authorization", header))
		if (err == nil) != want {
			t.Errorf("%q: %v", header, err)
		}
		if want && actor != owner() {
			t.Errorf("%q: actor is %+v", header, actor)
		}
		if !want && fleet.CodeOf(err) != fleet.Unauthorized {
			t.Errorf("%q: code is %s", header, fleet.CodeOf(err))
		}
	}
	if _, err := a.Authenticate(request(t, "192.0.2.1:1")); fleet.CodeOf(err) != fleet.Unauthorized {
		t.Errorf("no credentials: %v", err)
	}
}

func TestSessionLivesFromSignInToSignOut(t *testing.T) {
	t.Parallel()
	for name, public := range map[string]string{"http": "http://plant:8080", "https": "https://outfeed.example"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, err := url.Parse(public)
			if err != nil {
				t.Fatal(err)
			}
			d := &domain{}
			a := auth.New(auth.Settings{Keys: d, Sessions: d, PublicURL: address, SessionTTL: time.Hour})
			actor, cookie, err := a.SignIn(request(t, "192.0.2.1:1"), secret.New(" "+goodKey+"\n"))
			if err != nil || actor != owner() {
				t.Fatalf("sign in: %+v, %v", actor, err)
			}
			if invalid := cookie.Valid(); invalid != nil {
				t.Error(invalid)
			}
			if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.MaxAge != 3600 || cookie.Path != "/" {
				t.Errorf("cookie is %s", cookie)
			}
			if cookie.Secure != (name == "https") || strings.HasPrefix(cookie.Name, "__Host-") != cookie.Secure {
				t.Errorf("cookie is %s", cookie)
			}
			if strings.Contains(cookie.Value, goodKey) || d.ttl != time.Hour {
				t.Errorf("cookie is %s, ttl %s", cookie, d.ttl)
			}
			signedIn := request(t, "192.0.2.1:1", "Cookie", cookie.Name+"="+cookie.Value)
			if again, wrong := a.Authenticate(signedIn); wrong != nil || again != owner() {
				t.Errorf("with the cookie: %+v, %v", again, wrong)
			}
			gone, err := a.SignOut(signedIn)
			if err != nil || gone.MaxAge >= 0 || gone.Name != cookie.Name {
				t.Errorf("sign out: %s, %v", gone, err)
			}
			if _, err := a.Authenticate(signedIn); fleet.CodeOf(err) != fleet.Unauthorized {
				t.Errorf("after signing out: %v", err)
			}
			if _, err := a.SignOut(request(t, "192.0.2.1:1")); err != nil {
				t.Errorf("signing out twice: %v", err)
			}
		})
	}
}

func TestFailedSignInsAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := &domain{}
	a := auth.New(auth.Settings{
		Keys: d, Sessions: d, Now: func() time.Time { return now },
	})
	signIn := func(key, from string, headers ...string) error {
		_, _, err := a.SignIn(request(t, from, headers...), secret.New(key))
		return err
	}
	for i := range 10 {
		if err := signIn("ofk_bad", "192.0.2.1:1"); fleet.CodeOf(err) != fleet.Unauthorized {
			t.Fatalf("failure %d: %v", i, err)
		}
	}
	err := signIn(goodKey, "192.0.2.1:2")
	limited, ok := errors.AsType[*auth.TooManyError](err)
	if !ok || limited.RetryAfter() != 10*time.Minute {
		t.Fatalf("after ten failures: %v", err)
	}
	if err := signIn(goodKey, "192.0.2.2:1"); err != nil {
		t.Errorf("another address: %v", err)
	}
	if err := signIn(goodKey, "192.0.2.9:1", "X-Forwarded-For", "192.0.2.1"); err != nil {
		t.Errorf("a header counted, which is the server's to judge: %v", err)
	}
	if err := signIn(goodKey, "192.0.2.1"); err == nil {
		t.Error("the same address, as a proxy told it, was not limited")
	}
	now = now.Add(10*time.Minute + time.Second)
	if err := signIn(goodKey, "192.0.2.1:1"); err != nil {
		t.Errorf("after the window: %v", err)
	}
}

func TestOneSiteOfIPv6IsOneAddress(t *testing.T) {
	t.Parallel()
	d := &domain{}
	a := auth.New(auth.Settings{Keys: d, Sessions: d})
	for i := range 10 {
		_, _, err := a.SignIn(request(t, fmt.Sprintf("[2001:db8:1:2::%d]:1", i)), secret.New("ofk_bad"))
		if fleet.CodeOf(err) != fleet.Unauthorized {
			t.Fatal(err)
		}
	}
	if _, _, err := a.SignIn(request(t, "[2001:db8:1:2:ffff::1]:1"), secret.New(goodKey)); err == nil {
		t.Error("the eleventh from the same site was let in")
	}
	if _, _, err := a.SignIn(request(t, "[2001:db8:1:3::1]:1"), secret.New(goodKey)); err != nil {
		t.Errorf("another site: %v", err)
	}
}

// An outage is not the fault of those who try to sign in.
func TestOutageDoesNotCountAsFailure(t *testing.T) {
	t.Parallel()
	d := &domain{broken: &fleet.Error{Code: fleet.Unavailable, Message: "The database is away."}}
	a := auth.New(auth.Settings{Keys: d, Sessions: d})
	for range 20 {
		if _, _, err := a.SignIn(request(t, "192.0.2.1:1"), secret.New(goodKey)); fleet.CodeOf(err) != fleet.Unavailable {
			t.Fatal(err)
		}
	}
	d.broken = nil
	if _, _, err := a.SignIn(request(t, "192.0.2.1:1"), secret.New(goodKey)); err != nil {
		t.Error(err)
	}
}

func TestReadAdminToken(t *testing.T) {
	t.Parallel()
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("a1", 16)
	if token, err := auth.ReadAdminToken(write(long + "\n")); err != nil || token.Reveal() != long {
		t.Errorf("good token: %v", err)
	}
	if _, err := auth.ReadAdminToken(write("short")); err == nil {
		t.Error("a short token was taken")
	}
	if _, err := auth.ReadAdminToken(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file was taken")
	}
}
