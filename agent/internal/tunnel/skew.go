package tunnel

import (
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

// skew is how far this machine's clock is before the control plane's, to a network round trip.
func skew(w *wire.Welcome) time.Duration {
	return time.Since(time.UnixMicro(w.GetClock())).Round(time.Second)
}
