package compat

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// tlsFront serves o's counter by TLS, under these names, to clients with a
// certificate of clients, if that is not nil.
func tlsFront(o *origin, ca, clients *harness.CA, names ...string) (addr string) {
	o.t.Helper()
	leaf, err := ca.Leaf(names...)
	harness.Must(o.t, err)
	backend, err := url.Parse(o.count.Addr())
	harness.Must(o.t, err)
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(backend))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{leaf}}
	if clients != nil {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	o.t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	harness.Must(o.t, err)
	return "https://127.0.0.1:" + port
}

func TestVAULT_CACERT_AndItsRelativesForLoginFilesAndProxy(t *testing.T) {
	t.Parallel()
	ca, other := harness.CAFor(t), harness.CAFor(t)
	pem := file(t, "ca.pem", string(ca.PEM()))
	dir := filepath.Dir(pem)
	wrong := file(t, "other.pem", string(other.PEM()))
	for _, c := range []struct {
		name string
		env  []string
		ok   bool
	}{
		{"VAULT_CACERT", []string{"VAULT_CACERT=" + pem}, true},
		{"VAULT_CACERT_BYTES", []string{"VAULT_CACERT_BYTES=" + string(ca.PEM())}, true},
		{"VAULT_CAPATH", []string{"VAULT_CAPATH=" + dir}, true},
		{"VAULT_SKIP_VERIFY", []string{"VAULT_SKIP_VERIFY=true"}, true},
		{"VAULT_CACERT wins over VAULT_CACERT_BYTES", []string{"VAULT_CACERT=" + pem, "VAULT_CACERT_BYTES=" + string(other.PEM())}, true},
		{"none", nil, false},
		{"another CA", []string{"VAULT_CACERT=" + wrong}, false},
		{"VAULT_SKIP_VERIFY=false", []string{"VAULT_SKIP_VERIFY=false"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			addr := tlsFront(o, ca, nil, "127.0.0.1")
			if c.ok {
				o.everything(append(c.env, "VLE_VAULT_ADDR="+addr)...)
				return
			}
			o.put("a", "1")
			p := o.start(append(c.env, "VLE_VAULT_ADDR="+addr)...)
			p.get(o.data("a")).status(http.StatusBadGateway).says("certificate", "VAULT_CACERT")
			if o.count.Total() != 0 {
				t.Error("a request was sent all the same")
			}
		})
	}
	for _, env := range [][]string{{"VAULT_CACERT=/nowhere/ca.pem"}, {"VAULT_CAPATH=/nowhere"}, {"VAULT_CLIENT_CERT=/nowhere/c.pem", "VAULT_CLIENT_KEY=/nowhere/k.pem"}} {
		contains(t, refused(t, nil, append(env, "VLE_VAULT_ADDR=https://127.0.0.1:1")...), strings.Split(env[0], "=")...)
	}
}

func TestVAULT_TLS_SERVER_NAME_IsTheNameInTheCertificate(t *testing.T) {
	t.Parallel()
	ca := harness.CAFor(t)
	o := shared(t)
	addr := tlsFront(o, ca, nil, "vault.internal")
	pem := "VAULT_CACERT=" + file(t, "ca.pem", string(ca.PEM()))
	o.everything(pem, "VLE_VAULT_ADDR="+addr, "VAULT_TLS_SERVER_NAME=vault.internal")
	o.start(pem, "VLE_VAULT_ADDR="+addr).get(o.data("a")).status(http.StatusBadGateway).says("certificate", "VAULT_TLS_SERVER_NAME")
}

func TestVAULT_CLIENT_CERT_IsShownToVault(t *testing.T) {
	t.Parallel()
	ca, clients := harness.CAFor(t), harness.CAFor(t)
	o := shared(t)
	addr := tlsFront(o, ca, clients, "127.0.0.1")
	leaf, err := clients.Leaf("fn")
	harness.Must(t, err)
	cert, key, err := harness.KeyPairPEM(leaf)
	harness.Must(t, err)
	env := []string{"VLE_VAULT_ADDR=" + addr, "VAULT_CACERT=" + file(t, "ca.pem", string(ca.PEM()))}
	o.everything(append(env, "VAULT_CLIENT_CERT="+file(t, "c.pem", string(cert)), "VAULT_CLIENT_KEY="+file(t, "k.pem", string(key)))...)
	o.start(env...).get(o.data("a")).status(http.StatusBadGateway)
	contains(t, refused(t, nil, append(env, "VAULT_CLIENT_CERT="+file(t, "c.pem", string(cert)))...), "VAULT_CLIENT_KEY")
}

// connectProxy is an HTTP proxy that knows one name.
func connectProxy(t *testing.T, name, target string) (addr string, tunnels *atomic.Int64) {
	t.Helper()
	tunnels = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || !strings.HasPrefix(r.Host, name+":") {
			http.Error(w, "not for here: "+r.Method+" "+r.Host, http.StatusBadGateway)
			return
		}
		to, err := net.Dial("tcp", strings.TrimPrefix(target, "https://"))
		if err != nil {
			http.Error(w, "dial", http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		tunnels.Add(1)
		fmt.Fprint(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(to, buffered); to.Close() }()
		io.Copy(from, to)
	}))
	t.Cleanup(server.Close)
	return server.URL, tunnels
}

func TestHTTPS_PROXY_IsUsedForLoginFilesAndProxy(t *testing.T) {
	t.Parallel()
	ca := harness.CAFor(t)
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			target := tlsFront(o, ca, nil, "vault.example.com")
			proxy, tunnels := connectProxy(t, "vault.example.com", target)
			o.everything(variable+"="+proxy, "VLE_VAULT_ADDR=https://vault.example.com:8200", "VAULT_CACERT="+file(t, "ca.pem", string(ca.PEM())))
			if tunnels.Load() == 0 {
				t.Error("the proxy was not used")
			}
		})
	}
	t.Run("NO_PROXY", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		target := tlsFront(o, ca, nil, "127.0.0.1")
		o.everything("HTTPS_PROXY="+nowhere, "NO_PROXY=127.0.0.1,example.org", "VLE_VAULT_ADDR="+target, "VAULT_CACERT="+file(t, "ca.pem", string(ca.PEM())))
	})
	t.Run("a proxy that refuses explains itself", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		proxy, _ := connectProxy(t, "other.example.com", nowhere)
		secret := strings.Replace(proxy, "http://", "http://user:hunter2@", 1)
		p := o.start("HTTPS_PROXY="+secret, "VLE_VAULT_ADDR=https://vault.example.com:8200", "VAULT_MAX_RETRIES=0")
		r := p.get(o.data("a")).status(http.StatusBadGateway).says("proxy")
		lacks(t, string(r.Body)+p.proc.Output(), "hunter2")
	})
}

// overTLS runs thaw in front of o with a listener that speaks TLS, and returns
// the CA of its certificate too.
func overTLS(t *testing.T, o *origin) (*thaw, *harness.CA) {
	t.Helper()
	ca := harness.CAFor(t)
	leaf, err := ca.Leaf("127.0.0.1")
	harness.Must(t, err)
	cert, key, err := harness.KeyPairPEM(leaf)
	harness.Must(t, err)
	p := start(t, []string{"-config", config(t, `
vault { address = "%s" }
listener "tcp" {
  address = "127.0.0.1:0"
  tls_cert_file = "%s"
  tls_key_file = "%s"
}`, o.count.Addr(), file(t, "cert.pem", string(cert)), file(t, "key.pem", string(key)))}, "THAW_LISTEN=")
	return p, ca
}

func TestListenerTLSFromTheFile(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p, ca := overTLS(t, o)
	p.base = "https://" + p.addrs[0]
	p.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: ca.Pool()}
	p.as(o.token, o.data("a")).is("1")
}
