package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Codes that only HTTP knows.
const (
	codeRateLimited      = "rate_limited"
	codeMethodNotAllowed = "method_not_allowed"
	codeTooLarge         = "too_large"
)

// statusOf is the HTTP status of a code of the domain.
func statusOf(c fleet.Code) int {
	switch c {
	case fleet.Invalid:
		return http.StatusUnprocessableEntity
	case fleet.NotFound, fleet.AgentUnknown, fleet.TokenUnknown:
		return http.StatusNotFound
	case fleet.Conflict, fleet.TokenUsed, fleet.CloneSeen:
		return http.StatusConflict
	case fleet.TokenExpired:
		return http.StatusGone
	case fleet.Unauthorized:
		return http.StatusUnauthorized
	case fleet.Forbidden, fleet.AgentRevoked:
		return http.StatusForbidden
	case fleet.Unavailable:
		return http.StatusServiceUnavailable
	case fleet.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// httpProblem is a problem with the headers that belong to it. It is the one error that operations give to huma.
type httpProblem struct {
	api.Problem
	headers http.Header
}

// GetHeaders gives huma the headers of the answer.
func (p *httpProblem) GetHeaders() http.Header { return p.headers }

func newProblem(status int, code, detail string) *httpProblem {
	return &httpProblem{
		Problem: api.Problem{
			Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code,
		},
		headers: http.Header{},
	}
}

// problem turns an error into what the caller may see of it. What the caller may not see is logged.
func (s *service) problem(ctx context.Context, operation string, err error) *httpProblem {
	if p, ok := errors.AsType[*httpProblem](err); ok {
		return p
	}
	if limited, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		p := newProblem(http.StatusTooManyRequests, codeRateLimited, limited.Error())
		p.headers.Set("Retry-After", strconv.Itoa(int(limited.RetryAfter().Seconds())+1))
		return p
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.logger.WarnContext(ctx, "request took too long", "operation", operation, "error", err)
		return newProblem(http.StatusServiceUnavailable, string(fleet.Unavailable),
			"The control plane did not answer in time. Try again; if it goes on, look at the database's load.")
	}
	var known *fleet.Error
	if !errors.As(err, &known) || known.Code == fleet.Internal {
		s.logger.ErrorContext(ctx, "request failed", "operation", operation, "error", err)
		return newProblem(http.StatusInternalServerError, string(fleet.Internal),
			"Something went wrong in the control plane. Its log has the reason.")
	}
	if known.Code == fleet.Unavailable {
		s.logger.WarnContext(ctx, "request could not be served", "operation", operation, "error", err)
	}
	p := newProblem(statusOf(known.Code), string(known.Code), known.Message)
	p.Problems = flowProblems(problemsIn(err))
	if p.Status == http.StatusUnauthorized {
		p.headers.Set("WWW-Authenticate", `Bearer realm="outfeed"`)
	}
	return p
}

// problemsIn finds the problems of a flow definition in a chain of errors.
func problemsIn(err error) flowdef.Problems {
	for ; err != nil; err = errors.Unwrap(err) {
		if found, ok := any(err).(flowdef.Problems); ok {
			return found
		}
	}
	return nil
}

// plainProblem turns huma's own errors into ours. It leaves out the offending values, which can be secrets.
func plainProblem(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code := string(fleet.Invalid)
	switch {
	case model.Status == http.StatusRequestEntityTooLarge:
		code = codeTooLarge
	case model.Status >= http.StatusInternalServerError:
		code = string(fleet.Internal)
	}
	p := newProblem(model.Status, code, "The request is not valid: "+model.Detail+".")
	for _, e := range model.Errors {
		p.Errors = append(p.Errors, api.FieldError{Location: e.Location, Message: e.Message})
	}
	return &p.Problem, nil
}

// writeProblem answers from a middleware.
func writeProblem(ctx huma.Context, p *httpProblem) {
	for name := range p.headers {
		ctx.SetHeader(name, p.headers.Get(name))
	}
	ctx.SetHeader("Content-Type", api.ProblemType)
	ctx.SetStatus(p.Status)
	_ = json.NewEncoder(ctx.BodyWriter()).Encode(p.Problem) // the client that hung up has no use for an error
}

// sendProblem answers outside of huma.
func sendProblem(w http.ResponseWriter, p *httpProblem) {
	for name := range p.headers {
		w.Header().Set(name, p.headers.Get(name))
	}
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p.Problem) // the client that hung up has no use for an error
}
