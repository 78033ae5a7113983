package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/config"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/agent/internal/tunnel"
)

// stageSettings is how an agent stages, as its configuration says.
func stageSettings(c Config, owner string, log *slog.Logger) stage.Settings {
	set := stage.Settings{
		Dir: filepath.Join(c.DataDir, stageDir), Owner: owner, Logger: log, Verify: verifyInChild, Salvage: salvageInChild,
		MaxBytes: uint64(c.Staging.MaxBytes), MinFreeBytes: uint64(c.Staging.MinFree), //nolint:gosec // Validate has seen them
		MaxAge: time.Duration(c.Staging.MaxAge), KnownFlows: knownFlows(c.DataDir),
	}
	if c.Staging.WhenFull == config.WhenFullDropOldest {
		set.WhenFull = stage.DropOldest
	}
	return set
}

// knownFlows are the deployments whose versions are kept beside the staging.
func knownFlows(dataDir string) (ids []string) {
	entries, _ := os.ReadDir(filepath.Join(dataDir, historyDir)) // without it nothing is known
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), recordSuffix); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// staging is the supervisor's view of the stage.
type staging struct {
	*reports
	stage *stage.Stage
}

func (s staging) LoadFlow(ctx context.Context, flow string) (supervisor.FlowState, error) {
	var st stage.FlowState
	err := onceRepaired(ctx, s.stage, func() (err error) { // a run waits, as its commits do
		st, err = s.stage.LoadFlow(ctx, flow)
		return err
	})
	return supervisor.FlowState(st), err
}

func (s staging) Commit(ctx context.Context, c supervisor.Checkpoint) error {
	out := stage.Checkpoint{
		Flow: c.Flow, Number: c.Number, Cursors: c.Cursors, Earlier: c.Earlier, Insights: c.Insights, Late: c.Late,
	}
	changes := s.changeList()
	for _, change := range c.Changes {
		*changes = append(*changes, stage.Change(change))
	}
	out.Changes = *changes
	_, err := s.stage.Commit(ctx, out)
	if err == nil && s.reports != nil { // one that failed may still be under way
		clear(*changes)
		s.changes.Put(changes)
	}
	if errors.Is(err, stage.ErrStaleCommit) || errors.Is(err, stage.ErrClosed) {
		return fmt.Errorf("%w: %w", engine.ErrCannotCommit, err)
	}
	return err
}

// changeList gives an empty list, which the commits of all flows of an agent share.
func (s staging) changeList() *[]stage.Change {
	if s.reports != nil {
		if list, ok := s.changes.Get().(*[]stage.Change); ok {
			*list = (*list)[:0]
			return list
		}
	}
	return new([]stage.Change)
}

func (s staging) DropFlow(ctx context.Context, flow string) error {
	return s.stage.DropFlow(ctx, flow)
}

func (s staging) Flows(ctx context.Context) ([]string, error) {
	return s.stage.Flows(ctx)
}

// scratch is the engine's view of the stage's scratch files.
type scratch struct{ *stage.Scratch }

// Create makes an empty file.
func (s scratch) Create() (engine.ScratchFile, error) { return s.Scratch.Create() }

// outbox is the tunnel's view of the stage. What a session asks for waits while that is being repaired, so that the session stays.
type outbox struct{ *stage.Stage }

func (o outbox) Reconcile(ctx context.Context, stored uint64, lost *uint64) (after uint64, err error) {
	err = onceRepaired(ctx, o.Stage, func() error {
		after, err = o.Stage.Reconcile(ctx, stored, lost)
		return err
	})
	return after, err
}

func (o outbox) Acknowledge(ctx context.Context, upTo uint64) error {
	return onceRepaired(ctx, o.Stage, func() error { return o.Stage.Acknowledge(ctx, upTo) })
}

func (o outbox) ReadOutbox(ctx context.Context, after uint64, maxRecords, maxBytes int) ([]tunnel.Record, error) {
	var records []stage.Record
	err := onceRepaired(ctx, o.Stage, func() (err error) {
		records, err = o.Stage.ReadOutbox(ctx, after, maxRecords, maxBytes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	out := make([]tunnel.Record, len(records))
	for i, r := range records {
		out[i] = tunnel.Record(r)
	}
	return out, nil
}

// onceRepaired calls fn until what it asks for is not being repaired.
func onceRepaired(ctx context.Context, st *stage.Stage, fn func() error) error {
	for {
		settled := st.Settled()
		err := fn()
		if !errors.Is(err, stage.ErrBeingRepaired) {
			return err
		}
		if err := awaitOr(ctx, settled); err != nil {
			return err
		}
	}
}

// awaitOr waits for what a channel tells, until ctx ends.
func awaitOr(ctx context.Context, told <-chan struct{}) error {
	select {
	case <-told:
		return nil
	default:
	}
	select {
	case <-told:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bundlesOnceBegun takes no bundle before that of an earlier run was taken up.
type bundlesOnceBegun struct {
	*bundles
	begun <-chan struct{}
}

// ApplyBundle is for the tunnel.
func (b bundlesOnceBegun) ApplyBundle(ctx context.Context, envelope []byte) error {
	if err := awaitOr(ctx, b.begun); err != nil {
		return err
	}
	return b.bundles.ApplyBundle(ctx, envelope)
}

// reportsOnceBegun gives no report before those of an earlier run were numbered.
type reportsOnceBegun struct {
	*reports
	begun <-chan struct{}
}

// ReadReports is for the tunnel.
func (r reportsOnceBegun) ReadReports(ctx context.Context, after uint64, limit int) ([]tunnel.Report, error) {
	if err := awaitOr(ctx, r.begun); err != nil {
		return nil, err
	}
	var reports []tunnel.Report
	err := onceRepaired(ctx, r.stage, func() (err error) {
		reports, err = r.reports.ReadReports(ctx, after, limit)
		return err
	})
	return reports, err
}
