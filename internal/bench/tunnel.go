package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// tunnelName is the tunnel's name in Settings.Only.
const tunnelName = "tunnel"

// TunnelSize is how much the tunnel is measured with.
type TunnelSize struct {
	// Agents are connected and idle, Echoes messages go to and fro, Bytes go up.
	Agents, Echoes int
	Bytes          int64
}

// FullTunnel is the size that the project's goals are stated for.
func FullTunnel() TunnelSize { return TunnelSize{Agents: 5000, Echoes: 20_000, Bytes: 1 << 30} }

// TunnelMeasurement is what the tunnel does, or plain TLS on the same machine: medians over the rounds, apart from the
// memory, which is measured once.
type TunnelMeasurement struct {
	Way    string `json:"way"`
	Rounds int    `json:"rounds"`
	// EchoP50 and EchoP99 are of the time in which a message of 100 bytes comes back.
	EchoP50 time.Duration `json:"echo_p50_ns"`
	EchoP99 time.Duration `json:"echo_p99_ns"`
	// PerSecond is bytes per second of one stream up, CPUPerGB the processor time of both ends for 10^9 bytes.
	PerSecond float64       `json:"bytes_per_second"`
	CPUPerGB  time.Duration `json:"cpu_per_gb_ns"`
	// Resident is what each of so many idle agents or connections costs the serving process in bytes of resident memory
	// shortly after they have come, and Collected what is left after a collection that gives back what nobody uses.
	Idle      int   `json:"idle"`
	Resident  int64 `json:"resident_per_idle_bytes"`
	Collected int64 `json:"collected_per_idle_bytes"`
}

// Tunnel measures the layers of the tunnel and the gateway beside plain TLS. Every end is a process of its own.
func (b *Bench) Tunnel(ctx context.Context) ([]TunnelMeasurement, error) {
	if len(b.set.Only) > 0 && !slices.Contains(b.set.Only, tunnelName) {
		return []TunnelMeasurement{}, nil
	}
	size := b.set.Tunnel
	if files := maxFiles(); size.Agents > files-200 {
		size.Agents = max(1, files-200)
		b.logf("%s: a process may open %d files here, so there are only %d agents", tunnelName, files, size.Agents)
	}
	b.logf("%s: %d echoes, %d MB up, %d idle agents, beside plain TLS", tunnelName, size.Echoes, size.Bytes/1e6, size.Agents)
	const tests = "./controlplane/internal/gateway/gatewaytest/cmd/"
	bins := map[string]string{"link": tests + "link", "host": tests + "host", "swarm": "./agent/internal/tunnel/cmd/swarm"}
	for name, pkg := range bins {
		var err error
		if bins[name], err = b.build(ctx, ".", pkg, name); err != nil {
			return nil, err
		}
	}
	list, err := b.links(ctx, bins["link"], size)
	if err != nil {
		return nil, err
	}
	list[0].Resident, list[0].Collected, err = b.idleAgents(ctx, bins["host"], bins["swarm"], size.Agents)
	return list, err
}

// links measures both kinds of link in turn, round after round, so that what else the machine does meets both alike.
func (b *Bench) links(ctx context.Context, bin string, size TunnelSize) ([]TunnelMeasurement, error) {
	dir, err := os.MkdirTemp(b.set.Temp, "link")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	serving, links, err := begin(ctx, bin, "-dir", dir)
	if err != nil {
		return nil, err
	}
	defer serving.end()
	list := []TunnelMeasurement{{Way: "tunnel", Idle: size.Agents, Rounds: b.set.Rounds}, {Way: "plain TLS", Idle: size.Agents, Rounds: b.set.Rounds}}
	rounds := make([][]TunnelMeasurement, len(list))
	common := []string{"-dir", dir, "-links", links}
	for range b.set.Rounds {
		for i := range list {
			args := append(slices.Clone(common), "-echoes", strconv.Itoa(size.Echoes), "-bytes", strconv.FormatInt(size.Bytes, 10), "-plain="+strconv.FormatBool(i == 1))
			var m TunnelMeasurement
			if err = report(ctx, &m, bin, args...); err != nil {
				return nil, err
			}
			rounds[i] = append(rounds[i], m)
		}
	}
	for i := range list {
		list[i].medians(rounds[i])
	}
	var idle struct{ Resident, Collected int64 }
	err = report(ctx, &idle, bin, append(common, "-idle", strconv.Itoa(size.Agents))...)
	list[1].Resident, list[1].Collected = idle.Resident, idle.Collected
	return list, err
}

func (m *TunnelMeasurement) medians(rounds []TunnelMeasurement) {
	median := func(of func(TunnelMeasurement) float64) float64 {
		list := make([]float64, len(rounds))
		for i, r := range rounds {
			list[i] = of(r)
		}
		slices.Sort(list)
		n := len(list)
		return (list[(n-1)/2] + list[n/2]) / 2
	}
	m.EchoP50 = time.Duration(median(func(r TunnelMeasurement) float64 { return float64(r.EchoP50) }))
	m.EchoP99 = time.Duration(median(func(r TunnelMeasurement) float64 { return float64(r.EchoP99) }))
	m.PerSecond = median(func(r TunnelMeasurement) float64 { return r.PerSecond })
	m.CPUPerGB = time.Duration(median(func(r TunnelMeasurement) float64 { return float64(r.CPUPerGB) }))
}

// held is what the gateway's process says of itself.
type held struct {
	RSS       int64 `json:"rss"`
	Connected int   `json:"connected"`
}

// idleAgents connects so many agents to a gateway, and gives what each costs it in bytes, as it is and after a collection.
func (b *Bench) idleAgents(ctx context.Context, host, swarm string, agents int) (resident, collected int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp(b.set.Temp, "host")
	if err != nil {
		return 0, 0, fmt.Errorf("make a temporary folder: %w", err)
	}
	gateway, line, err := begin(ctx, host, "-dir", dir, "-admit", "2000")
	if err != nil {
		return 0, 0, err
	}
	defer gateway.end()
	var at struct{ URL, Fingerprint string }
	if err = json.Unmarshal([]byte(line), &at); err != nil {
		return 0, 0, fmt.Errorf("read where the gateway is: %w", err)
	}
	ca := filepath.Join(dir, "ca.pem")
	ask, err := asking(ca, at.URL+"/test/stats")
	if err != nil {
		return 0, 0, err
	}
	before, err := ask(ctx, "?collect")
	if err != nil {
		return 0, 0, err
	}
	clients, _, err := begin(ctx, swarm, "-url", at.URL, "-fingerprint", at.Fingerprint, "-ca", ca, "-agents", strconv.Itoa(agents))
	if err != nil {
		return 0, 0, err
	}
	defer clients.end()
	now := held{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for now.Connected < agents {
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("only %d of %d agents are connected: %w", now.Connected, agents, context.Cause(ctx))
		case <-tick.C:
		}
		if now, err = ask(ctx, ""); err != nil {
			return 0, 0, err
		}
	}
	after, err := ask(ctx, "?collect")
	return (now.RSS - before.RSS) / int64(agents), (after.RSS - before.RSS) / int64(agents), err
}

// asking gives what asks a gateway what it holds.
func asking(ca, url string) (func(ctx context.Context, query string) (held, error), error) {
	pem, err := os.ReadFile(ca) //nolint:gosec // the bench itself names it
	if err != nil {
		return nil, fmt.Errorf("read the gateway's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the gateway's certificate is not in PEM form")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
	return func(ctx context.Context, query string) (h held, err error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+query, nil)
		if err != nil {
			return h, fmt.Errorf("ask the gateway: %w", err)
		}
		answer, err := client.Do(r)
		if err != nil {
			return h, fmt.Errorf("ask the gateway: %w", err)
		}
		defer answer.Body.Close() //nolint:errcheck // it is only read
		if err = json.NewDecoder(answer.Body).Decode(&h); err != nil {
			return h, fmt.Errorf("ask the gateway: %w", err)
		}
		return h, nil
	}, nil
}

// serving is a child process that serves until its standard input ends.
type serving struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// begin starts one. Those that print where they serve give that line; others are not waited for.
func begin(ctx context.Context, bin string, args ...string) (s *serving, line string, err error) {
	s = &serving{cmd: exec.CommandContext(ctx, bin, args...)} //nolint:gosec // it was built just now
	s.cmd.Stderr = os.Stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", bin, err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", bin, err)
	}
	if err = s.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", bin, err)
	}
	if filepath.Base(bin) == "swarm" {
		return s, "", nil
	}
	if line, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		s.end()
		return nil, "", fmt.Errorf("%s did not start: %w", bin, err)
	}
	return s, line, nil
}

// end ends it and waits. How it ends does not matter.
func (s *serving) end() {
	_ = s.stdin.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// report runs a program and reads the JSON that it prints.
func report(ctx context.Context, into any, bin string, args ...string) error {
	c := exec.CommandContext(ctx, bin, args...) //nolint:gosec // it was built just now
	c.Stderr = os.Stderr
	text, err := c.Output()
	if err != nil {
		return fmt.Errorf("run %s: %w", bin, err)
	}
	if err = json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read what %s printed: %w", bin, err)
	}
	return nil
}
