package gatewaytest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats is what a Host's process holds, as its path /test/stats tells it; with ?collect, after a garbage collection that
// gives memory back.
type Stats struct {
	// RSS is resident memory, Heap and Stacks what is in use, all in bytes.
	RSS    int64 `json:"rss"`
	Heap   int64 `json:"heap"`
	Stacks int64 `json:"stacks"`
	// Goroutines and Files are how many there are.
	Goroutines int `json:"goroutines"`
	Files      int `json:"files"`
	// Connected is how many agents are connected, PerSecond how many came in each second since the first.
	Connected int   `json:"connected"`
	PerSecond []int `json:"per_second"`
	// Address is where the agent that came last came from.
	Address string `json:"address"`
	// Counters are the control plane's own, by name and values of the labels: "outfeed_tls_handshakes_total cut".
	Counters map[string]float64 `json:"counters"`
}

func measure(domain *Fleet, registry prometheus.Gatherer) (Stats, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := Stats{Heap: int64(m.HeapAlloc), Stacks: int64(m.StackInuse), Goroutines: runtime.NumGoroutine()} //nolint:gosec // far below 2^63
	s.Connected, s.PerSecond, s.Address = domain.counts()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return s, fmt.Errorf("count the open files: %w", err)
	}
	s.Files = len(files)
	if s.Counters, err = counters(registry); err != nil {
		return s, err
	}
	s.RSS, err = resident()
	return s, err
}

func counters(registry prometheus.Gatherer) (map[string]float64, error) {
	families, err := registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather the metrics: %w", err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetCounter() == nil {
				continue
			}
			name := []string{f.GetName()}
			for _, l := range m.GetLabel() {
				name = append(name, l.GetValue())
			}
			all[strings.Join(name, " ")] = m.GetCounter().GetValue()
		}
	}
	return all, nil
}

// resident reads VmRSS.
func resident() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read the resident memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the resident memory: %w", err)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("/proc/self/status does not say how much memory is resident")
}
