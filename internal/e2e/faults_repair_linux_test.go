package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// repair is something in the staging that a start must put right, which needs room.
type repair struct {
	what string
	harm func(dir string) error
	// stop stops the agent instead of killing it. lost says that insights which wait may go with it.
	stop, lost bool
}

// overwrite puts bytes into a file every so often, from one place on.
func overwrite(path string, from, every, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	for at := from; err == nil && at+size <= info.Size(); at += every {
		_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(size)), at)
	}
	return errors.Join(err, f.Close())
}

// newestSegment is the file of the outbox that was begun last.
func newestSegment(dir string) (string, error) {
	list, err := filepath.Glob(filepath.Join(dir, "outbox-*.db"))
	if err != nil || len(list) == 0 {
		return "", fmt.Errorf("the outbox has the files %q: %w", list, err)
	}
	slices.Sort(list)
	return list[len(list)-1], nil
}

func repairs() []repair {
	return []repair{
		{what: "state.db is damaged", harm: func(dir string) error { return overwrite(filepath.Join(dir, "state.db"), 2*4096, 2*4096, 4096) }},
		{what: "state.db is removed", stop: true, harm: func(dir string) error { return os.Remove(filepath.Join(dir, "state.db")) }},
		{what: "a segment is damaged", lost: true, stop: true, harm: func(dir string) error {
			path, err := newestSegment(dir)
			if err != nil {
				return err
			}
			return overwrite(path, 2*4096, 3*4096, 4096)
		}},
		{what: "a segment is removed", lost: true, stop: true, harm: func(dir string) error {
			path, err := newestSegment(dir)
			if err != nil {
				return err
			}
			return os.Remove(path)
		}},
		{what: "the journal is damaged", lost: true, harm: func(dir string) error { return overwrite(filepath.Join(dir, "JOURNAL"), 4096+100, 1<<40, 2000) }},
		{what: "OWNER and FORMAT are removed", harm: func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "OWNER")), os.Remove(filepath.Join(dir, "FORMAT")))
		}},
	}
}

// TestFaultAnAgentThatMustRepairOnAFullDisk damages what an agent has staged, while insights wait and the disk has no room at all.
// The agent starts all the same, is connected, and tells the control plane what is the matter; with room it goes on by itself
// within 30 s. What is gone is counted, and all else arrives.
func TestFaultAnAgentThatMustRepairOnAFullDisk(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=160m")
	b := newBooksOn(t, newSiteOn(t, d))
	b.write(10) // so that the flow has come before the link is cut
	all := repairs()
	if !*long {
		all = []repair{all[0], all[2]}
	}
	for i := range all {
		b.repair(d, &all[i])
	}
}

// repair lets one of them happen.
func (b *books) repair(d *smallDisk, r *repair) {
	b.t.Helper()
	before := b.until("all is acknowledged before "+r.what, func(a account) bool {
		return a.WaitingRecords == 0 && a.Acknowledged == a.Produced && a.Produced >= b.rows && a.Degraded == ""
	})
	b.link.setCut(true)
	b.write(40)
	waiting := b.until("40 wait", func(a account) bool { return a.WaitingRecords == 40 })
	if r.stop {
		b.agent.stop()
	} else {
		b.agent.kill()
	}
	dir := b.path("agent", "stage")
	if err := errors.Join(r.harm(dir), os.Remove(filepath.Join(dir, "SPARE"))); err != nil {
		b.t.Fatal(err)
	}
	d.fill()
	b.link.setCut(false)
	b.run()
	b.eventually("the control plane is told that the agent must repair: "+r.what, func() error {
		b.agent.mustLive()
		told, err := b.told()
		if err == nil && !strings.Contains(told.Degraded, "make room") {
			err = fmt.Errorf("it has %+v", told)
		}
		return err
	})
	b.waitConnected()
	local := b.account()
	if !strings.Contains(local.Degraded, "make room") {
		b.t.Errorf("%s: status says %+v", r.what, local)
	}
	b.t.Logf("%s: %s", r.what, local.Degraded)
	d.empty()
	room := time.Now()
	b.write(5)
	after := b.until("the agent goes on after "+r.what, func(a account) bool {
		return a.Degraded == "" && a.WaitingRecords == 0 && a.Acknowledged == a.Produced && a.Produced >= waiting.Produced+5
	})
	took := time.Since(room)
	if took > goal(30*time.Second) {
		b.t.Errorf("%s: it goes on %s after there is room", r.what, took)
	}
	lost := after.Lost - before.Lost
	if lost > 0 && !r.lost || lost > 40 {
		b.t.Errorf("%s: %d are lost: %+v", r.what, lost, after)
	}
	b.t.Logf("%s: after %s all is well, with %d lost", r.what, took.Round(100*time.Millisecond), lost)
	b.nothingElseIsGone(r, after.Lost)
}

// nothingElseIsGone looks for every row in the control plane.
func (b *books) nothingElseIsGone(r *repair, lost uint64) {
	b.t.Helper()
	b.eventually("every row that is not lost is stored after "+r.what, func() error {
		all, err := b.insights("account")
		if err != nil {
			return err
		}
		seen, rows := map[uint64]int{}, uint64(0)
		for _, in := range all {
			at := bytes.Index(in.Values, []byte("row-"))
			var n uint64
			if _, err := fmt.Sscanf(string(in.Values[max(at, 0):]), "row-%06d-", &n); err != nil {
				return fmt.Errorf("%s: %w", in.Values, err)
			}
			if seen[n]++; seen[n] == 1 {
				rows++
			}
		}
		if rows+lost < b.rows {
			return fmt.Errorf("%d of %d rows, and %d are told as lost", rows, b.rows, lost)
		}
		return nil
	})
}
