package gatewaytest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// hogs is how many strangers hold something, from how many addresses, and hoggingKeys how many enrolled agents do.
	hogs, hogAddresses = 190, 49
	hoggingKeys        = 13
	// largeInsight is as large as an insight can be.
	largeInsight = wire.MaxMessage - 1<<10
)

// at is a client whose connections come from that address.
func (h *host) at(address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true, DialContext: dialer.DialContext}}
}

// hogTime is for how long such an attack goes on.
func hogTime() time.Duration {
	if *long {
		return 90 * time.Second
	}
	return 3 * time.Second
}

// hoggingStrangers do the handshake with keys of their own making, and hold a first message of which the last byte does not
// come, with as much on a second stream as is not refused. Whoever is cut comes again.
func hoggingStrangers(ctx context.Context, h *host) error {
	ctx, cancel := context.WithTimeout(ctx, hogTime())
	defer cancel()
	var n, held atomic.Int64
	err := crowd(hogs, func() error {
		client := h.at(fmt.Sprintf("127.0.0.%d", 2+n.Add(1)%hogAddresses))
		for ctx.Err() == nil {
			inner, _, err := h.insideBy(ctx, client)
			if err != nil {
				continue // it was turned away
			}
			streams, err := mux.Client(inner, slog.New(slog.DiscardHandler))
			if err != nil {
				return errors.Join(err, inner.Close())
			}
			if err = hold(streams, wire.KindControl, wire.MaxFirst, wire.MaxFirst-1); err == nil {
				held.Add(1)
				_ = hold(streams, wire.KindInsights, 0, mux.MaxStrangerUnread-4<<10) // it may be cut already
			}
			untilOver(ctx, streams)
			if err = streams.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && held.Load() < hogs/2 {
		err = fmt.Errorf("only %d first messages were held", held.Load())
	}
	return err
}

// untilOver waits until the gateway has ended a session, or the attack is over.
func untilOver(ctx context.Context, streams *mux.Session) {
	select {
	case <-streams.Done():
	case <-ctx.Done():
	}
}

// hold opens a stream, announces a message of that size and sends so many bytes of it.
func hold(streams *mux.Session, kind wire.Kind, size uint32, send int) error {
	stream, err := streams.Open()
	if err != nil {
		return err
	}
	if err = wire.WriteMessage(stream, wire.NewHeader(kind)); err != nil {
		return err
	}
	return begun(stream, size, send)
}

// begun announces a message of that size and sends so many bytes of it.
func begun(w io.Writer, size uint32, send int) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, size)); err != nil {
		return err
	}
	_, err := io.CopyN(w, zeros{}, int64(send))
	return err
}

type zeros struct{}

// Read gives zeros.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// hoggingAgents are enrolled, and do their worst on the control stream and on the insights stream. Whoever is cut comes again.
// Another agent sends the largest insights that there are, and all are stored.
func hoggingAgents(worst func(a *agent) error) func(ctx context.Context, h *host) error {
	return func(ctx context.Context, h *host) error {
		attack, cancel := context.WithTimeout(ctx, hogTime())
		defer cancel()
		var all sync.WaitGroup
		defer all.Wait()
		var begun sync.WaitGroup
		begun.Add(hoggingKeys)
		for range hoggingKeys {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			all.Go(func() {
				first := sync.OnceFunc(begun.Done)
				defer first()
				for attack.Err() == nil {
					h.hogAs(attack, key, worst, first)
				}
			})
		}
		begun.Wait()
		for n := 0; n == 0 || attack.Err() == nil; n++ {
			began := time.Now()
			if err := h.large(ctx); err != nil {
				return fmt.Errorf("another agent's large insight, after %v: %w", time.Since(began), err)
			}
			h.t.Logf("a large insight of another agent took %v", time.Since(began))
		}
		return nil
	}
}

func (h *host) hogAs(ctx context.Context, key ed25519.PrivateKey, worst func(a *agent) error, begun func()) {
	a, err := h.connectAs(ctx, h.client(true), key)
	if err != nil {
		return // it was turned away
	}
	defer a.streams.Close() //nolint:errcheck // the gateway has closed it, or the attack is over
	over := context.AfterFunc(ctx, func() { _ = a.streams.Close() })
	defer over()
	begun()
	if worst(a) == nil {
		untilOver(ctx, a.streams)
	}
}

// unfinished holds a message of 8 MiB on both streams.
func unfinished(a *agent) error {
	control := make(chan error, 1)
	go func() { control <- begun(a.control, wire.MaxMessage, wire.MaxMessage-8) }()
	err := hold(a.streams, wire.KindInsights, wire.MaxMessage, wire.MaxMessage-8)
	return errors.Join(err, <-control)
}

// flooding sends insights of that size, and small statuses, as fast as it can, and reads no answer.
func flooding(size int) func(a *agent) error {
	return func(a *agent) error {
		stream, err := a.open(wire.KindInsights)
		if err != nil {
			return err
		}
		control := make(chan error, 1)
		go func() {
			control <- repeat(a.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{BundleError: "x"}}})
		}()
		return errors.Join(repeat(stream, insight(size)), <-control)
	}
}

// insight is one of about that size, the first of an agent.
func insight(size int) *wire.InsightsUp {
	return &wire.InsightsUp{FirstSeq: 1, Insights: []*wire.InsightRecord{{Name: "n", ValuesJson: make([]byte, size-100)}}}
}

// repeat sends a message again and again.
func repeat(w io.Writer, m proto.Message) error {
	var one bytes.Buffer
	if err := wire.WriteMessage(&one, m); err != nil {
		return err
	}
	for {
		if _, err := w.Write(one.Bytes()); err != nil {
			return err
		}
	}
}

// large is an agent that sends the largest insight, and comes again where it is told to.
func (h *host) large(ctx context.Context) error {
	a, err := h.connect(ctx)
	if err != nil {
		return err
	}
	defer a.streams.Close() //nolint:errcheck // all is said
	stream, err := a.open(wire.KindInsights)
	if err != nil {
		return err
	}
	if err = wire.WriteMessage(stream, insight(largeInsight)); err != nil {
		return err
	}
	down := &wire.InsightsDown{}
	if err = wire.ReadMessage(stream, down); err != nil {
		return err
	}
	if down.GetStored() != 1 {
		return fmt.Errorf("%d is acknowledged", down.GetStored())
	}
	return nil
}
