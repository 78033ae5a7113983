package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/backoff"
)

const (
	// channel is the one NOTIFY channel of the replicas.
	channel = "outfeed"
	// watcherBuffer is how many events a slow watcher may fall behind.
	watcherBuffer = 256
	// quiet is how long the listener waits for a notification before it asks whether the database is still there, and
	// answerWithin for how long it waits for the answer: a connection that is dead in silence is replaced within the 10 s in
	// which what another replica has revoked must be cut off here.
	quiet        = 4 * time.Second
	answerWithin = 3 * time.Second
	// partitionsAhead is how many months of partitions there are at least, and upkeepEvery how often the store looks after
	// them and removes what has expired.
	partitionsAhead = 3
	upkeepEvery     = 6 * time.Hour
)

// Run listens for what other replicas and this one change, keeps partitions ahead of time and removes expired sessions,
// until ctx ends. It reconnects by itself; its error is always nil.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.upkeep(ctx) })
	wait := backoff.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		err := s.listenOnce(ctx, wait.Reset)
		s.hub.interrupt()
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "listening to the database was interrupted", "error", err)
			_ = wait.Wait(ctx) // the loop looks at ctx itself
		}
	}
	wg.Wait()
	return nil
}

// listenOnce listens over one connection until it breaks.
func (s *Store) listenOnce(ctx context.Context, connected func()) error {
	c, err := pgx.ConnectConfig(ctx, s.listen)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(closing) // the connection is given up in any case
	}()
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	connected()
	s.hub.live()
	for {
		if err := s.receive(ctx, c); err != nil {
			return err
		}
	}
}

// receive waits for one notification, or finds out that the quiet line is dead.
func (s *Store) receive(ctx context.Context, c *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	n, err := c.WaitForNotification(waiting)
	switch {
	case err == nil:
		s.deliver(ctx, n.Payload)
		return nil
	case ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) && !c.IsClosed():
		pinging, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		if err := c.Ping(pinging); err != nil {
			return fmt.Errorf("the listening connection is dead: %w", err)
		}
		return nil
	default:
		return fmt.Errorf("wait for notifications: %w", err)
	}
}

func (s *Store) deliver(ctx context.Context, payload string) {
	var n notice
	if err := json.Unmarshal([]byte(payload), &n); err != nil {
		// Any role of this database may notify, so it may be a stranger's.
		s.log.WarnContext(ctx, "a notification of another form was ignored", "error", err)
		return
	}
	if n.From != s.name {
		s.hub.deliver(n.Notice)
	}
}

// notice is a fleet.Notice in the JSON of a payload.
type notice struct {
	fleet.Notice
	// From is the Store whose transaction it was. It has told its own watchers already.
	From string
}

// upkeep does at the start and then now and again what nobody asks for.
func (s *Store) upkeep(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		s.makePartitions(ctx)
		s.sweepSessions(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// makePartitions makes the partitions of the months ahead. A failure waits for the next time: there are months left,
// and then the default partition.
func (s *Store) makePartitions(ctx context.Context) {
	var made int
	err := s.pool.QueryRow(ctx, "SELECT outfeed_make_partitions($1)", partitionsAhead).Scan(&made)
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "cannot make partitions for insights", "error", err)
	}
	if made > 0 {
		s.log.InfoContext(ctx, "made partitions for insights", "partitions", made)
	}
}

// sweepSessions removes the dashboard's sessions that have expired. They are good for nothing already, so a failure
// waits for the next time.
func (s *Store) sweepSessions(ctx context.Context) {
	var swept int64
	err := s.pool.QueryRow(ctx, "SELECT outfeed_sweep_sessions()").Scan(&swept)
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "cannot remove expired sessions", "error", err)
	}
	if swept > 0 {
		s.log.InfoContext(ctx, "removed expired sessions", "sessions", swept)
	}
}

// Notify sends a notice when the transaction commits. The watchers of this store do not wait for the database to pass it on.
func (t *tx) Notify(ctx context.Context, n fleet.Notice) error {
	n.Tenant = t.tenant
	payload, err := json.Marshal(notice{n, t.from})
	if err != nil {
		return fmt.Errorf("write a notice: %w", err)
	}
	t.notices = append(t.notices, n)
	return t.do(ctx, "SELECT pg_notify(@channel, @payload)", args{"channel": channel, "payload": string(payload)})
}

// Watch gives the workspace's events. See fleet.Store.
func (s *Store) Watch(ctx context.Context, tenant, workspace fleet.ID) (<-chan fleet.Event, error) {
	w := &watcher{tenant: tenant, workspace: workspace, events: make(chan fleet.Event, watcherBuffer)}
	if err := s.hub.add(ctx, w); err != nil {
		return nil, err
	}
	return w.events, nil
}

// WatchDesired tells of changes of an agent's desired state. See fleet.Store.
func (s *Store) WatchDesired(ctx context.Context, tenant, agent fleet.ID) (<-chan struct{}, error) {
	w := &watcher{tenant: tenant, agent: agent, changed: make(chan struct{}, 1)}
	if err := s.hub.add(ctx, w); err != nil {
		return nil, err
	}
	return w.changed, nil
}

// watcher is a listener to a workspace's events or to one agent's desired state.
type watcher struct {
	tenant, workspace, agent fleet.ID
	// events is set for the one, changed for the other.
	events  chan fleet.Event
	changed chan struct{}
}

// hub hands notices to watchers, none of whom it waits for.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
	// listening is closed while notices arrive, and renewed when they stop.
	listening chan struct{}
	isOn      bool
}

func newHub() *hub {
	return &hub{watchers: map[*watcher]struct{}{}, listening: make(chan struct{})}
}

// add registers a watcher until ctx ends, as soon as notices arrive.
func (h *hub) add(ctx context.Context, w *watcher) error {
	for {
		h.mu.Lock()
		on, listening := h.isOn, h.listening
		if on {
			h.watchers[w] = struct{}{}
			context.AfterFunc(ctx, func() { h.remove(w) })
		}
		h.mu.Unlock()
		if on {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database's notifications: %w", context.Cause(ctx))
		case <-listening:
		}
	}
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(w)
}

// drop ends a watcher. The caller holds the lock.
func (h *hub) drop(w *watcher) {
	if _, there := h.watchers[w]; !there {
		return
	}
	delete(h.watchers, w)
	if w.events != nil {
		close(w.events)
	} else {
		close(w.changed)
	}
}

func (h *hub) isLive() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isOn
}

// live says that notices arrive from now on. Who waits for a change of desired state looks once, for what was missed.
func (h *hub) live() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isOn = true
	close(h.listening)
	for w := range h.watchers {
		w.poke()
	}
}

// interrupt says that notices may be missed from now on: the watchers of events are ended, so that they read anew.
func (h *hub) interrupt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isOn {
		return
	}
	h.isOn, h.listening = false, make(chan struct{})
	for w := range h.watchers {
		if w.events != nil {
			h.drop(w)
		}
	}
}

func (h *hub) deliver(notices ...fleet.Notice) {
	if len(notices) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range notices {
		for w := range h.watchers {
			h.tell(w, n)
		}
	}
}

// tell passes a notice to a watcher that it concerns. The caller holds the lock.
func (h *hub) tell(w *watcher, n fleet.Notice) {
	switch {
	case w.tenant != n.Tenant:
	case w.changed != nil:
		if n.Kind == fleet.DesiredChanged && n.ID == w.agent {
			w.poke()
		}
	case w.workspace == n.Workspace && n.Kind != fleet.DesiredChanged:
		select {
		case w.events <- n.Event:
		default:
			h.drop(w)
		}
	}
}

// poke tells of a change; one that is waiting already tells of this one too.
func (w *watcher) poke() {
	if w.changed == nil {
		return
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
