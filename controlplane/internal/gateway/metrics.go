package gateway

import (
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gateway's numbers. The only label with more than one value is the refusal's code, a fixed word.
type metrics struct {
	connected       prometheus.Gauge
	sessions        prometheus.Counter
	turnedAway      prometheus.Counter
	locked          prometheus.Counter
	refusals        *prometheus.CounterVec
	insights        prometheus.Counter
	reports         prometheus.Counter
	reportsRefused  prometheus.Counter
	statusesRefused prometheus.Counter
	received, sent  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "outfeed", Subsystem: "gateway", Name: name, Help: help})
	}
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "outfeed", Subsystem: "gateway", Name: "agents_connected", Help: "Agents connected to this replica.",
		}),
		sessions:   counter("sessions_total", "Sessions that an agent opened with a valid hello."),
		turnedAway: counter("turned_away_total", "Connections that were answered with 503."),
		locked:     counter("agents_locked_total", "Agents that were locked because a copy of their data directory has connected."),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "outfeed", Subsystem: "gateway", Name: "refusals_total", Help: "Refusals sent to agents, by code.",
		}, []string{"code"}),
		insights:        counter("insights_stored_total", "Insights stored for the first time."),
		reports:         counter("run_reports_stored_total", "Run reports stored."),
		reportsRefused:  counter("run_reports_refused_total", "Run reports that can never be stored, dropped with a line in the log."),
		statusesRefused: counter("statuses_refused_total", "Statuses that were not stored."),
		received:        counter("received_bytes_total", "Bytes received from agents inside the outer TLS."),
		sent:            counter("sent_bytes_total", "Bytes sent to agents inside the outer TLS."),
	}
	for _, c := range []prometheus.Collector{
		m.connected, m.sessions, m.turnedAway, m.locked, m.refusals, m.insights, m.reports, m.reportsRefused, m.statusesRefused, m.received, m.sent,
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the gateway's metrics: %w", err)
		}
	}
	return m, nil
}

// count counts what passes through a connection.
func (m *metrics) count(conn net.Conn) net.Conn { return counted{Conn: conn, metrics: m} }

type counted struct {
	net.Conn
	metrics *metrics
}

// NetConn is the connection whose bytes are counted.
func (c counted) NetConn() net.Conn { return c.Conn }

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.metrics.received.Add(float64(n))
	return n, err //nolint:wrapcheck // TLS compares it with io.EOF
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.metrics.sent.Add(float64(n))
	return n, err //nolint:wrapcheck // as in Read
}
