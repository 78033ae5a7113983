package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/postgres"
	"github.com/outfeed/outfeed/controlplane/internal/vault"
	"github.com/outfeed/outfeed/internal/keyfile"
	"github.com/outfeed/outfeed/internal/secret"
)

// keyFiles says where the control plane's own keys are.
func (c *Config) keyFiles() vault.Files { return vault.Files{Dir: c.DataDir, Master: c.MasterKeyFile} }

// checkKeyFiles refuses files with keys, and directories of such, that others may have read, changed or chosen. The error
// has all of them, so that one round of commands mends all. What is not there yet is not its business.
func (c *Config) checkKeyFiles() error {
	errs := []error{c.keyFiles().Check(), present(c.checkAdminToken())}
	if c.TLSListen != "" {
		if c.TLSCertFile == "" {
			errs = append(errs, present(tlsAdvice("").CheckDir(filepath.Join(c.DataDir, "tls"))))
		}
		_, err := c.readTLSKey()
		errs = append(errs, present(err))
	}
	return errors.Join(errs...)
}

// present leaves out the error of a file that is not there.
func present(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// checkAdminToken looks at the file of the operators' token.
func (c *Config) checkAdminToken() error {
	advice := keyfile.Advice{
		What: "the operators' token", Lost: "remove it, and a new one is made at the next start",
		Distrust: "remove it, and a new one is made at the next start",
	}
	if c.AdminTokenFile == filepath.Join(c.DataDir, "admin-token") {
		return advice.Check(c.AdminTokenFile)
	}
	_, err := advice.ReadNamed(c.AdminTokenFile)
	return err
}

// readTLSKey reads the key of the certificate.
func (c *Config) readTLSKey() ([]byte, error) {
	_, keyFile := c.certificateFiles()
	if c.TLSKeyFile != "" {
		return tlsAdvice("have another certificate made").ReadNamed(keyFile)
	}
	return tlsAdvice("remove " + keyfile.Word(filepath.Dir(keyFile)) + ", and a new certificate is made at the next start, which agents with ca_file must be given").Read(keyFile)
}

func tlsAdvice(distrust string) keyfile.Advice {
	return keyfile.Advice{What: "the key of the TLS certificate", Distrust: distrust, Lost: "restore it from a backup"}
}

// keys loads the control plane's keys and holds them against what the database has recorded of them. Only a first start,
// on a database in which nothing hangs on keys, makes them.
func (c *ControlPlane) keys(ctx context.Context, store *postgres.Store) (*vault.Keys, error) {
	recorded, err := store.InstallationKeys(ctx)
	if err != nil {
		return nil, err
	}
	hang, err := store.HangOnKeys(ctx)
	if err != nil {
		return nil, err
	}
	load := c.config.keyFiles().Load
	if len(recorded) == 0 && hang.Tenants == 0 {
		load = c.config.keyFiles().LoadOrCreate
	}
	keys, err := load()
	if missing, ok := errors.AsType[*vault.MissingError](err); ok {
		return nil, c.explainMissing(missing, hang)
	}
	if err != nil {
		return nil, err
	}
	if err := c.compare(keys, recorded); err != nil {
		return nil, err
	}
	now, err := store.RecordKeys(ctx, fingerprints(keys), nil)
	if err != nil {
		return nil, err
	}
	// Another process with keys of its own may have been first.
	for name, fingerprint := range now {
		recorded = append(recorded, postgres.InstallationKey{Name: name, Fingerprint: fingerprint, Recorded: time.Now()})
	}
	return keys, c.compare(keys, recorded)
}

func fingerprints(keys *vault.Keys) map[string]string {
	out := map[string]string{}
	for name, fingerprint := range keys.Fingerprints() {
		out[string(name)] = fingerprint
	}
	return out
}

// compare refuses keys that are not the recorded ones.
func (c *ControlPlane) compare(keys *vault.Keys, recorded []postgres.InstallationKey) error {
	have := fingerprints(keys)
	var wrong []string
	lines := []string{"these keys are not those that this database belongs to, but another installation's:"}
	for _, r := range recorded {
		if have[r.Name] == r.Fingerprint || slices.Contains(wrong, r.Name) {
			continue
		}
		wrong = append(wrong, r.Name)
		lines = append(lines, fmt.Sprintf("%s has the fingerprint %s; since %s it is to be %s. It is %s.",
			c.config.keyFiles().Path(vault.KeyName(r.Name)), have[r.Name], r.Recorded.UTC().Format(time.RFC3339), r.Fingerprint, meaning(r.Name)))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(append(lines, remedy(wrong)), "\n"))
}

// explainMissing says what is missing, what it means, and what to do.
func (c *ControlPlane) explainMissing(e *vault.MissingError, hang postgres.HangOnKeys) error {
	lines := []string{fmt.Sprintf("keys are missing, and making new ones would shut out those who know the old ones (%s):", hanging(hang))}
	var names []string
	for _, k := range e.Keys {
		names = append(names, string(k.Name))
		lines = append(lines, fmt.Sprintf("%s is not there. It is %s.", k.Path, meaning(string(k.Name))))
		if k.Name == vault.MasterKey && c.config.MasterKeyFile != "" {
			lines = append(lines, "OUTFEED_MASTER_KEY_FILE names it; at the very first start make it with: (umask 077; head -c 32 /dev/urandom | base64 >"+keyfile.Word(k.Path)+")")
		}
	}
	return errors.New(strings.Join(append(lines, remedy(names)), "\n"))
}

// meaning is what a key is, and what its loss means.
func meaning(name string) string {
	switch vault.KeyName(name) {
	case vault.MasterKey:
		return "what the other keys and all stored credentials are encrypted under, which cannot be read without it"
	case vault.IdentityKey:
		return "what agents know this control plane by: none connects to one with another"
	case vault.BundleKey:
		return "what the flows of agents are signed with: they take no flow that another has signed"
	}
	return name
}

// remedy is what to do about keys that are missing or wrong.
func remedy(names []string) string {
	if slices.Contains(names, string(vault.MasterKey)) {
		names = []string{string(vault.MasterKey)}
	}
	return "Restore the files from a backup of this installation's data directory (with mode 600), or look whether OUTFEED_DATA_DIR and " +
		"OUTFEED_DATABASE_URL belong together; then start again. Who has lost them for good makes new ones with the following command, which first tells the price: " +
		"outfeed-controlplane keys replace " + strings.Join(names, " ")
}

func hanging(h postgres.HangOnKeys) string {
	return fmt.Sprintf("%d tenants, %d agents, %d credentials of connections", h.Tenants, h.Agents, h.Credentials)
}

// Key is one of the control plane's keys, without its secret.
type Key struct {
	// Name is master, identity or bundle.
	Name string `json:"name"`
	File string `json:"file"`
	// Fingerprint has 64 hex digits and is no secret. It is empty when the key has yet to be made.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// ShowKeys gives the keys in a data directory, such as a restored backup. It needs no database and changes nothing.
func ShowKeys(c Config) ([]Key, error) {
	files := c.keyFiles()
	if err := files.Check(); err != nil {
		return nil, fmt.Errorf("read the control plane's keys: %w", err)
	}
	keys, err := files.Load()
	if err != nil {
		return nil, fmt.Errorf("read the control plane's keys: %w", err)
	}
	return describeKeys(files, keys, vault.KeyNames()), nil
}

func describeKeys(files vault.Files, keys *vault.Keys, names []vault.KeyName) []Key {
	var out []Key
	for _, name := range names {
		out = append(out, Key{Name: string(name), File: files.Path(name), Fingerprint: keys.Fingerprints()[name]})
	}
	return out
}

// KeyReplacement is what replacing keys means.
type KeyReplacement struct {
	// Keys are those that are replaced: more than were asked for when the master key is among them.
	Keys []Key `json:"keys"`
	// Agents must be enrolled again, Credentials of connections entered again.
	Agents      int64 `json:"agents"`
	Credentials int64 `json:"credentials"`
}

// PriceOfKeys says what replacing these keys (master, identity, bundle) would mean, and changes nothing.
func PriceOfKeys(ctx context.Context, c Config, log *slog.Logger, names []string) (KeyReplacement, error) {
	return withKeys(ctx, c, log, names, func(_ context.Context, _ *postgres.Store, names []vault.KeyName) ([]Key, error) {
		var out []Key
		for _, name := range names {
			out = append(out, Key{Name: string(name), File: c.keyFiles().Path(name)})
		}
		return out, nil
	})
}

// ReplaceKeys makes new keys, for who has lost the old ones or does not trust them any more. No control plane of this
// installation may run meanwhile: it would go on with the old ones. After a crash in the middle it is to be called again.
func ReplaceKeys(ctx context.Context, c Config, log *slog.Logger, names []string) (KeyReplacement, error) {
	return withKeys(ctx, c, log, names, func(ctx context.Context, store *postgres.Store, names []vault.KeyName) ([]Key, error) {
		before, err := store.InstallationKeys(ctx)
		if err != nil {
			return nil, err
		}
		keys, err := c.keyFiles().Replace(names, time.Now())
		if err != nil {
			return nil, err
		}
		replaced := map[string]string{}
		for _, k := range before {
			if slices.Contains(names, vault.KeyName(k.Name)) {
				replaced[k.Name] = k.Fingerprint
			}
		}
		now, err := store.RecordKeys(ctx, fingerprints(keys), replaced)
		if err != nil {
			return nil, err
		}
		if !maps.Equal(now, fingerprints(keys)) {
			return nil, errors.New("the keys that stay are not those that this database belongs to; the new ones were made, and the next start says which are wrong")
		}
		return describeKeys(c.keyFiles(), keys, names), nil
	})
}

// withKeys opens the database for something that is done to keys.
func withKeys(ctx context.Context, c Config, log *slog.Logger, asked []string, do func(context.Context, *postgres.Store, []vault.KeyName) ([]Key, error)) (KeyReplacement, error) {
	var names []vault.KeyName
	for _, name := range vault.KeyNames() {
		if slices.Contains(asked, string(name)) || slices.Contains(asked, string(vault.MasterKey)) {
			names = append(names, name)
		}
	}
	var out KeyReplacement
	act := func(ctx context.Context, database secret.String) error {
		store, err := postgres.Open(ctx, postgres.Settings{URL: database, Logger: log})
		if err != nil {
			return err
		}
		defer store.Close()
		hang, err := store.HangOnKeys(ctx)
		if err != nil {
			return err
		}
		out.Agents = hang.Agents
		if slices.Contains(names, vault.MasterKey) {
			out.Credentials = hang.Credentials
		}
		out.Keys, err = do(ctx, store, names)
		return err
	}
	if !c.DatabaseURL.Empty() {
		return out, act(ctx, c.DatabaseURL)
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "postgres")); err != nil {
		return out, fmt.Errorf("there is no control plane in %s; set OUTFEED_DATA_DIR, or OUTFEED_DATABASE_URL, as it has them: %w", c.DataDir, err)
	}
	err := New(c, log).withPrivateDatabase(ctx, act)
	return out, err
}
