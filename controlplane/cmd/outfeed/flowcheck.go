package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
)

// showCheck prints what a definition without problems would do.
func (a *app) showCheck(path string, check api.FlowCheck) error {
	tests := "It has no tests."
	if n := len(check.Tests); n == 1 {
		tests = "1 test passed."
	} else if n > 1 {
		tests = fmt.Sprintf("%d tests passed.", n)
	}
	if err := a.print("%s: flow %s has no problems. %s", path, terminal.Text(check.Name), tests); err != nil {
		return err
	}
	if err := a.showEgress(check); err != nil || len(check.Writes) == 0 {
		return err
	}
	var rows [][]string
	for _, w := range check.Writes {
		rows = append(rows, []string{w.Step, w.Connection, strings.Join(w.Columns, " "), optionsText(w.With)})
	}
	if err := a.print("What would be written into the plant's systems, where the agent's own configuration allows it:"); err != nil {
		return err
	}
	return a.table([]string{"STEP", "CONNECTION", "COLUMNS", "OPTIONS"}, rows)
}

func (a *app) showEgress(check api.FlowCheck) error {
	if len(check.Egress.Columns) == 0 {
		return a.print("Nothing would leave the plant.")
	}
	if err := a.print("What would leave the plant:"); err != nil {
		return err
	}
	var rows [][]string
	for _, c := range check.Egress.Columns {
		how := "raw"
		if c.Aggregated {
			how = "aggregated"
		}
		rows = append(rows, []string{c.Insight, c.Column, c.Type, how, strings.Join(c.Sources, " ")})
	}
	return a.table([]string{"INSIGHT", "COLUMN", "TYPE", "HOW", "FROM"}, rows)
}

// optionsText gives options as name=value, by name.
func optionsText(options map[string]any) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value, isText := options[name].(string)
		if !isText {
			text, err := json.Marshal(options[name])
			if err != nil {
				text = []byte("?")
			}
			value = string(text)
		}
		list = append(list, name+"="+value)
	}
	return strings.Join(list, " ")
}
