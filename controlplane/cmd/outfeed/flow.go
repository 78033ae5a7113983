package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
)

// maxDefinition is the most that the API takes of a definition, in bytes.
const maxDefinition = 1 << 20

func (a *app) flowCommand() *cobra.Command {
	return group("flow", "Check, apply, publish, deploy and list flows",
		a.flowCheck(), a.flowApply(), a.flowPublish(), a.flowDeploy(), a.flowUndeploy(),
		a.flowList(), a.flowHistory(), a.flowExport())
}

// readDefinition reads a file, or standard input for "-".
func (a *app) readDefinition(path string) (string, error) {
	from := a.stdin
	if path != "-" {
		file, err := os.Open(path) //nolint:gosec // the user names the file
		if err != nil {
			return "", fmt.Errorf("read the flow: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxDefinition+1))
	if err != nil {
		return "", fmt.Errorf("read the flow: %w", err)
	}
	if len(text) > maxDefinition {
		return "", fmt.Errorf("%s is larger than %d bytes, which no flow may be", path, maxDefinition)
	}
	return string(text), nil
}

// reportProblems prints what is wrong with a file, as compilers do.
func (a *app) reportProblems(path string, problems []api.FlowProblem) {
	for _, p := range problems {
		place := path
		if p.Line > 0 {
			place += fmt.Sprintf(":%d:%d", p.Line, p.Column)
		}
		step := ""
		if p.Step != "" {
			step = "step " + p.Step + ": "
		}
		a.say("%s: %s%s", place, terminal.Text(step), terminal.Text(p.Message))
	}
}

func (a *app) flowCheck() *cobra.Command {
	c := &cobra.Command{
		Use: "check FILE…", Short: "Check and test flow definitions and show what would leave the plant",
		Long: `Checks each file against the workspace's connections, runs its tests, saves nothing, and lists every column that would
leave the plant and everything that would be written into its systems. Problems and failing tests are printed as
file:line:column. The exit code is 1 when a file has problems or a test fails.`,
		Example: "  outfeed flow check flows/*.yaml", Args: cobra.MinimumNArgs(1),
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		checks := map[string]api.FlowCheck{}
		bad := false
		for _, path := range args {
			text, err := a.readDefinition(path)
			if err != nil {
				return err
			}
			check, err := client.Post[api.FlowCheck](ctx, remote, "/flows/check", api.FlowDefinition{Definition: text})
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			checks[path] = check
			bad = bad || !check.OK
			a.reportProblems(path, check.Problems)
			if *asJSON || !check.OK {
				continue
			}
			if err := a.showCheck(path, check); err != nil {
				return err
			}
		}
		if *asJSON {
			if err := a.printJSON(checks); err != nil {
				return err
			}
		}
		if bad {
			return errReported
		}
		return nil
	})
	return c
}

func (a *app) flowApply() *cobra.Command {
	var publish bool
	var targets []string
	c := &cobra.Command{
		Use: "apply FILE…", Short: "Save flow definitions, and publish and deploy them if asked",
		Long: `Saves each file as a new version of the flow it names; the same text again changes nothing. --deploy publishes, too.
Problems are printed as file:line:column.`,
		Example: `  outfeed flow apply press-health.yaml
  outfeed flow apply flows/*.yaml --publish --deploy site=berlin
  outfeed flow apply press-health.yaml --deploy hall-3 --deploy hall-4`,
		Args: cobra.MinimumNArgs(1),
	}
	c.Flags().BoolVar(&publish, "publish", false, "publish the version")
	c.Flags().StringArrayVar(&targets, "deploy", nil, "publish and deploy to an agent, or to those with a label (site=berlin); may be repeated")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		var applied []api.FlowApplied
		for _, path := range args {
			done, err := a.applyOne(ctx, remote, path)
			if err != nil {
				return err
			}
			if publish || len(targets) > 0 {
				done, err = a.publishOne(ctx, remote, done)
				if problems := problemsOf(err); len(problems) > 0 {
					a.say("outfeed: %s", terminal.Text(err.Error()))
					a.reportProblems(path, problems)
					return errReported
				}
				if err != nil {
					return fmt.Errorf("%s: publish: %w", path, err)
				}
			}
			if !*asJSON {
				if err := a.print("%s", describeVersion(done)); err != nil {
					return err
				}
			}
			if len(targets) > 0 {
				deployments, err := deploy(ctx, remote, done.Flow.Name, api.FlowDeploy{Version: done.Version.Version, Agents: targets})
				if err != nil {
					return fmt.Errorf("%s: deploy: %w", path, err)
				}
				done.Flow.Deployments = deployments
				if !*asJSON {
					if err := a.printDeployed(done.Flow.Name, done.Version.Version, deployments); err != nil {
						return err
					}
				}
			}
			applied = append(applied, done)
		}
		if *asJSON {
			return a.printJSON(applied)
		}
		return nil
	})
	return c
}

func describeVersion(f api.FlowApplied) string {
	state := "a draft"
	if !f.Version.PublishedAt.IsZero() {
		state = "published"
	}
	return fmt.Sprintf("Flow %s: version %d is %s.", terminal.Text(f.Flow.Name), f.Version.Version, state)
}

func (a *app) applyOne(ctx context.Context, remote *client.Client, path string) (api.FlowApplied, error) {
	text, err := a.readDefinition(path)
	if err != nil {
		return api.FlowApplied{}, err
	}
	applied, err := client.Post[api.FlowApplied](ctx, remote, "/flows", api.FlowDefinition{Definition: text})
	if problems := problemsOf(err); len(problems) > 0 {
		a.reportProblems(path, problems)
		return api.FlowApplied{}, errReported
	}
	if err != nil {
		return api.FlowApplied{}, fmt.Errorf("%s: %w", path, err)
	}
	return applied, nil
}

func (a *app) publishOne(ctx context.Context, remote *client.Client, f api.FlowApplied) (api.FlowApplied, error) {
	if !f.Version.PublishedAt.IsZero() {
		return f, nil
	}
	version, err := client.Post[api.FlowVersion](ctx, remote, flowPath(f.Flow.Name, "publish"),
		api.FlowPublish{Version: f.Version.Version})
	f.Version = version
	f.Flow.PublishedVersion = max(f.Flow.PublishedVersion, version.Version)
	return f, err
}

func deploy(ctx context.Context, remote *client.Client, flow string, what api.FlowDeploy) ([]api.Deployment, error) {
	deployed, err := client.Post[api.List[api.Deployment]](ctx, remote, flowPath(flow, "deploy"), what)
	return deployed.Items, err
}

func flowPath(flow, verb string) string { return "/flows/" + url.PathEscape(flow) + "/" + verb }

func (a *app) printDeployed(flow string, version int, deployments []api.Deployment) error {
	agents := make([]string, len(deployments))
	for i, d := range deployments {
		agents[i] = d.AgentID
		version = d.Version
	}
	slices.Sort(agents)
	return a.print("Flow %s: version %d is deployed to %d agent(s): %s",
		terminal.Text(flow), version, len(agents), strings.Join(agents, " "))
}

func (a *app) flowPublish() *cobra.Command {
	var version int
	c := &cobra.Command{
		Use: "publish FLOW", Short: "Make a version ready to deploy",
		Long:    "Checks the version again and runs its tests; one whose tests fail is not published.",
		Example: "  outfeed flow publish press-health\n  outfeed flow publish press-health --version 3", Args: cobra.ExactArgs(1),
	}
	c.Flags().IntVar(&version, "version", 0, "the version; the latest when it is left out")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		v, err := client.Post[api.FlowVersion](ctx, remote, flowPath(args[0], "publish"), api.FlowPublish{Version: version})
		if problems := problemsOf(err); len(problems) > 0 {
			a.say("outfeed: %s", terminal.Text(err.Error()))
			a.reportProblems(args[0], problems)
			return errReported
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(v)
		}
		return a.print("Flow %s: version %d is published.", args[0], v.Version)
	})
	return c
}

func (a *app) flowDeploy() *cobra.Command {
	var version int
	c := &cobra.Command{
		Use: "deploy FLOW AGENT…", Short: "Run a published version on agents",
		Long:    "Agents are named by name, by id, or by a label that they have, as in site=berlin.",
		Example: "  outfeed flow deploy press-health site=berlin\n  outfeed flow deploy press-health hall-3 --version 2",
		Args:    cobra.MinimumNArgs(2),
	}
	c.Flags().IntVar(&version, "version", 0, "the version; the latest published one when it is left out")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		deployments, err := deploy(ctx, remote, args[0], api.FlowDeploy{Version: version, Agents: args[1:]})
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(deployments)
		}
		return a.printDeployed(args[0], version, deployments)
	})
	return c
}

func (a *app) flowUndeploy() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "undeploy FLOW AGENT…|--all", Short: "Stop a flow on agents",
		Example: "  outfeed flow undeploy press-health hall-3\n  outfeed flow undeploy press-health --all", Args: cobra.MinimumNArgs(1),
	}
	c.Flags().BoolVar(&all, "all", false, "on every agent that it runs on")
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		if all == (len(args) > 1) {
			return usagef("name the agents, or give --all")
		}
		what := api.FlowUndeploy{Agents: args[1:]}
		if err := remote.Order(ctx, http.MethodPost, flowPath(args[0], "undeploy"), what); err != nil {
			return err
		}
		return a.print("Flow %s is stopped on %s.", args[0], whereStopped(args[1:]))
	})
	return c
}

func whereStopped(agents []string) string {
	if len(agents) == 0 {
		return "all agents"
	}
	return strings.Join(agents, " ")
}

func (a *app) flowList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the flows", Example: "  outfeed flow list", Args: cobra.NoArgs}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		flows, err := client.Get[api.List[api.Flow]](ctx, remote, "/flows", nil)
		if err != nil {
			return err
		}
		heading := []string{"NAME", "LATEST", "PUBLISHED", "AGENTS", "UPDATED", "DESCRIPTION"}
		return list(a, asJSON, flows.Items, heading, func(f api.Flow) []string {
			published := ""
			if f.PublishedVersion > 0 {
				published = strconv.Itoa(f.PublishedVersion)
			}
			return []string{
				f.Name, strconv.Itoa(f.LatestVersion), published, strconv.Itoa(len(f.Deployments)), stamp(f.UpdatedAt), f.Description,
			}
		})
	})
	return c
}

func versions(ctx context.Context, remote *client.Client, flow string) ([]api.FlowVersion, error) {
	all, err := client.Get[api.List[api.FlowVersion]](ctx, remote, flowPath(flow, "versions"), nil)
	return all.Items, err
}

func (a *app) flowHistory() *cobra.Command {
	c := &cobra.Command{
		Use: "history FLOW", Short: "List the versions of a flow", Example: "  outfeed flow history press-health",
		Args: cobra.ExactArgs(1),
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		all, err := versions(ctx, remote, args[0])
		if err != nil {
			return err
		}
		heading := []string{"VERSION", "CREATED", "BY", "PUBLISHED", "SHA-256"}
		return list(a, asJSON, all, heading, func(v api.FlowVersion) []string {
			return []string{
				strconv.Itoa(v.Version), stamp(v.CreatedAt), v.CreatedBy, stamp(v.PublishedAt), v.SHA256[:min(len(v.SHA256), 12)],
			}
		})
	})
	return c
}

func (a *app) flowExport() *cobra.Command {
	var version int
	c := &cobra.Command{
		Use: "export FLOW", Short: "Print the definition of a flow as it was applied",
		Example: "  outfeed flow export press-health > press-health.yaml", Args: cobra.ExactArgs(1),
	}
	c.Flags().IntVar(&version, "version", 0, "the version; the latest when it is left out")
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		all, err := versions(ctx, remote, args[0])
		if err != nil {
			return err
		}
		wanted, err := pick(all, args[0], version)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(a.stdout, wanted.Definition); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return nil
	})
	return c
}

// pick finds a version; 0 is the latest.
func pick(all []api.FlowVersion, flow string, version int) (api.FlowVersion, error) {
	var found api.FlowVersion
	for _, v := range all {
		if v.Version == version || (version == 0 && v.Version > found.Version) {
			found = v
		}
	}
	if found.Version == 0 {
		return found, fmt.Errorf("flow %s has no version %d; outfeed flow history lists them", flow, version)
	}
	return found, nil
}
