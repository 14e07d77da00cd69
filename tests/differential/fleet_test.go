package differential

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/standin"
)

// cacheAddr is where memcached is.
const cacheAddr = "10.0.0.1:11211"

// tokenTTL is how long thaw's own tokens last: shorter than the bound, so that what a
// role says of its tokens counts within it.
const tokenTTL = "40s"

// fleet is members of two roles and two principals that share a memcached and an
// audience, and the callers that use them.
type fleet struct {
	*world
	origin   *standin.Origin
	net      *standin.Network
	cache    *memcache.Server
	server   *http.Server
	served   chan struct{}
	members  []*member
	callers  []string // tokens
	entities []string // ids
	settings []string // of all members
	hits     int
	lag      time.Duration // of the origin's answers

	mu       sync.Mutex        // guards the fields below
	trouble  http.HandlerFunc  // answers in place of the origin; nil: none does
	networks map[string]string // by role: where it may log in from; empty: anywhere
	sent     map[string]string // by member's address: the token that it last sent
}

// member is a place in the fleet, and the process that runs there.
type member struct {
	f                *fleet
	role, subject    string
	addr             string // its own, as Vault sees it
	jwt              string // file
	roleID, secretID string // of the AppRole that stands behind the login
	app              *app.App
	client           *http.Client
	transport        *http.Transport
}

func (m *member) String() string { return m.role + " as " + m.subject }

func newFleet(t *testing.T, seed uint64, settings ...string) *fleet {
	origin := standin.New(standin.Options{})
	f := &fleet{
		world:  &world{t: t, r: rand.New(rand.NewPCG(seed, 10)), origin: origin, rootID: "root", values: map[string]map[string]bool{}},
		origin: origin,
		net:    standin.NewNetwork(), settings: settings, networks: map[string]string{}, sent: map[string]string{},
	}
	f.root("POST", "sys/mounts/nested/deep", `{"type":"kv","options":{"version":"2"}}`)
	for _, s := range secrets {
		f.write(s)
	}
	var err error
	if f.cache, err = memcache.Start(memcache.Options{Listener: f.net.Listen(cacheAddr)}); err != nil {
		t.Fatal(err)
	}
	f.listen()
	for i, subject := range []string{"alice", "bob"} {
		claims := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"tests","sub":"` + subject + `"}`))
		file := filepath.Join(t.TempDir(), subject)
		if err := os.WriteFile(file, []byte("e30."+claims+".none"), 0o600); err != nil {
			t.Fatal(err)
		}
		for k, role := range []string{"one", "two"} {
			m := &member{f: f, role: role, subject: subject, jwt: file, addr: fmt.Sprintf("10.%d.0.%d:5000", i+1, k+1)}
			m.roleID, m.secretID = f.origin.AddAppRole(role+"-"+subject, standin.AppRole{Policies: []string{role}, Batch: true})
			f.members = append(f.members, m)
			f.entities = append(f.entities, f.login(m).Auth.EntityID)
		}
		f.entities = append(f.entities, "caller-"+subject)
	}
	f.callers = []string{
		f.origin.AddTokenWith(standin.TokenOptions{Policies: []string{"caller"}, Entity: "caller-alice"}),
		f.origin.AddTokenWith(standin.TokenOptions{Policies: []string{"caller", "other"}, Entity: "caller-bob"}),
		f.origin.AddTokenWith(standin.TokenOptions{Policies: []string{"other"}, CIDRs: []string{"10.1.0.0/16"}}),
	}
	for _, m := range f.members {
		m.start()
	}
	return f
}

// listen makes the origin reachable.
func (f *fleet) listen() {
	f.server, f.served = &http.Server{Handler: f, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}, make(chan struct{})
	at := f.net.Listen(addr)
	go func() { defer close(f.served); _ = f.server.Serve(at) }()
}

// cut makes the origin refuse connections.
func (f *fleet) cut() {
	f.server.Close()
	<-f.served
}

func (f *fleet) end() {
	for _, m := range f.members {
		m.stop()
	}
	f.cut()
	f.cache.Close()
	for _, v := range f.cache.Violations() {
		f.t.Error(v)
	}
}

// ServeHTTP is the origin, with a jwt method besides: AppRoles stand behind it, one for
// each role and subject. Like Vault's it refuses a login from outside the role's networks
// (path_login.go of hashicorp/vault-plugin-auth-jwt).
func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if token := r.Header.Get("X-Vault-Token"); strings.HasPrefix(token, "hvb.") {
		f.mu.Lock()
		f.sent[r.RemoteAddr] = token
		f.mu.Unlock()
	}
	time.Sleep(f.lag)
	f.mu.Lock()
	trouble := f.trouble
	f.mu.Unlock()
	if trouble != nil {
		trouble(w, r)
		return
	}
	if r.URL.Path != "/v1/auth/jwt/login" {
		f.origin.ServeHTTP(w, r)
		return
	}
	var in struct{ Role, JWT string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	for _, m := range f.members {
		if claims, _ := os.ReadFile(m.jwt); m.role == in.Role && string(claims) == in.JWT {
			if !f.mayLogIn(m) {
				send(w, http.StatusForbidden, "application/json", `{"errors":["permission denied"]}`)
				return
			}
			r.URL.Path = "/v1/auth/approle/login"
			r.Body = io.NopCloser(bytes.NewReader(m.credentials()))
			f.origin.ServeHTTP(w, r)
			return
		}
	}
	send(w, http.StatusBadRequest, "application/json", `{"errors":["error validating token"]}`)
}

func (m *member) credentials() []byte {
	body, _ := json.Marshal(map[string]string{"role_id": m.roleID, "secret_id": m.secretID})
	return body
}

// setNetworks says where a role's tokens may be used, and where it may log in from.
func (f *fleet) setNetworks(role, networks string) {
	f.mu.Lock()
	f.networks[role] = networks
	f.mu.Unlock()
	for _, m := range f.members {
		if m.role == role {
			body, _ := json.Marshal(map[string]string{"token_policies": role, "token_ttl": tokenTTL, "token_type": "batch", "token_bound_cidrs": networks})
			f.root("POST", "auth/approle/role/"+role+"-"+m.subject, string(body))
		}
	}
}

func (f *fleet) mayLogIn(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := netip.MustParseAddrPort(m.addr).Addr()
	for network := range strings.SplitSeq(f.networks[m.role], ",") {
		if network == "" || netip.MustParsePrefix(network).Contains(at) {
			return true
		}
	}
	return false
}

// login is what Vault says to a member's login.
type login struct {
	Auth struct {
		ClientToken string `json:"client_token"`
		EntityID    string `json:"entity_id"`
	}
}

func (f *fleet) login(m *member) (l login) {
	_, body := f.from(m.addr, "POST", "auth/approle/login", "", string(m.credentials()))
	if err := json.Unmarshal(body, &l); err != nil {
		f.t.Fatal(err)
	}
	return l
}

// logIn returns a new token of a member's, or one that is none where it is refused.
func (f *fleet) logIn(m *member) string {
	if !f.mayLogIn(m) {
		return "refused"
	}
	return f.login(m).Auth.ClientToken
}

// from asks the origin from an address.
func (f *fleet) from(remote, method, path, token, body string) (int, []byte) {
	r := httptest.NewRequest(method, "http://vault/v1/"+path, strings.NewReader(body))
	r.Header.Set("X-Vault-Token", token)
	r.RemoteAddr = remote
	rec := httptest.NewRecorder()
	f.origin.ServeHTTP(rec, r)
	return rec.Code, rec.Body.Bytes()
}

// token is the member's own that it last sent; empty: none since it started.
func (m *member) token() string {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	return m.f.sent[m.addr]
}

func (m *member) start() {
	m.f.mu.Lock()
	delete(m.f.sent, m.addr)
	m.f.mu.Unlock()
	cfg, _, err := config.Load(config.Source{Environ: append([]string{
		"VAULT_ADDR=http://" + addr, "THAW_LISTEN=127.0.0.1:8200", "THAW_AUTH_METHOD=jwt", "THAW_JWT_FILE=" + m.jwt, "VAULT_AUTH_ROLE=" + m.role,
		"CACHE_ENABLE=true", "THAW_MEMCACHED=" + cacheAddr, "THAW_CACHE_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "THAW_AUDIENCE=fleet",
	}, m.f.settings...)})
	if err != nil {
		m.f.t.Fatal(err)
	}
	local := standin.NewNetwork()
	l := local.Listen("127.0.0.1:8200")
	m.app, err = app.Build(cfg, slog.New(slog.DiscardHandler), io.Discard, app.Hooks{
		Frozen: true, Dial: m.f.net.From(m.addr), Listen: func(context.Context, string, string) (net.Listener, error) { return l, nil },
	})
	if err != nil {
		m.f.t.Fatal(err)
	}
	if err := m.app.Listen(); err != nil {
		m.f.t.Fatal(err)
	}
	m.transport = &http.Transport{DialContext: local.Dial, DisableCompression: true}
	m.client = &http.Client{Transport: m.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (m *member) stop() {
	m.transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m.app.Shutdown(ctx)
}

// invoke begins an invocation of the member and lets its poll end.
func (m *member) invoke() {
	m.app.Invoke(time.Now(), time.Now().Add(time.Minute))
	synctest.Wait()
}

// pass lets time pass, with invocations.
func (f *fleet) pass(d time.Duration) {
	for range 12 {
		time.Sleep(d / 12)
		for _, m := range f.members {
			m.invoke()
		}
	}
}

// another starts another process of a member's identity, in its network.
func (f *fleet) another(m *member, host int) *member {
	next := *m
	next.addr = m.addr[:strings.Index(m.addr, ":")-1] + fmt.Sprint(host+10) + ":5000"
	next.start()
	return &next
}

// restart has a new process take a member's place.
func (f *fleet) restart() {
	m := pick(f.r, f.members)
	m.stop()
	m.start()
}
