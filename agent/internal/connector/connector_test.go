package connector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

func spec() []flowdef.Option {
	return []flowdef.Option{
		{Name: "host", Type: flowdef.OptionString, Required: true, Help: "The host."},
		{Name: "port", Type: flowdef.OptionInt, Default: "80", Min: 1, Max: 100, Help: "The port."},
		{Name: "tls", Type: flowdef.OptionBool, Default: "true", Help: "Whether."},
		{Name: "every", Type: flowdef.OptionDuration, Default: "5s", Help: "How often."},
		{Name: "version", Type: flowdef.OptionEnum, Enum: []string{"5", "3.1.1"}, Default: "5", Help: "Which."},
		{Name: "password", Type: flowdef.OptionSecret, Help: "The password."},
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := connector.ParseOptions(spec(), map[string]any{"host": "h", "version": 5.0}, map[string]secret.String{"password": secret.New("x")})
	if err != nil {
		t.Fatal(err)
	}
	if o.String("host") != "h" || o.Int("port") != 80 || !o.Bool("tls") || o.Duration("every") != 5*time.Second ||
		o.String("version") != "5" || o.Secret("password").Reveal() != "x" || o.Given("port") || !o.Given("host") {
		t.Fatalf("options %+v", o)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values map[string]any
		want   string
	}{
		{map[string]any{}, `option "host" is missing: The host.`},
		{map[string]any{"hots": "h"}, `option "hots" is wrong: unknown option "hots"; did you mean "host"?`},
		{map[string]any{"host": int64(5)}, `option "host" must be a string; put the value in quotes`},
		{map[string]any{"host": "h", "port": int64(101)}, `option "port" must lie from 1 to 100`},
		{map[string]any{"host": "h", "port": "80"}, `option "port" must be a whole number`},
		{map[string]any{"host": "h", "port": 1.5}, `option "port" must be a whole number`},
		{map[string]any{"host": "h", "tls": "yes"}, `option "tls" must be true or false`},
		{map[string]any{"host": "h", "every": "5"}, `option "every" is wrong: "5" is not a duration of at most 3650d; write it like 5s, 15m, 1h30m or 1d`},
		{map[string]any{"host": "h", "version": int64(4)}, `option "version" is wrong: unknown value "4"; there is 5, 3.1.1`},
		{map[string]any{"host": "h", "password": "open"}, `option "password" is a secret and must be given as one, not as an open value`},
	} {
		_, err := connector.ParseOptions(spec(), tt.values, nil)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v: error %v, want %s", tt.values, err, tt.want)
		}
	}
}

func TestAheadHandsOverErrorsAndTheEndInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cut := fmt.Errorf("cut: %w", io.EOF)
		a := connector.NewAhead(2, func(_ context.Context, a *connector.Ahead[int]) {
			for i := range 3 {
				p, going := a.Take()
				if !going {
					return
				}
				p.Deliveries = append(p.Deliveries, connector.Delivery{Read: int64(i)})
				if !a.Send(p) || !a.Fail(cut) || !a.Wait(time.Hour) {
					return
				}
			}
			a.End()
		})
		for i := range 3 {
			d, err := a.Next(t.Context())
			if err != nil || d.Read != int64(i) {
				t.Fatalf("delivery %d: %v, %v", i, d.Read, err)
			}
			if _, err := a.Next(t.Context()); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "cut") {
				t.Fatalf("error %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := a.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("error %v", err)
			}
			cancel()
		}
		for range 2 {
			if _, err := a.Next(t.Context()); !errors.Is(err, io.EOF) {
				t.Fatalf("error %v", err)
			}
		}
		for range 2 {
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Next(t.Context()); !errors.Is(err, connector.ErrClosed) {
			t.Fatalf("error %v", err)
		}
	})
}

func TestFailuresKeepAFew(t *testing.T) {
	t.Parallel()
	var f, g connector.Failures
	for range 4 {
		f.Add(connector.FailedRecord{Record: strings.Repeat("x", 1000)})
	}
	for range 9 {
		g.Add(connector.FailedRecord{})
	}
	f.Merge(g)
	if f.Count != 13 || len(f.Sample) != connector.MaxSamples || len(f.Sample[0].Record) != 256 {
		t.Fatalf("%d failures, %d kept", f.Count, len(f.Sample))
	}
}

func TestReleaseLetsGoOfWhatWaits(t *testing.T) {
	t.Parallel()
	const pieces = 3
	filled := make(chan int)
	a := connector.NewAhead(pieces, func(_ context.Context, a *connector.Ahead[[]byte]) {
		for round := range 2 {
			had := 0
			for range 2 * pieces {
				p, open := a.Take()
				if !open {
					return
				}
				if p.Buffer != nil {
					had++
				}
				p.Buffer = make([]byte, 1)
				a.Send(p) // without deliveries it comes back
			}
			filled <- had
			if round == 0 {
				a.Release()
			}
		}
		a.End()
	})
	var counts [2]int
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range counts {
			counts[i] = <-filled
		}
	}()
	if _, err := a.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Fatalf("error %v", err)
	}
	<-done
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if counts != [2]int{pieces, pieces} {
		t.Fatalf("%v pieces had a buffer when they were taken again, want %d each time", counts, pieces)
	}
}

// TestASourceThatHasEndedHoldsNothing: a run may have hundreds of sources, and closes all of them when it ends.
func TestASourceThatHasEndedHoldsNothing(t *testing.T) {
	t.Parallel()
	var pieces []*connector.Piece[[]byte]
	a := connector.NewAhead(3, func(_ context.Context, a *connector.Ahead[[]byte]) {
		for range 4 {
			p, open := a.Take()
			if !open {
				return
			}
			p.Buffer = make([]byte, 1)
			p.Deliveries = append(p.Deliveries, connector.Delivery{Read: 1})
			pieces = append(pieces, p)
			a.Send(p)
		}
		a.End()
	})
	var err error
	for err == nil {
		_, err = a.Next(t.Context())
	}
	if !errors.Is(err, io.EOF) {
		t.Fatalf("error %v", err)
	}
	for i, p := range pieces {
		if p.Buffer != nil || p.Deliveries != nil {
			t.Errorf("piece %d still has its buffer", i)
		}
	}
	if _, err = a.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
	if err = a.Close(); err != nil {
		t.Error(err)
	}
}
