package main

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
)

func (a *app) runCommand() *cobra.Command {
	return group("run", "List and show runs of flows", a.runList(), a.runShow())
}

func (a *app) runList() *cobra.Command {
	var flow, agent, status string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List runs, newest first",
		Example: "  outfeed run list --flow lathe-cycles --status failed", Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&flow, "flow", "", "only those of a flow, by name or id")
	c.Flags().StringVar(&agent, "agent", "", "only those of an agent, by name or id")
	c.Flags().StringVar(&status, "status", "", "only those with a status, as in failed")
	c.Flags().IntVar(&limit, "limit", 50, "how many at most, up to 1000")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		if err := checkLimit(limit, 1000); err != nil {
			return err
		}
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		setIf(q, "flow", flow)
		setIf(q, "agent", agent)
		setIf(q, "status", status)
		runs, err := client.Get[api.List[api.Run]](ctx, remote, "/runs", q)
		if err != nil {
			return err
		}
		heading := []string{"STARTED", "FLOW", "VERSION", "STATUS", "TOOK", "READ", "FAILED", "LATE", "INSIGHTS", "ID", "ERROR"}
		return list(a, asJSON, runs.Items, heading, func(r api.Run) []string {
			return []string{
				stamp(r.StartedAt), r.FlowName, strconv.Itoa(r.Version), r.Status, took(r), count(r.RecordsRead),
				count(r.Failed), count(r.Late), count(r.Insights), r.ID, r.Error,
			}
		})
	})
	return c
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

func took(r api.Run) string {
	if r.EndedAt.IsZero() {
		return ""
	}
	return r.EndedAt.Sub(r.StartedAt).Round(time.Millisecond).String()
}

func (a *app) runShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show ID", Short: "Show a run with its steps, some of its failing records, and notes",
		Example: "  outfeed run show 01950000-0000-7000-8000-000000000030", Args: cobra.ExactArgs(1),
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		r, err := client.Get[api.Run](ctx, remote, "/runs/"+url.PathEscape(args[0]), nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(r)
		}
		return a.describeRun(r)
	})
	return c
}

func (a *app) describeRun(r api.Run) error {
	facts := [][]string{
		{"Flow", r.FlowName + " version " + strconv.Itoa(r.Version)},
		{"Status", r.Status},
		{"Agent", r.AgentID},
		{"Started", stamp(r.StartedAt)},
		{"Took", took(r)},
		{"Records read", count(r.RecordsRead)},
		{"Bytes read", count(r.BytesRead)},
		{"Failed", count(r.Failed)},
		{"Late", count(r.Late)},
		{"Insights", count(r.Insights)},
		{"Error", r.Error},
	}
	if err := a.table([]string{"Run", r.ID}, facts); err != nil {
		return err
	}
	var steps, sample [][]string
	for _, s := range r.Steps {
		steps = append(steps, []string{s.Step, count(s.RowsIn), count(s.RowsOut), count(s.RowsFailed), count(s.RowsLate), count(s.RowsOutside)})
	}
	for _, f := range r.Sample {
		sample = append(sample, []string{f.Step, f.Where, f.Reason, f.Record})
	}
	return errors.Join(
		a.section([]string{"STEP", "ROWS IN", "ROWS OUT", "FAILED", "LATE", "OUTSIDE SHIFTS"}, steps),
		a.section([]string{"STEP", "WHERE", "WHAT IS WRONG", "RECORD"}, sample),
	)
}

// section prints a table after an empty line, unless it has no rows.
func (a *app) section(heading []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if err := a.print(""); err != nil {
		return err
	}
	return a.table(heading, rows)
}

// problemsOf is what an answer says is wrong with a definition.
func problemsOf(err error) []api.FlowProblem {
	if problem, ok := errors.AsType[*client.ProblemError](err); ok {
		return problem.Problems
	}
	return nil
}
