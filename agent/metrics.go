package agent

import (
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsHandler serves /metrics, /healthz (the process lives) and /readyz (it is connected and can stage).
func metricsHandler(s *status) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		local := s.local()
		switch {
		case local.Outbox.Degraded != "":
			answer(w, http.StatusServiceUnavailable, "cannot stage: "+local.Outbox.Degraded)
		case !local.Tunnel.Connected:
			answer(w, http.StatusServiceUnavailable, "not connected to the control plane: "+local.Tunnel.Error)
		default:
			answer(w, http.StatusOK, "ok")
		}
	})
	return mux
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// collector reads the agent's numbers when Prometheus asks, so that nothing is counted twice.
type collector struct {
	status *status

	connected, flows                            *prometheus.Desc
	produced, sent, acknowledged, expired, lost *prometheus.Desc
	waiting, waitingBytes, room, runway, late   *prometheus.Desc
	degraded, blocked, damaged, salvaged        *prometheus.Desc
	refused, isolated, setBack, left            *prometheus.Desc
}

func newCollector(s *status) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("outfeed_agent_"+name, help, labels, nil)
	}
	return &collector{
		status:       s,
		connected:    desc("connected", "1 while the agent is connected to the control plane."),
		produced:     desc("insights_produced_total", "Insights staged since the data directory was made."),
		sent:         desc("insights_sent_total", "Insights that were sent at least once; after a restart those acknowledged."),
		acknowledged: desc("insights_acknowledged_total", "Insights that the control plane has accounted for."),
		expired:      desc("insights_expired_total", "Insights that a rule of the plant has dropped, by the rule.", "rule"),
		lost:         desc("insights_lost_total", "Insights that were lost, by where.", "where"),
		late:         desc("rows_late_total", "Rows that came too late for their window."),
		waiting:      desc("outbox_insights", "Insights that wait to be sent or acknowledged."),
		waitingBytes: desc("outbox_bytes", "Bytes of the insights that wait to be sent or acknowledged."),
		room:         desc("outbox_room_bytes", "How many more bytes may wait before flows have to."),
		runway:       desc("outbox_runway_seconds", "How long the room lasts at the present rate; +Inf when it does not fill."),
		degraded:     desc("staging_degraded", "1 while nothing can be written to the disk."),
		blocked:      desc("staging_blocked_commits", "Commits of flows that wait for room."),
		damaged:      desc("staging_damaged_files_total", "Files of the staging that were found damaged and set aside."),
		salvaged:     desc("insights_salvaged_total", "Insights that were taken whole out of damaged files."),
		flows:        desc("flows", "Deployed flows by state.", "state"),
		refused:      desc("bundles_refused_total", "Bundles of flows that were refused, by reason.", "reason"),
		isolated:     desc("flow_failures_total", "Runs that failed by the flow's own doing, by kind.", "kind"),
		setBack:      desc("flows_set_back_total", "Flows that were set back to the version before."),
		left:         desc("runs_left_behind", "Runs that did not return when they were told to."),
	}
}

// Describe is for Prometheus.
func (c *collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect is for Prometheus.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.status.local()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	send(c.connected, prometheus.GaugeValue, oneIf(s.Tunnel.Connected))
	c.collectOutbox(&s.Outbox, send)
	for reason, n := range c.status.bundles.refusals() {
		send(c.refused, prometheus.CounterValue, float64(n), reason)
	}
	isolated := c.status.supervisor.Isolations()
	send(c.isolated, prometheus.CounterValue, float64(isolated.Panics), "panic")
	send(c.isolated, prometheus.CounterValue, float64(isolated.Memory), "memory")
	send(c.isolated, prometheus.CounterValue, float64(isolated.Time), "time")
	send(c.setBack, prometheus.CounterValue, float64(isolated.SetBack))
	send(c.left, prometheus.GaugeValue, float64(s.LeftBehind))
	states := map[string]int{}
	for _, f := range s.Flows {
		states[f.State]++
	}
	for state, n := range states {
		send(c.flows, prometheus.GaugeValue, float64(n), state)
	}
}

func (c *collector) collectOutbox(o *OutboxStatus, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	if !o.Unknown {
		// What is not known is left away: a counter that falls to 0 would tell of a new directory.
		c.collectCounts(o, send)
	}
	send(c.room, prometheus.GaugeValue, float64(o.RoomBytes))
	runway := math.Inf(1)
	if o.RunwaySeconds >= 0 {
		runway = float64(o.RunwaySeconds)
	}
	send(c.runway, prometheus.GaugeValue, runway)
	send(c.degraded, prometheus.GaugeValue, oneIf(o.Degraded != ""))
	send(c.blocked, prometheus.GaugeValue, float64(o.Blocked))
}

func (c *collector) collectCounts(o *OutboxStatus, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	send(c.produced, prometheus.CounterValue, float64(o.Produced))
	send(c.sent, prometheus.CounterValue, float64(o.Sent))
	send(c.acknowledged, prometheus.CounterValue, float64(o.Acknowledged))
	for rule, n := range o.Expired {
		send(c.expired, prometheus.CounterValue, float64(n), strings.TrimPrefix(rule, "expired_"))
	}
	send(c.lost, prometheus.CounterValue, float64(o.Lost), "agent")
	send(c.lost, prometheus.CounterValue, float64(o.LostRemotely), "control_plane")
	send(c.damaged, prometheus.CounterValue, float64(o.DamagedFiles))
	send(c.salvaged, prometheus.CounterValue, float64(o.Salvaged))
	send(c.late, prometheus.CounterValue, float64(o.Late))
	send(c.waiting, prometheus.GaugeValue, float64(o.WaitingRecords))
	send(c.waitingBytes, prometheus.GaugeValue, float64(o.WaitingBytes))
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
