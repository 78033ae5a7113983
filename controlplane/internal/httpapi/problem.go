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
	codeTooSlow          = "too_slow"
)

// statusOf is the HTTP status of a code of the domain.
func statusOf(c fleet.Code) int {
	switch c {
	case fleet.Invalid:
		return http.StatusUnprocessableEntity
	case fleet.NotFound, fleet.AgentUnknown, fleet.TokenUnknown:
		return http.StatusNotFound
	case fleet.Conflict, fleet.TokenUsed, fleet.CloneSeen, fleet.AgentLocked:
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

// problemError is a problem with the headers that belong to it. It is the one error that operations give to huma.
type problemError struct {
	api.Problem
	headers http.Header
}

func (p *problemError) Error() string { return p.Detail }

// GetStatus gives huma the HTTP status.
func (p *problemError) GetStatus() int { return p.Status }

// ContentType gives huma the media type of problems, whatever the client would rather have.
func (p *problemError) ContentType(string) string { return api.ProblemType }

// GetHeaders gives huma the headers of the answer.
func (p *problemError) GetHeaders() http.Header { return p.headers }

func newProblem(status int, code, detail string) *problemError {
	return &problemError{
		Problem: api.Problem{
			Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code,
		},
		headers: http.Header{},
	}
}

// problem turns an error into what the caller may see of it. What the caller may not see is logged.
func (s *service) problem(ctx context.Context, operation string, err error) *problemError {
	if p, ok := errors.AsType[*problemError](err); ok {
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
	if problems, ok := errors.AsType[flowdef.Problems](err); ok {
		p.Problems = flowProblems(problems)
	}
	if p.Status == http.StatusUnauthorized {
		p.headers.Set("WWW-Authenticate", `Bearer realm="outfeed"`)
	}
	return p
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
	return &p.Problem, nil // huma has set status and media type already
}

// writeProblem answers from a middleware.
func writeProblem(ctx huma.Context, p *problemError) {
	for name := range p.headers {
		ctx.SetHeader(name, p.headers.Get(name))
	}
	ctx.SetHeader("Content-Type", api.ProblemType)
	ctx.SetStatus(p.Status)
	_ = json.NewEncoder(ctx.BodyWriter()).Encode(p.Problem) // the client that hung up has no use for an error
}

// sendProblem answers outside of huma.
func sendProblem(w http.ResponseWriter, p *problemError) {
	for name := range p.headers {
		w.Header().Set(name, p.headers.Get(name))
	}
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p.Problem) // the client that hung up has no use for an error
}
