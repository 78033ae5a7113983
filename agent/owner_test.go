package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/stage"
)

// enrolled makes the data directory that of an agent, in place of the one before.
func enrolled(t *testing.T, dataDir, id string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dataDir, "identity")); err != nil {
		t.Fatal(err)
	}
	draft, err := identity.Create(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = draft.Complete(identity.Profile{
		Agent: id, Tenant: "tenant of " + id, URL: "http://127.0.0.1:1", Fingerprint: strings.Repeat("0", 64),
		BundleKeys: []ed25519.PublicKey{make([]byte, ed25519.PublicKeySize)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// started calls what it holds when the agent says that it starts.
type started struct {
	slog.Handler
	then func()
}

func (s started) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "agent starts" {
		s.then()
	}
	return nil
}

// runOnce runs the agent until it has started.
func runOnce(t *testing.T, dataDir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := agent.LoadConfig("", func(name string) (string, bool) { return dataDir, name == "OUTFEED_AGENT_DATA_DIR" })
	if err != nil {
		t.Fatal(err)
	}
	err = agent.New(c, slog.New(started{Handler: slog.NewTextHandler(t.Output(), nil), then: cancel})).Run(ctx)
	if err != nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatalf("Run: %v, %v", err, ctx.Err())
	}
}

func stagedBy(t *testing.T, dataDir, owner string, insights ...[]byte) stage.Stats {
	t.Helper()
	st, err := stage.Open(t.Context(), stage.Settings{Dir: filepath.Join(dataDir, "stage"), Owner: owner, MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(insights) > 0 {
		if _, err := st.Commit(t.Context(), stage.Checkpoint{Flow: "f", Number: 1, Insights: insights}); err != nil {
			t.Fatal(err)
		}
	}
	stats := st.Stats()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return stats
}

func TestAnotherEnrolmentDoesNotInheritWhatWaits(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	enrolled(t, data, "agent-a")
	runOnce(t, data)
	if got := stagedBy(t, data, "agent-a", []byte("1"), []byte("2")); got.WaitingRecords != 2 || len(got.Formers) != 0 {
		t.Fatalf("the agent's own staging has %+v", got)
	}
	runOnce(t, data)
	enrolled(t, data, "agent-b")
	runOnce(t, data)
	got := stagedBy(t, data, "agent-b")
	if got.Produced != 0 || len(got.Formers) != 1 || got.Formers[0].Owner != "agent-a" || got.Formers[0].Waiting != 2 {
		t.Errorf("the new agent's staging has %+v", got)
	}
}

func TestRunFlowLeavesAnAgentsStagingAlone(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(owner string) error{
		"as it is":            func(string) error { return nil },
		"OWNER is gone":       os.Remove,
		"OWNER is damaged":    func(owner string) error { return os.WriteFile(owner, []byte("agent-a"), 0o600) },
		"OWNER is a folder":   func(owner string) error { return errors.Join(os.Remove(owner), os.Mkdir(owner, 0o700)) },
		"OWNER is a bad link": func(owner string) error { return errors.Join(os.Remove(owner), os.Symlink("nowhere", owner)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			stagedBy(t, data, "agent-a", []byte("1"))
			if err := harm(filepath.Join(data, "stage", "OWNER")); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			_, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: definition(t, data), DataDir: data, Out: &out, Log: &bytes.Buffer{}})
			if err == nil || !strings.Contains(err.Error(), "agent-a") && !strings.Contains(err.Error(), "OWNER") || !strings.Contains(err.Error(), "--data-dir") || out.Len() > 0 {
				t.Errorf("RunFlow gave %v and printed %q", err, &out)
			}
			if list, err := filepath.Glob(filepath.Join(data, "stage.*")); err != nil || len(list) > 0 {
				t.Errorf("it has set %v aside, %v", list, err)
			}
			if got := stagedBy(t, data, "agent-a"); got.WaitingRecords != 1 || len(got.Formers) != 0 {
				t.Errorf("the agent's staging has %+v", got)
			}
		})
	}
}
