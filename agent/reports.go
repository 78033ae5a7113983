package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/protocol/wire"
)

// maxReports is how many run reports the stage keeps.
const maxReports = 1000

// reports gives the run reports of the stage the numbers that the tunnel sends them under. A report that changes gets a
// new number, so that an acknowledgement of the old text does not remove the new one.
type reports struct {
	stage *stage.Stage
	log   *slog.Logger
	// changed receives after a report was put.
	changed <-chan struct{}

	// changes has *[]stage.Change for commits.
	changes sync.Pool

	mu   sync.Mutex
	last uint64
	// numbers has beingPut for reports of which nobody knows whether the old text or the new one is stored.
	numbers map[string]uint64

	// telling is held beside mu for changes of numbers, and alone by openRuns, which so waits for no disk. It also guards loaded.
	telling sync.Mutex
	loaded  bool
}

// beingPut is above all numbers. A report under it is neither sent nor dropped.
const beingPut = math.MaxUint64

// newReports numbers what an earlier run has left.
func newReports(ctx context.Context, st *stage.Stage, log *slog.Logger) (*reports, error) {
	r := unreadReports(st, log)
	return r, r.load(ctx)
}

// unreadReports reads nothing yet: load is to be called before anything else.
func unreadReports(st *stage.Stage, log *slog.Logger) *reports {
	return &reports{stage: st, log: log, numbers: map[string]uint64{}}
}

// load numbers what an earlier run has left, the newest first.
func (r *reports) load(ctx context.Context) error {
	left, err := r.stage.RunReports(ctx, maxReports)
	if err != nil {
		return fmt.Errorf("read the run reports: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.telling.Lock()
	defer r.telling.Unlock()
	for _, report := range left {
		r.last++
		r.numbers[report.ID] = r.last
	}
	r.loaded = true
	return nil
}

// maxOpenRuns is how many runs a status names because their reports wait. There are more only while they drain after a time
// offline, and on a slow link their names would be in the way of the reports.
const maxOpenRuns = 256

// openRuns adds the runs whose reports wait to those under way. It is nil, for not known, before load and while too many wait.
func (r *reports) openRuns(underWay []string) *wire.OpenRuns {
	r.telling.Lock()
	defer r.telling.Unlock()
	if !r.loaded || len(r.numbers) > maxOpenRuns {
		return nil
	}
	ids := slices.AppendSeq(underWay, maps.Keys(r.numbers))
	slices.Sort(ids)
	return &wire.OpenRuns{RunIds: slices.Compact(ids)}
}

// number gives a report its number.
func (r *reports) number(id string, n uint64) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.numbers[id] = n
}

// forget takes the numbers of reports that are no longer stored.
func (r *reports) forget(ids ...string) {
	r.telling.Lock()
	defer r.telling.Unlock()
	for _, id := range ids {
		delete(r.numbers, id)
	}
}

// forgetGone takes the numbers of reports that are not stored and were not dropped here: those that made room for newer ones, of
// which there is no end while the agent is offline, and those that were damaged.
func (r *reports) forgetGone(stored []stage.RunReport) {
	there := make(map[string]struct{}, len(stored))
	for i := range stored {
		there[stored[i].ID] = struct{}{}
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	maps.DeleteFunc(r.numbers, func(id string, n uint64) bool {
		_, is := there[id]
		return !is && n != beingPut
	})
}

// PutRunReport keeps a report until the control plane has stored it. Reports of several runs can be put at once, which the
// stage stores together; of one run there is only one at a time.
func (r *reports) PutRunReport(ctx context.Context, id string, payload []byte) error {
	r.mu.Lock()
	before, known := r.numbers[id]
	r.number(id, beingPut)
	r.mu.Unlock()
	err := r.stage.PutRunReport(ctx, id, payload)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.last++
		r.number(id, r.last)
		if len(r.numbers) > 2*maxReports {
			if stored, unread := r.stage.RunReports(ctx, maxReports); unread == nil {
				r.forgetGone(stored)
			}
		}
		return nil
	case known:
		r.number(id, before)
	default:
		r.forget(id)
	}
	return fmt.Errorf("keep a run report: %w", err)
}

// ReadReports is for the tunnel.
func (r *reports) ReadReports(ctx context.Context, after uint64, limit int) ([]tunnel.Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stored, err := r.stage.RunReports(ctx, maxReports)
	if err != nil {
		return nil, fmt.Errorf("read the run reports: %w", err)
	}
	if len(r.numbers) > len(stored) {
		r.forgetGone(stored)
	}
	stored = slices.DeleteFunc(stored, func(s stage.RunReport) bool { return r.numbers[s.ID] <= after || r.numbers[s.ID] == beingPut })
	slices.SortFunc(stored, func(a, b stage.RunReport) int { return cmp.Compare(r.numbers[a.ID], r.numbers[b.ID]) })
	var found []tunnel.Report
	for _, s := range stored {
		if len(found) == limit {
			break
		}
		report := &wire.RunReport{}
		if err := proto.Unmarshal(s.Payload, report); err != nil {
			r.log.ErrorContext(ctx, "a run report on this machine cannot be read and is dropped", "run", s.ID, "error", err)
			if err := r.drop(ctx, s.ID); err != nil {
				return nil, err
			}
			continue
		}
		found = append(found, tunnel.Report{Number: r.numbers[s.ID], Report: report})
	}
	return found, nil
}

// DropReports is for the tunnel. While the disk cannot be written the reports stay, and go with a later call or are sent
// again: the session must not end because of it.
func (r *reports) DropReports(ctx context.Context, upTo uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, n := range r.numbers {
		if n <= upTo {
			ids = append(ids, id)
		}
	}
	err := r.drop(ctx, ids...)
	if err != nil && r.stage.Stats().Degraded != "" {
		r.log.DebugContext(ctx, "run reports that the control plane has stored stay on the disk for now", "error", err)
		return nil
	}
	return err
}

func (r *reports) drop(ctx context.Context, ids ...string) error {
	if err := r.stage.DropRunReports(ctx, ids...); err != nil {
		return fmt.Errorf("drop run reports that the control plane has stored: %w", err)
	}
	r.forget(ids...)
	return nil
}

// ReportsChanged is for the tunnel.
func (r *reports) ReportsChanged() <-chan struct{} { return r.changed }
