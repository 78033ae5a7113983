package httpapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	// minCompressed is from how many bytes on an answer is compressed: what fits into a packet gains nothing.
	minCompressed = 1400
	// maxCompressing is how many answers are compressed at once, each with about a megabyte; more are sent as they are.
	maxCompressing = 4
	// maxPacked is how much of a compressed answer is held until it is whole.
	maxPacked = 1 << 20
)

// compressor compresses answers for clients that want that. It is safe for concurrent use.
//
// Only answers to GET are compressed: none of them holds a secret, so that their lengths tell none, whatever of a request
// they repeat. The texts of keys and tokens are in answers to POST.
type compressor struct {
	places  chan struct{}
	writers sync.Pool
}

func newCompressor() *compressor {
	return &compressor{
		places: make(chan struct{}, maxCompressing),
		writers: sync.Pool{New: func() any {
			w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
			if err != nil {
				return gzip.NewWriter(io.Discard)
			}
			return w
		}},
	}
}

func (c *compressor) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !acceptsGzip(r.Header) {
			next.ServeHTTP(w, r)
			return
		}
		p := &packed{ResponseWriter: w, compressor: c}
		defer p.leave()
		next.ServeHTTP(p, r)
		p.end()
	})
}

// acceptsGzip says whether a client understands gzip and does not rule it out.
func acceptsGzip(h http.Header) bool {
	for _, line := range h.Values("Accept-Encoding") {
		for offer := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(offer, ";")
			if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
				continue
			}
			quality, given := strings.CutPrefix(strings.TrimSpace(parameters), "q=")
			weight, err := strconv.ParseFloat(quality, 64)
			return !given || err == nil && weight > 0
		}
	}
	return false
}

// packed is an answer that may be compressed. What is no JSON, like the event stream, passes at once.
type packed struct {
	http.ResponseWriter
	compressor *compressor
	// status waits for the first of the body; 0 when none waits.
	status int
	// begun says that it is decided whether the answer is compressed; packer is nil when it is not.
	begun  bool
	packer *gzip.Writer
	out    bytes.Buffer
	// ended says that all is written.
	ended bool
}

// Unwrap is for http.ResponseController.
func (p *packed) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// WriteHeader keeps the status of an answer that may be compressed until there is a body to compress.
func (p *packed) WriteHeader(status int) {
	h := p.Header()
	if p.begun || !isJSON(h.Get("Content-Type")) || h.Get("Content-Encoding") != "" {
		p.begun = true
		p.ResponseWriter.WriteHeader(status)
		return
	}
	h.Add("Vary", "Accept-Encoding")
	p.status = status
}

func isJSON(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}

// Write compresses what is worth it.
func (p *packed) Write(b []byte) (int, error) {
	if !p.begun && p.status == 0 {
		p.WriteHeader(http.StatusOK)
	}
	if !p.begun {
		p.begin(len(b))
	}
	if p.packer == nil {
		return p.ResponseWriter.Write(b) //nolint:wrapcheck // this is only in between
	}
	if p.out.Len() > maxPacked {
		if err := p.send(); err != nil {
			return 0, err
		}
	}
	return p.packer.Write(b) //nolint:wrapcheck // it writes into memory
}

// begin decides whether an answer is compressed that begins with so many bytes.
func (p *packed) begin(size int) {
	p.begun = true
	if size >= minCompressed {
		select {
		case p.compressor.places <- struct{}{}:
			if packer, ok := p.compressor.writers.Get().(*gzip.Writer); ok {
				packer.Reset(&p.out)
				p.packer = packer
				p.Header().Set("Content-Encoding", "gzip")
				p.Header().Del("Content-Length")
				return
			}
			<-p.compressor.places
		default:
		}
	}
	p.head()
}

// head sends the status if it waits.
func (p *packed) head() {
	if p.status != 0 {
		p.ResponseWriter.WriteHeader(p.status)
		p.status = 0
	}
}

// end sends what is left. Before that it makes room for others, because a client may take its time.
func (p *packed) end() {
	if p.packer == nil {
		p.head()
		return
	}
	if p.packer.Close() != nil {
		return // it writes into memory
	}
	p.ended = true
	p.leave()
	if p.status != 0 {
		p.Header().Set("Content-Length", strconv.Itoa(p.out.Len()))
	}
	_ = p.send() // the client that hung up has no use for an error
}

func (p *packed) send() error {
	p.head()
	_, err := p.out.WriteTo(p.ResponseWriter)
	return err //nolint:wrapcheck // as in Write
}

// leave gives back what compressing needs. An answer that was not sent by then, because its handler has panicked, is not.
func (p *packed) leave() {
	if p.packer == nil {
		return
	}
	if !p.ended {
		p.Header().Del("Content-Encoding")
	}
	p.packer.Reset(io.Discard)
	p.compressor.writers.Put(p.packer)
	p.packer = nil
	<-p.compressor.places
}
