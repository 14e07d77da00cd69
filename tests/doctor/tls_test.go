package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// front serves the site's Vault by TLS. It returns the address and a file with
// the CA.
func (s *site) front(cfg *tls.Config, names ...string) (addr, ca string) {
	s.t.Helper()
	authority, err := harness.NewCA()
	harness.Must(s.t, err)
	if len(cfg.Certificates) == 0 {
		leaf, err := authority.Leaf(names...)
		harness.Must(s.t, err)
		cfg.Certificates = []tls.Certificate{leaf}
	}
	backend, err := url.Parse(s.vault.Addr())
	harness.Must(s.t, err)
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(backend))
	server.TLS, server.Config.ErrorLog = cfg, log.New(io.Discard, "", 0)
	server.StartTLS()
	s.t.Cleanup(server.Close)
	return server.URL, file(s.t, "ca.pem", authority.PEM())
}

// selfSigned is a certificate that was good in the given time.
func selfSigned(t *testing.T, from, until time.Time) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "vault"}, DNSNames: []string{"localhost"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	tmpl.IPAddresses = append(tmpl.IPAddresses, []byte{127, 0, 0, 1})
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert
}

// aged is a site whose certificate is good from and until then.
func aged(s *site, from, until time.Duration) []string {
	now := time.Now()
	pair, _ := selfSigned(s.t, now.Add(from), now.Add(until))
	addr, _ := s.front(&tls.Config{Certificates: []tls.Certificate{pair}})
	cert, _, err := harness.KeyPairPEM(pair)
	harness.Must(s.t, err)
	return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+file(s.t, "ca.pem", cert))
}

func tlsFaults() []fault {
	return []fault{
		{name: "a certificate of an unknown CA", plant: func(s *site) ([]string, []string) {
			addr, _ := s.front(&tls.Config{}, "127.0.0.1")
			return s.approle("VLE_VAULT_ADDR=" + addr), nil
		}, check: "tls", what: "unknown authority", fix: "set VAULT_CACERT", exit: 1},
		{name: "a certificate for another name", plant: func(s *site) ([]string, []string) {
			addr, ca := s.front(&tls.Config{}, "vault.internal")
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+ca), nil
		}, check: "tls", what: "127.0.0.1", fix: "VAULT_TLS_SERVER_NAME to one of them: vault.internal", exit: 1},
		{name: "a certificate for an address alone", plant: func(s *site) ([]string, []string) {
			addr, ca := s.front(&tls.Config{}, "127.0.0.1")
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+ca, "VAULT_TLS_SERVER_NAME=vault.internal"), nil
		}, check: "tls", what: "vault.internal", fix: "VAULT_TLS_SERVER_NAME to one of them: 127.0.0.1", exit: 1},
		{name: "a certificate without alternative names", plant: func(s *site) ([]string, []string) {
			addr, ca := s.front(&tls.Config{})
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+ca), nil
		}, check: "tls", what: "127.0.0.1", fix: "subject alternative names", exit: 1},
		{name: "a certificate that has expired", plant: func(s *site) ([]string, []string) {
			return aged(s, -48*time.Hour, -time.Hour), nil
		}, check: "tls", what: "expired", fix: "renew Vault's certificate", exit: 1},
		{name: "a certificate that ends soon", plant: func(s *site) ([]string, []string) {
			return aged(s, -90*24*time.Hour, 48*time.Hour), nil
		}, check: "tls", level: "advice", what: "the certificate ends", fix: "renew Vault's certificate", exit: 0},
		{name: "https where none is spoken", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + strings.Replace(s.vault.Addr(), "http:", "https:", 1)), nil
		}, check: "tls", what: "does not speak TLS", fix: "write http://", exit: 1},
		{name: "http where TLS is spoken", plant: func(s *site) ([]string, []string) {
			addr, _ := s.front(&tls.Config{}, "127.0.0.1")
			return s.approle("VLE_VAULT_ADDR=" + strings.Replace(addr, "https:", "http:", 1)), nil
		}, check: "tls", what: "TLS is spoken there", fix: "write https://", exit: 1},
		{name: "no client certificate", plant: func(s *site) ([]string, []string) {
			addr, ca := s.front(&tls.Config{ClientAuth: tls.RequireAnyClientCert}, "127.0.0.1")
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+ca), nil
		}, check: "tls", what: "remote error", fix: "VAULT_CLIENT_CERT", exit: 1},
		{name: "a bundle whose second certificate is broken", plant: func(s *site) ([]string, []string) {
			addr, ca := s.front(&tls.Config{}, "127.0.0.1")
			text, err := os.ReadFile(ca)
			harness.Must(s.t, err)
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+file(s.t, "two.pem", append(text, "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n"...))), nil
		}, check: "tls", level: "advice", what: "in VAULT_CACERT 1 cannot be read", fix: "whole PEM blocks", exit: 0},
		{name: "a bundle that is cut off in its second certificate", plant: func(s *site) ([]string, []string) {
			addr, ca := s.front(&tls.Config{}, "127.0.0.1")
			text, err := os.ReadFile(ca)
			harness.Must(s.t, err)
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+file(s.t, "two.pem", append(text, text[:len(text)/2]...))), nil
		}, check: "tls", level: "advice", what: "in VAULT_CACERT 1 cannot be read", fix: "whole PEM blocks", exit: 0},
		{name: "a CA file that is not there", plant: func(s *site) ([]string, []string) {
			addr, _ := s.front(&tls.Config{}, "127.0.0.1")
			return s.approle("VLE_VAULT_ADDR="+addr, "VAULT_CACERT=/nowhere/ca.pem"), nil
		}, check: "tls", what: "/nowhere/ca.pem", fix: "correct the file", exit: 1},
	}
}
