package api

// ProblemType is the media type of every error answer (RFC 9457).
const ProblemType = "application/problem+json"

// Problem is an error answer.
type Problem struct {
	Type   string `json:"type" doc:"Always about:blank: the code says which problem it is." example:"about:blank"`
	Title  string `json:"title" doc:"The status in words." example:"Not Found"`
	Status int    `json:"status" doc:"The HTTP status." example:"404"`
	Detail string `json:"detail" doc:"What happened, where, and what to do." example:"There is no agent \"press-hall\"."`
	Code   string `json:"code" enum:"invalid,not_found,conflict,unauthorized,forbidden,token_used,token_expired,token_unknown,agent_revoked,agent_unknown,clone_suspected,agent_locked,unavailable,internal,rate_limited,method_not_allowed,too_large" doc:"The kind of problem, for machines."`
	// Problems are what is wrong with a flow definition.
	Problems []FlowProblem `json:"problems,omitempty" doc:"What is wrong with the text of a flow definition."`
	Errors   []FieldError  `json:"errors,omitempty" doc:"Which parts of the request are wrong."`
}

// FlowProblem is one thing that is wrong with a flow definition. Line and column count from one; 0 is nowhere.
type FlowProblem struct {
	Line    int    `json:"line" doc:"Line of the text, counted from one; 0 when it is about no one place."`
	Column  int    `json:"column" doc:"Column of the line, counted from one."`
	Step    string `json:"step,omitempty" doc:"The step's id."`
	Message string `json:"message"`
}

// FieldError is one thing that is wrong with a request.
type FieldError struct {
	Location string `json:"location" doc:"Where it stands." example:"body.name"`
	Message  string `json:"message"`
}
