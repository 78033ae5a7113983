package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/internal/durable"
)

// historyDir is the folder of what is known of the versions of flows, in the data directory.
const historyDir = "flows"

// history keeps supervisor.Records as one small JSON file for each deployment, and what tells of the death of a process.
type history struct {
	dir string
	log *slog.Logger

	// What follows is as the last process left it.
	crash crash
	marks marks

	mu      sync.Mutex
	streaks map[string]int
}

// openHistory makes the folder, and reads what the last process left. On a full disk, or one that cannot be written, flows run
// without it.
func openHistory(ctx context.Context, dataDir string, log *slog.Logger) *history {
	h := &history{dir: filepath.Join(dataDir, historyDir), log: log}
	if err := os.MkdirAll(h.dir, 0o700); err != nil { //nolint:gosec // in the data directory
		log.WarnContext(ctx, "the folder of the flows' versions cannot be made, so no flow is set back over a restart", slog.Any("error", err))
	}
	h.removeHalves(ctx)
	h.marks = h.readMarks(ctx)
	h.crash = h.takeCrash(ctx)
	return h
}

// newSuffix is in the names of files that are not whole yet.
const newSuffix = durable.NewSuffix

// removeHalves removes what a process that was killed had begun to write.
func (h *history) removeHalves(ctx context.Context) {
	entries, err := os.ReadDir(h.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), newSuffix) {
			err = errors.Join(err, os.Remove(filepath.Join(h.dir, e.Name())))
		}
	}
	if err != nil {
		h.log.WarnContext(ctx, "files that were begun and not ended cannot be removed", slog.Any("error", err))
	}
}

// path is the file of a deployment. An id that is no plain name is hashed.
func (h *history) path(deployment string) string {
	plain := len(deployment) > 0 && len(deployment) <= 64 && strings.Trim(deployment, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
	if !plain {
		sum := sha256.Sum256([]byte(deployment))
		deployment = hex.EncodeToString(sum[:])
	}
	return filepath.Join(h.dir, deployment+recordSuffix)
}

const recordSuffix = ".record.json"

// LoadRecord is for the supervisor.
func (h *history) LoadRecord(deployment string) supervisor.Record {
	var r supervisor.Record
	raw, err := os.ReadFile(h.path(deployment))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.log.Warn("what is known of a flow's versions cannot be read and begins anew", slog.String("deployment", deployment), slog.Any("error", err))
	}
	if err != nil {
		return supervisor.Record{}
	}
	return r
}

// SaveRecord is for the supervisor.
func (h *history) SaveRecord(deployment string, r supervisor.Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write what is known of a flow's versions: %w", err)
	}
	// The folder is there, but for a disk that was full at the start.
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the flows' versions: %w", err)
	}
	return durable.Replace(h.path(deployment), raw, 0o600)
}

// KeepRecords is for the supervisor.
func (h *history) KeepRecords(deployments []string) error {
	kept := make([]string, len(deployments))
	for i, id := range deployments {
		kept[i] = filepath.Base(h.path(id))
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list what is known of the flows' versions: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), recordSuffix) && !slices.Contains(kept, e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(h.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
