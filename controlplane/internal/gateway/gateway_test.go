package gateway_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/gateway"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	if welcome := v.connect(1); welcome.GetInsightsStored() != 0 || welcome.GetClock() == 0 {
		t.Errorf("the welcome is %v", welcome)
	}
	if got := s.metric("outfeed_gateway_agents_connected"); got != 1 {
		t.Errorf("%v agents are connected", got)
	}

	v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{}}})
	s.domain.wait(func() bool { return s.domain.statuses == 1 })
	for _, run := range []string{"run-1", "run-2", "run-1"} {
		v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_RunReport{RunReport: &wire.RunReport{RunId: run}}})
	}
	for n := range uint64(3) {
		if got := v.hear().GetRunReportsStored(); got != n+1 {
			t.Errorf("%d reports are acknowledged, want %d", got, n+1)
		}
	}

	s.domain.deploy(agent, "bundle-2")
	if got := v.hear().GetDesired(); string(got.GetEnvelope()) != "bundle-2" {
		t.Errorf("after a change came %v", got)
	}

	insights := v.open(wire.NewHeader(wire.KindInsights))
	down := &wire.InsightsDown{}
	for _, up := range []*wire.InsightsUp{batch(1, 100), batch(101, 50), batch(51, 100)} {
		v.say(insights, up)
		last := up.GetFirstSeq() + uint64(len(up.GetInsights())) - 1
		if err := wire.ReadMessage(insights, down); err != nil || down.GetStored() != last {
			t.Errorf("after a batch up to %d came %v, %v", last, down, err)
		}
	}
	s.domain.checkStored(agent, 150)
	if got := s.metric("outfeed_gateway_insights_stored_total"); got != 150 {
		t.Errorf("the metric says %v insights", got)
	}
	// A message may have receipts alone; they are in the sequence, and stored is nothing.
	v.say(insights, &wire.InsightsUp{FirstSeq: 153, Receipts: []*wire.Receipt{{Count: 2, Reason: wire.ReceiptDamaged}}})
	if err := wire.ReadMessage(insights, down); err != nil || down.GetStored() != 152 {
		t.Errorf("after receipts up to 152 came %v, %v", down, err)
	}
	if got := s.metric("outfeed_gateway_insights_stored_total"); got != 150 {
		t.Errorf("after receipts the metric says %v insights", got)
	}
	// A message of a newer version is passed over.
	v.say(v.control, &wire.ControlUp{})
	if err := v.streams.Close(); err != nil {
		t.Error(err)
	}
	s.domain.wait(func() bool { return agent.connected == 0 })

	again := s.visit(key)
	if welcome := again.connect(2); welcome.GetInsightsStored() != 152 {
		t.Errorf("the second welcome is %v", welcome)
	}
	if s.metric("outfeed_gateway_received_bytes_total") == 0 || s.metric("outfeed_gateway_sent_bytes_total") == 0 {
		t.Error("no bytes were counted")
	}
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.domain.tokens["token-1"] = "secret-1"
	// Of parallel uses of one token exactly one wins, and the others are told why.
	const uses = 10
	var mu sync.Mutex
	won, lost := 0, 0
	var workers sync.WaitGroup
	for range uses {
		_, key := newKey(t)
		v := s.visit(key)
		v.control = v.open(wire.NewHeader(wire.KindControl))
		workers.Go(func() {
			if err := wire.WriteMessage(v.control, enrolment("token-1", "secret-1")); err != nil {
				t.Error(err)
				return
			}
			down := &wire.ControlDown{}
			if err := wire.ReadMessage(v.control, down); err != nil {
				t.Error(err)
			}
			_ = v.streams.Close()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case down.GetEnrolled() != nil:
				won++
			case down.GetRefusal().GetCode() == wire.RefusalTokenUsed:
				lost++
			}
		})
	}
	workers.Wait()
	if won != 1 || lost != uses-1 {
		t.Errorf("%d won and %d were told that the token was used", won, lost)
	}
}

func enrolment(id, secret string) *wire.ControlUp {
	return &wire.ControlUp{Message: &wire.ControlUp_Enroll{Enroll: &wire.Enroll{TokenId: id, TokenSecret: secret, X25519PublicKey: make([]byte, 32)}}}
}

func TestEnrolThenHello(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.domain.tokens["token-1"] = "secret-1"
	_, key := newKey(t)
	v := s.visit(key)
	v.control = v.open(wire.NewHeader(wire.KindControl))
	v.say(v.control, enrolment("token-1", "secret-1"))
	if enrolled := v.hear().GetEnrolled(); enrolled.GetTenantId() != tenantID {
		t.Fatalf("the answer is %v", enrolled)
	}
	_ = v.streams.Close()
	s.visit(key).connect(1)
}

func TestRefusedHellos(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)

	_, stranger := newKey(t)
	v := s.visit(stranger)
	v.hello(1)
	if r := v.refused(wire.RefusalAgentUnknown); !strings.Contains(r.GetMessage(), "enrol") {
		t.Errorf("the message is %q", r.GetMessage())
	}

	v = s.visit(key)
	v.connect(7)

	// A hello recorded in another session is worth nothing in this one.
	other := s.visit(key)
	other.hello(8)
	other.hear()
	v = s.visit(key)
	v.inner = other.inner
	v.hello(9)
	v.refused(wire.RefusalProtocol)

	s.domain.order("Connect", failure(fleet.Unavailable, "the database is away"))
	v = s.visit(key)
	v.hello(10)
	v.refused(wire.RefusalUnavailable)

	s.domain.order("Connect", errors.New("a secret detail"))
	v = s.visit(key)
	v.hello(11)
	if r := v.refused(wire.RefusalInternal); strings.Contains(r.GetMessage(), "secret detail") {
		t.Errorf("the cause was told: %q", r.GetMessage())
	}

	s.domain.revoke(agent)
	v = s.visit(key)
	v.hello(12)
	v.refused(wire.RefusalAgentRevoked)
	if got := s.metric("outfeed_gateway_refusals_total"); got < 5 {
		t.Errorf("the metric says %v refusals", got)
	}
}

func TestRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	s.domain.revoke(agent)
	v.refused(wire.RefusalAgentRevoked)
	s.domain.wait(func() bool { return agent.connected == 0 })
}

// TestRevokedPeerThatIgnoresIt does not close its side: it is cut all the same.
func TestRevokedPeerThatIgnoresIt(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	s.domain.revoke(agent)
	<-v.streams.Done()
	s.domain.wait(func() bool { return agent.connected == 0 })
}

func TestNewerSessionEndsTheOlder(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	older := s.visit(key)
	older.connect(1)
	newer := s.visit(key)
	newer.connect(2)
	<-older.streams.Done()
	s.domain.wait(func() bool { return agent.connected == 1 })
	if got := s.metric("outfeed_gateway_agents_connected"); got != 1 {
		t.Errorf("%v agents are connected", got)
	}
	newer.say(newer.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{}}})
	s.domain.wait(func() bool { return s.domain.statuses == 1 })
}

// TestBreaches has peers that do not keep to the protocol, before and after the hello.
func TestBreaches(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(v *visitor){
		"unknown kind first":     func(v *visitor) { v.control = v.open(&wire.StreamHeader{Version: wire.Version, Kind: "shell"}) },
		"insights first":         func(v *visitor) { v.control = v.open(wire.NewHeader(wire.KindInsights)) },
		"a version of to-morrow": func(v *visitor) { v.control = v.open(&wire.StreamHeader{Version: 9, Kind: "control"}) },
		"no hello": func(v *visitor) {
			v.control = v.open(wire.NewHeader(wire.KindControl))
			v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{}}})
		},
		"a short key": func(v *visitor) {
			v.control = v.open(wire.NewHeader(wire.KindControl))
			v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Enroll{Enroll: &wire.Enroll{X25519PublicKey: []byte("x")}}})
		},
		"oversized first message": func(v *visitor) {
			v.control = v.open(wire.NewHeader(wire.KindControl))
			v.raw(v.control, 1<<30)
		},
		"unknown kind": func(v *visitor) {
			v.connect(1)
			v.open(&wire.StreamHeader{Version: wire.Version, Kind: "forward"})
		},
		"two control streams": func(v *visitor) {
			v.connect(1)
			v.open(wire.NewHeader(wire.KindControl))
		},
		"two insights streams": func(v *visitor) {
			v.connect(1)
			v.open(wire.NewHeader(wire.KindInsights))
			v.open(wire.NewHeader(wire.KindInsights))
		},
		"two hellos": func(v *visitor) {
			v.connect(1)
			v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: &wire.Hello{Counter: 2}}})
		},
		"oversized message": func(v *visitor) {
			v.connect(1)
			v.raw(v.control, 1<<32-1)
		},
		"oversized batch": func(v *visitor) {
			v.connect(1)
			v.raw(v.open(wire.NewHeader(wire.KindInsights)), wire.MaxMessage+1)
		},
		"an empty batch": func(v *visitor) {
			v.connect(1)
			v.say(v.open(wire.NewHeader(wire.KindInsights)), &wire.InsightsUp{FirstSeq: 1})
		},
		"a batch from zero": func(v *visitor) {
			v.connect(1)
			v.say(v.open(wire.NewHeader(wire.KindInsights)), batch(0, 2))
		},
		"a gap": func(v *visitor) {
			v.connect(1)
			v.say(v.open(wire.NewHeader(wire.KindInsights)), batch(5, 2))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			public, key := newKey(t)
			agent := s.domain.known(public)
			v := s.visit(key)
			do(v)
			v.refused(wire.RefusalProtocol)
			<-v.streams.Done()
			s.domain.wait(func() bool { return agent.connected == 0 })
			s.domain.checkStored(agent, 0)
		})
	}
}

// raw writes a length without what it announces.
func (v *visitor) raw(stream *mux.Stream, size uint32) {
	v.t.Helper()
	if _, err := stream.Write(binary.BigEndian.AppendUint32(nil, size)); err != nil {
		v.t.Fatal(err)
	}
}

// TestOversizedCostsNothing measures what announcing gigabytes costs the gateway.
func TestOversizedCostsNothing(t *testing.T) {
	s := newSite(t, nil)
	public, key := newKey(t)
	s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	stream := v.open(wire.NewHeader(wire.KindInsights))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v.raw(stream, 1<<30)
	v.refused(wire.RefusalProtocol)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("it allocated %d bytes", got)
	}
}

// TestHostileStreams floods an authenticated session; another agent notices nothing.
func TestHostileStreams(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	good, goodKey := newKey(t)
	s.domain.known(good)
	bystander := s.visit(goodKey)
	bystander.connect(1)
	bad, badKey := newKey(t)
	agent := s.domain.known(bad)

	inner := s.innerTLS(badKey)
	// yamux frames of pings, as fast as they go, that nobody will answer in time.
	ping := []byte{0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}
	go func() { _, _ = io.Copy(io.Discard, inner) }()
	for {
		if _, err := inner.Write(bytes.Repeat(ping, 100)); err != nil {
			break
		}
	}
	if agent.connected != 0 {
		t.Error("a flood counts as connected")
	}
	bystander.say(bystander.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{}}})
	s.domain.wait(func() bool { return s.domain.statuses == 1 })
}

// TestPassingFailures has a database that is away for a moment: nothing is lost and the session goes on.
func TestPassingFailures(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	away := failure(fleet.Unavailable, "the database is away")
	s.domain.order("Bundle", away, errors.New("unforeseen"))
	v := s.visit(key)
	v.connect(1)
	s.domain.order("StoreInsights", away, errors.New("unforeseen"))
	s.domain.order("StoreStatus", away)
	s.domain.order("StoreRun", away)
	insights := v.open(wire.NewHeader(wire.KindInsights))
	v.say(insights, batch(1, 10))
	down := &wire.InsightsDown{}
	if err := wire.ReadMessage(insights, down); err != nil || down.GetStored() != 10 {
		t.Errorf("the acknowledgement is %v, %v", down, err)
	}
	s.domain.checkStored(agent, 10)
	status := &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{}}}
	v.say(v.control, status)
	v.say(v.control, status)
	s.domain.wait(func() bool { return s.domain.statuses == 1 })
	v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_RunReport{RunReport: &wire.RunReport{RunId: "run-1"}}})
	if got := v.hear().GetRunReportsStored(); got != 1 {
		t.Errorf("%d reports are acknowledged", got)
	}
	// One that can never be stored does not hold up the others.
	s.domain.order("StoreRun", failure(fleet.Invalid, "nonsense"))
	for _, run := range []string{"bad", "run-2"} {
		v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_RunReport{RunReport: &wire.RunReport{RunId: run}}})
	}
	v.hear()
	if got := v.hear().GetRunReportsStored(); got != 3 {
		t.Errorf("%d reports are acknowledged", got)
	}
	if s.domain.runs["run-2"] != 1 || s.metric("outfeed_gateway_run_reports_refused_total") != 1 {
		t.Errorf("the reports are %v", s.domain.runs)
	}
}

func TestDraining(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	var stopping sync.WaitGroup
	stopping.Go(s.stop)
	if r := v.refused(wire.RefusalUnavailable); r.GetRetryAfterMs() < 0 || r.GetRetryAfterMs() > 2000 {
		t.Errorf("the refusal is %v", r)
	}
	stopping.Wait()
	s.domain.wait(func() bool { return agent.connected == 0 })
	if _, err := s.outer(); err == nil {
		t.Error("a gateway that has stopped lets connections in")
	}
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(settings *gateway.Settings) { settings.HandshakesAtOnce = 2 })
	_, key := newKey(t)
	// Two connections that stop in the middle of their handshakes.
	s.innerTLS(key)
	s.innerTLS(key)
	status, header := s.get()
	if after := header.Get("Retry-After"); status != http.StatusServiceUnavailable || after == "" || after == "0" {
		t.Errorf("the third was answered %d with Retry-After %q", status, after)
	}
	if s.metric("outfeed_gateway_turned_away_total") < 1 {
		t.Error("it was not counted")
	}
}

func TestAdmissionRate(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(settings *gateway.Settings) { settings.AdmitPerSecond = 1 })
	public, key := newKey(t)
	s.domain.known(public)
	s.visit(key).connect(1)
	for range 20 {
		if status, _ := s.get(); status == http.StatusServiceUnavailable {
			return
		}
	}
	t.Error("twenty connections in a moment were let in at one a second")
}

// get asks for the tunnel without being a WebSocket.
func (s *site) get() (status int, header http.Header) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.server.URL+gateway.Path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.server.Client().Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	if err = answer.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header
}

func TestNoWebSocket(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	if status, _ := s.get(); status != http.StatusUpgradeRequired {
		t.Errorf("a plain request was answered %d", status)
	}
}

func TestNewRefusesABadKey(t *testing.T) {
	t.Parallel()
	if _, err := gateway.New(gateway.Settings{Key: ed25519.PrivateKey("short")}); err == nil {
		t.Error("a short key was taken")
	}
}
