package shared

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// cacheKey seals the shared tier in these tests.
const cacheKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// site is a Vault behind a counting proxy, with a memcached beside it.
type site struct {
	t       testing.TB
	vault   *harness.Vault
	counter *harness.Counter
	cache   *harness.Memcached

	mu     sync.Mutex
	values map[string]string // guarded by mu; what each secret holds
}

func newSite(t testing.TB) *site {
	t.Helper()
	v := harness.Raft(t)
	ctx := t.Context()
	harness.Must(t, v.PutPolicy(ctx, "app", `
path "secret/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
`))
	harness.Must(t, v.EnableAuth(ctx, "approle", "approle"))
	return &site{
		t: t, vault: v, counter: harness.Count(t, harness.CounterConfig{Origin: v.Addr()}),
		cache: harness.Memcache(t, harness.MemcachedConfig{}), values: make(map[string]string),
	}
}

// at returns the settings for the origin and the shared tier, without a login.
func (o *site) at() harness.Settings {
	return harness.Settings{
		"VAULT_ADDR": o.counter.Addr(), "CACHE_ENABLE": "true", "THAW_MEMCACHED": o.cache.Addr(),
		"THAW_CACHE_KEY": cacheKey, "THAW_AUDIENCE": "shop",
		// What is slow on a busy test machine is not what these tests are about.
		"THAW_MEMCACHED_TIMEOUT": "500ms", "THAW_POLL_TIMEOUT": "5s",
	}
}

// login adds a role of its own, whose tokens have the policies.
func (o *site) login(batch bool, policies ...string) harness.Settings {
	o.t.Helper()
	if len(policies) == 0 {
		policies = []string{"app"}
	}
	role := fmt.Sprint("role", suite.names.Add(1))
	id, secretID, err := o.vault.AppRole(o.t.Context(), "approle", role, harness.RoleSpec{Policies: policies, TTL: time.Hour, Batch: batch})
	harness.Must(o.t, err)
	// The first login of a role makes its entity, which moves the cursor.
	r, err := o.vault.Do(o.t.Context(), harness.Call{
		Method: http.MethodPost, Path: "auth/approle/login", Body: map[string]string{"role_id": id, "secret_id": secretID},
	})
	harness.Must(o.t, err)
	harness.Must(o.t, r.Err())
	return o.at().With(harness.Settings{"THAW_AUTH_METHOD": "approle", "THAW_ROLE_ID": id, "THAW_SECRET_ID": secretID})
}

// put writes a new value at Vault and returns it.
func (o *site) put(name string) string {
	o.t.Helper()
	v := secret()
	_, err := o.vault.Put(o.t.Context(), "secret", name, map[string]any{"password": v})
	harness.Must(o.t, err)
	o.know(name, v)
	return v
}

// know notes what a secret holds from now on.
func (o *site) know(name, value string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.values[name] = value
}

// fill writes n secrets and returns their names.
func (o *site) fill(n int) []string {
	o.t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("app/%02d", i)
		o.put(names[i])
	}
	return names
}

// value is what a secret holds.
func (o *site) value(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.values[name]
}

// asked is what reached the origin since the last Reset, by kind.
type asked struct{ all, cursors, logins, capabilities, reads, other int }

func (o *site) asked() asked { return kinds(o.counter.Requests()) }

// worstSecond is what reached the origin in the one second with the most
// requests besides logins, wherever it begins.
func (o *site) worstSecond() (worst asked) {
	requests := o.counter.Requests()
	to := 0
	for from := range requests {
		for to < len(requests) && requests[to].At.Sub(requests[from].At) < time.Second {
			to++
		}
		if a := kinds(requests[from:to]); a.all-a.logins > worst.all-worst.logins {
			worst = a
		}
	}
	return worst
}

func kinds(requests []harness.Request) asked {
	var a asked
	for _, r := range requests {
		a.all++
		switch {
		case r.Path == "/v1/sys/leader":
			a.cursors++
		case strings.HasPrefix(r.Path, "/v1/auth/") && strings.HasSuffix(r.Path, "/login"):
			a.logins++
		case r.Path == "/v1/sys/capabilities-self":
			a.capabilities++
		case strings.HasPrefix(r.Path, "/v1/secret/"):
			a.reads++
		default:
			a.other++
		}
	}
	return a
}

// items is the number of items in memcached.
func (o *site) items() int {
	o.t.Helper()
	keys, err := o.cache.Keys(o.t.Context())
	harness.Must(o.t, err)
	return len(keys)
}

// summary is what a run of the warm-up prints.
type summary struct {
	Fetched, Changed, Removed, Unchanged int
	Complete                             bool
}

// warm runs one cycle of the warm-up. It reads as root, and past the counter:
// what the instances ask for is counted. Its cache is the instances', which
// know the origin by the counter's address.
func (o *site) warm(more harness.Settings, args ...string) summary {
	o.t.Helper()
	out, log, err := o.warmup(more, append([]string{"-once"}, args...)...)
	var s summary
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil || !s.Complete {
		o.t.Fatalf("warm-up: %v\n%s\n%s", err, out, log)
	}
	return s
}

// warmup runs the command and returns what it printed.
func (o *site) warmup(more harness.Settings, args ...string) ([]byte, *transcript, error) {
	o.t.Helper()
	env := o.at().With(harness.Settings{
		"VAULT_TOKEN": o.vault.RootToken(), "PROACTIVE_CACHE_ENABLE": "true", "NEW_PROACTIVE_CACHE_ENABLE": "true",
		"PROACTIVE_CACHE_MINIMUM_FETCHING_TIME": "0", "THAW_WARM_PATHS": "secret/",
	}).With(more)
	var stdout bytes.Buffer
	log := &transcript{}
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, suite.warmup, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env.List(), &stdout, log
	err := cmd.Run()
	log.check(o.t, "the warm-up")
	return stdout.Bytes(), log, err
}
