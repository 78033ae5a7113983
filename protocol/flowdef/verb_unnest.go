package flowdef

import "go.yaml.in/yaml/v3"

// UnnestStep makes a row of each element of a json column.
type UnnestStep struct{}

// UnnestPlan is a checked UnnestStep.
type UnnestPlan struct{}

func unnestKeys() []string { return nil }

func (p *parser) unnest(_ *Step, n *yaml.Node, _ map[string]entry) *UnnestStep {
	p.problem(at(n), "unnest is not there yet")
	return &UnnestStep{}
}

func (c *checker) checkUnnest(int) bool { return false }

func unnestSchema(_ object) []string { return nil }
