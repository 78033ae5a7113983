package main

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
)

// pageSize is how many insights are asked for at once, maxInsights how many a query gives at most.
const (
	pageSize    = 1000
	maxInsights = 1_000_000
)

func (a *app) insightCommand() *cobra.Command {
	return group("insight", "Query and follow insights", a.insightQuery(), a.insightTail(), a.insightRefused(), a.insightMissing())
}

// selection is the flags that choose insights.
type selection struct {
	flow, agent string
	keys        []string
}

func (s *selection) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.flow, "flow", "", "only those of a flow, by name or id")
	c.Flags().StringVar(&s.agent, "agent", "", "only those of an agent, by name or id")
	c.Flags().StringArrayVar(&s.keys, "key", nil, "only those with a member of the key, as in machine=M1; may be repeated")
}

// query is the selection as parameters of the API. The name is the command's optional argument.
func (s *selection) query(args []string) (url.Values, error) {
	keys, err := splitPairs("key", s.keys)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	for member, value := range keys {
		q.Set("key."+member, value)
	}
	if len(args) > 0 {
		q.Set("name", args[0])
	}
	setIf(q, "flow", s.flow)
	setIf(q, "agent", s.agent)
	return q, nil
}

func setIf(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func (a *app) insightQuery() *cobra.Command {
	var s selection
	var from, to string
	var limit int
	c := &cobra.Command{
		Use: "query [NAME]", Short: "List insights, newest first",
		Long: `Lists insights, newest first. --from and --to take a time (RFC 3339) or how long ago (90m). With --json, each insight is
one line of JSON.`,
		Example: `  outfeed insight query press_health --key machine=M1 --from 24h
  outfeed insight query press_health --from 2026-03-01T06:00:00Z --limit 10000 --json > health.jsonl`,
		Args: cobra.MaximumNArgs(1),
	}
	s.flags(c)
	c.Flags().StringVar(&from, "from", "", "the earliest time, or how long ago that was")
	c.Flags().StringVar(&to, "to", "", "the end of the time range, or how long ago that was")
	c.Flags().IntVar(&limit, "limit", 100, "how many at most")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		q, err := s.query(args)
		if err != nil {
			return err
		}
		for name, value := range map[string]string{"from": from, "to": to} {
			at, err := a.moment(name, value)
			if err != nil {
				return err
			}
			setIf(q, name, at)
		}
		if err := checkLimit(limit, maxInsights); err != nil {
			return err
		}
		return a.queryInsights(ctx, remote, q, limit, asJSON)
	})
	return c
}

// moment reads a time, or a duration that has passed since.
func (a *app) moment(flag, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if ago, err := time.ParseDuration(value); err == nil && ago >= 0 {
		return a.now().Add(-ago).UTC().Format(time.RFC3339Nano), nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return "", usagef("--%s %s: write a time like 2026-03-01T06:00:00Z, or how long ago, like 90m", flag, value)
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}

func (a *app) queryInsights(ctx context.Context, remote *client.Client, q url.Values, limit int, asJSON *bool) error {
	next := func(n int) ([]api.Insight, string, error) {
		q.Set("limit", strconv.Itoa(min(n, pageSize)))
		page, err := client.Get[api.InsightPage](ctx, remote, "/insights", q)
		q.Set("after", page.Next)
		return page.Items, page.Next, err
	}
	return listEach(a, asJSON, pages(limit, next), []string{"TIME", "INSIGHT", "KEY", "VALUES"}, func(i api.Insight) []string {
		return []string{stamp(i.Time), i.Name, string(i.Key), string(i.Values)}
	})
}

// pages gives up to limit items. next gives at most so many more of them, and says where the page behind them begins, empty
// when there is none.
func pages[T any](limit int, next func(n int) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for left := limit; left > 0; {
			items, after, err := next(left)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if left -= len(items); after == "" || len(items) == 0 {
				return
			}
		}
	}
}

// listEach prints items as a table, or each as a line of JSON as it comes.
func listEach[T any](a *app, asJSON *bool, items iter.Seq2[T, error], heading []string, row func(T) []string) error {
	var rows [][]string
	for item, err := range items {
		if err == nil && *asJSON {
			err = a.printLine(item)
		}
		if err != nil {
			return err
		}
		if !*asJSON {
			rows = append(rows, row(item))
		}
	}
	if *asJSON {
		return nil
	}
	return a.table(heading, rows)
}

// insightLine is an insight on one line for people.
func insightLine(i api.Insight) string {
	return terminal.Line(fmt.Sprintf("%s %s %s %s", stamp(i.Time), i.Name, i.Key, i.Values))
}
