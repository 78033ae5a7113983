package mux

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/yamux"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// distant is a peer that answers pings after a while, and says when one came.
type distant struct {
	net.Conn
	delay   atomic.Int64
	pings   chan struct{}
	writing sync.WaitGroup
}

// newDistant starts a session of the timing with a peer, which ends with the test.
func newDistant(t *testing.T, t0 timing) (*distant, *Session) {
	t.Helper()
	left, right := pair(t)
	d := &distant{Conn: right, pings: make(chan struct{}, 1000)}
	s, err := start(newGuard(&lossy{Conn: left}, 0), yamux.Client, t0, quiet())
	if err != nil {
		t.Fatal(err)
	}
	s.step = writeStep
	var serving sync.WaitGroup
	serving.Go(d.serve)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = right.Close()
		serving.Wait()
		d.writing.Wait()
	})
	return d, s
}

func (d *distant) serve() {
	var header [headerSize]byte
	for {
		if _, err := io.ReadFull(d.Conn, header[:]); err != nil {
			return
		}
		if header[1] != typePing {
			continue
		}
		answer := header
		binary.BigEndian.PutUint16(answer[2:], flagAnswer)
		d.writing.Add(1)
		time.AfterFunc(time.Duration(d.delay.Load()), func() {
			defer d.writing.Done()
			_, _ = d.Write(answer[:])
		})
		d.pings <- struct{}{}
	}
}

// TestLateAnswers has a peer whose answers come late, and then soon: while they are late it is asked more often than usual,
// and little is written at a time.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	peer, s := newDistant(t, timing{keepAlive: time.Hour, silence: time.Hour, write: time.Hour, slowAnswer: 20 * time.Millisecond, slowKeepAlive: 50 * time.Millisecond})
	peer.delay.Store(int64(40 * time.Millisecond))
	for range 5 {
		<-peer.pings
	}
	if got, every := s.most(), s.every(); got != slowStep || every != 50*time.Millisecond {
		t.Errorf("over a slow link, %d bytes are written at a time, and it is asked every %s", got, every)
	}
	peer.delay.Store(0)
	for s.most() == slowStep {
		<-peer.pings
	}
	if got, every := s.most(), s.every(); got != writeStep || every != time.Hour {
		t.Errorf("over a fast link, %d bytes are written at a time, and it is asked every %s", got, every)
	}
}

// TestWhichLinkIsUnheard has links on which the other side acknowledges nothing any more, whatever arrives.
func TestWhichLinkIsUnheard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		roundTrip time.Duration
		// after is when it is dead; 0 for never.
		after time.Duration
	}{
		"2 s":       {2 * time.Second, 28 * time.Second},
		"4 s":       {4 * time.Second, 36 * time.Second},
		"good":      {50 * time.Millisecond, 0},
		"not known": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				now := tcp.Flow{Acked: 1, RoundTrip: c.roundTrip}
				l := &link{flow: func() (tcp.Flow, bool) { return now, c.roundTrip > 0 }}
				l.look()
				began := time.Now()
				for time.Since(began) < time.Minute {
					timer := time.NewTimer(time.Second)
					<-timer.C
					now.Arrived++
					l.look()
					if took := time.Since(began); l.unheard() != (c.after > 0 && took > c.after) {
						t.Fatalf("after %s: unheard is %v", took, l.unheard())
					}
				}
			})
		})
	}
}

func TestWhichLinkIsBadButAlive(t *testing.T) {
	t.Parallel()
	far := 4 * time.Second
	for name, c := range map[string]struct {
		roundTrip      time.Duration
		acked, arrived uint64
		want           bool
	}{
		"both ways":             {far, 100, 1, true},
		"nothing acknowledged":  {far, 0, 1, false},
		"nothing arrives":       {far, 100, 0, false},
		"nothing":               {far, 0, 0, false},
		"a good link":           {50 * time.Millisecond, 100, 1, false},
		"a good link, one way":  {50 * time.Millisecond, 100, 0, false},
		"a good link, stopped":  {50 * time.Millisecond, 100, 0, false},
		"a good link, cut both": {50 * time.Millisecond, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				now := tcp.Flow{Acked: 1, Arrived: 1, RoundTrip: c.roundTrip}
				l := &link{flow: func() (tcp.Flow, bool) { return now, true }}
				l.look()
				for range 10 {
					timer := time.NewTimer(5 * time.Second)
					<-timer.C
					now.Acked += c.acked
					now.Arrived += c.arrived
					l.look()
				}
				if got := l.badButAlive(); got != c.want {
					t.Errorf("it is bad but alive: %v, want %v", got, c.want)
				}
			})
		})
	}
	for roundTrip, want := range map[time.Duration]time.Duration{4 * time.Second: 8 * time.Second, time.Second: 0, time.Millisecond: 0} {
		l := &link{flow: func() (tcp.Flow, bool) { return tcp.Flow{RoundTrip: roundTrip}, true }}
		l.look()
		if got := l.late(); got != want {
			t.Errorf("over %s signs of life may be late by %s, want %s", roundTrip, got, want)
		}
	}
	unknown := &link{flow: func() (tcp.Flow, bool) { return tcp.Flow{}, false }}
	unknown.look()
	if unknown.badButAlive() || unknown.late() != 0 {
		t.Error("a link that nothing is known of is alive")
	}
}
