package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/internal/terminal"
)

// localAgent stands for an agent's id where flows run without a control plane.
const localAgent = "local"

// flowStaging is where flow run commits.
type flowStaging interface {
	supervisor.Staging
	Close() error
}

// openStaging makes the staging of a run: one that prints at once, or one that stages first and prints what has landed.
func (r *FlowRun) openStaging(ctx context.Context, log *slog.Logger) (flowStaging, error) {
	out := printer{bufio.NewWriterSize(r.Out, 1<<16)}
	if r.DataDir == "" {
		return out, nil
	}
	dir := filepath.Join(r.DataDir, stageDir)
	// An agent's staging must neither be printed nor get out of the agent's way.
	owner, err := stage.Owner(dir)
	if err != nil {
		return nil, fmt.Errorf("open the staging in %s: %w; or name another folder with --data-dir", r.DataDir, err)
	}
	if owner != "" && owner != localAgent {
		return nil, fmt.Errorf("%s is the data directory of agent %s: name another with --data-dir", r.DataDir, owner)
	}
	st, err := stage.Open(ctx, stage.Settings{Dir: dir, Owner: localAgent, Others: stage.RefuseOthers, Logger: log, Verify: verifyInChild, Salvage: salvageInChild})
	if errors.Is(err, stage.ErrOtherOwner) {
		return nil, fmt.Errorf("%w; name another folder with --data-dir", err)
	}
	if err != nil {
		return nil, stage.Advise(r.DataDir, fmt.Errorf("open the staging in %s: %w", r.DataDir, err))
	}
	s := &stagedPrinter{printer: out, staging: staging{stage: st}}
	// What an earlier run staged and did not get to print goes first.
	if err := s.drain(ctx); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return s, nil
}

// openScratch is where the run spills what does not fit in memory. The staging is open, so nobody else uses its directory.
func (r *FlowRun) openScratch() (*stage.Scratch, error) {
	if r.DataDir == "" {
		return stage.TemporaryScratch(0), nil
	}
	spill, err := stage.OpenScratch(scratchDir(r.DataDir), 0)
	return spill, stage.Advise(r.DataDir, err)
}

// printer writes insights as they are committed. It keeps no state: every run starts anew. What it cannot write ends the
// run, because to try again would print lines twice.
type printer struct{ w *bufio.Writer }

func (printer) LoadFlow(context.Context, string) (supervisor.FlowState, error) {
	return supervisor.FlowState{}, nil
}

func (p printer) Commit(_ context.Context, c supervisor.Checkpoint) error {
	if c.Earlier != nil {
		for line, err := range c.Earlier {
			if err != nil {
				return fmt.Errorf("%w: %w", engine.ErrCannotCommit, err)
			}
			if _, err := p.w.Write(line); err != nil {
				return outputError(err)
			}
		}
	}
	for _, line := range c.Insights {
		if _, err := p.w.Write(line); err != nil {
			return outputError(err)
		}
	}
	return p.flush()
}

func (printer) DropFlow(context.Context, string) error { return nil }

func (printer) Flows(context.Context) ([]string, error) { return []string{}, nil }

func (printer) PutRunReport(context.Context, string, []byte) error { return nil }

func (p printer) flush() error {
	if err := p.w.Flush(); err != nil {
		return outputError(err)
	}
	return nil
}

func (p printer) Close() error { return p.flush() }

func outputError(err error) error {
	return fmt.Errorf("%w: write the insights: %w", engine.ErrCannotCommit, err)
}

// stagedPrinter stages insights first and prints what has landed.
type stagedPrinter struct {
	printer
	staging staging
}

func (s *stagedPrinter) LoadFlow(ctx context.Context, flow string) (supervisor.FlowState, error) {
	return s.staging.LoadFlow(ctx, flow)
}

func (s *stagedPrinter) Commit(ctx context.Context, c supervisor.Checkpoint) error {
	if err := s.staging.Commit(ctx, c); err != nil {
		return err
	}
	return s.drain(ctx)
}

// drain prints what is staged and forgets it.
func (s *stagedPrinter) drain(ctx context.Context) error {
	st := s.staging.stage
	for {
		records, err := st.ReadOutbox(ctx, st.Stats().Acknowledged, 1<<16, 4<<20)
		if err != nil {
			return fmt.Errorf("read the staged insights: %w", err)
		}
		if len(records) == 0 {
			return nil
		}
		for _, r := range records {
			if _, err := s.w.Write(r.Payload); err != nil {
				return outputError(err)
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
		if err := st.Acknowledge(ctx, records[len(records)-1].Last()); err != nil {
			return fmt.Errorf("acknowledge the staged insights: %w", err)
		}
	}
}

func (s *stagedPrinter) Close() error { return errors.Join(s.printer.Close(), s.staging.stage.Close()) }

// encodeLine appends an insight as flow run prints it, with its line end. What comes from a plant cannot steer a terminal.
func encodeLine(line []byte, in *engine.Insight) ([]byte, error) {
	start := len(line)
	name, err := json.Marshal(in.Name)
	if err != nil {
		return nil, fmt.Errorf("encode the name of an insight: %w", err)
	}
	line = append(append(line, `{"insight":`...), name...)
	line = time.UnixMicro(in.Time).UTC().AppendFormat(append(line, `,"time":"`...), time.RFC3339Nano)
	line = append(append(line, `","key":`...), in.Key...)
	line = append(append(line, `,"values":`...), in.Values...)
	line = append(line, '}', '\n')
	return append(line[:start], terminal.JSON(line[start:])...), nil
}
