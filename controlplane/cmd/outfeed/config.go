package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outfeed/outfeed/internal/durable"
)

// The environment variables that the command knows.
const (
	envConfig = "OUTFEED_CONFIG"
	envURL    = "OUTFEED_URL"
	envAPIKey = "OUTFEED_API_KEY" //nolint:gosec // the name of the variable, not a key
	envCA     = "OUTFEED_CA"
)

// config is what login keeps. Whoever can read it can act as its owner, so only the user can.
type config struct {
	URL    string `json:"url"`
	APIKey string `json:"api_key"`
	// CA is the PEM text of --ca, so that the file may go.
	CA string `json:"ca,omitempty"`
}

func (a *app) configPath() (string, error) {
	if path := a.getenv(envConfig); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no configuration directory; set OUTFEED_CONFIG to a file: %w", err)
	}
	return filepath.Join(dir, "outfeed", "config.json"), nil
}

// loadConfig gives the environment's address and key or, where there is no address, the ones of login. A stored key is
// never sent to an address that it was not stored with.
func (a *app) loadConfig() (config, error) {
	if address := a.getenv(envURL); address != "" {
		c := config{URL: address, APIKey: a.getenv(envAPIKey)}
		if c.APIKey == "" {
			return config{}, errors.New("OUTFEED_URL is set and OUTFEED_API_KEY is not; set both or neither")
		}
		ca, err := readCA(a.getenv(envCA))
		c.CA = ca
		return c, err
	}
	path, err := a.configPath()
	if err != nil {
		return config{}, err
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user's own file
	if errors.Is(err, fs.ErrNotExist) {
		return config{}, fmt.Errorf("you are not logged in (there is no %s); run: outfeed login URL --api-key-file FILE", path)
	}
	if err != nil {
		return config{}, fmt.Errorf("read the login: %w", err)
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return config{}, fmt.Errorf("%s is damaged; log in again: %w", path, err)
	}
	return c, nil
}

// saveConfig replaces the file as a whole, so that a full disk leaves the old one.
func (a *app) saveConfig(c config) (path string, err error) {
	path, err = a.configPath()
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(c, "", "  ") //nolint:gosec // keeping the key is the purpose
	if err != nil {
		return "", fmt.Errorf("encode the login: %w", err)
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("keep the login: %w", err)
	}
	if err = durable.Replace(path, append(text, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("keep the login: %w", err)
	}
	return path, nil
}

// readCA reads a file of certificates; no path is none.
func readCA(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return "", fmt.Errorf("read the certificate authorities: %w", err)
	}
	return string(text), nil
}
