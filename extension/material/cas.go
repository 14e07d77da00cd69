package material

import (
	"crypto/x509"
	"fmt"
	"os"
)

// CAs reads a file of CA certificates in PEM form. Errors call it what and, where it
// can be read, by its path.
func CAs(what, path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read %s %s: it holds no certificate in PEM form", what, path)
	}
	return pool, nil
}
