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
