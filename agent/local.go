package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/internal/backoff"
)

// LocalStatus is what outfeed-agent status shows. It is served as JSON on a socket in the data directory.
type LocalStatus struct {
	AgentID      string       `json:"agent_id"`
	Version      string       `json:"version"`
	ControlPlane string       `json:"control_plane"`
	Tunnel       TunnelStatus `json:"tunnel"`
	BundleError  string       `json:"bundle_error,omitempty"`
	// LeftBehind is how many runs did not return when they were told to.
	LeftBehind int          `json:"left_behind,omitempty"`
	Outbox     OutboxStatus `json:"outbox"`
	Flows      []FlowStatus `json:"flows"`
}

// TunnelStatus is the state of the connection to the control plane.
type TunnelStatus struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	Error     string    `json:"error,omitempty"`
	NextTry   time.Time `json:"next_try,omitzero"`
	// ClockSkew is how many seconds this machine's clock is ahead of the control plane's, by what that has said last.
	ClockSkew int64 `json:"clock_skew_seconds"`
	// RotationError is why the agent's keys could not be changed when that was asked for.
	RotationError string `json:"rotation_error,omitempty"`
}

// FlowStatus is how one deployed flow is doing.
type FlowStatus struct {
	ID           string `json:"id"`
	DeploymentID string `json:"deployment_id"`
	Name         string `json:"name"`
	Version      uint32 `json:"version"`
	// SetBackFrom is the version that failed and was set back to this one.
	SetBackFrom uint32    `json:"set_back_from,omitempty"`
	State       string    `json:"state"`
	Error       string    `json:"error,omitempty"`
	Since       time.Time `json:"since"`
	// NextRun is when a flow that runs now and then begins its next run, or tries the last one again.
	NextRun time.Time      `json:"next_run,omitzero"`
	Sources []SourceStatus `json:"sources"`
}

// SourceStatus is how one read step is doing.
type SourceStatus struct {
	Step       string    `json:"step"`
	Connection string    `json:"connection"`
	State      string    `json:"state"`
	Error      string    `json:"error,omitempty"`
	LastRecord time.Time `json:"last_record,omitzero"`
}

// maxSocketPath is the longest path that a Unix socket can have on every system that the agent runs on.
const maxSocketPath = 100

// socketPath is where the status is served. A path too long for a socket is moved to the temporary folder.
func socketPath(dataDir string) string {
	p := filepath.Join(dataDir, "agent.sock")
	if len(p) <= maxSocketPath {
		return p
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(p)) // a hash does not fail
	return filepath.Join(os.TempDir(), fmt.Sprintf("outfeed-agent-%x.sock", h.Sum64()))
}

// localRetry is how often a socket that could not be made is tried again.
const localRetry = 5 * time.Second

// serveLocal serves the status to this machine's own commands until ctx ends. The stage's lock makes sure that no other
// agent uses the same data directory, so a socket that is there is a dead one. A disk on which none can be made must not
// end the agent: it is tried again until there is room.
func serveLocal(ctx context.Context, path string, local localCommands, log *slog.Logger) error {
	l, err := listenLocal(ctx, path)
	for said := false; err != nil; l, err = listenLocal(ctx, path) {
		if !stage.IsNoSpace(err) && !errors.Is(err, syscall.EROFS) {
			return err
		}
		if !said {
			said = true
			log.WarnContext(ctx, "the status is not served on this machine until its disk can be written", slog.Any("error", err))
		}
		if err := backoff.Sleep(ctx, localRetry); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(local.status()); err != nil {
			log.WarnContext(r.Context(), "cannot answer a status request", "error", err)
		}
	})
	mux.HandleFunc("POST /rotate-keys", func(w http.ResponseWriter, _ *http.Request) {
		if err := local.rotate(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return serveHTTP(ctx, l, mux, log)
}

// localCommands are what this machine's own commands can have.
type localCommands struct {
	status func() LocalStatus
	// rotate begins to change the agent's keys.
	rotate func() error
}

// listenLocal makes the socket anew.
func listenLocal(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the status socket of an earlier run: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the status socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the status socket: %w", err), l.Close())
	}
	return l, nil
}

// serveHTTP serves on a listener until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := server.Shutdown(stop)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("stop serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// ReadStatus asks the agent that runs on this machine with that data directory.
func ReadStatus(ctx context.Context, c Config) (LocalStatus, error) {
	resp, err := askLocal(ctx, c, http.MethodGet, "/status")
	if err != nil {
		return LocalStatus{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	var s LocalStatus
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return LocalStatus{}, fmt.Errorf("read the agent's answer: %w", err)
	}
	return s, nil
}

// RotateKeys has the agent that runs on this machine with that data directory make new keys, and show them to the control
// plane at once or when it connects.
func RotateKeys(ctx context.Context, c Config) error {
	resp, err := askLocal(ctx, c, http.MethodPost, "/rotate-keys")
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	const longest = 4096
	said, err := io.ReadAll(io.LimitReader(resp.Body, longest))
	if err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return fmt.Errorf("the agent could not change its keys: %s", bytes.TrimSpace(said))
}

// askLocal asks the agent that runs with that data directory.
func askLocal(ctx context.Context, c Config, method, what string) (*http.Response, error) {
	path := socketPath(c.DataDir)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		// The client is for this request alone, so nothing may stay open behind it.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+what, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		if _, cannot := identity.Load(c.DataDir); errors.Is(cannot, identity.ErrNotEnrolled) || errors.Is(cannot, identity.ErrLost) {
			return nil, fmt.Errorf("no agent runs for %s, and none can: %w", c.DataDir, cannot)
		}
		return nil, fmt.Errorf("no agent answers for %s (start it with: outfeed-agent run --data-dir %s): %w", c.DataDir, c.DataDir, err)
	}
	return resp, nil
}
