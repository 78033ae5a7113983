package gateway

import (
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// TestRush has a gateway start, lose many agents, and a few, and lets time pass.
func TestRush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRush(defaultRush)
		check := func(when string, want bool) {
			t.Helper()
			if r.on() != want {
				t.Errorf("%s a rush is on: %v", when, !want)
			}
		}
		check("before the start", false)
		r.start()
		check("after the start", true)
		time.Sleep(defaultRush)
		check("long after the start", false)
		lose := func(from, to int) {
			for n := from; n < to; n++ {
				r.left(fleet.ID(strconv.Itoa(n)))
			}
		}
		lose(0, manyGone-1)
		// The same agent many times is one agent.
		for range manyGone {
			lose(0, 1)
			r.back("0")
			lose(0, 1)
		}
		check("after a few have gone", false)
		lose(manyGone, manyGone+1)
		check("after many have gone", true)
		r.back("7")
		r.back("7")
		r.back("nobody")
		check("after one is back", false)
		lose(7, 8)
		check("after that has gone again", true)
		time.Sleep(defaultRush - time.Second)
		lose(5, 6)
		check("a little later", true)
		time.Sleep(time.Second)
		check("long after most have gone", false)
		if r.gone.Len() != 1 || len(r.byAgent) != 1 {
			t.Errorf("%d and %d are remembered, want the one that went last", r.gone.Len(), len(r.byAgent))
		}
	})
}

// TestSessionsThatEnd has a gateway's sessions end: those that are replaced by a newer one of the same agent are no loss.
func TestSessionsThatEnd(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Settings{Key: key, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	connect := func(n int) *peer {
		p := &peer{gateway: g, cancel: func(error) {}, id: fleet.AgentIdentity{Agent: fleet.ID(strconv.Itoa(n))}}
		g.connected(p)
		return p
	}
	for n := range manyGone {
		before := connect(n)
		connect(n)
		g.disconnected(before)
	}
	if g.Rush() {
		t.Error("agents that have come again count as lost")
	}
	for n := range manyGone {
		g.disconnected(connect(n))
	}
	if !g.Rush() {
		t.Error("many agents are gone, and none is awaited")
	}
	connect(3)
	if g.Rush() {
		t.Error("an agent that is back is awaited")
	}
}
