package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hungryFlow pairs every line with every other, in a flow that never ends: far more insights than there is memory for.
const hungryFlow = `flow: counts
trigger: continuous
steps:
  - id: left
    read: files
    with: {path: "many.csv", format: csv, follow: true}
    schema: {k: int, a: string}
  - id: right
    read: files
    with: {path: "many.csv", format: csv}
    schema: {k: int, b: string}
  - from: left
    join: right
    on: [k]
  - insight: pairs
`

// TestFaultsOfAFlow deploys a version that eats all the memory. The agent sets it back to the one before, says so, keeps to
// that over kill -9 and without the control plane, and another flow never notices.
func TestFaultsOfAFlow(t *testing.T) {
	s, folder := fileSite(t)
	if err := os.WriteFile(filepath.Join(folder, "many.csv"), []byte("k,a,b\n"+strings.Repeat("1,press-line-a,press-line-b\n", 6000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.apply(countFlow)
	s.apply(strings.NewReplacer("flow: counts", "flow: beside", "insight: counts", "insight: beside").Replace(countFlow))
	s.line(folder, 1)
	began := time.Now()
	s.apply(hungryFlow)
	setBack := func(v statusSeen) bool {
		return len(v.Flows) == 2 && v.Flows[0].State == "running" && v.Flows[1].State == "running" &&
			(v.Flows[0].SetBackFrom == 2 && v.Flows[0].Version == 1 && strings.Contains(v.Flows[0].Error, "memory") ||
				v.Flows[1].SetBackFrom == 2 && v.Flows[1].Version == 1 && strings.Contains(v.Flows[1].Error, "memory"))
	}
	s.waitSeen("version 2 is set back", setBack)
	t.Logf("set back after %s", time.Since(began).Round(time.Millisecond))
	s.agent.mustLive()
	s.line(folder, 2)
	s.picture(s.only(), "set-back", "set back from 2")
	s.agent.kill()
	s.startAgent()
	s.waitSeen("it is still set back after a kill", setBack)
	s.line(folder, 3)
	s.eventually("the flow beside it has made its insights", func() error {
		beside, err := s.insights("beside")
		if err == nil && len(beside) < 3 {
			err = fmt.Errorf("there are %d", len(beside))
		}
		return err
	})
	s.apply(strings.Replace(countFlow, "  - insight", "  - filter: n > 0\n  - insight", 1))
	s.waitSeen("version 3 ends it", func(v statusSeen) bool {
		return len(v.Flows) == 2 && v.Flows[0].SetBackFrom+v.Flows[1].SetBackFrom == 0 && v.Flows[0].Version+v.Flows[1].Version == 4
	})
	s.line(folder, 4)
}
