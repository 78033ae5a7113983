package flowdef

import "go.yaml.in/yaml/v3"

// DistinctStep keeps the first row of each key.
type DistinctStep struct{}

// DistinctPlan is a checked DistinctStep.
type DistinctPlan struct{}

func distinctKeys() []string { return nil }

func (p *parser) distinct(n *yaml.Node, _ map[string]entry) *DistinctStep {
	p.problem(at(n), "distinct is not there yet")
	return &DistinctStep{}
}

func (c *checker) checkDistinct(int) bool { return false }

func distinctSchema(_ object) {}
