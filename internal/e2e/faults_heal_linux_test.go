package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestFaultDamageWhileTheAgentRunsOnAFullDisk overwrites every second page of what waits while the agent runs offline, and fills
// its disk before the link comes back, which is when the damage is found. One session goes on through it, the control plane is
// told that there must be room, and with room the agent repairs itself within 30 s. What is gone is counted.
func TestFaultDamageWhileTheAgentRunsOnAFullDisk(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=160m")
	b := newBooksOn(t, newSiteOn(t, d))
	b.write(10)
	before := b.until("all is acknowledged", func(a account) bool {
		return a.WaitingRecords == 0 && a.Acknowledged == a.Produced && a.Produced >= b.rows
	})
	b.link.setCut(true)
	b.write(200)
	waiting := b.until("200 wait", func(a account) bool { return a.WaitingRecords == 200 })
	dir := b.path("agent", "stage")
	var segment string
	b.eventually("what waits is in the newest file of the outbox", func() (err error) {
		if segment, err = newestSegment(dir); err != nil {
			return err
		}
		text, err := os.ReadFile(segment)
		if last := fmt.Sprintf("row-%06d-", b.rows-1); err == nil && !bytes.Contains(text, []byte(last)) {
			err = fmt.Errorf("%s is not in %s", last, segment)
		}
		return err
	})
	if err := overwrite(segment, 2*4096, 2*4096, 4096); err != nil {
		t.Fatal(err)
	}
	d.fill()
	sessions := b.sessions()
	b.link.setCut(false)
	b.eventually("the control plane is told that the agent must repair", func() error {
		b.agent.mustLive()
		told, err := b.told()
		if err == nil && !strings.Contains(told.Degraded, "make room") {
			err = fmt.Errorf("it has %+v", told)
		}
		return err
	})
	local := b.account()
	if !strings.Contains(local.Degraded, "make room") || local.Produced != waiting.Produced {
		t.Errorf("status says %+v", local)
	}
	t.Log(local.Degraded)
	d.empty()
	room := time.Now()
	b.write(5)
	after := b.until("the agent goes on", func(a account) bool {
		return a.Degraded == "" && a.WaitingRecords == 0 && a.Acknowledged == a.Produced && a.Produced >= waiting.Produced+5
	})
	took := time.Since(room)
	if took > goal(30*time.Second) {
		t.Errorf("it goes on %s after there is room", took)
	}
	if n := b.sessions() - sessions; n != 1 {
		t.Errorf("it took %d sessions", n)
	}
	lost := after.Lost - before.Lost
	if lost == 0 || lost > 200 {
		t.Errorf("%d are lost: %+v", lost, after)
	}
	t.Logf("in one session, %s after there is room all is well, with %d of 200 lost", took.Round(100*time.Millisecond), lost)
	b.nothingElseIsGone(&repair{what: "damage while it runs"}, after.Lost)
}

// sessions counts how often the agent has connected.
func (b *books) sessions() int {
	b.t.Helper()
	text, err := os.ReadFile(b.path("agent.log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return bytes.Count(text, []byte("the tunnel is up"))
}
