package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/outfeed/outfeed/internal/durable"
)

// selfSignedFor is how long a certificate that signs itself is valid.
const selfSignedFor = 5 * 365 * 24 * time.Hour

// certificate loads the configured certificate, or the one that signs itself, which it makes at the first start. It
// protects the outer connection only: the inner one pins the control plane's own key.
func (c *Config) certificate() (tls.Certificate, error) {
	certFile, keyFile := c.certificateFiles()
	if c.TLSCertFile == "" {
		dir := filepath.Dir(certFile)
		if _, err := os.Stat(certFile); errors.Is(err, os.ErrNotExist) {
			if err := c.makeCertificate(dir, certFile, keyFile); err != nil {
				return tls.Certificate{}, fmt.Errorf("make a certificate in %s: %w", dir, err)
			}
		}
	}
	certPEM, err := os.ReadFile(certFile) //nolint:gosec // the operator names the file
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load the TLS certificate: %w", err)
	}
	keyPEM, err := c.readTLSKey()
	if errors.Is(err, os.ErrNotExist) && c.TLSCertFile == "" {
		return tls.Certificate{}, fmt.Errorf("%w; restore it from a backup, or remove %s, and a new pair is made at the next start, which agents with ca_file need", err, certFile)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load the TLS certificate %s: %w", certFile, err)
	}
	return cert, nil
}

// certificateFiles are the configured ones, or those of the certificate that signs itself.
func (c *Config) certificateFiles() (certFile, keyFile string) {
	if c.TLSCertFile != "" {
		return c.TLSCertFile, c.TLSKeyFile
	}
	dir := filepath.Join(c.DataDir, "tls")
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

func (c *Config) makeCertificate(dir, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what was being made
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Outfeed control plane"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(selfSignedFor),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	c.nameCertificate(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the certificate is public; the key has its own mode
		return err //nolint:wrapcheck // as above
	}
	// The key goes first: a certificate is what says that the pair is whole.
	if err := durable.Replace(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return durable.Replace(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// nameCertificate puts this machine's names and the public URL's host into a certificate.
func (c *Config) nameCertificate(t *x509.Certificate) {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	if u, err := url.Parse(c.PublicURL); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
}
