package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"
)

const (
	// stepPatience is how long a step of opening may take before all is tried anew beside it: a connection whose other end
	// has died in silence stays silent when the path heals, and only a new one gets through. A bad link takes longer now and
	// then, so what has begun goes on.
	stepPatience = 15 * time.Second
	// passwordPatience is the same for a proxy that has been told a password: it may ask about all that wait at once, and a
	// few wrong ones lock an account in many companies.
	passwordPatience = 35 * time.Second
	// unsurePatience is the same while that password may be wrong: longer than the proxy has for its answer, so that it is told
	// the password once.
	unsurePatience = 2 * stepTimeout
	// maxTries is how many go on at the same time.
	maxTries = 4
)

// opening is one try to open the outer connection and the inner session. It says when a step is done, and how long the next
// may take before another try begins beside it. Nothing of it counts for the control plane before the hello.
type opening func(ctx context.Context, done func(patience time.Duration)) (*tls.Conn, error)

// opened is what came of it.
type opened struct {
	conn  *tls.Conn
	err   error
	first bool
}

// hedge opens, and opens anew beside it while nothing moves. The first that is through wins, and an answer ends them all. So
// does the end of the first: it had all the time that there is.
func hedge(ctx context.Context, open opening) (*tls.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()
	results := make(chan opened)
	steps := make(chan time.Duration)
	done := func(patience time.Duration) {
		select {
		case steps <- patience:
		case <-ctx.Done():
		}
	}
	running := 0
	start := func() {
		running++
		first := running == 1
		tries.Go(func() {
			conn, err := open(ctx, done)
			select {
			case results <- opened{conn, err, first}:
			case <-ctx.Done():
				if conn != nil {
					_ = conn.Close()
				}
			}
		})
	}
	start()
	// Before the first step is done, the search for an address tries anew by itself.
	patience := stepPatience
	stuck := time.NewTimer(patience)
	stuck.Stop()
	defer stuck.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case patience = <-steps:
			stuck.Reset(patience)
		case <-stuck.C:
			if running < maxTries {
				start()
			}
			stuck.Reset(patience)
		case r := <-results:
			running--
			_, unreached := errors.AsType[*UnreachedError](r.err)
			if r.err == nil || r.first || !unreached {
				return r.conn, r.err
			}
		}
	}
}
