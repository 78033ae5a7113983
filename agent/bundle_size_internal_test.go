package agent

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// TestTheLargestBundleIsUsedAndResumed has as much as one agent can be sent: it is kept and used, and is there after a restart.
func TestTheLargestBundleIsUsedAndResumed(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.ControlPlaneClock(1_000_000)
	b := r.bundle(7, 1)
	small := b.GetFlows()[0]
	small.Name = "flow-0"
	for n := 1; n < 7; n++ {
		f := proto.CloneOf(small)
		f.Name, f.DeploymentId, f.FlowId = fmt.Sprint("flow-", n), fmt.Sprint("d", n), fmt.Sprint("f", n)
		b.Flows = append(b.Flows, f)
	}
	// The comments fill it up.
	room := (wire.MaxBundle - len(r.sign(r.key, b))) / 4 * 3 / len(b.GetFlows())
	lines := small.GetDefinition()
	for _, f := range b.GetFlows() {
		text := bytes.Replace(lines, []byte("flow: lines"), []byte("flow: "+f.GetName()), 1)
		f.Definition = fmt.Appendf(text, "#%s\n", bytes.Repeat([]byte("x"), room-20))
		sum := sha256.Sum256(f.GetDefinition())
		f.Sha256 = sum[:]
	}
	envelope := r.sign(r.key, b)
	if len(envelope) > wire.MaxBundle || len(envelope) < wire.MaxBundle-4096 {
		t.Fatalf("the envelope has %d bytes, the bound is %d", len(envelope), wire.MaxBundle)
	}
	if err := r.ApplyBundle(t.Context(), envelope); err != nil || r.refused() != "" || r.DesiredSerial() != 7 {
		t.Fatalf("serial %d, %v, %s", r.DesiredSerial(), err, r.refused())
	}
	r.mu.Lock()
	r.serial, r.applied = 0, nil
	r.mu.Unlock()
	if err := r.resume(t.Context()); err != nil || r.refused() != "" || r.DesiredSerial() != 7 {
		t.Errorf("after a restart serial %d, %v, %s", r.DesiredSerial(), err, r.refused())
	}
}
