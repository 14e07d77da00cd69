package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

// world is a session between a cache and a server.
type world struct {
	t       *testing.T
	server  *server
	session *Session
	cache   *cache.Cache

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t *testing.T, change ...func(*cache.Options)) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	var roleID, secretID string
	w.server, roleID, secretID = newServer(w.clock)
	own := cache.NewOwn()
	tokens, err := auth.New(auth.Options{
		Config: config.Config{Auth: config.Auth{Method: config.AuthAppRole, RoleID: roleID, SecretID: config.Secret(secretID)}}, Origin: w.server, Own: own, Now: w.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.session = New(Options{
		Client: w.server, Tokens: tokens, Own: own, Interval: 5 * time.Minute, Now: w.clock,
		Harmless: func(ctx context.Context) context.Context { return context.WithValue(ctx, harmlessKey{}, true) },
	})
	o := cache.Options{Origin: w.session, Own: own, Bytes: 1 << 20, Recheck: time.Hour, StaleIfError: 24 * time.Hour, RefreshInterval: 5 * time.Minute, Now: w.clock}
	for _, f := range change {
		f(&o)
	}
	w.cache = cache.New(o)
	t.Cleanup(func() {
		w.cache.Close()
		w.session.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		tokens.Shutdown(ctx)
	})
	return w
}

// send sends a request under the extension's own identity and returns status
// and body.
func (w *world) send(method, path, body string, replay bool) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body == "" {
		req.Body, req.GetBody = nil, nil
	} else if !replay {
		req.GetBody = nil
	}
	res, err := w.session.Send(req, w.cache.Own(), true)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (w *world) read(path string) {
	w.t.Helper()
	a, err := w.cache.Load(w.t.Context(), cache.Want{Key: cache.Key{Path: path}, ID: w.cache.Own()})
	if err != nil || a.Status != http.StatusOK {
		w.t.Fatalf("read %s: %d, %v", path, a.Status, err)
	}
}

func (w *world) state(path string) cache.State {
	return w.cache.Lookup(cache.Key{Path: path}, w.cache.Own(), false, w.clock()).State
}

// The leases of a token end with it
// (https://developer.hashicorp.com/vault/api-docs/auth/token#revoke-a-token).
func TestWhatTheOldTokenLeasedGoesWithIt(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(*world){
		"a request asks for a login": func(w *world) {
			if err := w.session.Relogin(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		},
		"revoked by somebody": func(w *world) {
			w.server.revoke()
			w.read("secret/data/b")
		},
		"ended": func(w *world) {
			w.add(time.Hour)
			if err := w.session.o.Tokens.Maintain(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *cache.Options) { o.TTL, o.RefreshInterval = 24*time.Hour, 24*time.Hour })
			leased := cache.Key{Path: "database/creds/app"}
			w.server.other["/v1/database/creds/app"] = `{"request_id":"r","lease_id":"l","lease_duration":7200,"data":{"of":"x"},"wrap_info":null,"auth":null,"mount_type":"database"}`
			if _, err := w.cache.Load(t.Context(), cache.Want{Key: leased, ID: w.cache.Own(), OptIn: true}); err != nil {
				t.Fatal(err)
			}
			w.read("secret/data/a")
			w.add(2 * time.Second)
			if got := w.cache.Lookup(leased, w.cache.Own(), true, w.clock()).State; got != cache.Fresh {
				t.Fatalf("state %d before the token went", got)
			}
			replace(w)
			if got := w.cache.Lookup(leased, w.cache.Own(), true, w.clock()).State; got != cache.Absent {
				t.Errorf("state %d after the token went", got)
			}
			if w.state("secret/data/a") == cache.Absent {
				t.Error("what the token does not carry went, too")
			}
		})
	}
}

func TestAnInvalidTokenIsReplacedOnceAndTheRequestSentAgain(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		w := newWorld(t)
		w.server.bare = bare
		w.send("GET", "/v1/secret/data/a", "", false)
		w.server.revoke()
		w.server.requests()
		status, _ := w.send("GET", "/v1/secret/data/a", "", false)
		seen, logins := w.server.requests()
		if status != http.StatusOK || logins != 2 || len(seen) != 2 || seen[0].token != "hvs.1" || seen[1].token != "hvs.2" {
			t.Errorf("bare %v: status %d after %d logins and %+v", bare, status, logins, seen)
		}
		// Whatever is wrong with every token, it is no login at each request.
		w.server.revoke()
		for range 5 {
			if status, body := w.send("GET", "/v1/secret/data/a", "", false); status != http.StatusForbidden || !strings.Contains(body, "permission denied") {
				t.Errorf("bare %v: %d %s", bare, status, body)
			}
		}
		if _, logins := w.server.requests(); logins != 2 {
			t.Errorf("bare %v: %d logins within the pause, want 2", bare, logins)
		}
		w.add(11 * time.Second)
		if status, _ := w.send("GET", "/v1/secret/data/a", "", false); status != http.StatusOK {
			t.Errorf("bare %v: %d after the pause", bare, status)
		}
	}
}

func TestABodyIsSentAgainOnlyIfItCanBe(t *testing.T) {
	t.Parallel()
	for _, replay := range []bool{true, false} {
		w := newWorld(t)
		w.send("GET", "/v1/secret/data/a", "", false)
		w.server.revoke()
		w.server.requests()
		status, text := w.send("POST", "/v1/secret/data/a", `{"data":{}}`, replay)
		seen, _ := w.server.requests()
		if replay && (status != http.StatusOK || len(seen) != 2 || seen[1].body != `{"data":{}}` || seen[1].method != "POST") {
			t.Errorf("a body that can be sent again: %d, %+v", status, seen)
		}
		if !replay && (status != http.StatusForbidden || len(seen) != 1 || text != invalidToken) {
			t.Errorf("a streamed body: %d %q, %+v", status, text, seen)
		}
		// Either way the next request has a token that counts.
		if status, _ := w.send("GET", "/v1/secret/data/a", "", false); status != http.StatusOK {
			t.Errorf("replay %v: the next request got %d", replay, status)
		}
	}
}

func TestA403AboutAnotherTokenIsNotOurs(t *testing.T) {
	t.Parallel()
	for path, ours := range map[string]bool{
		"/v1/auth/token/lookup": false, "/v1/auth/token/renew": false, "/v1/team/auth/token/revoke": false,
		"/v1/auth/token/lookup-self": true, "/v1/auth/token/renew-self": true, "/v1/secret/data/a": true,
	} {
		w := newWorld(t)
		w.send("GET", "/v1/secret/data/a", "", false)
		w.server.revoke()
		w.send("POST", path, `{"token":"hvs.other"}`, true)
		if _, logins := w.server.requests(); (logins == 2) != ours {
			t.Errorf("%s: %d logins", path, logins)
		}
	}
}

func TestG2AnotherIdentityVoidsTheGrants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		policies []string // of the next login; none: the same
		want     cache.State
	}{
		{"the same policies", nil, cache.Fresh},
		{"other policies", []string{"other"}, cache.Absent},
		{"fewer policies", []string{}, cache.Absent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.read("secret/data/a")
			if s := w.state("secret/data/a"); s != cache.Fresh {
				t.Fatalf("state %d", s)
			}
			w.server.revoke()
			if c.policies != nil {
				w.server.grant(c.policies...)
			}
			w.send("GET", "/v1/secret/data/b", "", false)
			if s := w.state("secret/data/a"); s != c.want {
				t.Errorf("state %d, want %d", s, c.want)
			}
		})
	}
}

func TestG2AForbiddenLoginEndsTheGrantsAndAFailingOneDoesNot(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]cache.State{403: cache.Absent, 400: cache.Fresh, 429: cache.Fresh, 500: cache.Fresh, 503: cache.Fresh} {
		w := newWorld(t)
		w.read("secret/data/a")
		w.server.mu.Lock()
		w.server.refuse = status
		w.server.mu.Unlock()
		w.session.o.Tokens.Forget()
		if err := w.session.Ready(t.Context(), w.cache.Own()); err == nil {
			t.Fatalf("%d: logged in", status)
		}
		if s := w.state("secret/data/a"); s != want {
			t.Errorf("%d: state %d, want %d", status, s, want)
		}
	}
}

func TestACallersTokenGoesAsItCame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", "/v1/secret/data/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.session.Send(req, w.cache.Access().Caller("hvs.callers"), false)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	seen, logins := w.server.requests()
	if res.StatusCode != http.StatusForbidden || logins != 0 || len(seen) != 1 || seen[0].token != "hvs.callers" || !seen[0].once {
		t.Errorf("%d, %d logins, %+v", res.StatusCode, logins, seen)
	}
}

func TestG3AReadCarriesNothingButItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := cache.Key{Namespace: "team", Path: "secret/metadata/a b?", Query: "after=x", Op: cache.List}
	res, err := w.session.Read(t.Context(), cache.Question{Key: key, ID: w.cache.Own(), Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	seen, _ := w.server.requests()
	if len(seen) != 1 {
		t.Fatalf("%d requests", len(seen))
	}
	r := seen[0]
	if r.method != "LIST" || r.path != "/v1/secret/metadata/a b?" || r.query != "after=x" || r.header.Get("X-Vault-Namespace") != "team" || r.token == "" {
		t.Errorf("%+v", r)
	}
	for name := range r.header {
		switch name {
		case "X-Vault-Token", "X-Vault-Namespace", "X-Vault-Request":
		default:
			t.Errorf("header %s goes along", name)
		}
	}
}

type harmlessKey struct{}

// Only what is known to change nothing may be sent to a second node while the
// first is slow: a read of database/creds makes credentials each time.
func TestOnlyReadsOfKVAreMarkedHarmless(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cache.Mounts().Learn(cache.Mount{Path: "kv", Version: 2})
	w.cache.Mounts().Learn(cache.Mount{Path: "aws", Version: 0})
	w.cache.Mounts().Learn(cache.Mount{Namespace: "team", Path: "database", Version: 2})
	w.server.other["/v1/aws/creds/a"] = `{"request_id":"r","lease_id":"aws/creds/a/1","lease_duration":3600,"data":{"k":"v"},"wrap_info":null,"auth":null,"mount_type":"aws"}`
	w.server.other["/v1/database/creds/app"] = `{"request_id":"r","lease_id":"database/creds/app/1","lease_duration":3600,"data":{"username":"u"},"wrap_info":null,"auth":null,"mount_type":"database"}`
	for _, c := range []struct {
		path  string
		marks []bool // of reads one after the other
	}{
		{"kv/data/a", []bool{true, true}},
		{"aws/creds/a", []bool{false, false}},
		{"database/creds/app", []bool{false, false}},
		{"secret/data/a", []bool{false, true}}, // the answer told
		{"sys/internal/ui/mounts/x/y", []bool{true}},
	} {
		for i, want := range c.marks {
			w.server.requests()
			w.read(c.path)
			seen, _ := w.server.requests()
			if len(seen) == 0 || seen[0].path != "/v1/"+c.path || seen[0].harmless != want {
				t.Errorf("%s, read %d: %+v, want one that is marked: %v", c.path, i, seen, want)
			}
		}
	}
}

func TestCapabilitiesAreTakenFromTheAnswerPathByPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer string
		status       int
		want         string
	}{
		{"one path", `{"request_id":"r","secret/a":["read"],"capabilities":["read"],"data":{"capabilities":["read"],"secret/a":["read"]}}`, 200, "map[secret/a:[read]]"},
		{"a path that is left out", `{"request_id":"r","data":{"secret/b":["read"]}}`, 200, "map[]"},
		{"another shape", `{"request_id":"r","data":{"secret/a":"read"}}`, 200, "map[]"},
		{"too long an answer", `{"data":{"secret/a":["read"],"x":"` + strings.Repeat("x", maxAnswer) + `"}}`, http.StatusUnprocessableEntity, "map[]"},
	} {
		w := newWorld(t)
		w.server.other["/v1/sys/capabilities-self"] = c.answer
		status, got, err := w.session.Capabilities(t.Context(), w.cache.Own(), "team/", []string{"secret/a"})
		if err != nil || status != c.status || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %d %v, %v", c.name, status, got, err)
		}
		seen, _ := w.server.requests()
		if len(seen) != 1 || seen[0].body != `{"paths":["secret/a"]}` || seen[0].header.Get("X-Vault-Namespace") != "team" || !seen[0].once {
			t.Errorf("%s: asked %+v", c.name, seen)
		}
	}
}

func TestReadyDoesNotLogInForCallers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.session.Ready(t.Context(), w.cache.Access().Caller("x")); err != nil {
		t.Fatal(err)
	}
	if _, logins := w.server.requests(); logins != 0 {
		t.Errorf("%d logins", logins)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.session.Ready(ctx, w.cache.Own()); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
}
