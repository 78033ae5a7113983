package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFaultWhatIsStoredIsNotLost kills an agent that has insights on its disk which the control plane has stored, and damages
// them. While it is offline it says that they are perhaps lost, and once it is connected that they are not.
func TestFaultWhatIsStoredIsNotLost(t *testing.T) {
	t.Parallel()
	b := newBooksOn(t, newControlPlane(t))
	b.write(50)
	b.until("all is stored", func(a account) bool { return a.Produced == 50 && a.Acknowledged == 50 })
	b.link.setCut(true)
	b.agent.kill()
	// The next start takes what is in the journal into a segment, and is told of no acknowledgement.
	b.run()
	b.write(10)
	b.until("more is staged offline", func(a account) bool { return a.Produced == 60 })
	b.agent.stop()
	segments, err := filepath.Glob(b.path("agent", "stage", "outbox-*.db"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("the outbox has the files %q: %v", segments, err)
	}
	for _, path := range segments {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	b.run()
	offline := b.until("the damage is found", func(a account) bool { return a.LostUnsure > 0 })
	// What was staged offline was never sent, so that it is known for what it is.
	if offline.Lost != 10 || offline.LostUnsure != 50-offline.Acknowledged {
		t.Errorf("offline the account is %+v", offline)
	}
	text, said, err := b.try(b.agentEnv(), nil, bin(t, "outfeed-agent"), "status")
	if err != nil || !strings.Contains(string(text), "perhaps lost") {
		t.Errorf("status says %s (%v, %s)", text, err, said)
	}
	b.link.setCut(false)
	done := b.until("the control plane has told what it has", func(a account) bool { return a.Acknowledged == 60 && a.LostUnsure == 0 })
	if done.Lost != 10 {
		t.Errorf("in the end the account is %+v", done)
	}
	t.Logf("%d were perhaps lost, and %d are", offline.LostUnsure, done.Lost)
	b.compare(done, bookkeeping{Receipts: map[string]uint64{"damaged": 10}})
}
