package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/protocol/wire"
)

// flowStore is the engine's store for flow run.
type flowStore interface {
	engine.Store
	Close() error
}

// openStore makes the store of a run: one that prints at once, or one that stages first.
func (r *FlowRun) openStore(ctx context.Context, flow string) (flowStore, error) {
	out := &printer{w: bufio.NewWriterSize(r.Out, 1<<16)}
	if r.DataDir == "" {
		return out, nil
	}
	cfg := Default()
	st, err := stage.Open(ctx, stage.Settings{Dir: filepath.Join(r.DataDir, stageDir), Logger: cfg.Logger(r.Log), Verify: verifyInChild})
	if err != nil {
		return nil, fmt.Errorf("open the staging in %s: %w", r.DataDir, err)
	}
	s := &stagedPrinter{printer: out, stage: st, flow: stagedFlow{stage: st, key: "local/" + flow, encode: encodeLine}}
	// What an earlier run staged and did not get to print goes first.
	if err := s.drain(ctx); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return s, nil
}

// printer writes insights as JSON lines as they are committed. It keeps no state: every run starts anew.
type printer struct {
	w    *bufio.Writer
	line []byte
}

func (*printer) Load(context.Context) (engine.State, error) { return engine.State{}, nil }

func (p *printer) Commit(_ context.Context, c engine.Checkpoint) error {
	for i := range c.Insights {
		p.line = appendLine(p.line[:0], &c.Insights[i])
		if err := p.print(p.line); err != nil {
			return err
		}
	}
	return p.flush()
}

func (p *printer) print(line []byte) error {
	if _, err := p.w.Write(line); err != nil {
		return outputError(err)
	}
	return nil
}

func (p *printer) flush() error {
	if err := p.w.Flush(); err != nil {
		return outputError(err)
	}
	return nil
}

func outputError(err error) error { return fmt.Errorf("write the insights: %w", err) }

func (p *printer) Close() error { return p.flush() }

// appendLine is one insight as flow run prints it, with its line end.
func appendLine(to []byte, in *engine.Insight) []byte {
	name, err := json.Marshal(in.Name)
	if err != nil {
		panic("agent: a string that encoding/json refuses: " + err.Error())
	}
	to = append(append(to, `{"insight":`...), name...)
	to = append(to, `,"time":"`...)
	to = time.UnixMicro(in.Time).UTC().AppendFormat(to, time.RFC3339Nano)
	to = append(append(to, `","key":`...), in.Key...)
	to = append(append(to, `,"values":`...), in.Values...)
	return append(to, '}', '\n')
}

// stagedPrinter stages insights first and prints what has landed.
type stagedPrinter struct {
	*printer
	stage *stage.Stage
	flow  stagedFlow
}

func (s *stagedPrinter) Load(ctx context.Context) (engine.State, error) { return s.flow.Load(ctx) }

func (s *stagedPrinter) Commit(ctx context.Context, c engine.Checkpoint) error {
	if err := s.flow.Commit(ctx, c); err != nil {
		return err
	}
	return s.drain(ctx)
}

// drain prints what is staged and forgets it.
func (s *stagedPrinter) drain(ctx context.Context) error {
	for {
		after := s.stage.Stats().Acknowledged
		records, err := s.stage.ReadOutbox(ctx, after, 4096, 4<<20)
		if err != nil {
			return fmt.Errorf("read the staged insights: %w", err)
		}
		if len(records) == 0 {
			return nil
		}
		for _, r := range records {
			if err := s.print(r.Payload); err != nil {
				return err
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
		if err := s.stage.Acknowledge(ctx, records[len(records)-1].Seq); err != nil {
			return fmt.Errorf("acknowledge the staged insights: %w", err)
		}
	}
}

func (s *stagedPrinter) Close() error { return errors.Join(s.printer.Close(), s.stage.Close()) }

// encodeLine stages an insight as the line that flow run prints.
func encodeLine(in *engine.Insight) ([]byte, error) { return appendLine(nil, in), nil }
