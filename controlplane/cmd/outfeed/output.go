package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/internal/terminal"
)

// jsonFlag adds --json.
func jsonFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("json", false, "print JSON, as the API gives it")
}

// printJSON prints something for a machine, which cannot steer the terminal either.
func (a *app) printJSON(v any) error { return terminal.WriteJSON(a.stdout, v, "  ") }

// printLine prints something for a machine on one line.
func (a *app) printLine(v any) error { return terminal.WriteJSON(a.stdout, v, "") }

// table prints rows under headings. What comes from plants cannot steer the terminal.
func (a *app) table(heading []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = terminal.Text(strings.ReplaceAll(cell, "\n", " ")); cell == "" {
				cells[i] = "-"
			}
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // Flush tells
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// list prints a listing, as JSON or as a table with one row for each item.
func list[T any](a *app, asJSON *bool, items []T, heading []string, row func(T) []string) error {
	if *asJSON {
		return a.printJSON(items)
	}
	rows := make([][]string, len(items))
	for i, item := range items {
		rows[i] = row(item)
	}
	return a.table(heading, rows)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func pairs(labels map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, name+"="+labels[name])
	}
	return strings.Join(out, " ")
}

// splitPairs reads the values of a flag like --label k=v.
func splitPairs(flag string, values []string) (map[string]string, error) {
	out := map[string]string{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, usagef("--%s %s: write it as name=value", flag, v)
		}
		if _, twice := out[name]; twice {
			return nil, usagef("--%s %s: %s is given twice", flag, v, name)
		}
		out[name] = value
	}
	return out, nil
}
