package ha

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// soak is the world of TestSoak: thaw with TLS on both sides, a cluster of real Vaults
// behind fronts that want certificates, and a real memcached.
type soak struct {
	counted
	t       testing.TB
	began   time.Time
	p       *thaw
	base    string // thaw's address with scheme
	c       *harness.Cluster
	mem     *harness.Memcached
	secrets [soakSecrets]history
	own     [soakSecrets]atomic.Bool // what thaw's own login has read

	dir     string
	local   *harness.CA                // of the listener
	ca      *harness.CA                // of the fronts and of thaw's own certificate; changed by rotate
	fronts  []*httptest.Server         // before each node
	serving atomic.Pointer[tls.Config] // of the fronts

	samples []harness.Sample // of sample
	mu      sync.Mutex       // guards the fields below
	calm    time.Time        // from when on Vault can be asked again; zero: not at the moment
	last    string           // that happened to the world
	bad     []string
	took    []time.Duration
}

// history is what a secret was.
type history struct {
	mu   sync.Mutex // guards acks
	acks []ack
}

// ack is a version that Vault had said to be written.
type ack struct {
	at      time.Time
	version int
}

func (h *history) wrote(version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks = append(h.acks, ack{time.Now(), version})
	h.acks = h.acks[max(0, len(h.acks)-1000):]
}

// least is the version that was surely there at a time.
func (h *history) least(at time.Time) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	version := 0
	for _, a := range h.acks {
		if !a.at.After(at) {
			version = max(version, a.version)
		}
	}
	return version
}

func newSoak(t testing.TB) *soak {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: needs Linux's /proc")
	}
	w := &soak{t: t, dir: t.TempDir()}
	var addrs []string
	for range 3 {
		f := httptest.NewUnstartedServer(nil)
		f.Config.ErrorLog = log.New(io.Discard, "", 0)
		f.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.serving.Load(), nil }}
		w.fronts, addrs = append(w.fronts, f), append(addrs, "https://"+f.Listener.Addr().String())
	}
	w.c = harness.Raft3(t, harness.ClusterConfig{Fronts: addrs, VaultConfig: harness.VaultConfig{Extra: "enable_response_header_raft_node_id = true"}})
	for i, f := range w.fronts {
		to, err := url.Parse(w.c.Nodes[i].Addr())
		harness.Must(t, err)
		f.Config.Handler = &httputil.ReverseProxy{
			Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
			ErrorLog:     log.New(io.Discard, "", 0),
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // as if the node had been reached directly
		}
	}
	w.ca, w.local = harness.CAFor(t), harness.CAFor(t)
	w.serve(w.ca, w.ca)
	for _, f := range w.fronts {
		f.StartTLS()
		t.Cleanup(f.Close)
	}
	w.write("ca.pem", w.ca.PEM())
	w.pair(w.ca, "client")
	w.pair(w.local, "listener")
	w.prepare(t.Context())
	w.mem = harness.Memcache(t, harness.MemcachedConfig{})
	w.p = start(t, harness.Settings{
		"THAW_LISTEN": "", "THAW_CONFIG": w.path("proxy.hcl"), "THAW_VAULT_ADDRS": strings.Join(addrs, ","),
		"VAULT_CACERT": w.path("ca.pem"), "VAULT_CLIENT_CERT": w.path("client.pem"), "VAULT_CLIENT_KEY": w.path("client-key.pem"),
		"CACHE_ENABLE": "true", "THAW_MEMCACHED": w.mem.Addr(), "THAW_CACHE_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
		"THAW_CACHE_BYTES": soakCache, "THAW_MAX_AGE": soakMaxAge.String(), "THAW_CAPABILITY_REFRESH_INTERVAL": soakConfirm.String(),
		"THAW_MAX_IN_FLIGHT": fmt.Sprint(soakPlaces),
	})
	w.base = strings.Replace(w.p.addr, "http:", "https:", 1)
	w.began, w.calm = time.Now(), time.Now()
	return w
}

// prepare writes the secrets, the policy, and thaw's configuration.
func (w *soak) prepare(ctx context.Context) {
	w.t.Helper()
	leader, err := w.c.Leader(ctx)
	harness.Must(w.t, err)
	harness.Must(w.t, leader.PutPolicy(ctx, "soak", `path "secret/data/soak/*" { capabilities = ["read"] }`), leader.EnableAuth(ctx, "approle", "approle"))
	id, secret, err := leader.AppRole(ctx, "approle", "soak", harness.RoleSpec{Policies: []string{"soak"}, TTL: 90 * time.Second, Batch: true})
	harness.Must(w.t, err)
	w.write("role-id", []byte(id))
	w.write("secret-id", []byte(secret))
	w.write("proxy.hcl", fmt.Appendf(nil, `
auto_auth { method "approle" { config = { role_id_file_path = %q, secret_id_file_path = %q, remove_secret_id_file_after_reading = false } } }
api_proxy { use_auto_auth_token = true }
cache { cache_static_secrets = true }
listener "tcp" {
  address = "127.0.0.1:0"
  tls_cert_file = %q
  tls_key_file = %q
}
`, w.path("role-id"), w.path("secret-id"), w.path("listener.pem"), w.path("listener-key.pem")))
	for n := range soakSecrets {
		w.put(ctx, n)
	}
}

func (w *soak) path(name string) string { return filepath.Join(w.dir, name) }

// write replaces a file at once, as tools that rotate certificates do.
func (w *soak) write(name string, content []byte) {
	if err := errors.Join(os.WriteFile(w.path(name+".new"), content, 0o600), os.Rename(w.path(name+".new"), w.path(name))); err != nil {
		w.wrong("write %s: %v", name, err)
	}
}

// pair makes a key pair of a CA and writes it. It returns the certificate.
func (w *soak) pair(ca *harness.CA, name string) []byte {
	leaf, err := ca.Leaf("127.0.0.1")
	cert, key, err2 := harness.KeyPairPEM(leaf)
	if err := errors.Join(err, err2); err != nil {
		w.wrong("make a certificate: %v", err)
	}
	w.write(name+".pem", cert)
	w.write(name+"-key.pem", key)
	return leaf.Certificate[0]
}

// serve has the fronts show a certificate of one CA, and accept clients of some.
func (w *soak) serve(of *harness.CA, clients ...*harness.CA) {
	leaf, err := of.Leaf("127.0.0.1")
	if err != nil {
		w.wrong("make a certificate: %v", err)
	}
	pool := x509.NewCertPool()
	for _, ca := range clients {
		pool.AppendCertsFromPEM(ca.PEM())
	}
	w.serving.Store(&tls.Config{Certificates: []tls.Certificate{leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
}

// rotate replaces the CA of Vault's certificates and of thaw's own, both of these and
// the listener's, until ctx ends: at one blow, which failed handshakes tell; and with a
// time in which both are good, told by SIGHUP, or by nothing, so that the minute's look
// finds it.
func (w *soak) rotate(ctx context.Context) {
	for n := 0; ; n++ {
		if harness.Pause(ctx, max(*soakFor/80, 5*time.Second)); ctx.Err() != nil {
			return
		}
		old, next := w.ca, harness.CAFor(w.t)
		w.ca = next
		if n%3 == 0 {
			w.did("certificates at one blow")
			w.disturbed(true)
			w.write("ca.pem", next.PEM())
			w.pair(next, "client")
			w.serve(next, next)
			for _, f := range w.fronts {
				f.CloseClientConnections()
			}
			w.disturbed(false)
		} else {
			w.serve(old, old, next)
			w.write("ca.pem", bytes.Join([][]byte{old.PEM(), next.PEM()}, nil))
			w.pair(next, "client")
			shown, patient := w.pair(w.local, "listener"), 10*time.Second
			if w.did("certificates, and nothing tells"); n%3 == 1 || *soakFor < 2*minuteTimer {
				w.did("certificates, and SIGHUP")
				harness.Must(w.t, w.p.proc.Signal(syscall.SIGHUP))
			} else {
				patient += minuteTimer
			}
			within, cancel := context.WithTimeout(ctx, patient)
			err := await(within, func() bool { return bytes.Equal(w.shown(within), shown) })
			if cancel(); err != nil && ctx.Err() == nil {
				w.wrong("the listener's new certificate is not served after %v", patient)
			}
			w.serve(next, next)
			w.write("ca.pem", next.PEM())
		}
		w.certificates.Add(1)
	}
}

// shown is the certificate that the listener serves; nil: none.
func (w *soak) shown(ctx context.Context) []byte {
	d := tls.Dialer{Config: &tls.Config{RootCAs: w.local.Pool()}}
	nc, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(w.base, "https://"))
	if err != nil {
		return nil
	}
	defer nc.Close()
	return nc.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
}

// disturbed notes whether Vault cannot be asked at the moment.
func (w *soak) disturbed(now bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm = (time.Time{}); !now {
		w.calm = time.Now()
	}
}

// calmFor reports whether Vault could be asked for so long before a time.
func (w *soak) calmFor(d time.Duration, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm.IsZero() && at.Sub(w.calm) > d
}

// changeLeaders has the leader step down, killed or sealed each minute until ctx ends.
func (w *soak) changeLeaders(ctx context.Context) {
	ways := make(map[string]outage)
	for _, o := range outages() {
		ways[o.name] = o
	}
	tick := time.NewTicker(min(time.Minute, *soakFor/3))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		o := ways[[]string{"step down", "SIGKILL", "step down", "seal"}[n%4]]
		leader, err := w.c.Leader(ctx)
		if err == nil {
			w.did(o.name)
			w.disturbed(true)
			err = o.away(ctx, w.c, leader)
		}
		if err == nil {
			active := func() bool { return w.c.Active(ctx) != nil }
			within, cancel := context.WithTimeout(ctx, 30*time.Second)
			_ = await(within, active) // two real Vaults elect none of them now and then while the third is sealed
			cancel()
			err = errors.Join(o.back(ctx, w.c, leader), await(ctx, active))
		}
		w.disturbed(false)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.wrong("%s: %v", o.name, err)
			continue
		}
		w.leaders.Add(1)
	}
}

// restartMemcached ends it and starts it again until ctx ends.
func (w *soak) restartMemcached(ctx context.Context) {
	for every := min(45*time.Second, *soakFor/4); ; {
		if harness.Pause(ctx, every); ctx.Err() != nil {
			return
		}
		w.did("memcached died")
		w.mem.Kill()
		harness.Pause(ctx, 2*time.Second)
		if err := w.mem.Restart(ctx); err != nil && ctx.Err() == nil {
			w.wrong("start memcached again: %v", err)
		}
		w.memcached.Add(1)
	}
}

// root asks one node after the other as root until one answers, or ctx ends.
func (w *soak) root(ctx context.Context, path string, body any, into any) error {
	for n := rand.IntN(3); ; n++ {
		within, cancel := context.WithTimeout(ctx, 3*time.Second)
		r, err := w.c.Nodes[n%3].Root(within, http.MethodPost, path, body)
		if cancel(); err == nil && into != nil {
			err = r.JSON(into)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		harness.Pause(ctx, 200*time.Millisecond)
	}
}

// put gives a secret its next version.
func (w *soak) put(ctx context.Context, n int) {
	var out struct{ Data struct{ Version int } }
	if w.root(ctx, fmt.Sprintf("secret/data/soak/%02d", n), map[string]any{"data": map[string]string{"v": strings.Repeat("x", 500+20*n)}}, &out) == nil {
		w.secrets[n].wrote(out.Data.Version)
		w.writes.Add(1)
	}
}

// writeSecrets writes them at Vault until ctx ends: in bursts, so that the index stands
// still in between.
func (w *soak) writeSecrets(ctx context.Context) {
	for ctx.Err() == nil {
		for range rand.IntN(5) {
			w.put(ctx, rand.IntN(soakSecrets))
		}
		harness.Pause(ctx, time.Duration(rand.Int64N(int64(4*time.Second))))
	}
}
