package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/clockskew"
	"github.com/outfeed/outfeed/internal/terminal"
)

func statusCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how the agent on this machine is doing",
		Long: `Shows the connection to the control plane, every flow with its sources, and the account of the insights: how many were
produced, sent, acknowledged and wait, how long the room for them lasts, and which expired or were lost. docs/staging.md
says what each number counts, under the names that --json gives them.`,
		Example: "  outfeed-agent status\n  outfeed-agent status --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			s, err := agent.ReadStatus(c.Context(), cfg)
			if err != nil {
				return err
			}
			if f.json {
				return terminal.WriteJSON(c.OutOrStdout(), s, "  ")
			}
			return printStatus(tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0), s)
		},
	}
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func printStatus(w *tabwriter.Writer, s agent.LocalStatus) error {
	fmt.Fprintf(w, "agent\t%s\t%s\n", s.AgentID, s.Version)
	if found := attention(&s); len(found) > 0 {
		fmt.Fprintf(w, "attention\t%d\t%s\n", len(found), strings.Join(found, "; "))
	}
	fmt.Fprintf(w, "control plane\t%s\t%s\n", s.ControlPlane, connection(s.Tunnel))
	if skew := s.Tunnel.ClockSkew; clockskew.IsOff(skew) {
		fmt.Fprintf(w, "clock\toff by %s\t%s; set it: %s\n", clockskew.Length(skew), clockskew.Against(skew), clockskew.Remedy(runtime.GOOS))
		fmt.Fprintf(w, "\t\tuntil then %s\n", clockskew.Meanwhile)
	}
	if s.Tunnel.RotationError != "" {
		fmt.Fprintf(w, "keys\tnot changed\t%s; the present ones stay good, and it is tried again at the next connect\n", terminal.Line(s.Tunnel.RotationError))
	}
	if s.BundleError != "" {
		fmt.Fprintf(w, "newest bundle\trefused\t%s\n", terminal.Line(s.BundleError))
	}
	if s.LeftBehind > 0 {
		fmt.Fprintf(w, "left behind\t%d runs\tdid not stop when they were told to; restart the agent to be rid of them\n", s.LeftBehind)
	}
	printOutbox(w, &s.Outbox)
	printDamage(w, &s)
	if len(s.Flows) == 0 {
		fmt.Fprintln(w, "flows\tnone deployed\t")
	}
	for _, fl := range s.Flows {
		fmt.Fprintf(w, "flow %s\t%s\tversion %s, since %s%s %s\n", terminal.Line(fl.Name), terminal.Line(fl.State), version(fl),
			fl.Since.Local().Format(time.DateTime), nextRun(fl.NextRun), terminal.Line(fl.Error))
		for _, src := range fl.Sources {
			fmt.Fprintf(w, "  %s from %s\t%s\t%s %s\n", terminal.Line(src.Step), terminal.Line(src.Connection), terminal.Line(src.State), lastRecord(src.LastRecord), terminal.Line(src.Error))
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the status: %w", err)
	}
	return nil
}

// shortRunway is below how many seconds of room a person should look after the agent.
const shortRunway = 24 * 60 * 60

// attention is what a person should see to, in a few words each, the worst first.
func attention(s *agent.LocalStatus) []string {
	o := &s.Outbox
	expired := uint64(0)
	for _, n := range o.Expired {
		expired += n
	}
	failing, back := 0, wentBack(o.Damage)
	for i := range s.Flows {
		if f := &s.Flows[i]; f.Error != "" || f.SetBackFrom > 0 || slices.ContainsFunc(f.Sources, func(src agent.SourceStatus) bool { return src.Error != "" }) {
			failing++
		}
	}
	var found []string
	for _, m := range []struct {
		there bool
		text  string
	}{
		{o.Degraded != "", "cannot write to its disk"},
		{o.Blocked > 0 && o.Degraded == "", "flows wait for room"},
		{!s.Tunnel.Connected, "not connected"},
		{s.BundleError != "", "newest bundle refused"},
		{failing > 0, fmt.Sprintf("%d of %d flows fail", failing, len(s.Flows))},
		{o.Blocked == 0 && o.RunwaySeconds >= 0 && o.RunwaySeconds < shortRunway, "room for less than a day"},
		{o.Lost+o.LostRemotely > 0, fmt.Sprintf("%d insights lost", o.Lost+o.LostRemotely)},
		{expired > 0, fmt.Sprintf("%d insights expired", expired)},
		{len(o.Damage) > back, "damaged files"},
		{back > 0, "staging went back"},
		{s.Tunnel.RotationError != "", "keys not changed"},
		{s.LeftBehind > 0, "runs left behind"},
		{clockskew.IsOff(s.Tunnel.ClockSkew), "clock " + clockskew.Length(s.Tunnel.ClockSkew) + " " + clockskew.Side(s.Tunnel.ClockSkew)},
		{len(o.SetAside) > 0, "insights of an earlier agent set aside"},
	} {
		if m.there {
			found = append(found, m.text)
		}
	}
	return found
}

// wentBack is how many of what is listed as damaged stand for an older copy of the staging.
func wentBack(damage []agent.DamagedFile) (n int) {
	for i := range damage {
		if damage[i].WentBack() {
			n++
		}
	}
	return n
}

// nextRun says when a flow runs again, "" when that is not known.
func nextRun(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return ", next run " + at.Local().Format(time.DateTime)
}

// version is the version that runs, and which one was set back to it.
func version(fl agent.FlowStatus) string {
	if fl.SetBackFrom > 0 {
		return fmt.Sprintf("%d, set back from %d", fl.Version, fl.SetBackFrom)
	}
	return strconv.FormatUint(uint64(fl.Version), 10)
}

func connection(t agent.TunnelStatus) string {
	if t.Connected {
		return "connected since " + t.Since.Local().Format(time.DateTime)
	}
	text := "not connected"
	if t.Error != "" {
		text += ": " + terminal.Line(t.Error)
	}
	if !t.NextTry.IsZero() {
		text += "; next try at " + clock(t.NextTry.Local(), time.Now())
	}
	return text
}

// clock is a time as it is read at another one: with its date when that is another day.
func clock(t, now time.Time) string {
	if t.Format(time.DateOnly) != now.In(t.Location()).Format(time.DateOnly) {
		return t.Format(time.DateTime)
	}
	return t.Format(time.TimeOnly)
}

func lastRecord(t time.Time) string {
	if t.IsZero() {
		return "no record yet"
	}
	return "last record " + t.Local().Format(time.DateTime)
}

// printOutbox prints the account of the outbox. What is zero and need not be is left out.
func printOutbox(w io.Writer, o *agent.OutboxStatus) {
	if o.Unknown {
		fmt.Fprintln(w, "insights\tnot known\tuntil there is room on the disk to bring the staging into order; what is staged stays")
	} else {
		printCounts(w, o)
		fmt.Fprintf(w, "room\t%s\t%s\n", terminal.Bytes(o.RoomBytes), runway(o))
	}
	if o.Degraded != "" {
		fmt.Fprintf(w, "staging\tdegraded\t%s\n", terminal.Line(o.Degraded))
	}
	if o.Blocked > 0 {
		why := o.BlockedBy
		if o.Degraded != "" {
			why = "until the disk can be written; the agent tries by itself"
		}
		fmt.Fprintf(w, "commits waiting\t%d\t%s\n", o.Blocked, terminal.Line(why))
	}
	for _, a := range o.SetAside {
		waiting := "an unknown number of"
		if a.Waiting >= 0 {
			waiting = strconv.FormatInt(a.Waiting, 10)
		}
		if a.AtMost {
			waiting = "at most " + waiting
		}
		fmt.Fprintf(w, "\tset aside\t%s insights of agent %s that were not sent, in %s\n", waiting, terminal.Line(a.AgentID), terminal.Line(a.Dir))
	}
}

// printCounts prints what was counted.
func printCounts(w io.Writer, o *agent.OutboxStatus) {
	line := func(name string, n uint64, text string) { fmt.Fprintf(w, "%s\t%d\t%s\n", name, n, text) }
	line("insights produced", o.Produced, "staged on this machine")
	line("  sent", o.Sent, "at least once, or reported as gone")
	line("  acknowledged", o.Acknowledged, "by the control plane")
	line("  waiting", o.WaitingRecords, terminal.Bytes(o.WaitingBytes))
	for _, rule := range slices.Sorted(maps.Keys(o.Expired)) {
		if n := o.Expired[rule]; n > 0 {
			line("  expired", n, expiredBy(rule))
		}
	}
	if o.Lost > 0 {
		line("  lost", o.Lost, "damaged on this machine's disk, or could never be sent; see the log")
	}
	if o.LostUnsure > 0 {
		line("  perhaps lost", o.LostUnsure, "damaged on this machine's disk, at most; the control plane may have them, which the next connection tells")
	}
	if o.LostRemotely > 0 {
		line("  lost afterwards", o.LostRemotely, "acknowledged, and then gone from the control plane's database")
	}
	if o.Late > 0 {
		line("rows too late", o.Late, "for the window that they belong to")
	}
}

// expiredBy says which setting has dropped insights.
func expiredBy(rule string) string {
	switch rule {
	case "expired_age":
		return "had waited for longer than staging.max_age allows"
	case "expired_bytes":
		return "made room for newer ones, as staging.when_full: drop_oldest says"
	}
	return "dropped by the rule for " + strings.TrimPrefix(rule, "expired_")
}

// printDamage prints what happened to the damaged files that are still kept, and what to do about them.
func printDamage(w io.Writer, s *agent.LocalStatus) {
	o := &s.Outbox
	if o.DamagedFiles == 0 {
		return
	}
	advice := ""
	if len(o.Damage) > wentBack(o.Damage) {
		advice = "; check this machine's disk"
	}
	fmt.Fprintf(w, "damaged files\t%d\tfound so far, with %d insights salvaged%s\n", o.DamagedFiles, o.Salvaged, advice)
	names := map[string]string{}
	for _, f := range s.Flows {
		names[f.DeploymentID] = f.Name
	}
	repeats := func(ids []string, what string) {
		for _, id := range ids {
			fmt.Fprintf(w, "\t\t%s %s; some of its insights may come twice\n", terminal.Line(flowCalled(names[id], id)), what)
		}
	}
	for i := range o.Damage {
		d := &o.Damage[i]
		became := fmt.Sprintf("%d salvaged, %d lost", d.Salvaged, d.Lost)
		if d.WentBack() {
			became = "went back"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s: %s\n", d.At.Local().Format(time.DateTime), became, terminal.Line(d.File), terminal.Line(d.Reason))
		repeats(d.SetBack, "went on from an earlier state")
		repeats(d.StartedAnew, "started anew")
	}
	if len(o.Damage) > 0 {
		fmt.Fprintln(w, "\t\tthe agent goes on without these files; remove them when nobody needs them, and its next start forgets them")
	}
}

// flowCalled is what to call a flow of that deployment; the name is empty when it is not deployed any more. The stage says
// of a flow in round brackets why it does not know which one it was.
func flowCalled(name, deployment string) string {
	if inner, ok := strings.CutPrefix(deployment, "("); ok {
		return strings.TrimSuffix(inner, ")")
	}
	if name == "" {
		return "a flow that is not deployed any more (" + deployment + ")"
	}
	return "flow " + name
}

// runway says how long the room lasts.
func runway(o *agent.OutboxStatus) string {
	seconds := o.RunwaySeconds
	switch {
	case o.Degraded != "":
		return "cannot be used until the disk can be written"
	case o.Blocked > 0:
		return "full: the flows wait, and so do their sources"
	case seconds < 0:
		return "does not fill at the present rate"
	}
	return terminal.Long(time.Duration(seconds)*time.Second) + " of room left at the present rate"
}

// verifyCommand is what the agent starts as a child after an unclean stop, because a damaged file can crash whoever
// reads it. With a target it writes there what is whole of the file.
func verifyCommand() *cobra.Command {
	const salvageArgs = 3
	return &cobra.Command{
		Use:    agent.VerifyCommand + " FILE [TARGET LAST]",
		Hidden: true,
		Args:   cobra.RangeArgs(1, salvageArgs),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == salvageArgs {
				return agent.SalvageStore(args[0], args[1], args[2])
			}
			return agent.VerifyStore(args[0])
		},
	}
}
