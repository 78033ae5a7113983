package mux

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// distant is a peer that answers pings after a while, and notes when they came.
type distant struct {
	net.Conn

	mu      sync.Mutex
	delay   time.Duration
	pings   []time.Time
	writing sync.WaitGroup
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
		d.mu.Lock()
		d.pings = append(d.pings, time.Now())
		d.writing.Add(1)
		time.AfterFunc(d.delay, func() {
			defer d.writing.Done()
			_, _ = d.Conn.Write(answer[:])
		})
		d.mu.Unlock()
	}
}

// since gives how far apart the newest pings are, and takes another delay from now on.
func (d *distant) next(delay time.Duration) (gaps []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 1; i < len(d.pings); i++ {
		gaps = append(gaps, d.pings[i].Sub(d.pings[i-1]))
	}
	d.pings, d.delay = nil, delay
	return gaps
}

// TestBadLink has a peer whose answers come soon, then late, then soon: while they come late it is asked more often, and
// little is written at a time.
func TestBadLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left, right := net.Pipe()
		peer := &distant{Conn: right}
		var serving sync.WaitGroup
		serving.Go(peer.serve)
		s, err := Client(left, quiet())
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range []struct {
			delay, least, most time.Duration
			step               int
		}{
			{0, keepAliveMin, keepAliveMax, writeStep},
			{4 * time.Second, 0, slowKeepAlive, slowStep},
			{30 * time.Second, 0, slowKeepAlive, slowStep},
			{0, keepAliveMin, keepAliveMax, writeStep},
		} {
			peer.next(link.delay)
			timer := time.NewTimer(time.Minute)
			<-timer.C
			synctest.Wait()
			peer.next(link.delay)
			timer.Reset(time.Minute)
			<-timer.C
			synctest.Wait()
			gaps := peer.next(link.delay)
			if len(gaps) < 3 {
				t.Errorf("answers after %s: asked only %d times", link.delay, len(gaps))
			}
			for _, gap := range gaps {
				if gap < link.least || gap > link.most {
					t.Errorf("answers after %s: asked after %s", link.delay, gap)
				}
			}
			if got := s.most(); got != link.step {
				t.Errorf("answers after %s: %d bytes at a time", link.delay, got)
			}
		}
		// Nothing comes any more.
		peer.next(time.Hour)
		began := time.Now()
		<-s.Done()
		if took := time.Since(began); took > 45*time.Second {
			t.Errorf("the silence was noticed after %s", took)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = right.Close()
		serving.Wait()
		peer.writing.Wait()
	})
}
