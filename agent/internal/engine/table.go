package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/backoff"
)

// refreshed is a newly read right side of a join, to be swapped in between two batches.
type refreshed struct {
	join  *join
	table *joinTable
	loadedCounts
}

// loadedCounts is what loading a table counted.
type loadedCounts struct {
	counts []stepTotals
	sample []FailedRecord
}

// stepTotals is a stepCounts at rest.
type stepTotals struct{ in, out, late, failed, outside int64 }

func (l *loadedCounts) add(p *pipeline) {
	if l.counts == nil {
		l.counts = make([]stepTotals, len(p.counts))
	}
	for i, c := range p.counts {
		t := &l.counts[i]
		t.in, t.out, t.late, t.failed = t.in+c.in, t.out+c.out, t.late+c.late, t.failed+c.failed
		t.outside += c.outside
	}
	l.sample = append(l.sample, p.sample...)
}

// loadTables reads the right sides of all joins, before the first row of a stream.
func (r *Runner) loadTables(ctx context.Context) error {
	at := len(r.set.Program.main.reads)
	for i, j := range r.set.Program.main.joins {
		var counts loadedCounts
		table, err := r.loadTable(ctx, j.right, r.resources(r.pipe.joins[i].span, r.worker), at, &counts)
		if err != nil {
			return err
		}
		r.pipe.joins[i].table = table
		r.addTable(counts.counts, counts.sample)
		at += len(j.right.needs())
	}
	r.publish()
	return nil
}

// loadTable runs the right side of a join to its end. at is the place of its first read in the report. Of res the table
// takes what it needs; close gives that back.
func (r *Runner) loadTable(ctx context.Context, g *graph, res *resources, at int, counts *loadedCounts) (*joinTable, error) {
	p, err := g.instantiateWith(res, func(int) span { return bounded }, r.set.Started.UnixMicro())
	if err != nil {
		return nil, err
	}
	texts := res.worker.texts
	err = r.fillTable(ctx, p, at, counts)
	res.worker.forget(texts)
	errs := []error{err, res.close()}
	for _, j := range p.joins {
		errs = append(errs, j.table.close())
	}
	if err = errors.Join(errs...); err != nil {
		return nil, errors.Join(err, p.table.table.close())
	}
	return p.table.table, nil
}

// fillTable reads all that the pipeline of a table needs.
func (r *Runner) fillTable(ctx context.Context, p *pipeline, at int, counts *loadedCounts) (err error) {
	g := p.graph
	next := at + len(g.reads)
	for i, j := range g.joins {
		table, err := r.loadTable(ctx, j.right, r.resources(bounded, p.res.worker), next, counts)
		if err != nil {
			return err
		}
		p.joins[i].table = table
		next += len(j.right.needs())
	}
	for i := range g.reads {
		if err = r.readAll(ctx, p, i, at+i); err != nil {
			return err
		}
		if err = finishTable(ctx, p, i); err != nil {
			return err
		}
	}
	counts.add(p)
	return p.table.complete()
}

// finishTable lets the operators behind a source of a table emit what they hold.
func finishTable(ctx context.Context, p *pipeline, read int) (err error) {
	for _, f := range p.ended(read) {
		for more := true; more; {
			p.res.worker.workEnd()
			more, err = f.finish()
			if err = p.res.worker.done(err); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// readAll reads one source of a table from its beginning to its end.
func (r *Runner) readAll(ctx context.Context, p *pipeline, read, at int) (err error) {
	need := p.graph.reads[read].need
	report := r.reporter(at)
	source, err := r.set.Open(need, nil)
	if err != nil {
		report(sourceGivenUp, err.Error())
		return sourceError(need, err)
	}
	defer func() {
		if closeErr := source.Close(); closeErr != nil {
			err = errors.Join(err, sourceError(need, closeErr))
		}
	}()
	if !source.Traits().Bounded {
		return sourceError(need, fmt.Errorf("the right side of join %s must be a source that ends, such as a table or files, and this one goes on for ever; joins of two streams are not supported yet", p.graph.plan.Steps[p.graph.table].ID))
	}
	wait := sourceBackoff()
	for {
		d, nextErr := source.Next(ctx)
		var permanent *connector.PermanentError
		switch {
		case nextErr == nil:
			wait.Reset()
			report(sourceReading, "")
			if err = r.feed(p, read, at, &d); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(nextErr, io.EOF):
			report(sourceEnded, "")
			return nil
		case errors.As(nextErr, &permanent):
			report(sourceGivenUp, nextErr.Error())
			return sourceError(need, nextErr)
		default:
			report(sourceFailing, nextErr.Error())
			if err = wait.Wait(ctx); err != nil {
				return err
			}
		}
	}
}

func (r *Runner) feed(p *pipeline, read, at int, d *connector.Delivery) error {
	source := p.sources[read]
	source.counts.in += d.Read
	r.received(at, d)
	if err := source.counts.failAll(d.Failed); err != nil {
		return err
	}
	if d.Batch == nil || d.Batch.Len == 0 {
		return nil
	}
	p.res.worker.work()
	return p.res.worker.done(source.push(d.Batch))
}

// startRefreshes keeps the tables of joins in endless streams fresh.
func (r *Runner) startRefreshes(ctx context.Context, wg *sync.WaitGroup) {
	main := r.set.Program.main
	at := len(main.reads)
	for i, j := range main.joins {
		if r.pipe.joins[i].span == endless {
			place := at
			w := r.life.worker()
			wg.Go(func() {
				err := guard(func() error {
					r.keepFresh(ctx, freshTable{r.pipe.joins[i], j.right, place, w})
					return nil
				})
				if err != nil {
					r.life.end(err)
				}
			})
		}
		at += len(j.right.needs())
	}
}

// freshTable is the right side of a join that is read again and again.
type freshTable struct {
	join   *join
	right  *graph
	at     int
	worker *worker
}

// keepFresh reads a table again and again. When that fails, the old table stays and the source's report says why; when it
// takes too much, the run ends.
func (r *Runner) keepFresh(ctx context.Context, f freshTable) {
	j, g, at := f.join, f.right, f.at
	every := DefaultRefresh
	for i, need := range g.needs() {
		if i == 0 || need.Refresh < every {
			every = need.Refresh
		}
	}
	r.tableReady(g, at)
	for backoff.Sleep(ctx, every) == nil {
		t := refreshed{join: j}
		table, err := r.loadTable(ctx, g, r.resources(endless, f.worker), at, &t.loadedCounts)
		if err != nil {
			if _, over := errors.AsType[*OverrunError](err); over {
				r.life.end(err)
			} else if ctx.Err() == nil {
				r.set.Logger.WarnContext(ctx, "the right side of the join could not be read again; the old one stays", "step", j.counts.step, "error", err)
			}
			continue
		}
		t.table = table
		r.tableReady(g, at)
		select {
		case r.refresh <- t:
		case <-ctx.Done():
			if err := table.close(); err != nil {
				r.set.Logger.WarnContext(ctx, "the right side of the join could not be let go", "error", err)
			}
		}
	}
}

// tableReady says of the sources of a table that they will be read again, which "ended" would hide.
func (r *Runner) tableReady(g *graph, at int) {
	for i := range g.needs() {
		r.reporter(at+i)(sourceReading, "")
	}
}

// swap puts a refreshed table in the place of the old one.
func (r *Runner) swap(t refreshed) {
	if err := t.join.table.close(); err != nil {
		r.set.Logger.Warn("the old right side of the join could not be let go", "error", err)
	}
	t.join.table = t.table
	r.addTable(t.counts, t.sample)
	r.publish()
}
