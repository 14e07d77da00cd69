package attack

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// files are the TLS files of a site, in a folder.
type files struct {
	t   testing.TB
	dir string
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// write replaces a file at once, as tools that rotate certificates do.
func (f files) write(name string, content []byte) {
	f.t.Helper()
	harness.Must(f.t, os.WriteFile(f.path(name+".new"), content, 0o600))
	harness.Must(f.t, os.Rename(f.path(name+".new"), f.path(name)))
}

// pair makes a key pair of a CA and writes it.
func (f files) pair(ca *harness.CA, name string) tls.Certificate {
	f.t.Helper()
	leaf, err := ca.Leaf("127.0.0.1")
	harness.Must(f.t, err)
	cert, key, err := harness.KeyPairPEM(leaf)
	harness.Must(f.t, err)
	f.write(name+".pem", cert)
	f.write(name+"-key.pem", key)
	return leaf
}

// behindTLS puts a TLS front before the site's Vault, whose settings the returned
// pointer holds.
func (o *site) behindTLS(cfg *tls.Config) (addr string, now *atomic.Pointer[tls.Config]) {
	o.t.Helper()
	to, err := url.Parse(o.count.Addr())
	harness.Must(o.t, err)
	now = new(atomic.Pointer[tls.Config])
	now.Store(cfg)
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load(), nil }}
	server.Config.SetKeepAlivesEnabled(false) // each request has a handshake
	server.StartTLS()
	o.t.Cleanup(server.Close)
	return server.URL, now
}

func (p *thaw) hangUp() { harness.Must(p.t, p.proc.Signal(syscall.SIGHUP)) }

func (p *thaw) said(what string) int { return strings.Count(p.proc.Output(), what) }

// A certificate that is rotated, a CA or thaw's own towards Vault, is taken in: by
// itself where a handshake fails on the old one, TLS 1.3's late refusal of a client
// certificate included. Files that cannot be used leave the old in use.
func TestRotatedCertificatesShutNobodyOut(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		o.put(name, name)
	}
	f := files{t, t.TempDir()}
	one, two := harness.CAFor(t), harness.CAFor(t)
	server := func(ca *harness.CA, version uint16) *tls.Config {
		leaf, err := ca.Leaf("127.0.0.1")
		harness.Must(t, err)
		return &tls.Config{Certificates: []tls.Certificate{leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), MinVersion: version, MaxVersion: version, SessionTicketsDisabled: true}
	}
	addr, now := o.behindTLS(server(one, tls.VersionTLS13))
	f.write("ca.pem", one.PEM())
	f.pair(one, "client")
	p := o.start("VLE_VAULT_ADDR="+addr, "VAULT_CACERT="+f.path("ca.pem"), "VAULT_CLIENT_CERT="+f.path("client.pem"), "VAULT_CLIENT_KEY="+f.path("client-key.pem"))
	read := func(name string) {
		t.Helper()
		if a := p.get(o.data(name)); a.value() != name {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	read("a")
	now.Store(server(two, tls.VersionTLS13))
	f.write("ca.pem", two.PEM())
	f.pair(two, "client")
	read("b")
	now.Store(server(one, tls.VersionTLS12))
	f.write("ca.pem", one.PEM())
	f.pair(one, "client")
	read("c")
	if n := p.metric("thaw_reloads_total"); n != 2 {
		t.Errorf("%v reloads, want 2", n)
	}
	f.write("ca.pem", []byte("garbage"))
	for range 3 {
		p.hangUp()
	}
	harness.Eventually(t, patience, "the warning", func() bool { return p.said("the old stay in use") > 0 })
	read("d")
	if n := p.said("the old stay in use"); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
}

// The listener's certificate is replaced without a restart, and SIGHUP does not end
// the process: it reads the log's level again, too.
func TestSIGHUPReadsFilesAgainAndEndsNothing(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "one")
	f := files{t, t.TempDir()}
	ca := harness.CAFor(t)
	first := f.pair(ca, "listener")
	settings := func(level string) []byte {
		return []byte(`log_level = "` + level + `"
vault { address = "` + o.count.Addr() + `" }
auto_auth { method "token_file" { config = { token_file_path = "` + f.path("token") + `" } } }
api_proxy { use_auto_auth_token = true }
cache { cache_static_secrets = true }
listener "tcp" {
  address = "127.0.0.1:0"
  tls_cert_file = "` + f.path("listener.pem") + `"
  tls_key_file = "` + f.path("listener-key.pem") + `"
}
`)
	}
	f.write("token", []byte(o.token))
	f.write("proxy.hcl", settings("info"))
	p := o.start("VLE_VAULT_ADDR=", "VAULT_TOKEN=", "THAW_LISTEN=", "VAULT_LOG_LEVEL=", "THAW_CONFIG="+f.path("proxy.hcl"), "THAW_STALE_IF_ERROR=0")
	shown := func() *x509.Certificate {
		t.Helper()
		c, err := tls.Dial("tcp", p.addr, &tls.Config{RootCAs: ca.Pool()})
		harness.Must(t, err)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0]
	}
	get := func(path string) answer {
		t.Helper()
		c, err := tls.Dial("tcp", p.addr, &tls.Config{RootCAs: ca.Pool()})
		harness.Must(t, err)
		defer c.Close()
		harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
		return exchange(t, c, request("GET", path, ""))
	}
	if a := get(o.data("a")); a.value() != "one" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if !shown().Equal(parsed(t, first)) {
		t.Error("another certificate than the file's")
	}
	second := f.pair(ca, "listener")
	f.write("proxy.hcl", settings("debug"))
	// A token that belongs to another identity ends what the old one might see.
	other, err := o.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour})
	harness.Must(t, err)
	f.write("token", []byte(other))
	p.hangUp()
	harness.Eventually(t, patience, "the new certificate", func() bool { return shown().Equal(parsed(t, second)) })
	harness.Eventually(t, patience, "the new token", func() bool { return p.said("the token") > 0 })
	if a := get(o.data("a")); a.status != 403 {
		t.Errorf("under the new token: %d %s", a.status, a.body)
	}
	harness.Eventually(t, patience, "a line at DEBUG", func() bool { return p.said(`"level":"DEBUG"`) > 0 })
	third := f.pair(ca, "listener") // without a signal: each handshake looks
	if !shown().Equal(parsed(t, third)) {
		t.Error("not the new certificate")
	}
	f.write("listener.pem", []byte("garbage"))
	for range 2 {
		p.hangUp()
	}
	harness.Eventually(t, patience, "the warning", func() bool { return p.said("the old stays in use; correct it") > 0 })
	if !shown().Equal(parsed(t, third)) || p.said("the old stays in use; correct it") != 1 {
		t.Errorf("%d warnings, want one, and the certificate as it was", p.said("the old stays in use; correct it"))
	}
}

// A secret id that was rotated is logged in with. One of another role belongs to
// another identity, and what the old one might see here ends.
func TestARotatedSecretIDIsTakenIn(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "one")
	mount := unique("logins")
	harness.Must(t, o.EnableAuth(t.Context(), mount, "approle"))
	f := files{t, t.TempDir()}
	role := func(name, policy string) {
		t.Helper()
		id, secret, err := o.AppRole(t.Context(), mount, name, harness.RoleSpec{Policies: []string{policy}, TTL: time.Hour})
		harness.Must(t, err)
		f.write("role-id", []byte(id))
		f.write("secret-id", []byte(secret))
	}
	role("mine", o.kv)
	to, err := url.Parse(o.count.Addr())
	harness.Must(t, err)
	var away atomic.Bool
	var missed atomic.Int32 // logins while it was
	through := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			if strings.HasSuffix(r.URL.Path, "/login") {
				missed.Add(1)
			}
			panic(http.ErrAbortHandler)
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	p := o.start("VLE_VAULT_ADDR="+front.URL, "VAULT_TOKEN=", "THAW_AUTH_METHOD=approle", "VAULT_AUTH_PROVIDER="+mount, "THAW_ROLE_ID_FILE="+f.path("role-id"), "THAW_SECRET_ID_FILE="+f.path("secret-id"))
	before := 0
	logins := func() int {
		return o.count.Count("POST", "/v1/auth/"+mount+"/login") + o.count.Count("PUT", "/v1/auth/"+mount+"/login")
	}
	for i, c := range []struct {
		role, policy string
		status       int
	}{{"", "", 200}, {"mine", o.kv, 200}, {"other", "default", 403}, {"mine", o.kv, 200}} {
		if c.role != "" {
			role(c.role, c.policy)
			p.hangUp()
			harness.Eventually(t, patience, "the reload", func() bool { return p.metric("thaw_reloads_total") == float64(i) })
		}
		for range 2 { // the second from the cache
			if a := p.get(o.data("a")); a.status != c.status {
				t.Errorf("%d, role %q: %d %s, want %d", i, c.role, a.status, a.body, c.status)
			}
		}
		// A refusal may be tried once more under a token of another login.
		if n := logins(); n <= before {
			t.Errorf("%d, role %q: no login", i, c.role)
		} else {
			before = n
		}
	}
	// One that Vault refuses leaves the token in use, and its correction is taken in at once.
	f.write("secret-id", []byte("wrong"))
	p.hangUp()
	refused := "log in with the new credentials"
	harness.Eventually(t, patience, "the warning", func() bool { return p.said(refused) == 1 })
	if a := p.get(o.data("a")); a.status != 200 {
		t.Errorf("with a refused secret id: %d %s", a.status, a.body)
	}
	before = logins()
	role("mine", o.kv)
	p.hangUp()
	harness.Eventually(t, patience, "the correction", func() bool { return p.metric("thaw_reloads_total") == 4 && logins() > before })
	// One that comes while Vault is away is taken in when it is back.
	away.Store(true)
	role("other", "default")
	p.hangUp()
	harness.Eventually(t, patience, "a login in vain", func() bool { return missed.Load() > 0 })
	away.Store(false)
	p.hangUp()
	harness.Eventually(t, patience, "the login", func() bool { return p.metric("thaw_reloads_total") == 5 })
	if a := p.get(o.data("a")); a.status != 403 {
		t.Errorf("after an outage: %d %s", a.status, a.body)
	}
}

// exchange sends a request over a connection and reads the answer.
func exchange(t testing.TB, c net.Conn, request string) answer {
	t.Helper()
	_, err := io.WriteString(c, request)
	harness.Must(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	harness.Must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	harness.Must(t, err)
	return answer{res.StatusCode, res.Header, string(body)}
}

func parsed(t testing.TB, c tls.Certificate) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(c.Certificate[0])
	harness.Must(t, err)
	return cert
}
