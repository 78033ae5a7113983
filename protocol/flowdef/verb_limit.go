package flowdef

import "go.yaml.in/yaml/v3"

// LimitStep keeps the first rows.
type LimitStep struct{}

// LimitPlan is a checked LimitStep.
type LimitPlan struct{}

func limitKeys() []string { return nil }

func (p *parser) limit(n *yaml.Node, _ map[string]entry) *LimitStep {
	p.problem(at(n), "limit is not there yet")
	return &LimitStep{}
}

func (c *checker) checkLimit(int) bool { return false }

func limitSchema(_ object) {}
