// Package auth finds out who is asking: API keys, dashboard sessions, and the operator's token.
//
// It knows requests and cookies, and asks the domain whether a secret is good. It keeps nothing but the count of failed
// sign-ins, so sessions work on every replica; it does not decide what somebody may do. Safe for concurrent use.
package auth

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/internal/source"
)

// Keys checks API keys. fleet.API is one.
type Keys interface {
	// Authenticate finds who an API key belongs to; a wrong one is a *fleet.Error with Unauthorized.
	Authenticate(ctx context.Context, key secret.String) (fleet.Actor, error)
}

// Settings is what an Authenticator needs. Keys and Sessions must be set.
type Settings struct {
	Keys     Keys
	Sessions fleet.Sessions
	// PublicURL is the address that people use. With https the session's cookie never travels in the clear.
	PublicURL *url.URL
	// SessionTTL is how long a session lasts; 0 means 12 hours.
	SessionTTL time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

const (
	defaultSessionTTL = 12 * time.Hour
	// The prefix __Host- makes browsers insist on https, on this very host and on every path.
	plainCookie  = "outfeed-session"
	secureCookie = "__Host-outfeed-session"
	// maxSecret bounds what is hashed and looked up.
	maxSecret = 512
)

// Authenticator is the httpapi.Auth of the control plane.
type Authenticator struct {
	settings Settings
	secure   bool
	failures *failures
}

// New makes an Authenticator.
func New(s Settings) *Authenticator {
	if s.SessionTTL <= 0 {
		s.SessionTTL = defaultSessionTTL
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	return &Authenticator{
		settings: s,
		secure:   s.PublicURL != nil && s.PublicURL.Scheme == "https",
		failures: newFailures(s.Now),
	}
}

// Authenticate finds who sent a request: by its bearer key or, where there is none, by its session cookie.
func (a *Authenticator) Authenticate(r *http.Request) (fleet.Actor, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, key, _ := strings.Cut(header, " ")
		key = strings.TrimSpace(key)
		if !strings.EqualFold(scheme, "Bearer") || key == "" || len(key) > maxSecret {
			return fleet.Actor{}, refused("The Authorization header is not of the form Bearer ofk_….")
		}
		return a.settings.Keys.Authenticate(r.Context(), secret.New(key))
	}
	session, ok := a.session(r)
	if !ok {
		return fleet.Actor{}, refused("Send an API key as Authorization: Bearer ofk_…, or sign in to the dashboard.")
	}
	return a.settings.Sessions.AuthenticateSession(r.Context(), session)
}

// SignIn begins a session with an API key. An address, or a site of IPv6, that has failed too often gets a *TooManyError.
func (a *Authenticator) SignIn(r *http.Request, key secret.String) (fleet.Actor, *http.Cookie, error) {
	from := source.Site(r.RemoteAddr)
	if err := a.failures.check(from); err != nil {
		return fleet.Actor{}, nil, err
	}
	text := strings.TrimSpace(key.Reveal())
	if text == "" || len(text) > maxSecret {
		a.failures.add(from)
		return fleet.Actor{}, nil, refused("This is not an API key: one begins with ofk_.")
	}
	actor, err := a.settings.Keys.Authenticate(r.Context(), secret.New(text))
	if err != nil {
		if fleet.CodeOf(err) == fleet.Unauthorized {
			a.failures.add(from)
		}
		return fleet.Actor{}, nil, err
	}
	session, err := a.settings.Sessions.CreateSession(r.Context(), actor, a.settings.SessionTTL)
	if err != nil {
		return fleet.Actor{}, nil, err
	}
	return actor, a.cookie(session.Reveal(), int(a.settings.SessionTTL.Seconds())), nil
}

// SignOut ends the session of a request, if it has one, and gives the cookie that makes the browser forget it.
func (a *Authenticator) SignOut(r *http.Request) (*http.Cookie, error) {
	if session, ok := a.session(r); ok {
		if err := a.settings.Sessions.EndSession(r.Context(), session); err != nil {
			return nil, err
		}
	}
	return a.cookie("", -1), nil
}

func (a *Authenticator) session(r *http.Request) (secret.String, bool) {
	cookie, err := r.Cookie(a.cookieName())
	if err != nil || cookie.Value == "" || len(cookie.Value) > maxSecret {
		return secret.String{}, false
	}
	return secret.New(cookie.Value), true
}

func (a *Authenticator) cookieName() string {
	if a.secure {
		return secureCookie
	}
	return plainCookie
}

func (a *Authenticator) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure follows the scheme that people use: a small plant has plain http
		Name: a.cookieName(), Value: value, Path: "/", MaxAge: maxAge,
		Secure: a.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

func refused(message string) error {
	return &fleet.Error{Code: fleet.Unauthorized, Message: message}
}
