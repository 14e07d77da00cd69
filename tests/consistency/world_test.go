package consistency

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/standin"
)

var pairs = flag.Int("pairs", 200, "writes, each followed by a read, in each test")

// world is a cluster on a network of its own.
type world struct {
	t       *testing.T
	net     *standin.Network
	origin  *standin.Origin
	primary *standin.Cluster
	second  *standin.Cluster // a performance secondary, if there is one
	frozen  bool             // instances freeze between invocations
	stop    []func()
}

// nodes is the setting that names all nodes of the primary, a standby first.
const nodes = "THAW_VAULT_ADDRS=http://10.0.0.3:8200,http://10.0.0.2:8200,http://10.0.0.4:8200"

// lag is 0 to 500 ms.
func lag() time.Duration { return rand.N(500 * time.Millisecond) }

// newWorld starts a primary with two performance standbys. It ends with the
// test's function, inside its bubble.
func newWorld(t *testing.T, o standin.ClusterOptions) *world {
	t.Helper()
	w := &world{t: t, net: standin.NewNetwork(), origin: standin.New(standin.Options{OpenBao: o.OpenBao})}
	o.Origin, o.Standbys = w.origin, 2
	if o.Lag == nil {
		o.Lag = lag
	}
	w.primary = standin.NewCluster(o)
	w.primary.Active().At("http://10.0.0.2:8200")
	w.primary.Standby(0).At("http://10.0.0.3:8200")
	w.primary.Standby(1).At("http://10.0.0.4:8200")
	w.serve("10.0.0.2:8200", w.primary.Active())
	w.serve("10.0.0.3:8200", w.primary.Standby(0))
	w.serve("10.0.0.4:8200", w.primary.Standby(1))
	// A load balancer.
	w.serve("vault.test:8200", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		[]http.Handler{w.primary.Active(), w.primary.Standby(0), w.primary.Standby(1)}[rand.N(3)].ServeHTTP(rw, r)
	}))
	return w
}

// close ends what runs.
func (w *world) close() {
	for i := len(w.stop) - 1; i >= 0; i-- {
		w.stop[i]()
	}
}

// serve puts a handler at an address.
func (w *world) serve(addr string, h http.Handler) {
	l := w.net.Listen(addr)
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	w.stop = append(w.stop, func() { s.Close(); wg.Wait() })
}

// memcached starts one, and returns the settings that use it.
func (w *world) memcached() []string {
	s, err := memcache.Start(memcache.Options{Listener: w.net.Listen("10.0.0.1:11211")})
	if err != nil {
		w.t.Fatal(err)
	}
	w.stop = append(w.stop, s.Close)
	return []string{"CACHE_ENABLE=true", "THAW_MEMCACHED=10.0.0.1:11211", "THAW_CACHE_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "THAW_AUDIENCE=fleet"}
}

// direct asks a node, as root.
func (w *world) direct(method, path, body string) string {
	w.t.Helper()
	r, err := http.NewRequest(method, "http://10.0.0.2:8200/v1/"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("X-Vault-Token", "root")
	c := &http.Client{Transport: &http.Transport{DialContext: w.net.Dial, DisableKeepAlives: true}}
	res, err := c.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, text, err)
	}
	return string(text)
}

// token makes a token that may read and write secret/.
func (w *world) token() string {
	w.direct("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" { capabilities = [\"create\",\"update\",\"read\",\"list\",\"delete\"] }"}`)
	var a struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	if err := json.Unmarshal([]byte(w.direct("POST", "auth/token/create", `{"policies":["app","default"]}`)), &a); err != nil {
		w.t.Fatal(err)
	}
	w.primary.Flush()
	return a.Auth.ClientToken
}

// instance is thaw, and its function's client.
type instance struct {
	t   *testing.T
	app *app.App
	log *bytes.Buffer

	addr   string
	prefix string // of the keys that writeAndRead uses
	writer string // the token that it writes with; empty: thaw's own
	*http.Client
}

// start starts thaw. The settings come after
// ones that make it root at the first standby.
func (w *world) start(settings ...string) *instance {
	w.t.Helper()
	env := append([]string{"VAULT_ADDR=http://10.0.0.3:8200", "VAULT_TOKEN=root", "THAW_LISTEN=127.0.0.1:8200"}, settings...)
	cfg, _, err := config.Load(config.Source{Environ: last(env)})
	if err != nil {
		w.t.Fatal(err)
	}
	local := standin.NewNetwork()
	front := local.Listen("127.0.0.1:8200")
	x := &instance{t: w.t, log: new(bytes.Buffer), addr: "127.0.0.1:8200"}
	x.app, err = app.Build(cfg, slog.New(slog.NewTextHandler(&locked{w: x.log}, &slog.HandlerOptions{Level: slog.LevelDebug})), io.Discard, app.Hooks{
		Frozen: w.frozen, Dial: w.net.Dial, Listen: func(context.Context, string, string) (net.Listener, error) { return front, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := x.app.Listen(); err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{DialContext: local.Dial, MaxIdleConnsPerHost: 64}
	x.Client = &http.Client{Transport: transport}
	w.stop = append(w.stop, func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		x.app.Shutdown(ctx)
	})
	return x
}

// invoke is an INVOKE that reaches thaw.
func (x *instance) invoke() { x.app.Invoke(time.Now(), time.Now().Add(time.Minute)) }

// last leaves the last of several settings of one name.
func last(env []string) []string {
	at := make(map[string]int)
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// answer is one answer of thaw's.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request through thaw; token empty: with thaw's own.
func (x *instance) ask(method, path, token, body string, headers ...string) answer {
	r, err := http.NewRequest(method, "http://"+x.addr+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if body == "" {
		r.Body, r.ContentLength = nil, 0
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := x.Do(r)
	if err != nil {
		panic(fmt.Sprint(path, ": ", err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		panic(err)
	}
	return answer{res.StatusCode, res.Header, string(text)}
}

// write writes n to a key.
func (x *instance) write(key, token string, n int) answer {
	return x.ask("POST", "secret/data/"+key, token, fmt.Sprintf(`{"data":{"n":%d}}`, n))
}

// read reads a key. n is -1 where there is none.
func (x *instance) read(key, token string) (a answer, n int) {
	a = x.ask("GET", "secret/data/"+key, token, "")
	var v struct {
		Data struct {
			Data struct {
				N *int `json:"n"`
			} `json:"data"`
		} `json:"data"`
	}
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &v) != nil || v.Data.Data.N == nil {
		return a, -1
	}
	return a, *v.Data.Data.N
}

// approle sets up a login with the policy of token, and returns its settings.
func (w *world) approle() []string {
	w.direct("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" { capabilities = [\"create\",\"update\",\"read\",\"list\",\"delete\"] }"}`)
	w.direct("POST", "sys/auth/approle", `{"type":"approle"}`)
	w.direct("POST", "auth/approle/role/app", `{"token_policies":["app","default"]}`)
	var id, secret struct {
		Data struct {
			RoleID   string `json:"role_id"`
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(w.direct("GET", "auth/approle/role/app/role-id", "")), &id); err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(w.direct("POST", "auth/approle/role/app/secret-id", "{}")), &secret); err != nil {
		w.t.Fatal(err)
	}
	return []string{"THAW_AUTH_METHOD=approle", "VAULT_TOKEN=", "THAW_ROLE_ID=" + id.Data.RoleID, "THAW_SECRET_ID=" + secret.Data.SecretID}
}
