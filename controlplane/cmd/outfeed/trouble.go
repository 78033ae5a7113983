package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/clockskew"
)

// rotationTakes is how long after it was asked for, a change of keys is late on an agent that has been seen since: an agent
// that is connected makes new ones at once.
const rotationTakes = 10 * time.Minute

// agentTrouble is what is wrong with an agent in a few words; empty when nothing is. That it is not connected, or revoked,
// is its state. Of a revoked one only what became of its insights still matters.
func agentTrouble(g api.Agent) string {
	var words []string
	if g.RevokedAt.IsZero() {
		words = append(words, identityTrouble(g)...)
		words = append(words, flowTrouble(g.Status)...)
	}
	if of := trouble(&g.Outbox); of != "" {
		words = append(words, of)
	}
	return strings.Join(words, ", ")
}

// identityTrouble is about who the agent is, its clock and its keys.
func identityTrouble(g api.Agent) []string {
	var words []string
	if g.Lock != nil {
		words = append(words, "locked")
	}
	if clockskew.IsOff(g.ClockSkew) {
		words = append(words, "clock "+clockskew.Length(g.ClockSkew)+" "+clockskew.Side(g.ClockSkew))
	}
	switch {
	case g.RotationAskedAt.IsZero():
	case rotationOverdue(g):
		words = append(words, "keys not changed")
	default:
		words = append(words, "keys to change")
	}
	return words
}

// flowTrouble is about what the agent shall run.
func flowTrouble(s *api.AgentStatus) []string {
	if s == nil {
		return nil
	}
	var words []string
	if s.BundleError != "" {
		words = append(words, "flows refused")
	}
	setBack, failing := 0, 0
	for _, f := range s.Flows {
		switch {
		case f.SetBackFrom > 0:
			setBack++
		case isFailing(f):
			failing++
		}
	}
	if setBack > 0 {
		words = append(words, fmt.Sprintf("%d set back", setBack))
	}
	if failing > 0 {
		words = append(words, fmt.Sprintf("%d failing", failing))
	}
	return words
}

// isFailing says whether a flow, or a system that it reads, does not work.
func isFailing(f api.FlowStatus) bool {
	return slices.Contains([]string{"failed", "refused", "backing_off"}, f.State) ||
		slices.ContainsFunc(f.Sources, func(s api.SourceStatus) bool { return s.State == "failing" })
}

// upToDate says whether the agent runs what it shall.
func upToDate(g api.Agent) string {
	same := g.AppliedSerial == g.DesiredSerial
	of := fmt.Sprintf("%d of %d", g.AppliedSerial, g.DesiredSerial)
	switch refused := g.Status != nil && g.Status.BundleError != ""; {
	case refused && same:
		return "no (refused)"
	case refused:
		return "no (" + of + ", refused)"
	case same:
		return "yes"
	}
	return "no (" + of + ")"
}
