package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
)

func (a *app) agentCommand() *cobra.Command {
	return group("agent", "Enrol, list, show, unlock and revoke agents, and change their keys",
		a.agentList(), a.agentShow(), a.agentToken(), a.agentUnlock(), a.agentRotate(), a.agentRevoke())
}

func (a *app) agentList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the agents and whether they are connected",
		Example: "  outfeed agent list\n  outfeed agent list --json", Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		agents, err := allAgents(ctx, remote)
		if err != nil {
			return err
		}
		for _, g := range agents {
			if g.Lock != nil && g.RevokedAt.IsZero() {
				a.say("%s", terminal.Text(fmt.Sprintf("The agent %s is LOCKED: a copy of it has connected. See: outfeed agent show %s", g.Name, g.Name)))
			}
		}
		heading := []string{"NAME", "STATE", "LABELS", "FLOWS", "WAITING", "ROOM FOR", "TROUBLE", "UP TO DATE", "VERSION", "LAST SEEN"}
		return list(a, asJSON, agents, heading, func(g api.Agent) []string {
			return []string{
				g.Name, agentState(g), pairs(g.Labels), flowCount(g), waiting(&g.Outbox), roomFor(&g.Outbox), agentTrouble(g), upToDate(g), g.Version, stamp(g.LastSeenAt),
			}
		})
	})
	return c
}

// agentPages bounds how many pages of agents are asked for.
const agentPages = 10_000

// allAgents are the agents, page by page, each in brief.
func allAgents(ctx context.Context, remote *client.Client) ([]api.Agent, error) {
	all, q := []api.Agent{}, url.Values{"limit": {"500"}}
	for range agentPages {
		page, err := client.Get[api.AgentPage](ctx, remote, "/agents", q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			return all, nil
		}
		q.Set("after", page.Next)
	}
	return nil, errors.New("the control plane gives ever more agents, so the list is not shown")
}

func agentState(g api.Agent) string {
	switch {
	case !g.RevokedAt.IsZero():
		return "revoked"
	case g.Lock != nil:
		return "LOCKED"
	case g.Connected:
		return "connected"
	}
	return "offline"
}

// flowCount is how many of an agent's flows work, like 2/3.
func flowCount(g api.Agent) string {
	if g.Status == nil {
		return ""
	}
	fine := 0
	for _, f := range g.Status.Flows {
		if f.Error == "" && !isFailing(f) {
			fine++
		}
	}
	all := len(g.Status.Flows) + g.Status.FlowsLeftOut
	if g.Status.FlowsLeftOut > 0 {
		return strconv.Itoa(all)
	}
	return fmt.Sprintf("%d/%d", fine, all)
}

func (a *app) agentShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show AGENT", Short: "Show an agent, its flows and what they say",
		Example: "  outfeed agent show hall-3", Args: cobra.ExactArgs(1),
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		g, err := client.Get[api.Agent](ctx, remote, "/agents/"+url.PathEscape(args[0]), nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(g)
		}
		return a.describeAgent(g)
	})
	return c
}

func (a *app) describeAgent(g api.Agent) error {
	facts := [][]string{
		{"State", agentState(g)},
		{"Trouble", agentTrouble(g)},
		{"Id", g.ID},
		{"Labels", pairs(g.Labels)},
		{"Machine", fmt.Sprintf("%s (%s/%s)", g.Hostname, g.OS, g.Arch)},
		{"Version", g.Version},
		{"Fingerprint", g.Fingerprint},
		{"Connectors", strings.Join(g.ConnectorKinds, " ")},
		{"Enrolled", stamp(g.CreatedAt)},
		{"Last seen", stamp(g.LastSeenAt)},
		{"Up to date", upToDate(g)},
	}
	if !g.RevokedAt.IsZero() {
		facts = append(facts, []string{"Revoked", stamp(g.RevokedAt)})
	}
	facts = append(facts, identityFacts(g)...)
	if g.Status != nil && g.Status.BundleError != "" {
		facts = append(facts, []string{"Refused", g.Status.BundleError})
	}
	if err := a.table([]string{"Name", g.Name}, facts); err != nil {
		return err
	}
	if err := a.print(""); err != nil {
		return err
	}
	if err := a.describeOutbox(&g); err != nil {
		return err
	}
	if g.Status == nil || len(g.Status.Flows) == 0 {
		return nil
	}
	if err := a.print(""); err != nil {
		return err
	}
	var rows [][]string
	for _, f := range g.Status.Flows {
		version := strconv.Itoa(f.Version)
		if f.SetBackFrom > 0 {
			version += fmt.Sprintf(" (set back from %d)", f.SetBackFrom)
		}
		rows = append(rows, []string{f.Name, version, "", f.State, stamp(f.Since), f.Error})
		for _, s := range f.Sources {
			rows = append(rows, []string{"  " + s.Step, "", s.Connection, s.State, stamp(s.LastRecord), s.Error})
		}
	}
	return a.table([]string{"FLOW", "VERSION", "CONNECTION", "STATE", "SINCE / LAST RECORD", "ERROR"}, rows)
}

func (a *app) agentToken() *cobra.Command {
	var labels []string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "token", Short: "Make a token with which one machine becomes an agent",
		Long: `Prints an enrolment token. It works once, within its time, and carries the control plane's fingerprint, so that the
agent knows whom it enrols with. The token goes to standard output; what to run with it, to standard error.`,
		Example: "  outfeed agent token --label site=berlin --label line=3 --ttl 15m > token.txt", Args: cobra.NoArgs,
	}
	c.Flags().StringArrayVar(&labels, "label", nil, "a label of the new agent, as name=value; may be repeated")
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid, at most 1h")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		of, err := splitPairs("label", labels)
		if err != nil {
			return err
		}
		if ttl < time.Second || ttl > time.Hour {
			return usagef("--ttl %s: it is at least 1s and at most 1h", ttl)
		}
		created, err := client.Post[api.AgentTokenCreated](ctx, remote, "/agent-tokens",
			api.AgentTokenCreate{Labels: of, TTLSeconds: int(ttl / time.Second)})
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(created)
		}
		where := cmp.Or(created.URL, remote.URL())
		a.say("Valid until %s, once. On the machine in the plant:\n\n  outfeed-agent enroll --url %s --token -\n\nand give it this token on its standard input:",
			stamp(created.AgentToken.ExpiresAt), where)
		return a.print("%s", created.Token)
	})
	return c
}

func (a *app) agentRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke AGENT", Short: "Revoke an agent, at once and for good",
		Long:    "Cuts the agent's session and never lets it connect again. To use the machine again, enrol it anew.",
		Example: "  outfeed agent revoke hall-3", Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
			if err := remote.Order(ctx, http.MethodPost, "/agents/"+url.PathEscape(args[0])+"/revoke", nil); err != nil {
				return err
			}
			return a.print("Revoked agent %s.", args[0])
		}),
	}
}
