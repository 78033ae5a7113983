package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/config"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/all"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Definition is a flow definition and the connections that it uses, as texts.
type Definition struct {
	// File and ConnectionsFile are where the texts came from, for messages and for secrets that lie beside them.
	File, ConnectionsFile string
	Flow                  []byte
	// Connections is a CONN.yaml; nil means that connections are not known, and then they are not checked.
	Connections []byte
}

// Manifest is what would leave the plant.
type Manifest = flowdef.Manifest

// PlannedWrite is one place in the plant that a flow writes to.
type PlannedWrite = flowdef.PlannedWrite

// CheckedFlow is what a definition would do beyond its own machine's memory: what leaves the plant, and what is written
// into the plant's systems.
type CheckedFlow struct {
	Egress Manifest
	Writes []PlannedWrite
}

// Problems is what is wrong with a text.
type Problems = flowdef.Problems //nolint:errname // the name that flowdef gives it

// TestResult is the outcome of one test of a definition.
type TestResult = engine.TestResult

// StepCount is what one step of a run counted.
type StepCount = engine.StepCount

// DefinitionError says that a text is wrong, and where.
type DefinitionError struct {
	// File is the text's.
	File     string
	Problems Problems
}

// Error is a line per problem, which begins with file:line:column.
func (e *DefinitionError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		where := e.File
		if p.Line > 0 {
			where = fmt.Sprintf("%s:%d:%d", e.File, p.Line, p.Column)
		}
		if p.Step != "" {
			where += fmt.Sprintf(": step %q", p.Step)
		}
		lines[i] = where + ": " + p.Message
	}
	return strings.Join(lines, "\n")
}

// definitionError gives flowdef's problems their file.
func definitionError(file string, err error) error {
	if p, ok := errors.AsType[flowdef.Problems](err); ok {
		return &DefinitionError{File: file, Problems: p}
	}
	return err
}

func specs() []flowdef.ConnectorSpec {
	connectors := all.All()
	list := make([]flowdef.ConnectorSpec, len(connectors))
	for i, c := range connectors {
		list[i] = c.Spec()
	}
	return list
}

// connections reads the CONN.yaml; nil when there is none.
func (d *Definition) connections() (map[string]connector.Connection, error) {
	if d.Connections == nil {
		return map[string]connector.Connection{}, nil
	}
	defs, err := flowdef.ParseConnections(d.Connections, specs(), flowdef.References{
		Env: os.LookupEnv,
		File: func(name string) ([]byte, error) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(d.ConnectionsFile), name)
			}
			return os.ReadFile(name) //nolint:gosec // the person names it, and ParseConnections says where
		},
	})
	if err != nil {
		return nil, definitionError(d.ConnectionsFile, err)
	}
	byName := make(map[string]connector.Connection, len(defs))
	for _, c := range defs {
		byName[c.Name] = connector.Connection{Name: c.Name, Kind: c.Kind, Options: c.Options, Secrets: c.Secrets}
	}
	return byName, nil
}

// plan parses and checks the definition against the connections.
func (d *Definition) plan(connections map[string]connector.Connection) (*flowdef.Plan, error) {
	env := flowdef.Environment{Connectors: map[string]flowdef.ConnectorSpec{}}
	for _, s := range specs() {
		env.Connectors[s.Kind] = s
	}
	if d.Connections != nil {
		env.Connections = map[string]string{}
		for name, c := range connections {
			env.Connections[name] = c.Kind
		}
	}
	plan, err := flowdef.CheckText(d.Flow, env)
	if err != nil {
		return nil, definitionError(d.File, err)
	}
	return plan, nil
}

// CheckFlow says what is wrong with a definition, as a *DefinitionError, or what would leave the plant and be written in it.
func CheckFlow(d Definition) (CheckedFlow, error) {
	connections, err := d.connections()
	if err != nil {
		return CheckedFlow{}, err
	}
	plan, err := d.plan(connections)
	if err != nil {
		return CheckedFlow{}, err
	}
	if d.Connections == nil {
		_, err = engine.Compile(plan)
	} else {
		// This compiles too, and holds each read against its connector. Whether writes are allowed is another question.
		s := localSettings(nil, slog.New(slog.DiscardHandler))
		s.Writes = supervisor.WritesAllowed
		err = supervisor.Check(s, d.deployment(plan, connections))
	}
	if err != nil {
		return CheckedFlow{}, fmt.Errorf("%s: %w", d.File, err)
	}
	return CheckedFlow{Egress: plan.Egress, Writes: plan.Writes()}, nil
}

// localSettings are a supervisor's for a flow that runs on this machine alone.
func localSettings(staging supervisor.Staging, log *slog.Logger) supervisor.Settings {
	return supervisor.Settings{Staging: staging, Connector: all.Find, AgentID: localAgent, Logger: log, Clock: time.Now}
}

// deployment is the definition as the supervisor takes it.
func (d *Definition) deployment(plan *flowdef.Plan, connections map[string]connector.Connection) supervisor.Deployment {
	return supervisor.Deployment{
		ID: plan.Flow.Name, Name: plan.Flow.Name, Definition: d.Flow, Connections: slices.Collect(maps.Values(connections)),
	}
}

// ExplainFlow explains a word of the flow language; without a word it lists them.
func ExplainFlow(word string) (string, error) { return flowdef.Explain(word) }

// TestFlow runs the tests of a definition.
func TestFlow(ctx context.Context, d Definition) ([]TestResult, error) {
	connections, err := d.connections()
	if err != nil {
		return nil, err
	}
	plan, err := d.plan(connections)
	if err != nil {
		return nil, err
	}
	results, err := engine.TestFlow(ctx, plan)
	if err != nil {
		return nil, fmt.Errorf("test %s: %w", d.File, err)
	}
	return results, nil
}

// WriteRule says whether a flow may write into the plant's systems.
type WriteRule = supervisor.WriteRule

// WritesAllowed lets it; the zero value does not.
const WritesAllowed = supervisor.WritesAllowed

// FlowRun is one run of a flow without a control plane.
type FlowRun struct {
	Definition
	// DataDir is where the run stages what must survive; empty: nowhere.
	DataDir string
	// Writes lets the flow write into the plant's systems.
	Writes WriteRule
	// MemoryLimit is how much memory the process uses at most; 0 means config.DefaultMemoryLimit.
	MemoryLimit config.Bytes
	// Out takes the insights as JSON lines, Log what happens.
	Out, Log io.Writer
}

// RunSummary is what a run did. Started is false when it did not come so far.
type RunSummary struct {
	engine.Report
	Started bool
	Took    time.Duration
}

// failing says which sources were failing at the end of a run, or nil.
func failing(r engine.Report) error {
	var errs []error
	for _, s := range r.Sources {
		if s.State == "failing" {
			errs = append(errs, fmt.Errorf("step %s: connection %s: %s", s.Step, s.Connection, s.Error))
		}
	}
	return errors.Join(errs...)
}

// RunFlow runs a flow until its sources end or ctx does.
func RunFlow(ctx context.Context, r FlowRun) (summary RunSummary, err error) {
	connections, err := r.connections()
	if err != nil {
		return RunSummary{}, err
	}
	plan, err := r.plan(connections)
	if err != nil {
		return RunSummary{}, err
	}
	log := slog.New(slog.NewTextHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	staging, err := r.openStaging(ctx, log)
	if err != nil {
		return RunSummary{}, err
	}
	defer func() { err = errors.Join(err, staging.Close()) }()
	spill, err := r.openScratch()
	if err != nil {
		return RunSummary{}, err
	}
	defer func() { err = errors.Join(err, spill.Close()) }()
	settings := localSettings(staging, log)
	settings.Writes = r.Writes
	if r.DataDir != "" {
		settings.MaxInsight = stage.MaxRecordBytes
	}
	settings.Memory, settings.Scratch = limitMemory(cmp.Or(r.MemoryLimit, config.DefaultMemoryLimit)), scratch{spill}
	started := time.Now()
	report, err := supervisor.RunOnce(ctx, settings, r.deployment(plan, connections), encodeLine)
	if ctx.Err() != nil {
		// The person ended it, which is how a flow without an end ends, unless a source never came to work.
		err = failing(report)
	}
	if err != nil {
		err = fmt.Errorf("run %s: %w", r.File, err)
	}
	return RunSummary{Report: report, Started: len(report.Sources) > 0, Took: time.Since(started)}, err
}
