package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
)

func TestInsightRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stdout, _ := b.run(0, "insight", "refused", "--agent", "hall-3")
	contains(t, stdout, "RECEIVED", "hall-3", "it has \\x1bno name", "its key is no JSON object")
	stdout, _ = b.run(0, "insight", "refused", "--limit", "1", "--json")
	var one api.RefusedInsight
	if err := json.Unmarshal([]byte(stdout), &one); err != nil || one.Seq != 7 || strings.Count(stdout, "\n") != 1 {
		t.Errorf("JSON is %s, %v", stdout, err)
	}
	b.run(2, "insight", "refused", "--limit", "0")
	b.run(1, "insight", "refused", "--agent", "nobody")
}

func TestInsightMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stdout, _ := b.run(0, "insight", "missing", "--agent", "hall-3")
	contains(t, stdout, "TOLD", "hall-3  20    24  5         dropped by the agent's rule for age", "hall-3  7     8   2         damaged on the agent's disk")
	stdout, _ = b.run(0, "insight", "missing", "--limit", "1", "--json")
	var one api.MissingInsights
	if err := json.Unmarshal([]byte(stdout), &one); err != nil || one.FirstSeq != 20 || one.Insights != 5 || strings.Count(stdout, "\n") != 1 {
		t.Errorf("JSON is %s, %v", stdout, err)
	}
	b.run(2, "insight", "missing", "--limit", "0")
	b.run(1, "insight", "missing", "--agent", "nobody")
}
