// Package expr is the expression language of flows: its parser, its types and the signatures of its functions.
//
// It evaluates nothing and holds no state; everything in it is safe for concurrent use. The kernels that compute are
// in the agent's engine.
package expr
