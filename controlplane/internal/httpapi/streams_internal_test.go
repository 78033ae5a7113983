package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/source"
)

// said is a connection on which something was said already, and then its end.
type said struct {
	net.Conn
	in *bytes.Reader
}

func (s said) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s said) Write(p []byte) (int, error) { return len(p), nil }
func (s said) Close() error                { return nil }

// over meters what was said.
func over(text []byte) *meter {
	one, state := &conn{}, newStreams(tls.ConnectionState{})
	one.streams.Store(state)
	return &meter{Conn: said{in: bytes.NewReader(text)}, one: one, streams: state}
}

func frame(kind, flags byte, payload int) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(payload)<<8|uint32(kind)) //nolint:gosec // it is small
	return append(append(head, flags, 0, 0, 0, 1), make([]byte, payload)...)
}

// TestMeter has what a connection may send at once, and more.
func TestMeter(t *testing.T) {
	t.Parallel()
	const end = flagEndOfStream
	cases := []struct {
		name   string
		frame  []byte
		most   int
		endure bool
	}{
		{name: "empty bodies", frame: frame(frameData, 0, 0), most: maxAllowance / priceControl},
		{name: "pings", frame: frame(6, 0, 8), most: maxAllowance / priceControl},
		{name: "resets", frame: frame(3, 0, 4), most: maxAllowance / priceControl},
		{name: "settings", frame: frame(4, 0, 6), most: maxAllowance / priceControl},
		{name: "unknown frames", frame: frame(77, 0, 1), most: maxAllowance / priceControl},
		{name: "window updates", frame: frame(frameWindow, 0, 4), most: maxAllowance / pricePiece},
		{name: "small pieces of a body", frame: frame(frameData, 0, pieceBytes-1), most: maxAllowance / pricePiece},
		{name: "requests that never begin", frame: frame(frameHeaders, 0, 100), most: maxAllowance / priceRequest},
		{name: "bodies", frame: frame(frameData, 0, pieceBytes), endure: true, most: maxAllowance},
		{name: "last pieces of bodies", frame: frame(frameData, end, 0), endure: true, most: maxAllowance},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // no time goes by in which it could earn more
				begin := preface + string(bytes.Repeat(c.frame, c.most))
				got, err := io.ReadAll(over([]byte(begin)))
				if err != nil || string(got) != begin {
					t.Errorf("of %d bytes %d came, %v", len(begin), len(got), err)
				}
				// A request that is held back earns something meanwhile, which is not enough.
				m := over(append([]byte(begin), bytes.Repeat(c.frame, 2*c.most)...))
				if _, err = io.ReadAll(m); errors.Is(err, errFlood) == c.endure {
					t.Errorf("more give %v", err)
				}
			})
		})
	}
	if _, err := io.ReadAll(over([]byte("GET / HTTP/1.1\r\n\r\n"))); !errors.Is(err, errNotHTTP2) {
		t.Errorf("HTTP/1.1 gives %v", err)
	}
}

// TestMeterEarns lets go on who takes what is sent, and who comes slowly.
func TestMeterEarns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := over(nil)
		for range 10 * maxAllowance {
			if _, err := m.Write(make([]byte, earningBytes)); err != nil || !m.streams.spend(pricePiece) {
				t.Fatalf("ended: %v", err)
			}
		}
		for m.streams.spend(priceControl) {
			continue
		}
		time.Sleep(time.Second)
		n := 0
		for ; m.streams.spend(priceControl); n++ {
			continue
		}
		if n != allowanceSecond/priceControl {
			t.Errorf("after a second there was enough for %d", n)
		}
	})
}

// TestHeldBack has a connection with as many requests as may begin at once: the next waits until one ends, the connection
// ends, it is known whose it is, or for a while.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		free  func(m *meter)
		wait  time.Duration
		ended bool
	}{
		"one ends":                 {free: func(m *meter) { m.streams.end() }},
		"the connection ends":      {free: func(m *meter) { m.streams.close() }, ended: true},
		"it is nobody's":           {free: func(*meter) {}, wait: heldBack},
		"it is known whose it was": {free: func(m *meter) { m.streams.recognize() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := over(nil)
				for range freeStreams {
					if err := m.hold(); err != nil {
						t.Fatal(err)
					}
					m.streams.ask()
					m.streams.begin()
				}
				began, done := time.Now(), make(chan error, 1)
				go func() { done <- m.hold() }()
				synctest.Wait()
				if len(done) != 0 {
					t.Fatal("it was not held back")
				}
				c.free(m)
				if err := <-done; (err != nil) != c.ended {
					t.Error(err)
				}
				if took := time.Since(began); took != c.wait {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// FuzzMeter lets pass exactly what comes, in whatever pieces it is read, up to what ends it.
func FuzzMeter(f *testing.F) {
	f.Add([]byte(preface+string(frame(4, 0, 6))+string(frame(frameHeaders, 5, 20))), 9)
	f.Add([]byte(preface+string(frame(frameData, 0, 700))), 100)
	f.Add([]byte("PRI * HTTP/1.1\r\n"), 3)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		m := over(text)
		m.streams.recognize()
		p := make([]byte, max(1, size%1024))
		var got []byte
		for {
			n, err := m.Read(p)
			got = append(got, p[:n]...)
			if errors.Is(err, io.EOF) && !bytes.Equal(got, text) {
				t.Errorf("%q became %q", text, got)
			}
			if err != nil {
				break
			}
		}
		if !bytes.HasPrefix(text, got) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// TestHTTP2 has a browser's requests: many at once on one connection, with answers and bodies that are larger than what may
// be sent ahead.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	server, client := outerTLS(t)
	const size, many = 200 << 10, 60
	address := servedBy(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(w, r.Body)
		if err == nil && r.Method == http.MethodGet {
			_, err = w.Write(make([]byte, size))
		}
		if err != nil || r.TLS == nil || r.ProtoMajor != 2 {
			t.Errorf("%s: after %d bytes %v", r.Proto, n, err)
		}
	}))
	transport := &http.Transport{TLSClientConfig: client.Clone(), ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 16 << 10}}
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for n := range many {
		all.Go(func() {
			method, body := http.MethodGet, io.Reader(http.NoBody)
			if n%4 == 0 {
				method, body = http.MethodPost, bytes.NewReader(make([]byte, size))
			}
			r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("https://%s/%d", address, n), body)
			if err != nil {
				t.Error(err)
				return
			}
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close() //nolint:errcheck // it is only read
			if got, err := io.Copy(io.Discard, answer.Body); err != nil || got != size {
				t.Errorf("%s: of %d bytes %d came, %v", method, size, got, err)
			}
		})
	}
	all.Wait()
}

// TestStreaming has connections with HTTP/2 whose clients nobody knows make room, and one of which that is known stay.
func TestStreaming(t *testing.T) {
	t.Parallel()
	f := &fakes{crowd: newCrowd(limits{early: 9, idle: 9, streaming: 2}, nil)}
	come := func(name string) *conn {
		one := f.come(name, "192.0.2.2:1")
		one.streams.Store(newStreams(tls.ConnectionState{}))
		f.crowd.changed(one, http.StateActive)
		return one
	}
	known := come("known")
	s := newSeats()
	seat := s.enter(known.from, http.NewResponseController(httptest.NewRecorder()), known)
	seat.work()
	seat.of(fleet.ID("tenant"))
	for n := range 4 {
		come(fmt.Sprint("unknown", n))
	}
	if got := fmt.Sprint(f.cut); got != "[unknown0 unknown1]" || known.stage != working {
		t.Errorf("closed are %s, and the known one is at %d", got, known.stage)
	}
	f.crowd.changed(known, http.StateIdle)
	if f.by.IsZero() {
		t.Error("it may be idle for ever")
	}
	f.crowd.changed(known, http.StateActive)
	if !f.by.IsZero() {
		t.Error("its requests have to end as early as its rest")
	}
	if known.stage != working {
		t.Errorf("after its first requests the known one is at %d", known.stage)
	}
	// A request that has to make room takes its connection with it, unless that is known.
	seat.rest()
	late := come("late")
	f.cut = nil
	s.enter(late.from, http.NewResponseController(httptest.NewRecorder()), late)
	for range maxSeats {
		s.enter(late.from, http.NewResponseController(httptest.NewRecorder()), nil)
	}
	if got := fmt.Sprint(f.cut); got != "[late]" || !seat.ousted && seat.member == nil {
		t.Errorf("closed are %s", got)
	}
}

// TestSharedConnectionsGoFirst has a request of HTTP/1.1, and after it many that share connections of HTTP/2, from its own
// address and from others.
func TestSharedConnectionsGoFirst(t *testing.T) {
	t.Parallel()
	for _, sources := range []int{1, 20} {
		t.Run(fmt.Sprintf("from %d", sources), func(t *testing.T) {
			t.Parallel()
			f := &fakes{crowd: newCrowd(usualLimits(), nil)}
			s := newSeats()
			enter := func(from string, under *conn) *seat {
				return s.enter(source.Site(from), http.NewResponseController(httptest.NewRecorder()), under)
			}
			honest := enter("192.0.2.0:1", nil)
			for n := range 10 * maxSeats / freeStreams {
				from := fmt.Sprintf("192.0.2.%d:1", n%sources)
				one := f.come(strconv.Itoa(n), from)
				one.streams.Store(newStreams(tls.ConnectionState{}))
				for range freeStreams {
					enter(from, one)
				}
			}
			if honest.ousted || len(f.cut) == 0 || s.slow.Len() > maxSeats {
				t.Errorf("the honest one has to go: %v; %d connections were cut, and %d requests are left", honest.ousted, len(f.cut), s.slow.Len())
			}
		})
	}
}

// TestNothingIsLeft has a client that goes while its requests are under way: what belongs to its connection must be free then.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	server, client := outerTLS(t)
	came := make(chan weak.Pointer[conn], 1)
	address := servedBy(t, server, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- weak.Make(connIn(r.Context()))
		<-r.Context().Done()
	}))
	transport := &http.Transport{TLSClientConfig: client.Clone(), ForceAttemptHTTP2: true}
	ctx, cancel := context.WithCancel(t.Context())
	var underneath net.Conn
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		underneath = c
		return c, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if answer, err := transport.RoundTrip(r); err == nil {
			_ = answer.Body.Close() // there is none
		}
	}()
	one := <-came
	_ = underneath.Close() // the client's
	<-done
	cancel()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for runtime.GC(); one.Value() != nil; runtime.GC() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("the connection is still in memory")
		}
	}
}
