package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/source"
)

const (
	// maxSeats is how many requests may be under way. One that waits for its client takes, by estimate, 80 KB with its
	// connection and a record of TLS, which makes 9 MB.
	maxSeats = 112
	// maxBusy is how many of them the control plane may work for, rather than wait for their clients, and maxBusyOfOne how
	// many of one organization, or of one address until it is known whose a request is. The database has fewer connections.
	maxBusy      = 96
	maxBusyOfOne = 40
	// maxHeldBytes bounds the bodies that are being read, all together.
	maxHeldBytes = 4 << 20
	// maxSignInBytes bounds the body of a request whose sender nobody knows yet.
	maxSignInBytes = 4 << 10
	// maxGoing is how many that were ousted may still take time to tell their clients so.
	maxGoing = 32
	// retryAfter is when a client that was turned away may come back, in seconds.
	retryAfter = "2"
)

// errOusted is why the body of a request is not read any more.
var errOusted = errors.New("the request had to make room for others")

// holder is whose a request is: an organization's, or, until that is known, an address's.
type holder struct {
	tenant fleet.ID
	site   netip.Addr
}

// seats bounds the requests under way. A request that waits for its client, to send the body or to take the answer, makes
// room for the next one when there are too many: the oldest of the holder that has the most. So whoever is slow keeps nobody
// out. For a request that waits for the control plane nobody makes room; when there are too many, the next is turned away.
type seats struct {
	mu sync.Mutex
	// slow are those that wait for their clients.
	slow source.Crowd[holder, *seat]
	// busy are those that do not, and byHolder how many of them each has.
	busy     int
	byHolder map[holder]int
	// held is how many bytes of bodies are held.
	held int
	// going are those that were ousted and have not left. They have tailTimeout to tell their clients, and less when there are
	// too many.
	going source.Crowd[holder, *seat]
	// ending are the requests that were ousted and do not know it yet.
	ending ending
}

func newSeats() *seats {
	s := &seats{byHolder: map[holder]int{}}
	s.slow.Modest, s.going.Modest = maxSeats/modestShare, maxGoing/modestShare
	return s
}

// seat is one request under way. Its mutex is that of the seats.
type seat struct {
	seats  *seats
	holder holder
	// member is nil while the request is busy, and after it was ousted or has left; going is it while it is ousted.
	member, going *source.Member[holder, *seat]
	busy          bool
	ousted        bool
	held          int
	// conn has HTTP/2; it is nil where that of the request has not, or is not metered.
	conn *conn

	// control reaches the connection, while the handler runs.
	mu      sync.Mutex
	control *http.ResponseController
}

// enter takes a request in. There is always room, as no more than maxBusy cannot be ousted.
func (s *seats) enter(from netip.Addr, control *http.ResponseController, under *conn) *seat {
	one := &seat{seats: s, holder: holder{site: from}, control: control, conn: under}
	s.mu.Lock()
	one.member = s.slow.Add(one.holder, one)
	out := s.room()
	s.mu.Unlock()
	out.end()
	s.ending.yield()
	return one
}

// outs are seats that have to go: told is ousted now, and cut has had its time. Each may be nil.
type outs struct{ told, cut *seat }

// room ousts one when there are too many, or when they hold too much. mu is held.
func (s *seats) room() outs {
	var next *source.Member[holder, *seat]
	switch {
	case s.busy+s.slow.Len() > maxSeats:
		next = s.next()
	case s.held > maxHeldBytes:
		next = s.heaviest()
	}
	if next == nil {
		return outs{}
	}
	out := outs{told: next.Value}
	out.told.ousted = true
	s.ending.began()
	out.told.forget()
	if out.told.stranger() {
		s.oustAll(out.told.conn)
		return out
	}
	out.told.going = s.going.Add(out.told.holder, out.told)
	if s.going.Len() > maxGoing {
		first := s.going.Next()
		s.going.Remove(first)
		out.cut = first.Value
	}
	return out
}

// next is who has to go when there are too many. Where that is one of HTTP/1.1, those that share a connection of HTTP/2 go
// before it: if its holder is greedy that holder's, and else those of all, where they are more than half. mu is held.
func (s *seats) next() *source.Member[holder, *seat] {
	first := s.slow.Next()
	if first == nil || first.Value.stranger() {
		return first
	}
	greedy := s.slow.Of(first.From()) > s.slow.Modest
	best, counts, shared := first, map[*conn]int{}, 0
	for m := range s.slow.All() {
		if !m.Value.stranger() || greedy && m.From() != first.From() {
			continue
		}
		counts[m.Value.conn]++
		if n := counts[m.Value.conn]; n > 1 {
			shared++
			if !best.Value.stranger() || n > counts[best.Value.conn] {
				best = m
			}
		}
	}
	if !greedy && shared <= s.slow.Len()/2 {
		return first
	}
	return best
}

// oustAll ousts the others of a connection that is cut. mu is held.
func (s *seats) oustAll(one *conn) {
	for _, m := range slices.Collect(s.slow.All()) {
		if m.Value.conn == one {
			m.Value.ousted = true
			s.ending.began()
			m.Value.forget()
		}
	}
}

// stranger says whether the request came with HTTP/2 from a client that nobody knows.
func (s *seat) stranger() bool { return s.conn != nil && !s.conn.streams.Load().isKnown() }

// end ends the waiting of those that have to go: their reads and writes fail.
func (o outs) end() {
	o.told.end(tailTimeout)
	o.cut.end(0)
}

// heaviest is the oldest that holds something, of the holder that holds the most; nil when nobody does. mu is held.
func (s *seats) heaviest() *source.Member[holder, *seat] {
	var best *source.Member[holder, *seat]
	held, oldest := map[holder]int{}, map[holder]*source.Member[holder, *seat]{}
	for m := range s.slow.All() {
		if m.Value.held == 0 {
			continue
		}
		if held[m.From()] += m.Value.held; oldest[m.From()] == nil {
			oldest[m.From()] = m
		}
		if best == nil || held[m.From()] > held[best.From()] {
			best = oldest[m.From()]
		}
	}
	return best
}

// forget takes a seat out of the counts. seats.mu is held.
func (s *seat) forget() {
	s.seats.slow.Remove(s.member)
	s.member = nil
	if s.busy {
		s.busy = false
		s.seats.busy--
		if s.seats.byHolder[s.holder]--; s.seats.byHolder[s.holder] == 0 {
			delete(s.seats.byHolder, s.holder)
		}
	}
	s.seats.held -= s.held
	s.held = 0
}

// end has reads fail at once, and writes after a while. A connection with HTTP/2 whose client nobody knows ends as a whole:
// a reset stream is one whose end lies in a queue until the client reads, and the next comes with the same frame.
func (s *seat) end(after time.Duration) {
	if s == nil {
		return
	}
	if s.stranger() {
		s.conn.cut()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control != nil {
		_ = errors.Join(s.control.SetReadDeadline(time.Unix(1, 0)), s.control.SetWriteDeadline(time.Now().Add(after))) // it may be closed
	}
}

// work is when the control plane begins to work for the request. It is false when there is too much to do already.
func (s *seat) work() bool {
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	if s.busy {
		return true
	}
	if s.member == nil || s.seats.busy >= maxBusy || s.seats.byHolder[s.holder] >= maxBusyOfOne {
		return false
	}
	s.seats.slow.Remove(s.member)
	s.member, s.busy = nil, true
	s.seats.busy++
	s.seats.byHolder[s.holder]++
	return true
}

// of notes whose the request is. It is for a request that does not wait for its client.
func (s *seat) of(tenant fleet.ID) {
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	if !s.busy {
		return
	}
	held := s.held
	s.forget()
	s.holder, s.busy, s.held = holder{tenant: tenant}, true, held
	s.seats.busy++
	s.seats.byHolder[s.holder]++
	s.seats.held += held
	if s.conn != nil {
		s.conn.crowd.recognize(s.conn)
	}
}

// rest is when the request waits for its client again.
func (s *seat) rest() {
	s.seats.mu.Lock()
	if !s.busy {
		s.seats.mu.Unlock()
		return
	}
	held := s.held
	s.forget()
	s.held = held
	s.seats.held += held
	s.member = s.seats.slow.Add(s.holder, s)
	out := s.seats.room()
	s.seats.mu.Unlock()
	out.end()
}

// leave gives the seat back. It may be called more than once.
func (s *seat) leave() {
	s.seats.mu.Lock()
	s.forget()
	if s.ousted {
		s.ousted = false
		s.seats.going.Remove(s.going)
		s.seats.ending.done()
	}
	s.seats.mu.Unlock()
	s.mu.Lock()
	s.control = nil
	s.mu.Unlock()
}

// hold counts bytes of the body, and gives an error when the request was ousted.
func (s *seat) hold(n int) error {
	s.seats.mu.Lock()
	if s.ousted {
		s.seats.mu.Unlock()
		return errOusted
	}
	s.held += n
	s.seats.held += n
	out := s.seats.room()
	ousted := s.ousted
	s.seats.mu.Unlock()
	out.end()
	if ousted {
		return errOusted
	}
	return nil
}

// seatedBody counts what is read of a request.
type seatedBody struct {
	io.ReadCloser
	seat *seat
}

// Read reads, unless the request was ousted.
func (b seatedBody) Read(p []byte) (int, error) {
	if err := b.seat.hold(0); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if gone := b.seat.hold(n); gone != nil {
		return n, gone // what the reading ended with is a consequence
	}
	return n, err //nolint:wrapcheck // who reads compares it with io.EOF
}

// seatKey is the key of the seat in a request's context.
type seatKey struct{}

func seatIn(ctx context.Context) *seat {
	s, _ := ctx.Value(seatKey{}).(*seat)
	return s
}

// bounded lets a request pass that finds a seat.
func (s *seats) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		one := s.enter(source.Site(r.RemoteAddr), control, metered(r.Context()))
		defer one.leave()
		r = r.WithContext(context.WithValue(r.Context(), seatKey{}, one))
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = seatedBody{ReadCloser: r.Body, seat: one}
		}
		next.ServeHTTP(w, r)
		if one.conn != nil {
			_ = control.Flush() // a small answer waits for its client too; whoever hung up has no use for it
		}
	})
}

// busy has the control plane work for a request. The seat is that of the context, which may have none.
func busy(ctx context.Context, do func() error) error {
	one := seatIn(ctx)
	if one == nil {
		return do()
	}
	if !one.work() {
		return crowdedProblem()
	}
	defer one.rest()
	return do()
}

// received reads the body of a request for an operation that takes one, once it is known who sends it where that is known
// at all. Until then the request makes room for others.
func (s *service) received(ctx huma.Context, next func(huma.Context)) {
	op := ctx.Operation()
	r, w := humago.Unwrap(ctx)
	if op.RequestBody == nil || r.Body == nil {
		next(ctx)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyReadTimeout)) // a connection that is closed cannot be read either
	text, err := readPieces(r.Body, op.MaxBodyBytes+1)
	if err == nil && int64(len(text)) <= op.MaxBodyBytes {
		r.Body = io.NopCloser(bytes.NewReader(text))
		next(ctx)
		return
	}
	p := bodyProblem(err, op.MaxBodyBytes)
	p.headers.Set("Connection", "close")
	writeProblem(ctx, p)
}

// readPieces reads all, up to a bound. What comes slowly lies in pieces until it is whole: a buffer that doubles would take up
// to three times as much for each of those who do not come to an end.
func readPieces(r io.Reader, most int64) ([]byte, error) {
	const first, others = 1 << 10, 16 << 10
	r = io.LimitReader(r, most)
	piece := make([]byte, 0, first)
	var pieces [][]byte
	for {
		n, err := r.Read(piece[len(piece):cap(piece)])
		piece = piece[:len(piece)+n]
		switch {
		case errors.Is(err, io.EOF):
			return slices.Concat(append(pieces, piece)...), nil
		case err != nil:
			return nil, err //nolint:wrapcheck // bodyProblem looks at it
		case len(piece) == cap(piece):
			pieces, piece = append(pieces, piece), make([]byte, 0, others)
		}
	}
}

// bodyProblem says why a body was not taken.
func bodyProblem(err error, most int64) *problemError {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case err == nil:
		return newProblem(http.StatusRequestEntityTooLarge, codeTooLarge,
			fmt.Sprintf("The body of this request is too large: at most %d bytes are taken here.", most))
	case errors.Is(err, errOusted):
		return crowdedProblem()
	case ok && timeout.Timeout():
		return newProblem(http.StatusRequestTimeout, codeTooSlow,
			fmt.Sprintf("The body of this request did not arrive within %s. Look at the connection, and try again.", bodyReadTimeout))
	default:
		return newProblem(http.StatusBadRequest, string(fleet.Invalid), "The body of this request could not be read to its end.")
	}
}

// crowdedProblem is what a request is told that there is no room for.
func crowdedProblem() *problemError {
	p := newProblem(http.StatusServiceUnavailable, string(fleet.Unavailable),
		"The control plane has too many requests to answer at the moment. Nothing was changed. Try again in a few seconds; "+
			"if it goes on, look who sends so many (outfeed_api_requests_total in /metrics, and the log of the proxy in front).")
	p.headers.Set("Retry-After", retryAfter)
	return p
}
