package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
)

// maxKeyFile bounds what is read as a key.
const maxKeyFile = 4 << 10

func (a *app) loginCommand() *cobra.Command {
	var keyFile, caFile string
	var fromStdin bool
	c := &cobra.Command{
		Use:   "login URL",
		Short: "Keep the address of a control plane and an API key",
		Long: `Checks the key and keeps it with the address in the user's configuration directory, or in the file that
OUTFEED_CONFIG names, readable by the user only. The key comes from --api-key-file, --api-key-stdin or the variable
OUTFEED_API_KEY; never as an argument, which other users of the machine could see.`,
		Example: `  outfeed login https://outfeed.example --api-key-file key.txt
  pass show outfeed | outfeed login https://outfeed.example --api-key-stdin
  outfeed login https://outfeed.plant.lan --ca plant-ca.pem --api-key-file key.txt`,
		Args: cobra.ExactArgs(1),
		RunE: does(func(ctx context.Context, args []string) error {
			key, err := a.readKey(keyFile, fromStdin)
			if err != nil {
				return err
			}
			ca, err := readCA(caFile)
			if err != nil {
				return err
			}
			return a.login(ctx, config{URL: strings.TrimRight(args[0], "/"), APIKey: key, CA: ca})
		}),
	}
	c.Flags().StringVar(&keyFile, "api-key-file", "", "file with the API key")
	c.Flags().BoolVar(&fromStdin, "api-key-stdin", false, "read the API key from standard input")
	c.Flags().StringVar(&caFile, "ca", "", "PEM file with the certificate authority of the control plane")
	c.MarkFlagsMutuallyExclusive("api-key-file", "api-key-stdin")
	return c
}

func (a *app) readKey(path string, fromStdin bool) (string, error) {
	from := a.stdin
	switch {
	case path != "":
		file, err := os.Open(path) //nolint:gosec // the user names the file
		if err != nil {
			return "", fmt.Errorf("read the API key: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	case fromStdin:
	case a.getenv(envAPIKey) != "":
		return a.getenv(envAPIKey), nil
	default:
		return "", usagef("give the API key by --api-key-file, --api-key-stdin or OUTFEED_API_KEY")
	}
	line, err := bufio.NewReader(io.LimitReader(from, maxKeyFile)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the API key: %w", err)
	}
	key := strings.TrimSpace(line)
	if key == "" {
		return "", errors.New("there is no API key: the first line is empty")
	}
	return key, nil
}

func (a *app) login(ctx context.Context, c config) error {
	remote, err := a.newClient(c)
	if err != nil {
		return err
	}
	if inTheClear(c.URL) {
		a.say("Warning: %s is plain http. Everybody on the way can read the API key; use https.", c.URL)
	}
	me, err := client.Get[api.Me](ctx, remote, "/me", nil)
	if err != nil {
		return err
	}
	path, err := a.saveConfig(c)
	if err != nil {
		return err
	}
	return a.print("Logged in to %s as %s (%s). The login is kept in %s.", c.URL, terminal.Text(me.Name), me.Role, path)
}

// inTheClear says whether what is sent to an address can be read on the way.
func inTheClear(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

func (a *app) apiKeyCommand() *cobra.Command {
	return group("api-key", "Make, list and revoke API keys", a.apiKeyCreate(), a.apiKeyList(), a.apiKeyRevoke())
}

func (a *app) apiKeyCreate() *cobra.Command {
	var role string
	c := &cobra.Command{
		Use: "create NAME", Short: "Make an API key and print it, this once",
		Example: `  outfeed api-key create "nightly report" --role viewer > report.key`,
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&role, "role", "viewer", "what it may do: owner, editor, operator or viewer")
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		created, err := client.Post[api.APIKeyCreated](ctx, remote, "/api-keys", api.APIKeyCreate{Name: args[0], Role: role})
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(created)
		}
		a.say("API key %q (%s), shown this once:", terminal.Text(created.APIKey.Name), created.APIKey.Role)
		return a.print("%s", created.Key)
	})
	return c
}

func (a *app) apiKeyList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the API keys", Example: "  outfeed api-key list", Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		keys, err := client.Get[api.List[api.APIKey]](ctx, remote, "/api-keys", nil)
		if err != nil {
			return err
		}
		return list(a, asJSON, keys.Items, []string{"ID", "NAME", "ROLE", "CREATED", "LAST USED"}, func(k api.APIKey) []string {
			return []string{k.ID, k.Name, k.Role, stamp(k.CreatedAt), stamp(k.LastUsedAt)}
		})
	})
	return c
}

func (a *app) apiKeyRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Revoke an API key, at once and for good",
		Example: "  outfeed api-key revoke 01950000-0000-7000-8000-000000000101",
		Args:    cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
			if err := remote.Order(ctx, http.MethodDelete, "/api-keys/"+url.PathEscape(args[0]), nil); err != nil {
				return err
			}
			return a.print("Revoked API key %s.", args[0])
		}),
	}
}
