// Package config reads the agent's configuration from a file and the environment.
//
// It opens nothing but that file and holds no state. Secrets come out as secret.String.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/address"
	"github.com/outfeed/outfeed/internal/logging"
	"github.com/outfeed/outfeed/internal/secret"
)

// Config is what the person who runs the agent sets. Every field has a default.
type Config struct {
	// DataDir holds the identity and the staging (OUTFEED_AGENT_DATA_DIR).
	DataDir string `yaml:"data_dir"`
	// Listen is the loopback address of /healthz, /readyz and /metrics (OUTFEED_AGENT_LISTEN). Empty: nowhere.
	Listen string `yaml:"listen"`
	// Proxy is the HTTP proxy to the control plane, user and password included (OUTFEED_AGENT_PROXY). Empty: what
	// HTTPS_PROXY and NO_PROXY say. "none": no proxy.
	Proxy secret.String `yaml:"proxy"`
	// CAFile has certificates to trust beside the system's, in PEM (OUTFEED_AGENT_CA_FILE).
	CAFile string `yaml:"ca_file"`
	// MemoryLimit is how much memory the process uses at most (OUTFEED_AGENT_MEMORY_LIMIT): see Bytes. What a flow cannot
	// hold of it spills to the data directory.
	MemoryLimit Bytes `yaml:"memory_limit"`
	// LogLevel is debug, info, warn or error (OUTFEED_AGENT_LOG_LEVEL), LogFormat json or text (OUTFEED_AGENT_LOG_FORMAT).
	LogLevel  slog.Level `yaml:"log_level"`
	LogFormat string     `yaml:"log_format"`
	// Writes is deny (the default) or allow: whether flows may write into the plant's systems (OUTFEED_AGENT_WRITES).
	Writes string `yaml:"writes"`
	// Staging is how much may wait on the disk.
	Staging Staging `yaml:"staging"`
}

// The values of Config.Writes.
const (
	WritesDeny  = "deny"
	WritesAllow = "allow"
)

// Default is the configuration of a machine where nothing is set.
func Default() Config {
	dir := "/var/lib/outfeed-agent"
	if runtime.GOOS == "windows" {
		dir = filepath.Join(os.Getenv("ProgramData"), "Outfeed", "Agent")
	}
	return Config{DataDir: dir, LogFormat: "text", Writes: WritesDeny, MemoryLimit: DefaultMemoryLimit, Staging: defaultStaging()}
}

// variables maps each environment variable to the field it sets.
func (c *Config) variables() map[string]func(string) error {
	text := func(to *string) func(string) error {
		return func(v string) error { *to = v; return nil }
	}
	all := map[string]func(string) error{
		"OUTFEED_AGENT_DATA_DIR":     text(&c.DataDir),
		"OUTFEED_AGENT_LISTEN":       text(&c.Listen),
		"OUTFEED_AGENT_CA_FILE":      text(&c.CAFile),
		"OUTFEED_AGENT_LOG_FORMAT":   text(&c.LogFormat),
		"OUTFEED_AGENT_LOG_LEVEL":    func(v string) error { return c.LogLevel.UnmarshalText([]byte(v)) },
		"OUTFEED_AGENT_MEMORY_LIMIT": func(v string) error { return c.MemoryLimit.UnmarshalText([]byte(v)) },
		"OUTFEED_AGENT_WRITES":       text(&c.Writes),
		"OUTFEED_AGENT_PROXY":        func(v string) error { c.Proxy = secret.New(v); return nil },
	}
	maps.Copy(all, c.Staging.variables())
	return all
}

// Load reads a file (none when path is empty), then the environment, which wins, and checks the result.
func Load(path string, lookup func(string) (string, bool)) (Config, error) {
	c := Default()
	if path != "" {
		text, err := os.ReadFile(path) //nolint:gosec // the file that the person named
		if err != nil {
			return Config{}, fmt.Errorf("read the configuration: %w", err)
		}
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
			return Config{}, fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	for name, set := range c.variables() {
		value, ok := lookup(name)
		if !ok {
			continue
		}
		if err := set(value); err != nil {
			return Config{}, fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate says everything that is wrong.
func (c *Config) Validate() error {
	var wrong []error
	if c.DataDir == "" {
		wrong = append(wrong, errors.New("data_dir is empty: name the folder for the agent's keys and staging"))
	}
	if err := c.MemoryLimit.Validate(); err != nil {
		wrong = append(wrong, err)
	}
	wrong = append(wrong, c.Staging.validate())
	if c.LogFormat != "json" && c.LogFormat != "text" {
		wrong = append(wrong, fmt.Errorf("log_format is %q: write json or text", c.LogFormat))
	}
	if c.Writes != WritesDeny && c.Writes != WritesAllow {
		wrong = append(wrong, fmt.Errorf("writes is %q: write deny or allow, which lets flows write into the plant's systems", c.Writes))
	}
	if c.Listen != "" {
		wrong = append(wrong, loopback(c.Listen))
	}
	if err := checkProxy(c.Proxy.Reveal()); err != nil {
		wrong = append(wrong, fmt.Errorf("proxy (or OUTFEED_AGENT_PROXY) is neither an address nor none: %w", err))
	}
	if c.CAFile != "" {
		if _, err := os.Stat(c.CAFile); err != nil {
			wrong = append(wrong, fmt.Errorf("ca_file: %w", err))
		}
	}
	return errors.Join(wrong...)
}

// checkProxy says what is wrong with a setting that names a proxy, takes the environment's (empty), or takes none.
func checkProxy(setting string) error {
	if setting == "" || setting == "none" {
		return nil
	}
	_, err := address.Proxy(setting)
	return err
}

// loopback refuses an address that other machines could reach.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen is %q: write an address like 127.0.0.1:9464: %w", address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen is %q: the agent opens no port to other machines; write a loopback address like 127.0.0.1:9464", address)
	}
	return nil
}

// Logger writes the log as configured.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	return logging.New(w, c.LogLevel, c.LogFormat)
}
