package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// What the stage tells of damaged files reaches the status, the control plane and the metrics.
func TestTheAccountTellsOfDamagedFiles(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	stats := stage.Stats{
		Produced: 90, Lost: 2, SetAside: 5, Salvaged: 70,
		Damaged: []stage.DamagedFile{
			{File: "state.db.corrupt-2", At: at, Reason: "page 3\xff", SetBack: []string{"a"}, StartedAnew: []string{"b"}},
			{File: "outbox-1.db.corrupt-1", At: at, Reason: "the staged data is damaged: verify /a/b: the staged data is damaged: it is cut off", Salvaged: 60, Lost: 2},
		},
	}
	o := outboxStatus(&stats, 0)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"damaged_files":5,"salvaged":70`, `"file":"state.db.corrupt-2","at":"2026-03-01T06:00:00Z"`, `"started_anew":["b"],"set_back":["a"]`,
		`"reason":"it is cut off","salvaged":60,"lost":2,"started_anew":[],"set_back":[]`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the status has no %s: %s", part, text)
		}
	}
	w := o.wire()
	if w.GetDamagedFiles() != 5 || w.GetSalvaged() != 70 || len(w.GetDamage()) != 2 {
		t.Fatalf("the control plane is told %v", w)
	}
	first, second := w.GetDamage()[0], w.GetDamage()[1]
	if first.GetFile() != "state.db.corrupt-2" || first.GetAt() != at.UnixMicro() || first.GetReason() != "page 3\uFFFD" || first.GetSetBack()[0] != "a" ||
		first.GetStartedAnew()[0] != "b" || second.GetSalvaged() != 60 || second.GetLost() != 2 {
		t.Errorf("the control plane is told %v", w.GetDamage())
	}
	if found := outboxMetrics(t, &o); found["outfeed_agent_staging_damaged_files_total"] != 5 || found["outfeed_agent_insights_salvaged_total"] != 70 {
		t.Errorf("the metrics are %v", found)
	}
}

// Numbers that cannot be read are not told as zero.
func TestTheAccountIsNotKnownWhileTheStagingWaits(t *testing.T) {
	t.Parallel()
	o := outboxStatus(&stage.Stats{Unknown: true, Degraded: "make room", Runway: stage.RunwayUnknown}, 0)
	if w := o.wire(); !w.GetUnknown() || w.GetDegraded() != "make room" {
		t.Errorf("the control plane is told %v", w)
	}
	found := outboxMetrics(t, &o)
	if _, told := found["outfeed_agent_insights_produced_total"]; told || found["outfeed_agent_staging_degraded"] != 1 {
		t.Errorf("the metrics are %v", found)
	}
}

// What was set aside for another agent reaches the control plane, without the path on this machine.
func TestTheAccountTellsOfEarlierAgents(t *testing.T) {
	t.Parallel()
	stats := stage.Stats{Formers: []stage.Former{{Dir: "/var/lib/outfeed/stage.of-a-1", Owner: "a", Waiting: 8}, {Dir: "/var/lib/outfeed/stage.of-b\xff", Waiting: -1}}}
	o := outboxStatus(&stats, 0)
	told := o.wire().GetSetAside()
	if len(told) != 2 || told[0].GetDir() != "stage.of-a-1" || told[0].GetAgentId() != "a" || told[0].GetWaiting() != 8 || told[1].GetDir() != "stage.of-b\uFFFD" || told[1].GetWaiting() != -1 {
		t.Errorf("the control plane is told %v", told)
	}
}

// outboxMetrics are the metrics of an outbox that have no labels.
func outboxMetrics(t *testing.T, o *OutboxStatus) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(onlyOutbox{newCollector(nil), o})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 0 {
				found[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return found
}

// onlyOutbox collects the metrics of an outbox alone.
type onlyOutbox struct {
	*collector
	outbox *OutboxStatus
}

func (c onlyOutbox) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

func (c onlyOutbox) Collect(to chan<- prometheus.Metric) {
	c.collectOutbox(c.outbox, func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, t, v, labels...)
	})
}
