package main

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/clockskew"
	"github.com/outfeed/outfeed/internal/terminal"
)

// identityFacts are what is to be known of an agent's lock, clock and keys.
func identityFacts(g api.Agent) [][]string {
	var facts [][]string
	if l := g.Lock; l != nil {
		facts = append(facts,
			[]string{"LOCKED", lockReason(l.Reason) + ", at " + stamp(l.Since)},
			[]string{"  connected", sideText(l.Connected)},
			[]string{"  other", sideText(l.Other)},
			[]string{"  decide with", "outfeed agent unlock " + g.Name + " --keep connected|other"})
	}
	if clockskew.IsOff(g.ClockSkew) {
		facts = append(facts,
			[]string{"Clock", clockskew.Length(g.ClockSkew) + " " + clockskew.Against(g.ClockSkew)},
			[]string{"  set it with", clockskew.Remedy(g.OS)},
			[]string{"  until then", clockskew.Meanwhile})
	}
	switch {
	case rotationOverdue(g):
		facts = append(facts,
			[]string{"Keys", "not changed, though that was asked at " + stamp(g.RotationAskedAt) + " and the agent was connected since"},
			[]string{"  see why with", "outfeed-agent rotate-keys, on its machine: as a rule its disk cannot be written"},
			[]string{"  until then", "its present keys stay good, and it tries again each time it connects"})
	case !g.RotationAskedAt.IsZero():
		facts = append(facts, []string{"Keys", "shall change, asked at " + stamp(g.RotationAskedAt)})
	case !g.RotatedAt.IsZero():
		facts = append(facts, []string{"Keys", "changed at " + stamp(g.RotatedAt)})
	}
	return facts
}

// rotationOverdue says whether the agent was connected for long enough to change its keys, and has not.
func rotationOverdue(g api.Agent) bool {
	return !g.RotationAskedAt.IsZero() && g.LastSeenAt.Sub(g.RotationAskedAt) > rotationTakes
}

func lockReason(reason string) string {
	switch reason {
	case "counter":
		return "a connect counter came twice"
	case "session":
		return "the value of a session came that another has followed"
	case "retired_key":
		return "a key came that was given up in a rotation"
	default:
		return reason
	}
}

func sideText(s api.LockSide) string {
	if s.Hostname == "" {
		return "not known"
	}
	return fmt.Sprintf("%s from %s, last at %s, connect %d", s.Hostname, s.Address, stamp(s.Seen), s.Counter)
}

func (a *app) agentUnlock() *cobra.Command {
	var keep string
	var yes bool
	c := &cobra.Command{
		Use: "unlock AGENT --keep connected|other", Short: "Decide which of two copies of a locked agent goes on",
		Long: `An agent is locked when a copy of its data directory has connected, or an older state of it that was restored from a
backup or a snapshot. Both copies are kept out, and what waits on them stays there, until an owner decides here.

"connected" is the copy that had connected before, "other" the one whose connection made the lock; "outfeed agent show"
says where each came from. The copy that is kept connects again by itself within about a minute. The other one is
refused for good: stop it, and enrol its machine anew if it shall be an agent too.`,
		Example: "  outfeed agent unlock hall-3 --keep connected\n  outfeed agent unlock hall-3 --keep other --yes --json", Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&keep, "keep", "", "the copy that goes on: connected or other")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		if keep != "connected" && keep != "other" {
			return usagef("--keep %q: it is connected or other", keep)
		}
		path := "/agents/" + url.PathEscape(args[0])
		g, err := client.Get[api.Agent](ctx, remote, path, nil)
		if err != nil {
			return err
		}
		if g.Lock != nil && !yes {
			if err := a.confirmUnlock(g, keep); err != nil {
				return err
			}
		}
		if g, err = client.Post[api.Agent](ctx, remote, path+"/unlock", api.AgentUnlock{Keep: keep}); err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(g)
		}
		return a.print("%s", terminal.Text(fmt.Sprintf("Unlocked agent %s. The copy %q connects within about a minute; the other one is refused for good.", g.Name, keep)))
	})
	return c
}

// confirmUnlock shows both copies and asks.
func (a *app) confirmUnlock(g api.Agent, keep string) error {
	kept, refused := g.Lock.Connected, g.Lock.Other
	if keep == "other" {
		kept, refused = refused, kept
	}
	a.say("%s", terminal.Text(fmt.Sprintf("Of agent %s\n  goes on:           %s\n  refused for good:  %s\nGo on? Type yes:",
		g.Name, sideText(kept), sideText(refused))))
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if answer := strings.TrimSpace(line); answer == "yes" {
		return nil
	} else if err != nil && answer == "" {
		return usagef("nobody answered; to decide without being asked, add --yes")
	}
	return failure{fmt.Errorf("nothing was changed: the agent %s stays locked", g.Name)}
}

func (a *app) agentRotate() *cobra.Command {
	c := &cobra.Command{
		Use: "rotate AGENT", Short: "Have an agent change its keys",
		Long: `Has the agent make new keys, at once or when it connects the next time. The old and the new ones both work until the
agent has connected with the new ones; after that the old ones are worth nothing, and whoever shows them locks the agent.`,
		Example: "  outfeed agent rotate hall-3", Args: cobra.ExactArgs(1),
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		g, err := client.Post[api.Agent](ctx, remote, "/agents/"+url.PathEscape(args[0])+"/rotate", nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(g)
		}
		when := "now"
		if !g.Connected {
			when = "when it connects"
		}
		return a.print("%s", terminal.Text(fmt.Sprintf("Agent %s changes its keys %s. See: outfeed agent show %s", g.Name, when, g.Name)))
	})
	return c
}
