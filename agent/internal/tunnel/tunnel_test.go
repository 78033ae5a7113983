package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	tenant  = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
	agentID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5d"
)

func settingsFor(t *testing.T, p *plane, a *agent) tunnel.Settings {
	t.Helper()
	return tunnel.Settings{
		Link:  tunnel.Link{URL: p.server.URL, Proxy: secret.New("none"), CAFile: p.caFile},
		Agent: agentID, Fingerprint: p.fingerprint,
		Host:       &wire.Host{Hostname: "press-1", Os: "linux"},
		Connectors: []flowdef.ConnectorSpec{{}},
		Identity:   a, Bundles: a, Reporter: a, Outbox: a, Reports: a, Log: quiet(),
		MinWait: time.Millisecond, MaxWait: 20 * time.Millisecond,
	}
}

// run runs a client until the test ends, or until stop is called.
func run(t *testing.T, s tunnel.Settings) (client *tunnel.Client, stop func()) {
	t.Helper()
	client, err := tunnel.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return client, runClient(t, client)
}

func runClient(t *testing.T, client *tunnel.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// waitState waits until the client's state is as wanted.
func waitState(t *testing.T, c *tunnel.Client, wanted func(tunnel.State) bool) tunnel.State {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if s := c.State(); wanted(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("the state stays %+v", c.State())
		}
	}
}

func TestSession(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	a.serial = 5
	a.produce(50)
	a.report("run-1", "run-2")
	client, stop := run(t, settingsFor(t, p, a))

	a.waitAcknowledged(50)
	a.produce(30)
	a.waitAcknowledged(80)
	p.checkStored(80)
	a.waitReported()
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf("run-%d", i+3)
	}
	a.report(many...)
	a.waitReported()
	p.mu.Lock()
	if want := append([]string{"run-1", "run-2"}, many...); !slices.Equal(p.reports, want) {
		t.Errorf("the reports came as %q", p.reports)
	}
	hello := p.hellos[0]
	p.mu.Unlock()
	if hello.GetDesiredSerial() != 5 || hello.GetHost().GetHostname() != "press-1" || len(hello.GetConnectorSpecs()) != 1 || hello.GetClock() == 0 {
		t.Errorf("the hello is %v", hello)
	}

	<-p.statuses
	a.setStatus(&wire.Status{DesiredSerial: 6})
	if s := <-p.statuses; s.GetDesiredSerial() != 6 {
		t.Errorf("after a change the status is %v", s)
	}
	p.down <- &wire.ControlDown{Message: &wire.ControlDown_Desired{Desired: &wire.Desired{Envelope: []byte("bundle")}}}
	if got := <-a.bundles; string(got) != "bundle" {
		t.Errorf("the bundle is %q", got)
	}
	// A message of a newer version is passed over.
	p.down <- &wire.ControlDown{}
	p.down <- &wire.ControlDown{Message: &wire.ControlDown_Desired{Desired: &wire.Desired{Envelope: []byte("newer")}}}
	if got := <-a.bundles; string(got) != "newer" {
		t.Errorf("the bundle is %q", got)
	}
	if s := client.State(); !s.Connected || s.Since.IsZero() || s.LastError != "" {
		t.Errorf("the state is %+v", s)
	}
	stop()
	<-p.ended
	if s := client.State(); s.Connected {
		t.Errorf("after Run the state is %+v", s)
	}
}

// TestPlainHTTP runs over http:// on loopback, where the inner TLS protects what passes.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	plain := newPlainListener(t, p)
	a := newAgent(t)
	a.produce(3)
	s := settingsFor(t, p, a)
	s.Link = tunnel.Link{URL: plain}
	run(t, s)
	a.waitAcknowledged(3)
	p.checkStored(3)
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	_, key := newKey(t)
	token, err := seal.NewToken("0190a1b2-c3d4-7e5f-8a9b-000000000001", tenant, p.fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	e := tunnel.Enrolment{
		Link: tunnel.Link{URL: p.server.URL, CAFile: p.caFile}, Key: key, ReceiveKey: make([]byte, 32),
		Host: &wire.Host{Hostname: "press-1"}, Labels: map[string]string{"site": "berlin"}, Log: quiet(),
	}
	enrolled, err := tunnel.Enroll(t.Context(), e, token)
	if err != nil || enrolled.GetAgentId() != "agent-1" {
		t.Fatalf("Enroll = %v, %v", enrolled, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.enrolled[0]; got.GetTokenId() != token.ID || got.GetTokenSecret() != token.SecretText() || got.GetTokenTenant() != token.Tenant || got.GetLabels()["site"] != "berlin" {
		t.Errorf("the enrolment was %v", got)
	}
	other := token
	other.Tenant = "0190a1b2-c3d4-7e5f-8a9b-ffffffffffff"
	p.mu.Unlock()
	_, err = tunnel.Enroll(t.Context(), e, other)
	p.mu.Lock()
	if err == nil || !strings.Contains(err.Error(), other.Tenant) {
		t.Errorf("enrolled for another tenant than the token's: %v", err)
	}
}

func TestEnrollRefused(t *testing.T) {
	t.Parallel()
	for _, code := range []string{wire.RefusalTokenUsed, wire.RefusalTokenExpired, wire.RefusalTokenUnknown} {
		p := newPlane(t, func(p *plane) {
			p.answer = func(*wire.ControlUp) *wire.ControlDown {
				return &wire.ControlDown{Message: &wire.ControlDown_Refusal{Refusal: &wire.Refusal{Code: code, Message: "this token is no good"}}}
			}
		})
		_, key := newKey(t)
		_, err := tunnel.Enroll(t.Context(), tunnel.Enrolment{
			Link: tunnel.Link{URL: p.server.URL, CAFile: p.caFile}, Key: key, Log: quiet(),
		}, seal.Token{ID: tenant, Tenant: tenant, Fingerprint: p.fingerprint})
		refused, ok := errors.AsType[*tunnel.RefusedError](err)
		if !ok || refused.Code != code || !strings.Contains(err.Error(), "this token is no good") {
			t.Errorf("%s: the error is %v", code, err)
		}
	}
}

func TestWrongControlPlane(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	expected := strings.Repeat("12", 32)
	_, key := newKey(t)
	_, err := tunnel.Enroll(t.Context(), tunnel.Enrolment{
		Link: tunnel.Link{URL: p.server.URL, CAFile: p.caFile}, Key: key, Log: quiet(),
	}, seal.Token{ID: tenant, Tenant: tenant, Fingerprint: expected})
	wrong, ok := errors.AsType[*seal.FingerprintError](err)
	if !ok || wrong.Expected != expected || wrong.Seen != p.fingerprint {
		t.Errorf("Enroll: %v", err)
	}
	s := settingsFor(t, p, newAgent(t))
	s.Fingerprint = expected
	client, _ := run(t, s)
	state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
	if state.Connected || !strings.Contains(state.LastError, expected) || !strings.Contains(state.LastError, p.fingerprint) {
		t.Errorf("the state is %+v, want both fingerprints in the error", state)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hellos)+len(p.enrolled) != 0 {
		t.Error("the wrong control plane was told something")
	}
}

func TestExactlyOnceThroughCuts(t *testing.T) {
	t.Parallel()
	const cuts, round, rounds = 50, 200, 5000
	p := newPlane(t, nil)
	cutter := newCutter(t, p.server.Listener.Addr().String(), cuts)
	a := newAgent(t)
	s := settingsFor(t, p, a)
	s.Link.URL = "https://" + cutter.addr
	run(t, s)
	total := 0
	for range rounds {
		a.produce(round)
		total += round
		a.waitAcknowledged(uint64(total))
		if cutter.done() {
			break
		}
	}
	if !cutter.done() {
		t.Errorf("the link was not cut %d times", cuts)
	}
	p.checkStored(total)
	p.mu.Lock()
	t.Logf("%d sessions, %d insights sent again and dropped", len(p.hellos), p.repeated)
	p.mu.Unlock()
}

// TestAcknowledgementOfUnsent has a control plane that claims to have what it was never sent.
func TestAcknowledgementOfUnsent(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) { p.acknowledge = func(stored uint64) uint64 { return stored + 5 } })
	a := newAgent(t)
	a.produce(10)
	settings := settingsFor(t, p, a)
	// The next session would have nothing to send, and so no error.
	settings.MinWait, settings.MaxWait = time.Hour, time.Hour
	client, stop := run(t, settings)
	state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
	if !strings.Contains(state.LastError, "15") {
		t.Errorf("the state is %+v", state)
	}
	stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.acknowledged > 10 {
		t.Errorf("%d are acknowledged", a.acknowledged)
	}
}

// TestNothingConnectsIn has a control plane that opens streams.
func TestNothingConnectsIn(t *testing.T) {
	t.Parallel()
	refused := make(chan error, 1)
	p := newPlane(t, func(p *plane) {
		p.onSession = func(_ context.Context, s *mux.Session) {
			stream, err := s.Open()
			if err == nil {
				err = wire.WriteMessage(stream, &wire.StreamHeader{Version: wire.Version, Kind: "shell"})
			}
			if err == nil {
				_, err = stream.Read(make([]byte, 1))
			}
			refused <- err
		}
	})
	a := newAgent(t)
	a.produce(5)
	run(t, settingsFor(t, p, a))
	if err := <-refused; !errors.Is(err, io.EOF) {
		t.Errorf("the stream gave %v, want io.EOF", err)
	}
	a.waitAcknowledged(5)
}

func TestRefusedHello(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) {
		p.answer = func(*wire.ControlUp) *wire.ControlDown {
			return &wire.ControlDown{Message: &wire.ControlDown_Refusal{Refusal: &wire.Refusal{Code: wire.RefusalAgentRevoked, Message: "this agent was revoked"}}}
		}
	})
	client, _ := run(t, settingsFor(t, p, newAgent(t)))
	state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
	if !strings.Contains(state.LastError, "revoked") || time.Until(state.NextTry) < 4*time.Minute {
		t.Errorf("the state is %+v, want a long wait", state)
	}
}

func TestRevokedInTheMiddle(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	client, _ := run(t, settingsFor(t, p, newAgent(t)))
	<-p.statuses
	p.down <- &wire.ControlDown{Message: &wire.ControlDown_Refusal{Refusal: &wire.Refusal{Code: wire.RefusalAgentRevoked, Message: "this agent was revoked"}}}
	state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
	if state.Connected || !strings.Contains(state.LastError, "revoked") || time.Until(state.NextTry) < 4*time.Minute {
		t.Errorf("the state is %+v", state)
	}
}

func TestBusyControlPlane(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) { p.busy = true })
	client, _ := run(t, settingsFor(t, p, newAgent(t)))
	state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
	if !strings.Contains(state.LastError, "503") || time.Until(state.NextTry) < 60*time.Second {
		t.Errorf("the state is %+v, want the wait that was asked for", state)
	}
}

// TestCounterIsKeptFirst does not connect when the counter cannot be kept.
func TestCounterIsKeptFirst(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	a.counterFails = true
	client, stop := run(t, settingsFor(t, p, a))
	waitState(t, client, func(s tunnel.State) bool { return strings.Contains(s.LastError, errNoCounter.Error()) })
	stop()
	if len(p.hellos) != 0 {
		t.Error("a hello was sent")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{ //nolint:gosec // the password is made up
		"":                            "not the address",
		"control.example":             "not the address",
		"ftp://control.example":       "https://",
		"http://control.example":      "not encrypted",
		"http://10.0.0.1:8080":        "not encrypted",
		"http://127.0.0.1.example":    "not encrypted",
		"https://user:pw@example.org": "holds a user or a password",
	} {
		_, err := tunnel.New(tunnel.Settings{Link: tunnel.Link{URL: url}})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one that says %q", url, err, says)
		}
	}
	for _, url := range []string{"https://control.example", "https://control.example:8443/base/", "http://127.0.0.1:8080", "http://[::1]:80", "http://localhost"} {
		if _, err := tunnel.New(tunnel.Settings{Link: tunnel.Link{URL: url}}); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
	_, err := tunnel.New(tunnel.Settings{Link: tunnel.Link{URL: "https://control.example", Proxy: secret.New("user:hunter2@proxy")}})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a bad proxy: %v", err)
	}
}
