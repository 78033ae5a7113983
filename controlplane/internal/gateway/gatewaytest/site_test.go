package gatewaytest_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/gateway/gatewaytest"
)

// TestSite has all agents of a site come at once, from one address, as after its link was down, beside attackers of other
// addresses and of the very same one: all come in, with what the product's agent does when it is turned away.
func TestSite(t *testing.T) {
	inTurn(t)
	attackers, agents, what := 300, 40, []string{"half-open", "strangers"}
	if *long {
		attackers, agents, what = 2000, 1000, []string{"half-open", "half-open TLS", "strangers", "comers and goers", "slow headers"}
	}
	for _, kind := range what {
		for sources, from := range map[int]string{2: "elsewhere", 1: "the same address"} {
			t.Run(fmt.Sprintf("%s from %s", kind, from), func(t *testing.T) {
				h := startHost(t, t.TempDir())
				before, busy := h.stats("?collect").RSS, load(t)
				crowd := startCrowd(t, h.sieged(siege{Kind: kind, Attackers: attackers, Sources: sources, Pause: back}))
				began := time.Now()
				start(t, "swarm", "-url", h.URL, "-fingerprint", h.Fingerprint, "-ca", filepath.Join(h.dir, gatewaytest.CAFile),
					"-agents", strconv.Itoa(agents), "-start", strconv.Itoa(agents))
				eventually(t, "all are connected", func() error { return h.has(t, agents) })
				took, grew := time.Since(began), h.rss()-before
				came := crowd.end()
				t.Logf("%d agents beside %d attackers, coming %v times a second, at a load of %s before: all in after %.1f s; memory grew by %.1f MiB",
					agents, attackers, came, busy, took.Seconds(), mib(grew))
			})
		}
	}
}

// has is an error while fewer agents are connected. Of attackers who come and go, a few are counted too.
func (h *host) has(t *testing.T, agents int) error {
	t.Helper()
	body, err := h.get(t.Context(), h.api, "/test/stats")
	if err != nil {
		return err
	}
	var s gatewaytest.Stats
	if err = json.Unmarshal(body, &s); err == nil && s.Connected < agents {
		err = fmt.Errorf("%d of %d agents are connected", s.Connected, agents)
	}
	return err
}
