package tunnel_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// authority makes certificates for 127.0.0.1 with any dates.
type authority struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	caFile string
}

func newAuthority(t *testing.T, from, to time.Time) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newECDSA(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.caFile = writeCA(t, der)
	return a
}

func newECDSA(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) issue(ip string, from, to time.Time) tls.Certificate {
	a.t.Helper()
	key := newECDSA(a.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.ParseIP(ip)},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestDatesOfTheOuterCertificate connects where the outer certificate is not valid yet, as it looks to a machine in 1970,
// and where it has expired, as to one in 2100; not where it is of another authority or another host besides.
func TestDatesOfTheOuterCertificate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	later, earlier := now.AddDate(50, 0, 0), now.AddDate(-50, 0, 0)
	for name, c := range map[string]struct {
		from, to time.Time
		ip       string
		trusted  bool
		connects bool
	}{
		"not valid yet":                 {later, later.AddDate(0, 3, 0), "127.0.0.1", true, true},
		"expired":                       {earlier, earlier.AddDate(0, 3, 0), "127.0.0.1", true, true},
		"expired, of another host":      {earlier, earlier.AddDate(0, 3, 0), "127.0.0.2", true, false},
		"expired, of another authority": {earlier, earlier.AddDate(0, 3, 0), "127.0.0.1", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, nil)
			ca := newAuthority(t, c.from.AddDate(-1, 0, 0), c.to.AddDate(1, 0, 0))
			server := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(c.ip, c.from, c.to)}}
			server.Config.ErrorLog = p.server.Config.ErrorLog
			server.StartTLS()
			t.Cleanup(server.Close)
			a := newAgent(t)
			s := settingsFor(t, p, a)
			s.Link.URL = server.URL
			if c.trusted {
				s.Link.CAFile = ca.caFile
			}
			client, stop := run(t, s)
			if c.connects {
				<-p.statuses
				stop()
				return
			}
			comesAbout(t, func() bool { return client.State().LastError != "" })
			stop()
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.hellos) > 0 {
				t.Error("it connected")
			}
		})
	}
}

// comesAbout asks until something holds.
func comesAbout(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-t.Context().Done():
			t.Fatal("it did not come about")
		case <-tick.C:
		}
	}
}
