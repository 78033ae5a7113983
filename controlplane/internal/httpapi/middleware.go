package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// dashboardPolicy lets the dashboard load nothing but itself. The plot and the editor set styles on elements.
const dashboardPolicy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// transportHeaders are for every answer.
func transportHeaders(public *url.URL, next http.Handler) http.Handler {
	https := public != nil && public.Scheme == "https"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if https {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// apiHeaders are for answers of the API, which no cache may keep and no page may show.
func apiHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

// legible refuses requests whose path or query cannot be text: PostgreSQL stores no NUL and nothing that is not UTF-8, so
// nothing has such a name.
func legible(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		where := ""
		query, err := url.ParseQuery(r.URL.RawQuery)
		switch {
		case !isText(r.URL.Path):
			where = "path"
		case err != nil:
			where = "query"
		default:
			for name, values := range query {
				if !isText(name) || slices.ContainsFunc(values, func(v string) bool { return !isText(v) }) {
					where = "query"
				}
			}
		}
		if where != "" {
			sendProblem(w, newProblem(http.StatusBadRequest, string(fleet.Invalid),
				"The "+where+" of this request is not UTF-8 text, holds a NUL character or has a wrong escape. Correct it."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func webHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", dashboardPolicy)
		next.ServeHTTP(w, r)
	})
}

// crossOrigin refuses requests that change something and come from a page of another origin, whoever's cookie they carry.
func crossOrigin(public *url.URL, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	if public != nil {
		// An address that is no origin adds no trust: then only the request's own Host counts.
		_ = protection.AddTrustedOrigin(public.Scheme + "://" + public.Host)
	}
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sendProblem(w, newProblem(http.StatusForbidden, string(fleet.Forbidden),
			"This request comes from a page of another site. Use the dashboard at the address of the control plane."))
	}))
	return protection.Handler(next)
}

// recovered answers a request whose handler panicked, and logs why.
func (s *service) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler)
			}
			s.logger.ErrorContext(ctx, "request panicked",
				"method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
			sendProblem(w, newProblem(http.StatusInternalServerError, string(fleet.Internal),
				"Something went wrong in the control plane. Its log has the reason."))
		}()
		next.ServeHTTP(w, r)
	})
}

// notFound answers for paths and methods that the mux does not have.
func notFound(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if allowed := methodsAt(mux, r); len(allowed) > 0 {
			p := newProblem(http.StatusMethodNotAllowed, codeMethodNotAllowed,
				r.URL.Path+" knows "+strings.Join(allowed, ", ")+" only.")
			p.headers.Set("Allow", strings.Join(allowed, ", "))
			sendProblem(w, p)
			return
		}
		sendProblem(w, newProblem(http.StatusNotFound, string(fleet.NotFound),
			"There is nothing at "+r.URL.Path+". The paths are in "+prefix+"/openapi.json."))
	}
}

// methodsAt are the methods that the mux knows for a request's path.
func methodsAt(mux *http.ServeMux, r *http.Request) []string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		try := r.Clone(r.Context())
		try.Method = method
		if _, pattern := mux.Handler(try); strings.HasPrefix(pattern, method+" ") {
			allowed = append(allowed, method)
		}
	}
	return slices.Clip(allowed)
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // the client that hung up has no use for an error
}

func (s *service) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	w.Header().Set("Cache-Control", "no-store")
	err := s.fleet.Ready(ctx)
	if err == nil && s.serving != nil && !s.serving() {
		err = &fleet.Error{Code: fleet.Unavailable, Message: "This replica lets no agents in: it is starting or stopping."}
	}
	if err != nil {
		p := s.problem(ctx, "ready", err)
		p.Status, p.Title = http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable)
		sendProblem(w, p)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ready\n")) // the client that hung up has no use for an error
}
