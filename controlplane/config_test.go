package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func env(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, err := LoadConfig(env(map[string]string{"OUTFEED_DATA_DIR": "/data", "OUTFEED_TLS_LISTEN": "10.0.0.1:443"}))
	if err != nil {
		t.Fatal(err)
	}
	if c.PublicURL != "https://10.0.0.1:443" || c.AdminTokenFile != "/data/admin-token" || c.Listen != "127.0.0.1:8480" || !c.DatabaseURL.Empty() {
		t.Errorf("got %+v", c)
	}
}

func TestThePasswordOfTheDatabaseIsInAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("p@:/ %s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"postgres://app@db/outfeed", "postgres://a%20b@one:1,two:2/o?x=y@z", "postgres://app@/outfeed?host=/var/run/pg"} {
		want := strings.Replace(text, "@", ":p%40%3A%2F%20%25s@", 1)
		c, err := LoadConfig(env(map[string]string{"OUTFEED_DATABASE_URL": text, "OUTFEED_DATABASE_PASSWORD_FILE": file}))
		if err != nil || c.DatabaseURL.Reveal() != want || c.MigrateURL.Reveal() != want {
			t.Errorf("%s becomes %s and %s, %v", text, c.DatabaseURL.Reveal(), c.MigrateURL.Reveal(), err)
		}
	}
	for _, text := range []string{"", "postgres://db:5432,other:5433/o?application_name=a@b", "host=db user=app"} {
		c, err := LoadConfig(env(map[string]string{"OUTFEED_DATABASE_URL": text}))
		if err != nil || c.DatabaseURL.Reveal() != text {
			t.Errorf("%q becomes %q, %v", text, c.DatabaseURL.Reveal(), err)
		}
	}
}

func TestThePublicURLOfAWildcardNamesThisMachine(t *testing.T) {
	t.Parallel()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{":8443", "0.0.0.0:8443", "[::]:8443"} {
		c, err := LoadConfig(env(map[string]string{"OUTFEED_TLS_LISTEN": address}))
		if err != nil || c.PublicURL != "https://"+name+":8443" {
			t.Errorf("%s gives %q, %v", address, c.PublicURL, err)
		}
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		vars map[string]string
		want string
	}{
		"address":     {map[string]string{"OUTFEED_LISTEN": "8480"}, "OUTFEED_LISTEN"},
		"no address":  {map[string]string{"OUTFEED_LISTEN": ""}, "nobody could reach"},
		"half a pair": {map[string]string{"OUTFEED_TLS_CERT_FILE": "x"}, "or neither"},
		"public URL":  {map[string]string{"OUTFEED_PUBLIC_URL": "outfeed.example.com"}, "OUTFEED_PUBLIC_URL"},
		"password":    {map[string]string{"OUTFEED_DATABASE_URL": "postgres://app:" + "p@db/outfeed"}, "OUTFEED_DATABASE_PASSWORD_FILE"},
		"owner's":     {map[string]string{"OUTFEED_MIGRATE_DATABASE_URL": "host=db user=owner pass" + "word=p"}, "OUTFEED_MIGRATE_DATABASE_PASSWORD_FILE"},
		"libpq's":     {map[string]string{"OUTFEED_DATABASE_URL": "postgres://app@db/outfeed", "PGPASSWORD": "p"}, "PGPASSWORD is set"},
		"no user":     {map[string]string{"OUTFEED_DATABASE_URL": "postgres://db/outfeed", "OUTFEED_DATABASE_PASSWORD_FILE": "/x"}, "whose password"},
		"no file":     {map[string]string{"OUTFEED_DATABASE_URL": "postgres://app@db/outfeed", "OUTFEED_DATABASE_PASSWORD_FILE": "/nowhere"}, "/nowhere"},
		"mode":        {map[string]string{"OUTFEED_MODE": "cloud"}, "OUTFEED_MODE"},
		"log level":   {map[string]string{"OUTFEED_LOG_LEVEL": "loud"}, "OUTFEED_LOG_LEVEL"},
		"proxies":     {map[string]string{"OUTFEED_TRUSTED_PROXIES": "nginx"}, "OUTFEED_TRUSTED_PROXIES"},
		"log format":  {map[string]string{"OUTFEED_LOG_FORMAT": "xml"}, "OUTFEED_LOG_FORMAT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := LoadConfig(env(tt.vars)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something about %q", err, tt.want)
			}
		})
	}
}

// The certificate that is made at the first start is the same at the second, and a client that trusts it accepts it.
func TestSelfSignedCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := LoadConfig(env(map[string]string{"OUTFEED_DATA_DIR": dir, "OUTFEED_PUBLIC_URL": "https://outfeed.plant.example:8443"}))
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.certificate()
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.certificate()
	if err != nil {
		t.Fatal(err)
	}
	if !first.Leaf.Equal(second.Leaf) {
		t.Error("a second start made another certificate")
	}
	if info, err := os.Stat(filepath.Join(dir, "tls", "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(first.Leaf)
	for _, name := range []string{"localhost", "127.0.0.1", "outfeed.plant.example"} {
		server, client := net.Pipe()
		go func() {
			s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{second}, MinVersion: tls.VersionTLS12})
			s.HandshakeContext(t.Context()) //nolint:errcheck // the client says what went wrong
			s.Close()                       //nolint:errcheck // as above
		}()
		if err := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
