package vault

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

const theToken = "hvs.secret-token"

// pair is a standby that redirects to a leader of the same cluster.
func pair(t *testing.T) (standby, leader *member, addr string) {
	t.Helper()
	c := serveNodes(t, newNodes(standin.ClusterOptions{NoHandOver: true}, RoleStandby, RoleActive, RoleStandby))
	return c.nodes[0], c.nodes[1], c.nodes[0].addr
}

func TestFollowsARedirectToTheLeaderOfTheSameCluster(t *testing.T) {
	t.Parallel()
	standby, leader, addr := pair(t)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}})
	for i := range 3 {
		req := request(t, "GET", "/v1/secret/data/app?version=2", "")
		req.Header.Set("X-Vault-Namespace", "team")
		status, _ := do(t, c.Do, req)
		got := leader.last(t)
		if status != 200 || got.Header.Get("X-Vault-Token") != theToken || got.Header.Get("X-Vault-Namespace") != "team" ||
			got.RequestURI != "/v1/secret/data/app?version=2" {
			t.Errorf("round %d: %d, %v", i, status, got)
		}
	}
	// Asked once: leader and health of the standby, health of the leader.
	if n, m := len(standby.requests()), len(leader.requests()); n != 3+2 || m != 3+1 {
		t.Errorf("%d requests to the standby and %d to the leader", n, m)
	}
	for _, r := range append(standby.requests(), leader.requests()...) {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/") && (r.Header.Get("X-Vault-Token") != "" || r.Header.Get("X-Vault-Namespace") != "") {
			t.Errorf("%s was asked with a token or a namespace", r.URL.Path)
		}
	}
}

func TestRedirectsKeepMethodAndBody(t *testing.T) {
	t.Parallel()
	_, leader, addr := pair(t)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}})
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://x/v1/secret/data/app", bytes.NewReader([]byte("payload")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", theToken)
	status, body := do(t, c.Do, req)
	if status != 200 || !strings.Contains(body, "payload") || leader.last(t).Method != "PUT" {
		t.Errorf("got %d %s", status, body)
	}
	_, err = c.Do(request(t, "PUT", "/v1/secret/data/app", "streamed"))
	e := wantKind(t, err, Redirect)
	var r *ErrRedirect
	if !errors.As(err, &r) || r.From != addr || r.To != leader.addr || !strings.Contains(e.Error(), "streamed") {
		t.Errorf("got %v, %+v", e, r)
	}
}

func TestGoesToTheActiveNodeOfSeveralAddresses(t *testing.T) {
	t.Parallel()
	standby, leader, addr := pair(t)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr, leader.addr + "/base"}}})
	if status, _ := do(t, c.Do, request(t, "GET", "/v1/x", "")); status != 200 {
		t.Errorf("got %d", status)
	}
	if got := leader.last(t).RequestURI; got != "/base/v1/x" {
		t.Errorf("went to %s", got)
	}
	if n := len(besides(standby)); n != 0 {
		t.Errorf("%d requests to the standby", n)
	}
}

func TestRedirectBelowABasePath(t *testing.T) {
	t.Parallel()
	_, leader, addr := pair(t)
	// The standby sees the base path and repeats it.
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr + "/base"}}})
	if status, _ := do(t, c.Do, request(t, "GET", "/v1/a%2Fb", "")); status != 200 {
		t.Errorf("got %d", status)
	}
	if got := leader.last(t).RequestURI; got != "/base/v1/a%2Fb" {
		t.Errorf("went to %s", got)
	}
}

func TestANewLeaderIsLearntAfterTheOldOne(t *testing.T) {
	t.Parallel()
	standby, _, addr := pair(t)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}})
	do(t, c.Do, request(t, "GET", "/v1/x", ""))
	next := standby.c.nodes[2]
	next.c.elect(next)
	if status, _ := do(t, c.Do, request(t, "GET", "/v1/x", "")); status != 200 || next.last(t).Header.Get("X-Vault-Token") != theToken {
		t.Errorf("got %d", status)
	}
}

// attacker is a listener that records every byte sent to it.
type attacker struct {
	addr string
	mu   sync.Mutex // guards got
	got  bytes.Buffer
}

func newAttacker(t *testing.T, answer string) *attacker {
	t.Helper()
	a := &attacker{}
	s := newScript(t, func(c net.Conn) {
		r := io.TeeReader(c, a)
		buf := make([]byte, 4096)
		for {
			if _, err := r.Read(buf); err != nil {
				return
			}
			_, _ = io.WriteString(c, answer)
		}
	})
	a.addr = s.ln.Addr().String()
	return a
}

func (a *attacker) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got.Write(p)
}

func (a *attacker) bytes() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got.String()
}

func TestTheTokenNeverReachesARefusedTarget(t *testing.T) {
	t.Parallel()
	const path = "/v1/secret/data/app"
	tests := map[string]struct {
		location func(evil string) []string
		leader   bool   // the node's sys/leader names the attacker
		health   string // what the attacker says of its cluster
		status   int
		want     string
		contact  bool // the attacker is asked something, without the token
	}{
		"another host":                 {location: one("http://%s" + path), want: "neither a configured address nor the leader"},
		"another host, 302":            {location: one("http://%s" + path), status: 302, want: "neither"},
		"another host, 308":            {location: one("http://%s" + path), status: 308, want: "neither"},
		"userinfo":                     {location: one("http://vault@%s" + path), want: "user name"},
		"userinfo with a host in it":   {location: one("http://127.0.0.1:8200@%s" + path), want: "user name"},
		"no scheme":                    {location: one("//%s" + path), want: "scheme"},
		"other scheme":                 {location: one("gopher://%s" + path), want: "scheme"},
		"websocket without an upgrade": {location: one("ws://%s" + path), want: "scheme"},
		"opaque":                       {location: one("http:%s" + path), want: "no host"},
		"unreadable":                   {location: one("http://%s%zz" + path), want: "not a URL"},
		"two locations":                {location: func(e string) []string { return []string{"/v1/x", "http://" + e + path} }, want: "one Location"},
		"leader by lie, no health":     {location: one("http://%s" + path), leader: true, want: "does not tell its cluster", contact: true},
		"leader by lie, other cluster": {location: one("http://%s" + path), leader: true, health: "c2", want: "another cluster", contact: true},
		"leader, but another path":     {location: one("http://%s/v1/auth/token/lookup-self"), leader: true, health: "c1", want: "changes the path"},
		"leader, but another query":    {location: one("http://%s" + path + "?x=1"), leader: true, health: "c1", want: "changes the path"},
		"leader, other scheme":         {location: one("https://%s" + path), leader: true, health: "c1", want: "neither"},
		"port of another":              {location: one("http://127.0.0.1:1" + path), leader: true, health: "c1", want: "neither"},
		"a very long host":             {location: one("http://" + strings.Repeat("a", 400) + path), want: "no host"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			evil := newAttacker(t, ok(healthJSON(tt.health)))
			f := newNode(t)
			f.tells(healthPath, map[string]any{"cluster_id": "c1"})
			if tt.leader {
				f.At("http://" + evil.addr)
			}
			f.answers(func(w http.ResponseWriter, _ *http.Request) { // no Vault does that: it is what the token must not follow
				for _, l := range tt.location(evil.addr) {
					w.Header().Add("Location", l)
				}
				w.WriteHeader(cmp.Or(tt.status, 307))
			})
			c := newClient(t, Options{Config: config.Config{Addrs: []string{f.addr}, Headers: http.Header{"X-Gateway-Secret": {"gw-secret"}}}})
			_, err := c.Do(request(t, "GET", path, ""))
			e := wantKind(t, err, Redirect)
			var r *ErrRedirect
			if !errors.As(err, &r) || !strings.Contains(r.Why, tt.want) || StatusFor(err) != 502 {
				t.Errorf("got %v, want %q", e, tt.want)
			}
			got := evil.bytes()
			for _, secret := range []string{theToken, "gw-secret", "secret/data"} {
				if strings.Contains(got, secret) {
					t.Errorf("the attacker has %q: %s", secret, got)
				}
			}
			if (got != "") != tt.contact {
				t.Errorf("the attacker got %q", got)
			}
			if c.places.Free() != c.o.MaxInFlight {
				t.Error("a slot leaked")
			}
		})
	}
}

func one(format string) func(string) []string {
	return func(evil string) []string { return []string{strings.Replace(format, "%s", evil, 1)} }
}

func healthJSON(cluster string) string {
	if cluster == "" {
		return `{"initialized":true,"sealed":true}`
	}
	return `{"initialized":true,"sealed":false,"version":"1.21.0","enterprise":false,"cluster_id":"` + cluster + `"}`
}

func TestARedirectMayNotLeaveTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	evil := newAttacker(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	standby, leader, _ := pair(t)
	leader.At("http://" + evil.addr)
	addr := ca.serveTLS("127.0.0.1", time.Now().Add(anHour), standby, nil)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, TLS: config.TLS{CACertPEM: ca.pem}}})
	_, err := c.Do(request(t, "GET", "/v1/x", ""))
	if e := wantKind(t, err, Redirect); !strings.Contains(e.Error(), "leaves TLS") || evil.bytes() != "" {
		t.Errorf("got %v; the attacker has %q", e, evil.bytes())
	}
}

func TestRedirectsInARowAreBounded(t *testing.T) {
	t.Parallel()
	to := func(m *member) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, m.addr+r.RequestURI, http.StatusTemporaryRedirect)
		}
	}
	both := newCluster(t, RoleActive, RoleActive)
	a, b := both.nodes[0], both.nodes[1]
	a.answers(to(b))
	b.answers(to(a))
	c := newClient(t, Options{Config: config.Config{Addrs: both.addrs()}})
	_, err := c.Do(request(t, "GET", "/v1/x", ""))
	wantKind(t, err, Redirect)
	if n := len(besides(a)) + len(besides(b)); n != 1+maxHops {
		t.Errorf("%d requests", n)
	}
	self := newNode(t)
	self.answers(to(self))
	for method, requests := range map[string]int{"GET": 1 + 2, "POST": 1} {
		c = newClient(t, quick([]string{self.addr}))
		before := len(besides(self))
		_, err = c.Do(request(t, method, "/v1/x", ""))
		if e, n := wantKind(t, err, Redirect), len(besides(self))-before; !strings.Contains(e.Error(), "leads back") || n != requests {
			t.Errorf("%s: got %v after %d requests", method, e, n)
		}
	}
}

func TestOtherRedirectsPassThrough(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, location string
		status           int
	}{
		{"GET", "/ui/", 307},             // to another path of the same node
		{"GET", "", 307},                 // nowhere
		{"POST", "http://evil/", 302},    // not for this method
		{"DELETE", "http://evil/", 308},  // likewise
		{"GET", "http://evil/", 303},     // not a redirect of Vault's
		{"GET", "http://evil/", 300},     // nor this
		{"GET", "http://evil/v1/x", 304}, // not a redirect
	}
	for _, tt := range tests {
		addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // something before Vault
			if tt.location != "" {
				w.Header().Set("Location", tt.location)
			}
			w.WriteHeader(tt.status)
		}))
		c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}}})
		resp, err := c.Do(request(t, tt.method, "/v1/x", ""))
		if err != nil {
			t.Errorf("%d: %v", tt.status, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.status || resp.Header.Get("Location") != tt.location {
			t.Errorf("got %d to %q", resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}

// FuzzParseLocation holds that a Location is either refused or a host that
// compares and dials as the same thing.
func FuzzParseLocation(f *testing.F) {
	for _, s := range []string{
		"https://vault:8200/v1/x", "//evil/v1/x", "/ui/", "http://a@b/", "https:evil", "ws://x/y", "http://[::1]:8200/", "http://[fe80::1%25en0]/", "http://[::%25]]",
		"HTTPS://Vault:8200/v1/x?a=b#c", "http://a:b/", "\\\\evil\\x", "http://a%00b/", "http://a\tb/",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, where string, upgrade bool) {
		l, err := parseLocation(where, upgrade)
		if err != nil {
			if strings.Contains(err.Error(), where) && len(where) > 20 {
				t.Errorf("the error repeats the Location: %v", err)
			}
			return
		}
		if l == nil {
			return
		}
		if l.Scheme != "http" && l.Scheme != "https" {
			t.Errorf("scheme %q", l.Scheme)
		}
		host, port, err := net.SplitHostPort(l.Host)
		if err != nil || host == "" || port == "" || strings.ContainsAny(l.Host, "@/\\?# \t\r\n\x00") {
			t.Errorf("host %q of %q", l.Host, where)
		}
		if u := (&url.URL{Scheme: l.Scheme, Host: l.Host}); strings.ToLower(u.Hostname()) != host {
			t.Errorf("compares as %q, dials as %q", host, u.Hostname())
		}
	})
}
