package memcached

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestTLSTakesTheRightCertificatesOnly runs memcached with a private CA, with
// and without client certificates
// (https://github.com/memcached/memcached/blob/master/doc/tls.txt; 2 is
// "require" in -o ssl_verify_mode).
func TestTLSTakesTheRightCertificatesOnly(t *testing.T) {
	t.Parallel()
	real(t)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, b, 0o600))
		return path
	}
	ca := harness.CAFor(t)
	other, err := harness.NewCA()
	must(t, err)
	caFile, otherFile := write("ca.pem", ca.PEM()), write("other.pem", other.PEM())
	pair := func(name string, ca *harness.CA) (cert, key string) {
		leaf, err := ca.Leaf("client")
		must(t, err)
		c, k, err := harness.KeyPairPEM(leaf)
		must(t, err)
		return write(name+".pem", c), write(name+".key", k)
	}
	cert, key := pair("client", ca)
	strangeCert, strangeKey := pair("strange", other)
	open := harness.Memcache(t, harness.MemcachedConfig{CA: ca})
	mutual := harness.Memcache(t, harness.MemcachedConfig{CA: ca, Args: []string{"-o", "ssl_verify_mode=2,ssl_ca_cert=" + caFile}})
	for name, c := range map[string]struct {
		m  *harness.Memcached
		o  *config.MemcachedTLS
		ok bool
	}{
		"its CA":                             {open, &config.MemcachedTLS{CACert: caFile}, true},
		"the system's roots":                 {open, &config.MemcachedTLS{}, false},
		"another CA":                         {open, &config.MemcachedTLS{CACert: otherFile}, false},
		"a name in the certificate":          {open, &config.MemcachedTLS{CACert: caFile, ServerName: "localhost"}, true},
		"a name that is not in it":           {open, &config.MemcachedTLS{CACert: caFile, ServerName: "cache.example"}, false},
		"no TLS":                             {open, nil, false},
		"a client certificate":               {mutual, &config.MemcachedTLS{CACert: caFile, ClientCert: cert, ClientKey: key}, true},
		"none where one is required":         {mutual, &config.MemcachedTLS{CACert: caFile}, false},
		"a strange one":                      {mutual, &config.MemcachedTLS{CACert: caFile, ClientCert: strangeCert, ClientKey: strangeKey}, false},
		"a client certificate nobody wanted": {open, &config.MemcachedTLS{CACert: caFile, ClientCert: cert, ClientKey: key}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := client(t, Options{Nodes: []string{c.m.Addr()}, TLS: c.o, Timeout: time.Second})
			err := cl.Set(t.Context(), "k", []byte(name), time.Minute)
			if (err == nil) != c.ok {
				t.Fatalf("stored: %v", err)
			}
			if got := get(t, cl, "k"); c.ok == (got == "miss") {
				t.Errorf("found %q", got)
			}
		})
	}
}

// TestRotatedTLSFilesAreTakenIn: by itself after a handshake that failed on them, and
// after a refusal of the client certificate, which TLS 1.3 tells at the first read.
// Files that cannot be used leave the old in use.
func TestRotatedTLSFilesAreTakenIn(t *testing.T) {
	t.Parallel()
	real(t)
	one, err := harness.NewCA()
	must(t, err)
	two, err := harness.NewCA()
	must(t, err)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(caFile, one.PEM(), 0o600))
	mutual := harness.Memcache(t, harness.MemcachedConfig{CA: one, Args: []string{"-o", "ssl_verify_mode=2,ssl_ca_cert=" + caFile}})
	for name, c := range map[string]struct {
		before, after [2]*harness.CA // of the server's certificate as the client trusts it, and of the client's
	}{
		"the CA":                 {[2]*harness.CA{two, one}, [2]*harness.CA{one, one}},
		"the client certificate": {[2]*harness.CA{one, two}, [2]*harness.CA{one, one}},
	} {
		for _, by := range []string{"a failure", "Reload"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				o := &config.MemcachedTLS{CACert: filepath.Join(dir, "ca"), ClientCert: filepath.Join(dir, "cert"), ClientKey: filepath.Join(dir, "key")}
				write := func(of [2]*harness.CA) {
					leaf, err := of[1].Leaf("client")
					must(t, err)
					cert, key, err := harness.KeyPairPEM(leaf)
					must(t, err)
					must(t, os.WriteFile(o.CACert, of[0].PEM(), 0o600))
					must(t, os.WriteFile(o.ClientCert, cert, 0o600))
					must(t, os.WriteFile(o.ClientKey, key, 0o600))
				}
				stored := func(cl *Client) bool { return cl.Set(t.Context(), "k", []byte("v"), time.Minute) == nil }
				write(c.before)
				cl := client(t, Options{Nodes: []string{mutual.Addr()}, TLS: o, Timeout: time.Second, Window: time.Millisecond, MaxWindow: time.Millisecond})
				if stored(cl) {
					t.Fatal("stored with files of another CA")
				}
				write(c.after)
				if by == "Reload" && !cl.Reload() {
					t.Error("no change was found")
				}
				harness.Eventually(t, 10*time.Second, "the new files are used", func() bool { return stored(cl) })
				must(t, os.WriteFile(o.CACert, []byte("garbage"), 0o600))
				if cl.Reload() || !stored(cl) {
					t.Error("files that cannot be used were taken in")
				}
			})
		}
	}
}
