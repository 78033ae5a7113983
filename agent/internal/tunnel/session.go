package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// statusEvery is how often a Status is sent at the least, and statusGap how far apart two are at the least.
	statusEvery = 15 * time.Second
	statusGap   = time.Second
	// reportWindow is how many run reports may be unacknowledged.
	reportWindow = 64
)

// errEnded is when the control plane ended the session in an orderly way.
var errEnded = errors.New("the control plane ended the session")

// session is one connection from Hello to its end.
type session struct {
	*Client
	// key is the one that this session has proved, and inner the state of its inner TLS session.
	key     ed25519.PrivateKey
	inner   *tls.ConnectionState
	streams *mux.Session
	control *mux.Stream

	// up says that the control plane has welcomed the agent, which has kept the session's value.
	up atomic.Bool
	// sending keeps the two writers of the control stream apart.
	sending sync.Mutex
	// reports are the numbers of the run reports that were sent and are not acknowledged, in order.
	reports chan uint64
}

// session connects, and works until something ends it. It never returns nil.
func (c *Client) session(ctx context.Context) error {
	// Kept before it is used, so that no number is ever used twice.
	counter, err := c.settings.Identity.NextCounter()
	if err != nil {
		return err
	}
	key := c.settings.Identity.Key()
	streams, inner, err := c.link.connect(ctx, key, c.settings.Fingerprint, c.settings.Log)
	if err != nil {
		return err
	}
	s := &session{Client: c, key: key, inner: inner, streams: streams, reports: make(chan uint64, reportWindow)}
	ctx, release := s.untilStopped(ctx)
	defer release()
	welcome, err := s.hello(counter)
	if _, refused := errors.AsType[*RefusedError](err); refused || err == nil {
		c.link.names.through()
	}
	if errors.Is(err, mux.ErrSilent) {
		// The path died behind the handshakes.
		err = &UnreachedError{err}
	}
	if err == nil {
		// Nothing else is said before the value is on disk: what is said proves to the control plane that it is, and from
		// then on the value before is worth nothing.
		err = c.settings.Identity.KeepSession(welcome.GetSession())
	}
	if err == nil {
		s.up.Store(true)
		c.setState(State{Connected: true, Since: time.Now()})
		c.settings.Log.InfoContext(ctx, "the tunnel is up", slog.Uint64("insights_stored", welcome.GetInsightsStored()))
		err = s.work(ctx, welcome)
	}
	return errors.Join(err, streams.Close())
}

func (s *session) hello(counter uint64) (*wire.Welcome, error) {
	message, err := seal.HelloMessage(s.inner, counter)
	if err != nil {
		return nil, err
	}
	hello := &wire.Hello{
		Host: s.settings.Host, Counter: counter, Signature: ed25519.Sign(s.key, message),
		DesiredSerial: s.settings.Bundles.DesiredSerial(), Clock: time.Now().UnixMicro(), Session: s.settings.Identity.Session(),
	}
	for _, spec := range s.settings.Connectors {
		encoded, marshalErr := json.Marshal(spec)
		if marshalErr != nil {
			return nil, fmt.Errorf("describe a connector to the control plane: %w", marshalErr)
		}
		hello.ConnectorSpecs = append(hello.ConnectorSpecs, encoded)
	}
	if s.control, err = openStream(s.streams, wire.KindControl); err != nil {
		return nil, err
	}
	if err = s.send(&wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	answer, err := readAnswer(s.control)
	if err != nil {
		return nil, err
	}
	welcome := answer.GetWelcome()
	if welcome == nil {
		return nil, fmt.Errorf("the control plane answered the hello with a %T", answer.GetMessage())
	}
	s.hearClock(welcome.GetClock())
	s.turn = min(time.Duration(welcome.GetTurnMs())*time.Millisecond, longestTurn)
	return welcome, nil
}

// work runs the session's conversations; the first that ends takes the others with it.
func (s *session) work(ctx context.Context, welcome *wire.Welcome) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.receive(ctx) })
	group.Go(func() error { return s.sendStatus(ctx) })
	group.Go(func() error { return s.sendReports(ctx) })
	group.Go(func() error { return s.exchangeInsights(ctx, welcome, group) })
	group.Go(func() error { return s.refuseStreams(ctx) })
	group.Go(func() error { return s.rotateWhenAsked(ctx) })
	// Closing is what unblocks the readers and writers.
	stop := context.AfterFunc(ctx, func() { _ = s.streams.Close() })
	defer stop()
	err := group.Wait()
	if err == nil {
		err = errEnded
	}
	return err
}

// exchangeInsights agrees on what the control plane has stored, which takes until the outbox can be read, and sends the rest.
// It is one of the session's conversations and begins another.
func (s *session) exchangeInsights(ctx context.Context, welcome *wire.Welcome, conversations *errgroup.Group) error {
	if err := lookThrough(ctx, s.settings.Outbox, welcome.GetInsightsStored(), s.settings.Log); err != nil {
		return err
	}
	after, err := s.settings.Outbox.Reconcile(ctx, welcome.GetInsightsStored(), welcome.InsightsLost) //nolint:protogetter // absent is not 0
	if err != nil {
		return fmt.Errorf("agree with the control plane on what it has stored: %w", err)
	}
	stream, err := openStream(s.streams, wire.KindInsights)
	if err != nil {
		return err
	}
	insights := newInsights(s.settings.Outbox, stream, welcome.GetInsightsStored(), after, s.Client)
	conversations.Go(func() error { return insights.send(ctx) })
	return insights.receive(ctx)
}

func (s *session) send(m *wire.ControlUp) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return wire.WriteMessage(s.control, m)
}

// sendNow makes a status and sends it, and lets nothing be sent between the two: so it knows of every run that was reported
// before it.
func (s *session) sendNow() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return wire.WriteMessage(s.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: s.settings.Reporter.Status()}})
}

// receive reads the control stream.
func (s *session) receive(ctx context.Context) error {
	var acknowledged uint64
	for {
		down := &wire.ControlDown{}
		if err := wire.ReadMessage(s.control, down); err != nil {
			return fmt.Errorf("the connection to the control plane was lost: %w", err)
		}
		switch m := down.GetMessage().(type) {
		case *wire.ControlDown_Desired:
			if clock := m.Desired.GetClock(); clock != 0 {
				s.hearClock(clock)
			}
			s.offer(m.Desired.GetEnvelope())
		case *wire.ControlDown_RunReportsStored:
			if err := s.reportsStored(ctx, &acknowledged, m.RunReportsStored); err != nil {
				return err
			}
		case *wire.ControlDown_RotateNow:
			if err := s.sendRotate(); err != nil {
				return err
			}
		case *wire.ControlDown_Rotated:
			return s.rotated(m.Rotated)
		case *wire.ControlDown_Refusal:
			return refused(m.Refusal)
		case nil:
			// A newer control plane says something that this version does not know.
		default:
			return fmt.Errorf("the control plane sent a %T in the middle of a session", m)
		}
	}
}

// reportsStored drops the run reports that the acknowledgement covers, counted from the session's first.
func (s *session) reportsStored(ctx context.Context, acknowledged *uint64, stored uint64) error {
	var last uint64
	for *acknowledged < stored {
		select {
		case last = <-s.reports:
			*acknowledged++
		default:
			return fmt.Errorf("the control plane acknowledged %d run reports of this session, but %d were sent", stored, *acknowledged)
		}
	}
	if last == 0 {
		return nil
	}
	if err := s.settings.Reports.DropReports(ctx, last); err != nil {
		return fmt.Errorf("drop the run reports that the control plane has stored: %w", err)
	}
	return nil
}

// sendStatus sends one at once, one after each change, and one every 15 s.
func (s *session) sendStatus(ctx context.Context) error {
	regular := time.NewTicker(statusEvery)
	defer regular.Stop()
	for {
		if err := s.sendNow(); err != nil {
			return err
		}
		// Changes come in bursts; what changes during this pause goes out in one piece after it.
		if err := backoff.Sleep(ctx, statusGap); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.settings.Reporter.StatusChanged():
		case <-regular.C:
		}
	}
}

// sendReports sends the run reports that wait, at most reportWindow ahead of their acknowledgements.
func (s *session) sendReports(ctx context.Context) error {
	var after uint64
	for {
		reports, err := s.settings.Reports.ReadReports(ctx, after, reportWindow)
		if err != nil {
			return fmt.Errorf("read the run reports that wait: %w", err)
		}
		for _, r := range reports {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case s.reports <- r.Number:
			}
			if err := s.send(&wire.ControlUp{Message: &wire.ControlUp_RunReport{RunReport: r.Report}}); err != nil {
				return err
			}
			after = r.Number
		}
		if len(reports) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.settings.Reports.ReportsChanged():
		}
	}
}

// refuseStreams closes whatever the control plane opens: nothing connects into the plant.
func (s *session) refuseStreams(ctx context.Context) error {
	for {
		stream, err := s.streams.Accept(ctx)
		if err != nil {
			return fmt.Errorf("the connection to the control plane was lost: %w", err)
		}
		s.settings.Log.WarnContext(ctx, "the control plane tried to open a stream, which was refused")
		if err := stream.Close(); err != nil {
			return err
		}
	}
}
