package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the API's. Operations are those of the OpenAPI document, so the labels are bounded.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  prometheus.Gauge
}

// newMetrics registers the metrics of one listener, "public" or "admin".
func newMetrics(registry prometheus.Registerer, listener string) *metrics {
	registry = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, registry)
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outfeed_api_requests_total", Help: "Requests answered, by operation and status.",
		}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "outfeed_api_request_duration_seconds", Help: "How long requests took that are not event streams.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"operation"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outfeed_api_event_streams", Help: "Event streams that are open.",
		}),
	}
	registry.MustRegister(m.requests, m.seconds, m.streams)
	return m
}

// How a TLS handshake of a listener ends. The first three have cost its computing.
const (
	handshakeFinished = "finished"
	handshakeFailed   = "failed"
	// handshakeCut is one that had to make room when it was computed in part, and handshakeRefused before that.
	handshakeCut     = "cut"
	handshakeRefused = "refused"
)

// newHandshakes counts the TLS handshakes of a listener. registry may be nil.
func newHandshakes(registry prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outfeed_tls_handshakes_total", Help: "TLS handshakes by how they ended: finished, failed, cut to make room for others, or refused before anything was computed.",
	}, []string{"result"})
	if registry != nil {
		registry.MustRegister(c)
	}
	return c
}

func (m *metrics) observe(operation string, status int, took time.Duration) {
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	if operation != eventsOperation {
		m.seconds.WithLabelValues(operation).Observe(took.Seconds())
	}
}
