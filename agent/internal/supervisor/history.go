package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Kept is a version of a flow as it can be run again.
type Kept struct {
	Version uint32 `json:"version"`
	// SHA256 is of the definition.
	SHA256 []byte `json:"sha256"`
	// Origin is what Settings.Reopen makes a Deployment of.
	Origin []byte `json:"origin"`
}

func (k *Kept) same(o *Kept) bool {
	return k != nil && o != nil && k.Version == o.Version && bytes.Equal(k.SHA256, o.SHA256)
}

// Record is what is known of the versions of a deployment, and of their runs. It survives restarts.
type Record struct {
	// Deployed is the version that the control plane wants, Before the one before it; nil for none.
	Deployed *Kept `json:"deployed"`
	Before   *Kept `json:"before,omitempty"`
	// Program is the build of the agent under which the numbers below came about: another one gets another chance.
	Program string `json:"program"`
	// Failures counts those of its own doing of the version that runs, Reason says what the last one was.
	Failures int    `json:"failures"`
	Reason   string `json:"reason,omitempty"`
	// Clean is how long it has run since the last of them.
	Clean time.Duration `json:"clean"`
	// Proven says that it once ran for Limits.Proven without one: it is no longer set back.
	Proven bool `json:"proven"`
	// SetBack says that Before runs in place of Deployed, because of SetBackReason.
	SetBack       bool   `json:"set_back,omitempty"`
	SetBackReason string `json:"set_back_reason,omitempty"`
	// Served is zero but for a version whose trigger says `missed: once`.
	Served Served `json:"served,omitzero"`
}

// History keeps Records over restarts. It is used by many goroutines at once, for one deployment by one.
type History interface {
	// LoadRecord gives the record of a deployment, and a zero one when there is none or it cannot be read.
	LoadRecord(deployment string) Record
	// SaveRecord replaces it. When it returns, the record is on disk.
	SaveRecord(deployment string, r Record) error
	// KeepRecords forgets all but those of these deployments.
	KeepRecords(deployments []string) error
	// Crashes gives what an earlier process of the agent died of, by deployment: each counts as a failure of it.
	Crashes() map[string]string
	// MarkBusy notes which deployments are in the middle of a long piece of work, should the process die in it.
	MarkBusy(deployments []string)
}

// noHistory is where nothing is kept.
type noHistory struct{}

func (noHistory) LoadRecord(string) Record        { return Record{} }
func (noHistory) SaveRecord(string, Record) error { return nil }
func (noHistory) KeepRecords([]string) error      { return nil }
func (noHistory) Crashes() map[string]string      { return map[string]string{} }
func (noHistory) MarkBusy([]string)               {}

// keep is a deployment as the record keeps it.
func keep(d *Deployment) *Kept {
	sum := sha256.Sum256(d.Definition)
	return &Kept{Version: d.Version, SHA256: sum[:], Origin: d.Origin}
}

// versions chooses which version of a deployment runs. It belongs to the unit's goroutine.
type versions struct {
	s      *Supervisor
	wanted Deployment
	record Record
	// counted is until when Clean was counted.
	counted time.Time
}

// load reads what is known and brings it up to the version that is wanted now.
func (v *versions) load(ctx context.Context) {
	v.record = v.s.settings.History.LoadRecord(v.wanted.ID)
	r, next := &v.record, keep(&v.wanted)
	changed := true
	switch {
	case r.Deployed.same(next) && r.Program == v.s.settings.Program:
		changed = !bytes.Equal(r.Deployed.Origin, next.Origin)
		r.Deployed = next
	case r.Deployed.same(next):
		// A newer agent may have mended what the version failed of.
		*r = Record{Deployed: next, Before: r.Before, Proven: r.Proven && !r.SetBack, Program: v.s.settings.Program, Served: r.Served.anew()}
	default:
		// What was set back, or had failed as often as it may, is no version to go back to.
		before := r.Before
		if r.Deployed != nil && !r.SetBack && r.Failures < v.s.settings.Limits.Failures {
			before = r.Deployed
		}
		*r = Record{Deployed: next, Before: before, Program: v.s.settings.Program, Served: r.Served.anew()}
	}
	if changed {
		v.save(ctx)
	}
	v.counted = time.Now()
}

func (v *versions) save(ctx context.Context) {
	if err := v.s.settings.History.SaveRecord(v.wanted.ID, v.record); err != nil {
		v.s.settings.Logger.WarnContext(ctx, "what is known of a flow could not be kept, so a restart may repeat a failure or a run", slog.String("flow", v.wanted.Name), slog.Any("error", err))
	}
}

// errNoOrigin is for a version that nobody kept.
var errNoOrigin = errors.New("its text was not kept")

// current gives the deployment to run: the wanted one, or the one before. What cannot be opened any more is no version to
// go back to.
func (v *versions) current(ctx context.Context) Deployment {
	if !v.record.SetBack {
		return v.wanted
	}
	d, err := v.reopen()
	if err != nil {
		v.s.settings.Logger.WarnContext(ctx, "the version before cannot be run any more", slog.String("flow", v.wanted.Name), slog.Any("error", err))
		v.record.SetBack, v.record.Before, v.record.Failures = false, nil, v.s.settings.Limits.Failures
		v.save(ctx)
		return v.wanted
	}
	return d
}

func (v *versions) reopen() (Deployment, error) {
	b := v.record.Before
	if b == nil || len(b.Origin) == 0 || v.s.settings.Reopen == nil {
		return Deployment{}, errNoOrigin
	}
	d, err := v.s.settings.Reopen(b.Origin)
	if err != nil {
		return Deployment{}, fmt.Errorf("open the version %d: %w", b.Version, err)
	}
	d.ID, d.FlowID, d.Name = v.wanted.ID, v.wanted.FlowID, v.wanted.Name
	if !keep(&d).same(b) {
		return Deployment{}, fmt.Errorf("the version %d was altered on this machine's disk", b.Version)
	}
	return d, nil
}

// verdict is what becomes of a flow after a run.
type verdict uint8

const (
	// goOn: as after any other failure.
	goOn verdict = iota
	// leaveAlone: it has failed by its own doing as often as it may, and there is no version to go back to.
	leaveAlone
	// goBack: the version before runs from now on.
	goBack
)

// judge takes note of how a run ended.
func (v *versions) judge(ctx context.Context, err error) verdict {
	r := &v.record
	if err != nil && ownFailure(err) {
		return v.failed(ctx, err.Error())
	}
	before := *r
	v.count()
	if err == nil {
		r.Failures = 0
	}
	v.saveSince(ctx, before)
	return goOn
}

// failed counts a failure of the flow's own doing.
func (v *versions) failed(ctx context.Context, reason string) verdict {
	l, r := v.s.settings.Limits, &v.record
	v.count()
	r.Failures++
	r.Reason, r.Clean = reason, 0
	result := goOn
	switch {
	case r.Failures < l.Failures:
	case !r.SetBack && !r.Proven && v.canGoBack():
		r.SetBack, r.SetBackReason = true, reason
		r.Failures, r.Reason, r.Served = 0, "", r.Served.anew()
		result = goBack
		v.s.isolated.setBack.Add(1)
		v.s.settings.Logger.ErrorContext(ctx, "a flow was set back to the version before", slog.String("flow", v.wanted.Name),
			slog.Uint64("from", uint64(v.wanted.Version)), slog.Uint64("to", uint64(r.Before.Version)), slog.String("reason", reason))
	default:
		result = leaveAlone
	}
	v.save(ctx)
	return result
}

func (v *versions) canGoBack() bool {
	_, err := v.reopen()
	return err == nil
}

// count adds the time since the last count to Clean.
func (v *versions) count() {
	now := time.Now()
	v.record.Clean += now.Sub(v.counted)
	v.counted = now
	if v.record.Clean >= v.s.settings.Limits.Clean {
		v.record.Failures = 0
	}
	if v.record.Clean >= v.s.settings.Limits.Proven {
		v.record.Proven = true
	}
}

// steady is called now and then while a run goes on, so that Clean survives a restart.
func (v *versions) steady(ctx context.Context) {
	before := v.record
	v.count()
	v.saveSince(ctx, before)
}

// saveSince saves what matters of the record's changes: not every second of Clean, and nothing of a version that is proven.
func (v *versions) saveSince(ctx context.Context, before Record) {
	now, every := &v.record, v.s.settings.Limits.Clean
	if now.Failures != before.Failures || now.Proven != before.Proven || !now.Proven && now.Clean/every != before.Clean/every {
		v.save(ctx)
	}
}

// crashed counts what an earlier process died of.
func (v *versions) crashed(ctx context.Context, reason string) { v.failed(ctx, reason) }

// exhausted says that the version that runs has failed by its own doing as often as it may.
func (v *versions) exhausted() bool { return v.record.Failures >= v.s.settings.Limits.Failures }

// explain says what became of a flow that was set back or left alone, "" for neither. failure is its last.
func (v *versions) explain() string {
	r := &v.record
	switch {
	case r.SetBack && v.exhausted():
		return fmt.Sprintf("version %d failed %d times by its own doing (%s), and version %d, to which it was set back, did too (%s): deploy a version that mends it; until then it is tried every %s",
			v.wanted.Version, v.s.settings.Limits.Failures, r.SetBackReason, r.Before.Version, r.Reason, v.s.settings.Limits.Pause)
	case r.SetBack:
		return fmt.Sprintf("version %d failed %d times by its own doing and was set back to version %d: deploy a version that mends it. It failed of: %s",
			v.wanted.Version, v.s.settings.Limits.Failures, r.Before.Version, r.SetBackReason)
	case v.exhausted():
		return fmt.Sprintf("it failed %d times by its own doing, and there is no version to go back to: deploy a version that mends it; until then it is tried every %s. It failed of: %s",
			r.Failures, v.s.settings.Limits.Pause, r.Reason)
	}
	return ""
}
