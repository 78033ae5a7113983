package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// When and how a run commits.

// scheduleCommit sets the time of the commit of what was processed just now.
func (r *Runner) scheduleCommit() {
	leaving := len(r.pipe.box.items) > 0 || r.sinksHold()
	if r.dirty && (r.leaving || !leaving) {
		return
	}
	r.dirty, r.leaving = true, leaving
	every := r.set.CommitEvery
	if !leaving {
		every *= stateEvery
	}
	r.commitTimer.Reset(r.untilCommit(time.Now(), every))
}

// untilCommit is the time to the next commit, at most every. The flows of a machine commit together at a few moments of its
// clock, because commits that come together cost the disk as much as one; not all at the same moment, because what they
// commit lies in memory meanwhile.
func (r *Runner) untilCommit(now time.Time, every time.Duration) time.Duration {
	moment := stateEvery * int64(r.set.CommitEvery) / commitMoments * r.moment
	past := time.Duration((now.UnixNano() - moment) % int64(every))
	if past < 0 { // on a clock that shows a time before 1970
		past += every
	}
	return every - past
}

// commitBehindBatch commits when it is time, and always where the next record may end the run.
func (r *Runner) commitBehindBatch(ctx context.Context) error {
	if r.stops() && r.dirty && !r.holds() {
		return r.commit(ctx)
	}
	return r.commitWhenFull(ctx)
}

// stops says whether a failing record ends the run.
func (r *Runner) stops() bool {
	flow := r.set.Program.plan.Flow
	return flow != nil && flow.OnError == flowdef.OnErrorStop
}

func (r *Runner) commitWhenFull(ctx context.Context) error {
	waiting := len(r.pipe.box.data)
	if r.rows >= r.set.CommitRows || waiting >= maxPendingBytes || waiting >= asideBytes && r.holds() {
		return r.commitDue(ctx)
	}
	return nil
}

// keptChanges is up to how many changes of a checkpoint the memory is kept for the next one.
const keptChanges = 64

// checkpoint collects what changed since the last one.
func (r *Runner) checkpoint() *Checkpoint {
	c := &Checkpoint{Changes: r.changes[:0]}
	for read, moved := range r.moved {
		if moved {
			if c.Cursors == nil {
				c.Cursors = map[string]connector.Cursor{}
			}
			c.Cursors[r.set.Program.main.reads[read].need.Step] = r.cursors[read]
		}
	}
	c.Changes, r.discarded = append(c.Changes, r.discarded...), nil
	for _, k := range r.pipe.keepers {
		c.Changes = k.changes(c.Changes)
	}
	if r.changes = c.Changes; cap(r.changes) > keptChanges {
		r.changes = nil
	}
	c.Earlier, c.Insights = r.aside.all(), r.pipe.box.take()
	c.Late = r.lateRows() - r.lateTold
	return c
}

// commit makes everything processed so far durable. A commit that fails is of unknown outcome and is tried again, the
// same checkpoint, until ctx ends.
func (r *Runner) commit(ctx context.Context) error {
	if r.uncommitted == nil {
		if err := r.flushSinks(ctx); err != nil {
			return err
		}
		c := r.checkpoint()
		r.dirty, r.leaving = false, false
		r.commitTimer.Stop()
		r.idleTimer.Stop()
		if c.empty() {
			return nil
		}
		r.uncommitted = c
	}
	var wait backoff.Backoff
	for {
		err := r.set.Store.Commit(ctx, *r.uncommitted)
		if err == nil {
			break
		}
		if errors.Is(err, ErrCannotCommit) {
			r.refused = true
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.set.Logger.WarnContext(ctx, "the commit failed and will be tried again", "error", err)
		if err = wait.Wait(ctx); err != nil {
			return err
		}
	}
	r.committed += int64(len(r.uncommitted.Insights) + r.aside.n)
	r.lateTold += r.uncommitted.Late
	r.uncommitted, r.rows = nil, 0
	r.pipe.box.reset()
	if err := r.aside.reset(); err != nil {
		return err
	}
	for read, moved := range r.moved {
		if moved {
			r.moved[read] = false
			r.pumps[read].committed(r.cursors[read])
		}
	}
	return nil
}

// finalCommit is the last commit of a run. It has a time of its own, because ctx may have ended.
func (r *Runner) finalCommit(ctx context.Context) error {
	if r.commitTimer == nil || r.refused {
		return nil // the loop never began, or has given up with an error of its own
	}
	if ctx.Err() == nil {
		if err := r.commit(ctx); err == nil || r.refused || !commits(err) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalTimeout)
	defer cancel()
	if err := r.commit(ctx); err != nil {
		return fmt.Errorf("the last commit did not succeed, so the next run repeats what it held: %w", err)
	}
	return nil
}
