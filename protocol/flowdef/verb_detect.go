package flowdef

import "go.yaml.in/yaml/v3"

// DetectStep finds events in a value's course.
type DetectStep struct{}

// DetectPlan is a checked DetectStep.
type DetectPlan struct{}

func detectKeys() []string { return nil }

func (p *parser) detect(_ *Step, n *yaml.Node, _ map[string]entry) *DetectStep {
	p.problem(at(n), "detect is not there yet")
	return &DetectStep{}
}

func (c *checker) checkDetect(int) bool { return false }

func detectSchema(_ object) []string { return nil }
