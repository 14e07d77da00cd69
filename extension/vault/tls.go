package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
)

// tlsConfig reads the files that t names. Of several sources of CA
// certificates one is used, in vault/api's documented order: the file, the
// text, the directory; with none of them the system's.
// https://pkg.go.dev/github.com/hashicorp/vault/api#TLSConfig
func tlsConfig(t config.TLS) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.SkipVerify,
		// A connection is often opened anew after a freeze; resuming spares a
		// round trip and the server a signature.
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	var err error
	switch {
	case t.CACert != "":
		cfg.RootCAs, err = material.CAs("VAULT_CACERT", t.CACert)
	case t.CACertPEM != "":
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(t.CACertPEM)) {
			err = errors.New("VAULT_CACERT_BYTES holds no certificate in PEM form")
		}
	case t.CAPath != "":
		cfg.RootCAs, err = poolFromDir(t.CAPath)
	}
	if err != nil {
		return nil, err
	}
	if t.ClientCert != "" || t.ClientKey != "" {
		cert, err := tls.LoadX509KeyPair(t.ClientCert, t.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("read VAULT_CLIENT_CERT %s with VAULT_CLIENT_KEY %s: %w", t.ClientCert, t.ClientKey, err)
		}
		// As vault/api does: the certificate is sent whatever CAs the server
		// says it accepts.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return cfg, nil
}

func poolFromDir(dir string) (*x509.CertPool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read VAULT_CAPATH: %w", err)
	}
	pool, found := x509.NewCertPool(), false
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// Stat follows links: directories of certificates are often links.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read VAULT_CAPATH: %w", err)
		}
		found = pool.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("read VAULT_CAPATH %s: no file in it holds a certificate in PEM form", dir)
	}
	return pool, nil
}
