// Package tunnel is the agent's one connection: it dials the control plane, keeps the session, and carries the typed
// conversations of protocol/wire over it.
//
// It checks no bundle and stores nothing: what it sends and receives passes through the ports that it declares. Nothing
// connects in: a stream that the control plane opens is refused. A Client runs once; State may be called at any time.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// settled is how long a session must last to count as a success, after which waiting starts small again.
	settled = 10 * time.Second
	// slowRetry is how long to wait at the least after a refusal that only a person can lift.
	slowRetry = 5 * time.Minute
	// knockEvery is the greatest ceiling of the wait after a try that reached nothing, which burdens nobody, and
	// askAround that after one which only a load balancer has answered, because its control plane is away (ADR 0009).
	knockEvery = 7 * time.Second
	askAround  = 30 * time.Second
	// lockedRetry is the same where that person is likely to be waiting for it.
	lockedRetry = 30 * time.Second
	// unsureRetry is the same for the first time that a proxy was told a password that may be wrong and has not answered.
	unsureRetry = 30 * time.Second
)

// Link is how to reach the control plane.
type Link struct {
	// URL is its address, "https://host[:port]". "http://" is accepted for a loopback address only.
	URL string
	// Proxy is the URL of an HTTP proxy, with user and password where it wants them. Empty takes the environment's
	// (HTTPS_PROXY, NO_PROXY), "none" takes none.
	Proxy secret.String
	// CAFile names a PEM file of certificate authorities to trust beside the system's; empty for none.
	CAFile string
}

// Settings is what code sets of a Client.
type Settings struct {
	Link Link
	// Agent is the agent's id, and Fingerprint that of the control plane's key, pinned at enrolment.
	Agent       string
	Fingerprint string
	Host        *wire.Host
	// Connectors are the kinds that this agent offers.
	Connectors []flowdef.ConnectorSpec

	Identity Identity
	Bundles  Bundles
	// Clock may be nil.
	Clock    Clock
	Reporter Reporter
	Outbox   Outbox
	Reports  Reports
	Log      *slog.Logger

	// MinWait and MaxWait are the first and the greatest ceiling of the wait between tries; 0 for 1 s and 5 min.
	MinWait, MaxWait time.Duration
}

// State is how the connection is.
type State struct {
	Connected bool
	// Since is when it became so.
	Since time.Time
	// LastError is why the last try or session ended; empty when there was none.
	LastError string
	// NextTry is when the next one begins; zero while connected or trying.
	NextTry time.Time
	// Sent is the last sequence of the outbox that was sent since this Client was made; 0 before the first.
	Sent uint64
	// RotationError is why the agent's keys could not be changed when that was asked for; empty when they could.
	RotationError string
	// Skew is how far this machine's clock is before the control plane's, by what that has said last and the time since.
	Skew time.Duration
}

// Client keeps the agent connected.
type Client struct {
	settings Settings
	link     *dialer
	// desired holds the newest envelope that is not applied yet.
	desired chan []byte
	// sent is State.Sent.
	sent atomic.Uint64
	// turn is when to come back after the last session, should there be a crowd. Only Run uses it.
	turn time.Duration
	// rotate holds a signal that new keys were asked for on this machine.
	rotate chan struct{}

	mu    sync.Mutex
	state State
	// rotation is State.RotationError.
	rotation string
	// theirs is the control plane's clock.
	theirs remoteClock
}

// New checks the settings.
func New(s Settings) (*Client, error) {
	link, err := newDialer(s.Link)
	if err != nil {
		return nil, err
	}
	return &Client{settings: s, link: link, desired: make(chan []byte, 1), rotate: make(chan struct{}, 1)}, nil
}

// State is how the connection is now.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.state
	state.Sent, state.Skew, state.RotationError = c.sent.Load(), c.theirs.skew(), c.rotation
	return state
}

// Run connects, and connects again, until ctx ends, which is no error.
func (c *Client) Run(ctx context.Context) error {
	c.setState(State{Since: time.Now()})
	var applier sync.WaitGroup
	applier.Go(func() { c.applyBundles(ctx) })
	defer applier.Wait()
	waits := newWaits(c.settings.MinWait, c.settings.MaxWait)
	var back comeback
	for {
		c.trying()
		c.link.patient = back.patient()
		err := c.session(ctx)
		if ctx.Err() != nil {
			c.setState(State{Since: time.Now()})
			return nil
		}
		down := c.State()
		if down.Connected && time.Since(down.Since) >= settled {
			waits.reset()
		}
		if down.Connected {
			down.Connected, down.Since = false, time.Now()
			back = comeback{turn: c.turn, at: down.Since.Add(c.turn)}
		}
		if errors.Is(err, errRotated) {
			// Nothing is wrong: the new keys are shown at once.
			c.setState(down)
			c.settings.Log.InfoContext(ctx, "the agent has new keys and connects with them")
			continue
		}
		back.note(err)
		pause := waits.after(err, time.Until(back.at))
		down.LastError, down.NextTry = err.Error(), time.Now().Add(pause)
		c.setState(down)
		c.settings.Log.WarnContext(ctx, "the tunnel is down", slog.String("error", err.Error()), slog.Duration("next_try", pause))
		if c.link.rest(ctx, pause, err) != nil {
			return nil
		}
	}
}

// waits are the sequences of waits: after tries that nobody has answered, after the others, and after passwords that got no answer.
// Of the first two, each starts over when the other goes on, so that a long time without a network does not make the agent slow once there is one.
type waits struct {
	answered, unanswered backoff.Backoff
	// unsure is how often a proxy has not answered to a password that may be wrong.
	unsure int
	// shortest and longest are the first and the greatest ceiling; 0 for backoff's.
	shortest, longest time.Duration
}

func newWaits(shortest, longest time.Duration) *waits {
	return &waits{
		answered:   backoff.Backoff{Min: shortest, Max: longest},
		unanswered: backoff.Backoff{Min: shortest},
		shortest:   shortest,
		longest:    longest,
	}
}

func (w *waits) reset() {
	w.answered.Reset()
	w.unanswered.Reset()
	w.unsure = 0
}

// after is how long to wait after an error. turn is how long it is until this agent's turn: where there is a crowd, and its turn
// is still to come, it waits for that.
func (w *waits) after(err error, turn time.Duration) time.Duration {
	if _, ok := errors.AsType[*UnsurePasswordError](err); ok {
		return w.afterPassword()
	}
	if turn > 0 && inCrowd(err) {
		return turn
	}
	return pauseAfter(err, w.next(err))
}

// afterPassword is how long to wait after a password that may be wrong got no answer: once not long, as that may have been an
// accident, and then as long as after one that was refused. Nothing but a session that lasts ends that count.
func (w *waits) afterPassword() time.Duration {
	wait := slowRetry
	if w.unsure++; w.unsure == 1 {
		wait = unsureRetry
	}
	return wait + rand.N(wait) //nolint:gosec // jitter needs no cryptographic randomness
}

// next is the wait after an error.
func (w *waits) next(err error) time.Duration {
	first, ceiling := w.shortest, unansweredCeiling(err)
	if busy, ok := errors.AsType[*CrowdedError](err); ok {
		first, ceiling = busy.first(), crowdedSpread
	}
	if ceiling == 0 {
		w.unanswered.Reset()
		return w.answered.Next()
	}
	w.answered.Reset()
	w.unanswered.Min, w.unanswered.Max = first, ceiling
	if w.longest > 0 {
		w.unanswered.Max = min(ceiling, w.longest)
	}
	return w.unanswered.Next()
}

// unansweredCeiling is the greatest ceiling after a try that did not reach the control plane; 0 for another.
func unansweredCeiling(err error) time.Duration {
	if _, ok := errors.AsType[*UnreachedError](err); ok {
		return knockEvery
	}
	busy, ok := errors.AsType[*BusyError](err)
	if !ok || busy.RetryAfter > 0 {
		return 0
	}
	switch busy.Status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return askAround
	default:
		return 0
	}
}

// pauseAfter is how long to wait after an error: what the control plane asked for, plus some jitter, and long where only
// a person can help. A Retry-After is a turn in a queue: what the backoff has grown to in the meantime would miss it.
func pauseAfter(err error, jitter time.Duration) time.Duration {
	if busy, ok := errors.AsType[*BusyError](err); ok && busy.RetryAfter > 0 {
		return busy.RetryAfter + rand.N(busy.RetryAfter/4+time.Second) //nolint:gosec // jitter needs no cryptographic randomness
	}
	if proxy, ok := errors.AsType[*ProxyError](err); ok && proxy.Credentials {
		// A few wrong passwords lock an account in many companies.
		return slowRetry + rand.N(slowRetry) //nolint:gosec // as above
	}
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return jitter
	}
	pause := refused.RetryAfter
	switch refused.Code {
	case wire.RefusalAgentRevoked, wire.RefusalAgentUnknown, wire.RefusalClone:
		pause = max(pause, slowRetry+rand.N(slowRetry)) //nolint:gosec // as above
	case wire.RefusalLocked:
		// Without the backoff, which may have grown long: the copy that an owner decides for shall go on.
		return max(pause, lockedRetry+rand.N(lockedRetry)) //nolint:gosec // as above
	}
	return pause + jitter
}

func (c *Client) trying() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.NextTry = time.Time{}
}

func (c *Client) setState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

// offer hands over an envelope, in place of one that still waits.
func (c *Client) offer(envelope []byte) {
	for {
		select {
		case c.desired <- envelope:
			return
		default:
		}
		select {
		case <-c.desired:
		default:
		}
	}
}

// applyBundles applies envelopes outside the session, since applying one must not stop when the link does.
func (c *Client) applyBundles(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case envelope := <-c.desired:
			if err := c.settings.Bundles.ApplyBundle(ctx, envelope); err != nil {
				c.settings.Log.WarnContext(ctx, "the desired flows were not applied", slog.String("error", err.Error()))
			}
		}
	}
}

// RefusedError is when the control plane refused the agent or something it sent.
type RefusedError struct {
	// Code is one of wire's refusals.
	Code, Message string
	RetryAfter    time.Duration
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the control plane refused (%s): %s", e.Code, e.Message)
}

func refused(r *wire.Refusal) error {
	const longest = 24 * time.Hour
	after := min(max(r.GetRetryAfterMs(), 0), longest.Milliseconds())
	return &RefusedError{Code: r.GetCode(), Message: r.GetMessage(), RetryAfter: time.Duration(after) * time.Millisecond}
}
