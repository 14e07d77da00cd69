package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// authority is a private CA.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns a certificate for a name or address, valid until then.
func (a *authority) issue(name string, until time.Time) (cert tls.Certificate, certPEM, keyPEM string) {
	a.t.Helper()
	key := newKey(a.t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	if cert, err = tls.X509KeyPair([]byte(certPEM), []byte(keyPEM)); err != nil {
		a.t.Fatal(err)
	}
	return cert, certPEM, keyPEM
}

// serveTLS starts h with a certificate for name.
func (a *authority) serveTLS(name string, until time.Time, h http.Handler, tune func(*tls.Config)) string {
	a.t.Helper()
	cert, _, _ := a.issue(name, until)
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	if tune != nil {
		tune(s.TLS)
	}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.URL
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var anHour = time.Hour

func TestTLSVerifiesWithEachKindOfCA(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "README"), "no certificate")
	write(t, filepath.Join(dir, "ca.pem"), ca.pem)
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(t.TempDir(), "ca.pem"), ca.pem)
	wrong := write(t, filepath.Join(t.TempDir(), "ca.pem"), other.pem)
	f := newNode(t)
	here := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), f, nil)
	named := ca.serveTLS("vault.internal", time.Now().Add(anHour), f, nil)
	stale := ca.serveTLS("127.0.0.1", time.Now().Add(-anHour), f, nil)
	plain := f.addr
	old := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), f, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 })
	tests := map[string]struct {
		addr string
		tls  config.TLS
		hint string // empty: it works
	}{
		"text":                        {here, config.TLS{CACertPEM: ca.pem}, ""},
		"file":                        {here, config.TLS{CACert: file}, ""},
		"directory":                   {here, config.TLS{CAPath: dir}, ""},
		"file wins over the text":     {here, config.TLS{CACert: file, CACertPEM: "x"}, ""},
		"text wins over directory":    {here, config.TLS{CACertPEM: ca.pem, CAPath: t.TempDir()}, ""},
		"file wins over directory":    {here, config.TLS{CACert: wrong, CAPath: dir}, "VAULT_CACERT"},
		"system's CAs don't know it":  {here, config.TLS{}, "VAULT_CACERT"},
		"another CA":                  {here, config.TLS{CACert: wrong}, "VAULT_CACERT"},
		"another name":                {named, config.TLS{CACert: file}, "VAULT_TLS_SERVER_NAME"},
		"another name, told":          {named, config.TLS{CACert: file, ServerName: "vault.internal"}, ""},
		"expired":                     {stale, config.TLS{CACert: file}, "clock"},
		"expired and not verified":    {stale, config.TLS{SkipVerify: true}, ""},
		"plain HTTP at the other end": {strings.Replace(plain, "http:", "https:", 1), config.TLS{CACert: file}, "does not speak TLS"},
		"TLS 1.1":                     {old, config.TLS{CACert: file}, "TLS versions"},
		"no certificate in the text":  {here, config.TLS{CACertPEM: "x"}, "VAULT_CACERT_BYTES"},
		"no certificate in the dir":   {here, config.TLS{CAPath: t.TempDir()}, "VAULT_CAPATH"},
		"half a client certificate":   {here, config.TLS{CACert: file, ClientCert: file}, "VAULT_CLIENT_KEY"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{Config: config.Config{Addrs: []string{tt.addr}, TLS: tt.tls, MaxRetries: 3, ConnTimeout: 10 * time.Second}})
			resp, err := c.Do(request(t, "GET", "/v1/secret/data/app", ""))
			if tt.hint == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.ProtoMajor != 1 {
					t.Errorf("spoke %s", resp.Proto)
				}
				return
			}
			if e := wantKind(t, err, TLS); !strings.Contains(e.Error(), tt.hint) {
				t.Errorf("%q is not in %q", tt.hint, e)
			}
		})
	}
}

func TestTLSClientCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, certPEM, keyPEM := ca.issue("client", time.Now().Add(anHour))
	cert := write(t, filepath.Join(t.TempDir(), "c.pem"), certPEM)
	key := write(t, filepath.Join(t.TempDir(), "k.pem"), keyPEM)
	f := newNode(t)
	addr := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), f, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(ca.cert)
	})
	with := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACertPEM: ca.pem, ClientCert: cert, ClientKey: key}}})
	if status, _ := do(t, with.Do, request(t, "GET", "/v1/x", "")); status != 200 {
		t.Errorf("got %d", status)
	}
	without := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACertPEM: ca.pem}}})
	_, err := without.Do(request(t, "GET", "/v1/x", ""))
	if e := wantKind(t, err, TLS); !strings.Contains(e.Error(), "VAULT_CLIENT_CERT") {
		t.Errorf("message: %v", e)
	}
	mixed := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACertPEM: ca.pem, ClientCert: cert, ClientKey: cert}}})
	if err := mixed.Check(); err == nil || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("Check: %v", err)
	}
}

func TestTLSMaterialThatAppearsLaterIsRead(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	addr := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), newNode(t), nil)
	path := filepath.Join(t.TempDir(), "ca.pem")
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACert: path}}})
	if c.Check() == nil {
		t.Fatal("Check found a file that is not there")
	}
	write(t, path, ca.pem)
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Leader(t.Context()); err != nil || l.Status != 200 {
		t.Errorf("Leader: %+v, %v", l, err)
	}
}

func TestTLSSessionsAreResumed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var resumed []bool
	addr := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.TLS.DidResume)
	}), nil)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACertPEM: ca.pem}}})
	for range 2 {
		do(t, c.Do, request(t, "GET", "/v1/x", ""))
		c.dropIdle()
	}
	if len(resumed) != 2 || resumed[0] || !resumed[1] {
		t.Errorf("resumed: %v", resumed)
	}
}

// closedConn tells when it is closed.
type closedConn struct {
	net.Conn
	closed func()
}

func (c closedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// TestAConnectionOfOldTLSFilesIsNotKept: a request that was about to be sent when they
// changed leaves no pooled connection, which nobody would use or close.
func TestAConnectionOfOldTLSFilesIsNotKept(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	addr := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), newNode(t), nil)
	path := write(t, filepath.Join(t.TempDir(), "ca.pem"), ca.pem)
	closed := make(chan struct{})
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACert: path}}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		return closedConn{nc, sync.OnceFunc(func() { close(closed) })}, err
	}})
	via, err := c.transportOf(c.seeds[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, ca.pem+"\n")
	if !c.Reload() || c.Reloads() != 1 {
		t.Fatal("no reload")
	}
	k := c.begin(request(t, "GET", addr+"/v1/x", ""), false)
	defer k.end()
	r := k.ride(k.newTrip(c.seeds[0], true), via, k.req)
	if r.e != nil {
		t.Fatal(r.e)
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_ = r.Body.Close()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("the connection is kept")
	}
}

// stuckConn is one whose other end reads nothing any more, once told.
type stuckConn struct {
	net.Conn
	writes chan chan struct{} // nil: it reads; told of each write, which waits for what is told
}

func (c *stuckConn) Write(p []byte) (int, error) {
	if c.writes != nil {
		free := make(chan struct{})
		c.writes <- free
		<-free
	}
	return c.Conn.Write(p)
}

// A connection with TLS tells the other end that it is closed, which may take seconds
// where nobody reads.
func TestRequestsDoNotWaitForAConnectionThatIsClosed(t *testing.T) {
	t.Parallel()
	ca, stuck := newAuthority(t), new(stuckConn)
	addr := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), newNode(t), nil)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACertPEM: ca.pem}}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if stuck.Conn != nil {
			return nc, err
		}
		stuck.Conn = nc
		return stuck, err
	}})
	do(t, c.Do, request(t, "GET", addr+"/v1/secret/data/a", ""))
	stuck.writes = make(chan chan struct{})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c.dropIdle()
	}()
	free := <-stuck.writes
	asked := make(chan error, 1)
	go func() {
		res, err := c.DoOnce(request(t, "GET", addr+"/v1/secret/data/a", ""))
		if err == nil {
			err = res.Body.Close()
		}
		asked <- err
	}()
	select {
	case err := <-asked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a request waits")
	}
	close(free)
	<-closed
}
