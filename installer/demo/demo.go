package main

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// definitions are the demo's flows and the connections that they use.
//
//go:embed flows/*.yaml connections.yaml
var definitions embed.FS

// longestDir leaves room for a socket's name in the 107 bytes that its path can have.
const longestDir = 70

// demo is one run of everything.
type demo struct {
	// out is where it speaks to the person.
	out       io.Writer
	bin, dir  string
	dashboard string
	speed     float64
	// tunnel, admin and broker are addresses on loopback.
	tunnel, admin, broker string
	brokerPassword        string
	apiKey                string
	running               *group
	lock                  *os.File
}

func newDemo(bin, dir, dashboard string, speed float64) (*demo, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the demo's folder: %w", err)
	}
	if len(dir) > longestDir {
		return nil, fmt.Errorf("%s is too long for the sockets in it: name a folder of at most %d characters with -dir", dir, longestDir)
	}
	return &demo{out: os.Stdout, bin: bin, dir: dir, dashboard: dashboard, speed: speed, brokerPassword: rand.Text()}, nil
}

// run starts one part after the other, shows insights until ctx ends, and stops the parts in the opposite order.
func (d *demo) run(ctx context.Context) (err error) {
	if err := d.emptyFolder(ctx); err != nil {
		return err
	}
	defer d.lock.Close() //nolint:errcheck // closing gives the lock back, whatever it says
	if err := d.chooseAddresses(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.running.stop()) }()
	for _, step := range []struct {
		say string
		do  func(context.Context) error
	}{
		{"starting the MES database", d.startMES},
		{"starting the plant: eight presses, their broker, a lathe", d.startPlant},
		{"starting the control plane with its private PostgreSQL", d.startControlPlane},
		{"making a tenant and signing in", d.makeTenant},
		{"enrolling an agent with a one-use token", d.enrolAgent},
		{"creating the connections, publishing and deploying three flows", d.deployFlows},
	} {
		fmt.Fprintln(d.out, "  "+step.say+" ...")
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.say, err)
		}
	}
	d.welcome()
	return d.running.foreground(ctx, d.client(ctx, "insight", "tail"))
}

func (d *demo) welcome() {
	fmt.Fprintf(d.out, `
  Dashboard   http://%s
  API key     %s
  Try         %s/outfeed agent list
              %s/outfeed insight query --name lathe_cycle
              (with OUTFEED_CONFIG=%s)
  Logs        %s

  The lathe drops its first file within half a minute; the presses report minute by minute. Ctrl-C stops everything.

`, d.dashboard, d.apiKey, d.bin, d.bin, d.path("client.json"), d.path("log"))
}

// marker is the file that makes a folder a demo's, and the lock on it.
const marker = "outfeed-demo.lock"

// emptyFolder takes the folder for this demo and removes what an earlier one left. It touches no other folder.
func (d *demo) emptyFolder(ctx context.Context) error {
	if err := os.MkdirAll(d.dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's account must be able to enter; secrets inside have their own modes
		return fmt.Errorf("make the demo's folder: %w", err)
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("look into the demo's folder: %w", err)
	}
	if _, err := os.Stat(d.path(marker)); len(entries) > 0 && err != nil {
		return fmt.Errorf("%s holds something that is not a demo's: name an empty or a new folder with -dir", d.dir)
	}
	if d.lock, err = os.OpenFile(d.path(marker), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("take the demo's folder: %w", err)
	}
	d.running = newGroup(d.out)
	// One that was killed a moment ago may still be stopping.
	if err := d.waitFor(ctx, "another demo in "+d.dir+" to end", func(context.Context) error {
		return syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}); err != nil {
		return fmt.Errorf("%w: stop it, or name another folder with -dir", err)
	}
	for _, e := range entries {
		if e.Name() == marker {
			continue
		}
		if err := os.RemoveAll(d.path(e.Name())); err != nil {
			return fmt.Errorf("empty the demo's folder: %w", err)
		}
	}
	return nil
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// chooseAddresses takes free ports for what nobody needs to know, and moves the dashboard when its port is taken.
func (d *demo) chooseAddresses(ctx context.Context) error {
	for _, a := range []*string{&d.tunnel, &d.admin, &d.broker} {
		free, err := freeAddress(ctx, "127.0.0.1:0")
		if err != nil {
			return err
		}
		*a = free
	}
	free, err := freeAddress(ctx, d.dashboard)
	if err != nil {
		fmt.Fprintf(d.out, "  %s is not free, so the dashboard goes elsewhere (%v)\n", d.dashboard, err)
		free, err = freeAddress(ctx, "127.0.0.1:0")
	}
	d.dashboard = free
	return err
}

func freeAddress(ctx context.Context, address string) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	free := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return free, nil
}

func (d *demo) startPlant(ctx context.Context) error {
	if err := os.MkdirAll(d.path("lathe"), 0o750); err != nil {
		return fmt.Errorf("make the lathe's folder: %w", err)
	}
	password := d.path("broker-password")
	if err := os.WriteFile(password, []byte(d.brokerPassword), 0o600); err != nil {
		return fmt.Errorf("write the broker's password: %w", err)
	}
	c := d.command(ctx, "outfeed-demo-plant",
		"-mqtt-listen", d.broker, "-mqtt-user", "outfeed", "-mqtt-password-file", password,
		"-mes-url", d.mesURL(), "-lathe-dir", d.path("lathe"), "-speed", strconv.FormatFloat(d.speed, 'g', -1, 64))
	if err := d.running.start(c, d.path("log", "plant.log")); err != nil {
		return err
	}
	return d.waitFor(ctx, "the plant's broker", func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", d.broker)
		if err != nil {
			return err //nolint:wrapcheck // waitFor says what it waited for
		}
		return conn.Close()
	})
}

func (d *demo) startControlPlane(ctx context.Context) error {
	c := d.command(ctx, "outfeed-controlplane", "serve")
	c.Env = append(c.Env, d.controlPlaneEnv()...)
	if err := d.running.start(c, d.path("log", "controlplane.log")); err != nil {
		return err
	}
	return d.waitFor(ctx, "the control plane", func(ctx context.Context) error {
		return getOK(ctx, "http://"+d.dashboard+"/readyz")
	})
}

func (d *demo) controlPlaneEnv() []string {
	return []string{
		"OUTFEED_DATA_DIR=" + d.path("controlplane"), "OUTFEED_LISTEN=" + d.dashboard, "OUTFEED_TLS_LISTEN=" + d.tunnel,
		"OUTFEED_PUBLIC_URL=https://" + d.tunnel, "OUTFEED_ADMIN_LISTEN=" + d.admin, "OUTFEED_MODE=single-tenant",
	}
}

func (d *demo) makeTenant(ctx context.Context) error {
	c := d.command(ctx, "outfeed-controlplane", "admin", "tenant", "create", "Demo plant", "--owner", "you@example.com", "--json")
	c.Env = append(c.Env, d.controlPlaneEnv()...)
	var made struct {
		APIKey string `json:"api_key"`
	}
	if err := outputJSON(c, &made); err != nil {
		return err
	}
	d.apiKey = made.APIKey
	login := d.client(ctx, "login", "http://"+d.dashboard, "--api-key-stdin")
	login.Stdin = strings.NewReader(made.APIKey)
	return quietly(login)
}

func (d *demo) enrolAgent(ctx context.Context) error {
	var token struct {
		Token string `json:"token"`
	}
	if err := outputJSON(d.client(ctx, "agent", "token", "--label", "site=demo", "--json"), &token); err != nil {
		return err
	}
	file := d.path("agent-token")
	if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
		return fmt.Errorf("write the enrolment token: %w", err)
	}
	if err := quietly(d.agent(ctx, "enroll", "--url", "https://"+d.tunnel, "--token-file", file, "--label", "line=press-shop")); err != nil {
		return err
	}
	return d.running.start(d.agent(ctx, "run"), d.path("log", "agent.log"))
}

func (d *demo) deployFlows(ctx context.Context) error {
	if err := fs.WalkDir(definitions, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := definitions.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		to := d.path("definitions", name)
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o750), os.WriteFile(to, text, 0o600))
	}); err != nil {
		return fmt.Errorf("write the definitions: %w", err)
	}
	if err := d.waitFor(ctx, "the agent to connect", d.agentConnected); err != nil {
		return err
	}
	apply := d.client(ctx, "connection", "apply", "-f", d.path("definitions", "connections.yaml"))
	apply.Env = append(apply.Env,
		"DEMO_MQTT="+d.broker, "DEMO_MQTT_PASSWORD="+d.brokerPassword,
		"DEMO_MES_HOST="+d.path("mes", "socket"), "DEMO_LATHE_DIR="+d.path("lathe"))
	if err := quietly(apply); err != nil {
		return err
	}
	flows, err := filepath.Glob(d.path("definitions", "flows", "*.yaml"))
	if err != nil {
		return fmt.Errorf("find the flows: %w", err)
	}
	return quietly(d.client(ctx, append(append([]string{"flow", "apply"}, flows...), "--publish", "--deploy", "site=demo")...))
}

// agentConnected says whether the agent shows as connected.
func (d *demo) agentConnected(ctx context.Context) error {
	var list []struct {
		Connected bool `json:"connected"`
	}
	if err := outputJSON(d.client(ctx, "agent", "list", "--json"), &list); err != nil {
		return err
	}
	if len(list) != 1 || !list[0].Connected {
		return errors.New("it is not connected yet")
	}
	return nil
}

// patience is how long a part may take to come up.
const patience = time.Minute

// waitFor asks until the answer is good.
func (d *demo) waitFor(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, err)
		case ended := <-d.running.ended:
			return ended
		case <-tick.C:
		}
	}
}

// decode reads the JSON that a command printed.
func decode(name string, text []byte, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s printed something else than expected (%s): %w", name, text, err)
	}
	return nil
}
