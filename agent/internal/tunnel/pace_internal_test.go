package tunnel

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// TestPace has acknowledgements come quickly and slowly: the batches become as large as the link and the control plane carry
// soon, and no larger than what needs no memory to be found where they do not.
func TestPace(t *testing.T) {
	t.Parallel()
	i := &insights{}
	i.most.Store(smallBatch)
	for _, step := range []struct {
		took time.Duration
		want int64
	}{
		{slowly + 1, smallBatch},
		{quickly, smallBatch},
		{quickly - 1, 2 * smallBatch},
		{slowly, 2 * smallBatch},
		{0, 4 * smallBatch},
		{0, 8 * smallBatch},
		{0, 16 * smallBatch},
		{0, batchBytes},
		{0, batchBytes},
		{slowly + 1, batchBytes / 2},
	} {
		if i.pace(step.took); i.most.Load() != step.want {
			t.Fatalf("after an acknowledgement that took %v a batch may have %d bytes, want %d", step.took, i.most.Load(), step.want)
		}
	}
	for range 10 {
		i.pace(time.Minute)
	}
	l := newLetter(0)
	for payload := make([]byte, 200); l.fits(len(payload), int(i.most.Load())); {
		l.insight(&wire.InsightRecord{ValuesJson: payload[:195]}, len(payload))
	}
	if size := proto.Size(l.up); size > wire.FreeBody || size < wire.FreeBody/2 {
		t.Errorf("the smallest batch has %d bytes, and %d need no memory to be found", size, wire.FreeBody)
	}
}
