package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// engine does the job of a workload as a child process.
type engine struct {
	name, version string
	// command is the program with its arguments; the result is to be in out, or what it prints is the result.
	command func(w *Workload, out string) ([]string, error)
	prints  bool
}

// build compiles one program of the repository, and says what is missing where that does not work.
func (b *Bench) build(ctx context.Context, folder, pkg, name string, env ...string) (string, error) {
	out := b.scratch(name)
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg) //nolint:gosec // the bench itself makes the command
	c.Dir = filepath.Join(b.set.Root, folder)
	c.Env = append(os.Environ(), env...)
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, strings.TrimSpace(string(text)))
	}
	return out, nil
}

func (b *Bench) agent(ctx context.Context) (engine, error) {
	bin, err := b.build(ctx, ".", "./agent/cmd/outfeed-agent", "outfeed-agent")
	if err != nil {
		return engine{}, err
	}
	return engine{name: "outfeed-agent", version: runtime.Version(), prints: true, command: func(w *Workload, _ string) ([]string, error) {
		flow, conn, data := b.scratch(w.Name+".yaml"), b.scratch("connections.yaml"), b.scratch("data")
		err := errors.Join(
			os.RemoveAll(data),
			os.WriteFile(flow, []byte(w.Flow), 0o600),
			os.WriteFile(conn, fmt.Appendf(nil, connections, b.set.Data), 0o600),
		)
		return []string{bin, "flow", "run", flow, "--connections", conn, "--data-dir", data}, err
	}}, nil
}

// threads is how many threads DuckDB gets, as in the goals.
const threads = "2"

func (b *Bench) duckdb(ctx context.Context) (engine, error) {
	compiler := "g++"
	if cxx := os.Getenv("CXX"); cxx != "" {
		compiler = cxx
	}
	if _, err := exec.LookPath(strings.Fields(compiler)[0]); err != nil {
		return engine{}, errors.New("DuckDB's bindings need a C++ compiler, and this machine has none: install g++ (Debian: apt-get install g++)")
	}
	bin, err := b.build(ctx, "internal/bench/duckdb", ".", "duckdb", "CGO_ENABLED=1", "GOWORK=off", "GOFLAGS=")
	if err != nil {
		return engine{}, err
	}
	version, err := exec.CommandContext(ctx, bin, "-version").Output() //nolint:gosec // it was built just now
	if err != nil {
		return engine{}, fmt.Errorf("start DuckDB: %w", err)
	}
	return engine{name: "DuckDB, 2 threads", version: strings.TrimSpace(string(version)), command: func(w *Workload, out string) ([]string, error) {
		return append([]string{bin, "-threads", threads, "-out", out, w.Job}, w.Files...), nil
	}}, nil
}

func (b *Bench) scanners(ctx context.Context) ([]engine, error) {
	bin, err := b.build(ctx, ".", "./internal/bench/cmd/scan", "scan")
	if err != nil {
		return nil, err
	}
	scanner := func(name, workers string) engine {
		return engine{name: name, version: runtime.Version(), command: func(w *Workload, out string) ([]string, error) {
			return append([]string{bin, "-workers", workers, "-out", out, w.Job}, w.Files...), nil
		}}
	}
	return []engine{scanner("scanner, 1 worker", "1"), scanner("scanner, 2 workers", "2")}, nil
}
