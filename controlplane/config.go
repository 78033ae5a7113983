package controlplane

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/address"
	"github.com/outfeed/outfeed/internal/keyfile"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/internal/source"
)

// Config is what the operator sets, each field with the environment variable named beside it.
type Config struct {
	// DatabaseURL is PostgreSQL for the application role (OUTFEED_DATABASE_URL), with the password that is in the file
	// OUTFEED_DATABASE_PASSWORD_FILE, if there is one. Empty: a private PostgreSQL in DataDir.
	DatabaseURL secret.String
	// MigrateURL is PostgreSQL for the owner, used by migrate alone (OUTFEED_MIGRATE_DATABASE_URL with the password in
	// OUTFEED_MIGRATE_DATABASE_PASSWORD_FILE; empty: DatabaseURL).
	MigrateURL secret.String
	// DataDir holds keys, certificates and the private PostgreSQL (OUTFEED_DATA_DIR).
	DataDir string
	// Listen is the plain HTTP address, for a load balancer or for this machine (OUTFEED_LISTEN; empty: nowhere).
	Listen string
	// TLSListen is the HTTPS address (OUTFEED_TLS_LISTEN; empty: nowhere).
	TLSListen string
	// TLSCertFile and TLSKeyFile are the certificate in PEM (OUTFEED_TLS_CERT_FILE, OUTFEED_TLS_KEY_FILE). Empty: one that
	// signs itself is made at the first start, in DataDir/tls.
	TLSCertFile, TLSKeyFile string
	// PublicURL is how people and agents reach this control plane (OUTFEED_PUBLIC_URL).
	PublicURL string
	// AdminListen is the operators' address (OUTFEED_ADMIN_LISTEN), AdminTokenFile the file with their token
	// (OUTFEED_ADMIN_TOKEN_FILE; made at the first start when it is not there).
	AdminListen, AdminTokenFile string
	// MasterKeyFile wraps every other key (OUTFEED_MASTER_KEY_FILE). Empty: one in DataDir, made at the first start.
	MasterKeyFile string
	// TrustedProxies are the addresses of load balancers in front that are believed when they say for whom they speak
	// (OUTFEED_TRUSTED_PROXIES, addresses and CIDR ranges with commas between them; empty: nobody is believed).
	TrustedProxies source.Proxies
	// Mode is saas, single-tenant or on-prem (OUTFEED_MODE).
	Mode string
	// LogLevel is debug, info, warn or error (OUTFEED_LOG_LEVEL), LogFormat json or text (OUTFEED_LOG_FORMAT).
	LogLevel  slog.Level
	LogFormat string
	// FlowTest is the command line that runs the tests of a definition: it takes the definition on standard input and gives
	// a JSON list of results. Main sets it.
	FlowTest []string
}

// Variables lists the environment variables with their meaning, for the help text.
func Variables() [][2]string {
	return [][2]string{
		{"OUTFEED_DATABASE_URL", "PostgreSQL, as the application role; empty: a private PostgreSQL in the data directory"},
		{"OUTFEED_DATABASE_PASSWORD_FILE", "file with that role's password, which does not belong into the environment"},
		{"OUTFEED_MIGRATE_DATABASE_URL", "PostgreSQL, as the owner of the schema, for migrate"},
		{"OUTFEED_MIGRATE_DATABASE_PASSWORD_FILE", "file with the owner's password"},
		{"OUTFEED_DATA_DIR", "folder for keys, certificates and the private PostgreSQL (default /var/lib/outfeed)"},
		{"OUTFEED_LISTEN", "plain HTTP address (default 127.0.0.1:8480)"},
		{"OUTFEED_TLS_LISTEN", "HTTPS address (default none)"},
		{"OUTFEED_TLS_CERT_FILE, OUTFEED_TLS_KEY_FILE", "certificate; empty: one is made that signs itself"},
		{"OUTFEED_PUBLIC_URL", "how people and agents reach it (default from the addresses)"},
		{"OUTFEED_ADMIN_LISTEN", "operators' address, with /metrics (default 127.0.0.1:8481)"},
		{"OUTFEED_ADMIN_TOKEN_FILE", "file with the operators' token (default admin-token in the data directory)"},
		{"OUTFEED_MASTER_KEY_FILE", "key that wraps every other; empty: one in the data directory, made at the first start"},
		{"OUTFEED_TRUSTED_PROXIES", "load balancers in front, as addresses and ranges like 127.0.0.1,10.1.0.0/16: their X-Forwarded-For, or PROXY protocol, says who comes (default none)"},
		{"OUTFEED_MODE", "saas, single-tenant or on-prem (default single-tenant)"},
		{"OUTFEED_LOG_LEVEL, OUTFEED_LOG_FORMAT", "debug|info|warn|error, text|json"},
	}
}

// LoadConfig reads the environment and checks it.
func LoadConfig(lookup func(string) (string, bool)) (Config, error) {
	get := func(name, fallback string) string {
		if v, ok := lookup(name); ok {
			return v
		}
		return fallback
	}
	dir := get("OUTFEED_DATA_DIR", "/var/lib/outfeed")
	c := Config{
		DataDir:     dir,
		Listen:      get("OUTFEED_LISTEN", "127.0.0.1:8480"),
		TLSListen:   get("OUTFEED_TLS_LISTEN", ""),
		TLSCertFile: get("OUTFEED_TLS_CERT_FILE", ""), TLSKeyFile: get("OUTFEED_TLS_KEY_FILE", ""),
		PublicURL:      get("OUTFEED_PUBLIC_URL", ""),
		AdminListen:    get("OUTFEED_ADMIN_LISTEN", "127.0.0.1:8481"),
		AdminTokenFile: get("OUTFEED_ADMIN_TOKEN_FILE", filepath.Join(dir, "admin-token")),
		MasterKeyFile:  get("OUTFEED_MASTER_KEY_FILE", ""),
		Mode:           get("OUTFEED_MODE", "single-tenant"),
		LogFormat:      get("OUTFEED_LOG_FORMAT", "text"),
	}
	if err := c.loadDatabase(get); err != nil {
		return Config{}, err
	}
	if err := c.LogLevel.UnmarshalText([]byte(get("OUTFEED_LOG_LEVEL", "info"))); err != nil {
		return Config{}, fmt.Errorf("OUTFEED_LOG_LEVEL: %w", err)
	}
	proxies, err := source.ParseProxies(get("OUTFEED_TRUSTED_PROXIES", ""))
	if err != nil {
		return Config{}, fmt.Errorf("OUTFEED_TRUSTED_PROXIES: %w", err)
	}
	c.TrustedProxies = proxies
	if c.PublicURL == "" {
		c.PublicURL = c.guessPublicURL()
	}
	return c, c.validate()
}

// loadDatabase reads how to reach PostgreSQL.
func (c *Config) loadDatabase(get func(name, fallback string) string) (err error) {
	if c.DatabaseURL, err = databaseURL(get, "OUTFEED_DATABASE"); err != nil {
		return err
	}
	if c.MigrateURL, err = databaseURL(get, "OUTFEED_MIGRATE_DATABASE"); c.MigrateURL.Empty() {
		c.MigrateURL = c.DatabaseURL
	}
	return err
}

// databaseURL puts the password in the file that is named by prefix_PASSWORD_FILE into the URL in prefix_URL. The URL itself may
// have none: everybody who may look at this process reads its environment.
func databaseURL(get func(name, fallback string) string, prefix string) (secret.String, error) {
	text, file := get(prefix+"_URL", ""), get(prefix+"_PASSWORD_FILE", "")
	scheme, rest, _ := strings.Cut(text, "://")
	user, place, hasUser := strings.Cut(rest, "@")
	hasUser = hasUser && !strings.Contains(user, "/")
	if hasUser && strings.Contains(user, ":") || strings.Contains(text, "password=") {
		return secret.String{}, fmt.Errorf("%s_URL has a password in it, which everybody who may look at the process can read in its environment: write it like postgres://user@host/database, put the password into a file of mode 600, and name that in %s_PASSWORD_FILE", prefix, prefix)
	}
	if text != "" && get("PGPASSWORD", "") != "" {
		return secret.String{}, fmt.Errorf("PGPASSWORD is set, which everybody who may look at the process can read in its environment: put the password into a file of mode 600, and name that in %s_PASSWORD_FILE", prefix)
	}
	if file == "" {
		return secret.New(text), nil
	}
	name, err := url.PathUnescape(user)
	if err != nil || !hasUser {
		return secret.String{}, fmt.Errorf("%s_PASSWORD_FILE is set, and %s_URL does not say whose password that is: write it like postgres://user@host/database", prefix, prefix)
	}
	advice := keyfile.Advice{What: "the password of the database", Distrust: "give the role another password", Lost: "name the file with the password in " + prefix + "_PASSWORD_FILE"}
	password, err := advice.ReadNamed(file)
	if err != nil {
		return secret.String{}, fmt.Errorf("%s_PASSWORD_FILE: %w", prefix, err)
	}
	return secret.New(scheme + "://" + url.UserPassword(name, strings.TrimRight(string(password), "\r\n")).String() + "@" + place), nil
}

// tenancy is how many tenants the mode allows.
func (c *Config) tenancy() fleet.Tenancy {
	if c.Mode == "single-tenant" {
		return fleet.OneTenant
	}
	return fleet.ManyTenants
}

// guessPublicURL is for a control plane whose operator has not said how it is reached.
func (c *Config) guessPublicURL() string {
	if c.TLSListen != "" {
		return "https://" + reachable(c.TLSListen)
	}
	return "http://" + reachable(c.Listen)
}

// reachable puts this machine's name in the place of an address that means all of them.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || (host != "" && (ip == nil || !ip.IsUnspecified())) {
		return address
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return net.JoinHostPort(name, port)
}

// validate says everything that is wrong.
func (c *Config) validate() error {
	var wrong []error
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	for name, address := range map[string]string{"OUTFEED_LISTEN": c.Listen, "OUTFEED_TLS_LISTEN": c.TLSListen, "OUTFEED_ADMIN_LISTEN": c.AdminListen} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			say("%s is %q: write an address like 127.0.0.1:8480: %w", name, address, err)
		}
	}
	if c.Listen == "" && c.TLSListen == "" {
		say("neither OUTFEED_LISTEN nor OUTFEED_TLS_LISTEN is set: nobody could reach the control plane")
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		say("set both OUTFEED_TLS_CERT_FILE and OUTFEED_TLS_KEY_FILE, or neither")
	}
	if _, err := address.ControlPlane(c.PublicURL); err != nil {
		say("OUTFEED_PUBLIC_URL: %w", err)
	}
	switch c.Mode {
	case "saas", "single-tenant", "on-prem":
	default:
		say("OUTFEED_MODE is %q: write saas, single-tenant or on-prem", c.Mode)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		say("OUTFEED_LOG_FORMAT is %q: write text or json", c.LogFormat)
	}
	return errors.Join(wrong...)
}
