package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
)

// reported says whether the agent has ever told of its outbox.
func reported(o *api.Outbox) bool { return !o.ReportedAt.IsZero() }

// waiting is what waits on an agent, like 12 (3.3 KiB).
func waiting(o *api.Outbox) string {
	if !reported(o) {
		return ""
	}
	if o.WaitingRecords == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", o.WaitingRecords, terminal.Bytes(o.WaitingBytes))
}

// roomFor is how long the room lasts; empty when it does not fill.
func roomFor(o *api.Outbox) string {
	if !reported(o) || o.RunwaySeconds < 0 {
		return ""
	}
	return terminal.Long(time.Duration(o.RunwaySeconds) * time.Second)
}

// trouble is what is wrong with an outbox in a few words; empty when nothing is.
func trouble(o *api.Outbox) string {
	var expired uint64
	for _, n := range o.Expired {
		expired += n
	}
	back := wentBack(o.Damage)
	var words []string
	for _, w := range []struct {
		there bool
		text  string
	}{
		{o.Degraded != "", "degraded"},
		{o.Blocked > 0 && o.Degraded == "", "blocked"},
		{o.Lost+o.LostRemotely > 0, strconv.FormatUint(o.Lost+o.LostRemotely, 10) + " lost"},
		{expired > 0, strconv.FormatUint(expired, 10) + " expired"},
		{len(o.Damage) > back, plural(len(o.Damage)-back, "damaged file")},
		{back > 0, "staging went back"},
		{slices.ContainsFunc(o.SetAside, func(s api.SetAside) bool { return s.Waiting != 0 }), "an earlier agent's insights"},
		{o.Refused > 0, strconv.FormatInt(o.Refused, 10) + " refused"},
	} {
		if w.there {
			words = append(words, w.text)
		}
	}
	return strings.Join(words, ", ")
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// describeDamage prints what happened to the damaged files that an agent keeps, and what to do about them.
func (a *app) describeDamage(g *api.Agent) error {
	damage := g.Outbox.Damage
	if len(damage) == 0 {
		return nil
	}
	names := map[string]string{}
	if g.Status != nil {
		for _, f := range g.Status.Flows {
			names[f.DeploymentID] = f.Name
		}
	}
	flows := func(ids []string) string {
		out := make([]string, len(ids))
		for i, id := range ids {
			out[i] = cmp.Or(names[id], "a flow that is gone ("+id+")")
			if inner, ok := strings.CutPrefix(id, "("); ok {
				// The agent says why it does not know which one it was.
				out[i] = strings.TrimSuffix(inner, ")")
			}
		}
		return cmp.Or(strings.Join(out, ", "), "-")
	}
	rows := make([][]string, len(damage))
	for i := range damage {
		d := &damage[i]
		rows[i] = []string{
			stamp(d.At), d.File, strconv.FormatUint(d.Salvaged, 10), strconv.FormatUint(d.Lost, 10),
			flows(d.SetBack), flows(d.StartedAnew), d.Reason,
		}
	}
	if err := a.print(""); err != nil {
		return err
	}
	if err := a.table([]string{"DAMAGED FILE SET ASIDE", "NAME", "SALVAGED", "LOST", "SET BACK", "STARTED ANEW", "REASON"}, rows); err != nil {
		return err
	}
	if len(damage) == wentBack(damage) {
		// The reason says what to do.
		return nil
	}
	return a.print("%s", damageAdvice(g.Hostname))
}

// wentBack is how many of what is listed as damaged stand for an older copy of the staging (docs/staging.md).
func wentBack(damage []api.DamagedFile) (n int) {
	for i := range damage {
		if strings.HasPrefix(damage[i].File, "outbox.corrupt-") {
			n++
		}
	}
	return n
}

// damageAdvice is what to do about damaged files.
func damageAdvice(host string) string {
	return "Check the disk of " + cmp.Or(terminal.Text(host), "its machine") + ": only a failing disk, its driver, or somebody writing into the folder damages files.\n" +
		"Flows that were set back or started anew read again, so some of their insights may come twice. The agent goes on by itself;\n" +
		"remove the files from its staging folder when nobody needs them, and this note is gone after its next start."
}

// describeOutbox prints the account of an agent's insights.
func (a *app) describeOutbox(g *api.Agent) error {
	o := &g.Outbox
	rows := [][]string{
		{"Stored here", strconv.FormatInt(o.Stored, 10), ""},
		{"Refused here", strconv.FormatInt(o.Refused, 10), "came and could never be stored: outfeed insight refused"},
	}
	for _, reason := range slices.Sorted(maps.Keys(o.Receipts)) {
		rows = append(rows, []string{"Never came", strconv.FormatInt(o.Receipts[reason], 10), receiptText(reason)})
	}
	if reported(o) {
		rows = append(a.agentRows(o), rows...)
	}
	if err := a.table([]string{"INSIGHTS", "NUMBER", "MEANING"}, rows); err != nil {
		return err
	}
	if reported(o) && !g.Connected && g.RevokedAt.IsZero() {
		if err := a.print("It is not connected: what it has produced since %s waits on its machine, where outfeed-agent status says how much that is.", stamp(o.ReportedAt)); err != nil {
			return err
		}
	}
	if len(o.Receipts) > 0 {
		if err := a.print("Which never came, and when that was told: outfeed insight missing --agent %s", terminal.Text(g.Name)); err != nil {
			return err
		}
	}
	return a.describeDamage(g)
}

// agentRows is what the agent says itself.
func (a *app) agentRows(o *api.Outbox) [][]string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	room := "does not fill at the present rate"
	switch {
	case o.Degraded != "":
		room = "cannot be used until the disk can be written"
	case o.Blocked > 0:
		room = "full: the flows wait"
	case o.RunwaySeconds >= 0:
		room = roomFor(o) + " of room left at the present rate"
	}
	rows := [][]string{
		{"Produced", number(o.Produced), "staged on the agent, as of " + stamp(o.ReportedAt)},
		{"Sent", number(o.Sent), "at least once, or reported as gone"},
		{"Acknowledged", number(o.Acknowledged), "as far as the agent knows"},
		{"Waiting", number(o.WaitingRecords), terminal.Bytes(o.WaitingBytes)},
		{"Room", terminal.Bytes(o.RoomBytes), room},
		{"Rows too late", number(o.Late), "for the window that they belong to"},
	}
	for _, rule := range slices.Sorted(maps.Keys(o.Expired)) {
		rows = append(rows, []string{"Expired", number(o.Expired[rule]), receiptText(rule)})
	}
	rows = append(rows,
		[]string{"Lost", number(o.Lost), "damaged on the agent's disk, or too large to be sent"},
		[]string{"Lost afterwards", number(o.LostRemotely), "acknowledged, and then gone from this control plane's database"})
	if o.DamagedFiles > 0 {
		rows = append(rows,
			[]string{"Damaged files", number(o.DamagedFiles), "of the agent's staging, set aside so far"},
			[]string{"Salvaged", number(o.Salvaged), "taken whole out of damaged files"})
	}
	for _, s := range o.SetAside {
		number := "unknown"
		if s.Waiting >= 0 {
			number = strconv.FormatInt(s.Waiting, 10)
		}
		rows = append(rows, []string{"Set aside", number, "of agent " + cmp.Or(s.AgentID, "unknown") + ", which this machine was before: not sent, in " + s.Dir})
	}
	if o.Degraded != "" {
		rows = append(rows, []string{"Staging", "degraded", o.Degraded})
	}
	if o.Blocked > 0 {
		why := o.BlockedBy
		if o.Degraded != "" {
			why = "until the disk can be written"
		}
		rows = append(rows, []string{"Commits waiting", number(o.Blocked), why})
	}
	return rows
}

// receiptText says what a reason means for which an insight did not come.
func receiptText(reason string) string {
	switch reason {
	case "damaged":
		return "damaged on the agent's disk"
	case "restored":
		return "gone from this control plane's database, and from the agent before that"
	case "expired_age":
		return "dropped by the agent's rule for age"
	case "expired_bytes":
		return "dropped by the agent's rule for bytes"
	case "unsendable":
		return "too large or not readable, so the agent could not send it"
	case "other":
		return "for another reason"
	}
	return reason
}

func (a *app) insightRefused() *cobra.Command {
	return a.ofAgents(&cobra.Command{
		Use: "refused", Short: "List insights that came and could never be stored",
		Long: `Lists insights that agents sent and that the control plane could not store, with the reason, newest first. They hold up
nothing. The newest 1,000 of each agent are kept. With --json, each is one line of JSON with the record as it came.`,
		Example: `  outfeed insight refused --agent hall-3
  outfeed insight refused --limit 1000 --json > refused.jsonl`,
	}, "how many at most", a.listRefused)
}

func (a *app) insightMissing() *cobra.Command {
	return a.ofAgents(&cobra.Command{
		Use: "missing", Short: "List insights that never came, and why",
		Long: `Lists the ranges of agents' sequences that hold no insight, with the reason that the agent gave and when it told of them,
newest first. The newest 1,000 ranges of each agent are kept; outfeed agent show counts them all.`,
		Example: `  outfeed insight missing --agent hall-3
  outfeed insight missing --limit 1000 --json > missing.jsonl`,
	}, "how many ranges at most", a.listMissing)
}

// ofAgents completes a command that lists what concerns all agents, or one.
func (a *app) ofAgents(
	c *cobra.Command, howMany string, list func(ctx context.Context, remote *client.Client, q url.Values, limit int, asJSON *bool) error,
) *cobra.Command {
	var agent string
	var limit int
	c.Args = cobra.NoArgs
	c.Flags().StringVar(&agent, "agent", "", "only those of an agent, by name or id")
	c.Flags().IntVar(&limit, "limit", 100, howMany)
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		if err := checkLimit(limit, maxInsights); err != nil {
			return err
		}
		q := url.Values{}
		setIf(q, "agent", agent)
		return list(ctx, remote, q, limit, asJSON)
	})
	return c
}

// checkLimit says what is wrong with a --limit.
func checkLimit(limit, most int) error {
	if limit < 1 || limit > most {
		return usagef("--limit %d: it is between 1 and %d", limit, most)
	}
	return nil
}

// refusedPage is how many refused insights are asked for at once.
const refusedPage = 200

// agentNames are the names of the agents by their ids.
func agentNames(ctx context.Context, remote *client.Client) (map[string]string, error) {
	agents, err := allAgents(ctx, remote)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, g := range agents {
		names[g.ID] = g.Name
	}
	return names, nil
}

func (a *app) listMissing(ctx context.Context, remote *client.Client, q url.Values, limit int, asJSON *bool) error {
	names, err := agentNames(ctx, remote)
	if err != nil {
		return err
	}
	next := func(n int) ([]api.MissingInsights, string, error) {
		q.Set("limit", strconv.Itoa(min(n, refusedPage)))
		page, err := client.Get[api.MissingInsightsPage](ctx, remote, "/insights/missing", q)
		q.Set("after", page.Next)
		return page.Items, page.Next, err
	}
	return listEach(a, asJSON, pages(limit, next), []string{"TOLD", "AGENT", "FROM", "TO", "INSIGHTS", "REASON"}, func(m api.MissingInsights) []string {
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		return []string{stamp(m.LastAt), names[m.AgentID], number(m.FirstSeq), number(m.LastSeq), number(m.Insights), receiptText(m.Reason)}
	})
}

func (a *app) listRefused(ctx context.Context, remote *client.Client, q url.Values, limit int, asJSON *bool) error {
	names, err := agentNames(ctx, remote)
	if err != nil {
		return err
	}
	next := func(n int) ([]api.RefusedInsight, string, error) {
		q.Set("limit", strconv.Itoa(min(n, refusedPage)))
		page, err := client.Get[api.RefusedInsightPage](ctx, remote, "/insights/refused", q)
		q.Set("after", page.Next)
		return page.Items, page.Next, err
	}
	return listEach(a, asJSON, pages(limit, next), []string{"RECEIVED", "AGENT", "SEQUENCE", "INSIGHT", "REASON"}, func(r api.RefusedInsight) []string {
		return []string{stamp(r.ReceivedAt), names[r.AgentID], strconv.FormatInt(r.Seq, 10), r.Name, r.Reason}
	})
}
