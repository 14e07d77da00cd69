package harness

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The tests in this file are about Vault, not about thaw. Each one holds a
// fact that thaw's design rests on, so that a newer Vault that changes it is
// noticed here and not in a user's cache.

// leader is the answer to sys/leader.
type leader struct {
	IsSelf     bool   `json:"is_self"`
	ActiveTime string `json:"active_time"`
	Committed  uint64 `json:"raft_committed_index"`
	Applied    uint64 `json:"raft_applied_index"`
	raw        string
}

func askLeader(t *testing.T, v *Vault) leader {
	t.Helper()
	r, err := v.Do(t.Context(), Call{Method: http.MethodGet, Path: "sys/leader"})
	if err == nil {
		err = r.Err()
	}
	Must(t, err)
	l := leader{raw: string(r.Body)}
	Must(t, r.JSON(&l))
	return l
}

// still reports whether the index stays where it is for d.
func still(t *testing.T, v *Vault, d time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	first := askLeader(t, v)
	moved := func() bool { return askLeader(t, v).Committed != first.Committed }
	return poll(ctx, 50*time.Millisecond, moved) != nil
}

// quietRaft is a raft Vault after the writes that follow a start.
func quietRaft(t *testing.T) *Vault {
	t.Helper()
	v := Raft(t)
	for range 20 {
		if still(t, v, 500*time.Millisecond) {
			return v
		}
	}
	t.Fatal("the index moves all the time on an idle server")
	return nil
}

func TestFactLeaderCarriesTheIndexOnRaftOnly(t *testing.T) {
	t.Parallel()
	l := askLeader(t, Raft(t))
	if !l.IsSelf || l.Committed == 0 || l.Applied == 0 {
		t.Errorf("raft: %s", l.raw)
	}
	if at, err := time.Parse(time.RFC3339Nano, l.ActiveTime); err != nil || time.Since(at) > time.Minute {
		t.Errorf("raft: active_time %q: %v", l.ActiveTime, err)
	}
	dev := askLeader(t, Dev(t))
	if dev.IsSelf || strings.Contains(dev.raw, "raft_committed_index") || strings.Contains(dev.raw, "raft_applied_index") {
		t.Errorf("dev: %s", dev.raw)
	}
}

func TestFactActiveTimeIsNewAfterARestartAndAfterAnUnseal(t *testing.T) {
	t.Parallel()
	v := Raft(t)
	seen := []leader{askLeader(t, v)}
	Must(t, v.Restart(t.Context()))
	seen = append(seen, askLeader(t, v))
	Must(t, v.Seal(t.Context()), v.Unseal(t.Context()))
	seen = append(seen, askLeader(t, v))
	for i := 1; i < len(seen); i++ {
		if seen[i].ActiveTime <= seen[i-1].ActiveTime {
			t.Errorf("active_time %q after %q", seen[i].ActiveTime, seen[i-1].ActiveTime)
		}
		if seen[i].Committed < seen[i-1].Committed {
			t.Errorf("the index fell from %d to %d", seen[i-1].Committed, seen[i].Committed)
		}
	}
}

// TestFactTheIndexMovesWithWritesOnly is what the cursor rests on.
func TestFactTheIndexMovesWithWritesOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := quietRaft(t)
	_, err := v.Put(ctx, "secret", "a", map[string]any{"k": "v"})
	Must(t, err,
		v.PutKV1(ctx, "kv", "a", map[string]any{"k": "v"}),
		v.PutPolicy(ctx, "app", `path "secret/*" { capabilities = ["read", "list"] }`),
		v.EnableAuth(ctx, "approle", "approle"))
	service, err := v.CreateToken(ctx, TokenSpec{Policies: []string{"app"}})
	Must(t, err)
	batch, err := v.CreateToken(ctx, TokenSpec{Policies: []string{"app"}, Batch: true})
	Must(t, err)
	login := func(spec RoleSpec, name string) Call {
		roleID, secretID, err := v.AppRole(ctx, "approle", name, spec)
		Must(t, err)
		return Call{Method: "POST", Path: "auth/approle/login", Body: map[string]string{"role_id": roleID, "secret_id": secretID}}
	}
	app := RoleSpec{Policies: []string{"app"}, TTL: time.Hour}
	serviceLogin := login(app, "service")
	app.Batch = true
	batchLogin := login(app, "batch")
	_, err = v.Do(ctx, batchLogin) // the first login of a role writes its entity
	Must(t, err)
	if !still(t, v, 2*time.Second) {
		t.Fatal("the index moves while nothing is written")
	}

	caps := map[string][]string{"paths": {"secret/data/a"}}
	for _, c := range []struct {
		name  string
		call  Call
		moves bool
	}{
		{"a read with root", Call{Method: "GET", Path: "secret/data/a", Token: v.RootToken()}, false},
		{"a read with a service token", Call{Method: "GET", Path: "secret/data/a", Token: service}, false},
		{"a read with a batch token", Call{Method: "GET", Path: "secret/data/a", Token: batch}, false},
		{"a read of KV v1", Call{Method: "GET", Path: "kv/a", Token: v.RootToken()}, false},
		{"a read of nothing", Call{Method: "GET", Path: "secret/data/none", Token: service}, false},
		{"a read of metadata", Call{Method: "GET", Path: "secret/metadata/a", Token: service}, false},
		{"a list", Call{Method: "LIST", Path: "secret/metadata/", Token: service}, false},
		{"a read with an invalid token", Call{Method: "GET", Path: "secret/data/a", Token: "hvs.none"}, false},
		{"a read that is denied", Call{Method: "GET", Path: "kv/a", Token: service}, false},
		{"capabilities-self", Call{Method: "POST", Path: "sys/capabilities-self", Token: service, Body: caps}, false},
		{"lookup-self", Call{Method: "GET", Path: "auth/token/lookup-self", Token: service}, false},
		{"the mounts preflight", Call{Method: "GET", Path: "sys/internal/ui/mounts/secret/a", Token: service}, false},
		{"a login for a batch token", batchLogin, false},
		{"a login for a service token", serviceLogin, true},
		{"a renewal", Call{Method: "POST", Path: "auth/token/renew-self", Token: service}, true},
		{"a write of KV v2", Call{Method: "POST", Path: "secret/data/a", Token: v.RootToken(), Body: map[string]any{"data": map[string]string{"k": "w"}}}, true},
		{"a write of the same value", Call{Method: "PUT", Path: "kv/a", Token: v.RootToken(), Body: map[string]string{"k": "v"}}, true},
		{"a soft delete", Call{Method: "DELETE", Path: "secret/data/a", Token: v.RootToken()}, true},
		{"a change of metadata", Call{Method: "POST", Path: "secret/metadata/a", Token: v.RootToken(), Body: map[string]any{"max_versions": 3}}, true},
		{"a policy", Call{Method: "PUT", Path: "sys/policies/acl/x", Token: v.RootToken(), Body: map[string]string{"policy": `path "x" { capabilities = ["read"] }`}}, true},
		{"a wrapped read", Call{Method: "GET", Path: "secret/metadata/a", Token: service, Header: http.Header{"X-Vault-Wrap-Ttl": {"60s"}}}, true},
		{"revoke-self", Call{Method: "POST", Path: "auth/token/revoke-self", Token: service}, true},
	} {
		before := askLeader(t, v)
		_, err := v.Do(ctx, c.call)
		Must(t, err)
		// Some writes come just after the answer.
		if moved := !still(t, v, 100*time.Millisecond) || askLeader(t, v).Committed != before.Committed; moved != c.moves {
			t.Errorf("%s: the index moved: %v, want %v", c.name, moved, c.moves)
		}
	}
}

// TestFactAnswersAreShapedAsWeReadThem holds the parts of answers that thaw
// looks at.
func TestFactAnswersAreShapedAsWeReadThem(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := Raft(t)
	_, err := v.Put(ctx, "secret", "app/a", map[string]any{"k": "v"})
	Must(t, err, v.PutKV1(ctx, "kv", "a", map[string]any{"k": "v"}),
		v.PutPolicy(ctx, "app", `path "secret/data/app/*" { capabilities = ["read"] }`),
		v.PutMetadata(ctx, "secret", "gone", map[string]any{"delete_version_after": "1h"}))
	_, err = v.Put(ctx, "secret", "gone", map[string]any{"k": "v"})
	Must(t, err)
	token, err := v.CreateToken(ctx, TokenSpec{Policies: []string{"app"}})
	Must(t, err)
	bare, err := v.CreateToken(ctx, TokenSpec{Policies: []string{"app"}, NoDefault: true})
	Must(t, err)
	root := v.RootToken()
	caps := map[string][]string{"paths": {"secret/data/app/a", "kv/a"}}

	for _, c := range []struct {
		name   string
		call   Call
		status int
		body   string // a part of it; with "=" before, all of it
	}{
		{"KV v1 names its mount's type", Call{Path: "kv/a", Token: root}, 200, `"data":{"k":"v"},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`},
		{"KV v1 has a lease duration without a lease", Call{Path: "kv/a", Token: root}, 200, `"lease_id":"","renewable":false,"lease_duration":2764800,`},
		{"KV v2 names its mount's type", Call{Path: "secret/data/app/a", Token: root}, 200, `"auth":null,"mount_type":"kv"}`},
		{"KV v2 has the version", Call{Path: "secret/data/app/a", Token: root}, 200, `"deletion_time":"","destroyed":false,"version":1}}`},
		{"version 0 is the latest", Call{Path: "secret/data/app/a?version=0", Token: root}, 200, `"version":1}}`},
		{"a deletion ahead is told", Call{Path: "secret/data/gone", Token: root}, 200, `"deletion_time":"2`},
		{"a list", Call{Method: "LIST", Path: "secret/metadata/", Token: root}, 200, `"data":{"keys":["app/","gone"]}`},
		{"a list as GET", Call{Path: "secret/metadata/?list=true", Token: root}, 200, `"data":{"keys":["app/","gone"]}`},
		{"subkeys", Call{Path: "secret/subkeys/app/a", Token: root}, 200, `"subkeys":{"k":null}`},
		{"metadata", Call{Path: "secret/metadata/app/a", Token: root}, 200, `"oldest_version":0`},
		{"nothing there", Call{Path: "secret/data/none", Token: root}, 404, "={\"errors\":[]}\n"},
		{"a KV v2 path without data/", Call{Path: "secret/app/a", Token: root}, 404, `Invalid path for a versioned K/V secrets engine.`},
		{"the preflight of KV v2", Call{Path: "sys/internal/ui/mounts/secret/app/a", Token: token}, 200, `"options":{"version":"2"},"path":"secret/"`},
		{"the preflight of KV v1", Call{Path: "sys/internal/ui/mounts/kv/a", Token: root}, 200, `"options":{"version":"1"},"path":"kv/"`},
		{"the preflight of no mount", Call{Path: "sys/internal/ui/mounts/none/a", Token: root}, 403, `preflight capability check returned 403`},
		{"an invalid token", Call{Path: "secret/data/app/a", Token: "hvs.none"}, 403, "={\"errors\":[\"2 errors occurred:\\n\\t* permission denied\\n\\t* invalid token\\n\\n\"]}\n"},
		{"no token", Call{Path: "secret/data/app/a"}, 403, "={\"errors\":[\"permission denied\"]}\n"},
		{"a denied path", Call{Path: "kv/a", Token: token}, 403, "={\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}\n"},
		{"capabilities", Call{Method: "POST", Path: "sys/capabilities-self", Token: token, Body: caps}, 200, `"data":{"kv/a":["deny"],"secret/data/app/a":["read"]}`},
		{"capabilities of an invalid token", Call{Method: "POST", Path: "sys/capabilities-self", Token: "hvs.none", Body: caps}, 403, `invalid token`},
		{"capabilities without the default policy", Call{Method: "POST", Path: "sys/capabilities-self", Token: bare, Body: caps}, 403, `* permission denied`},
		{"a namespace is ignored on a community server", Call{Path: "kv/a", Token: root, Header: http.Header{"X-Vault-Namespace": {"team"}}}, 200, `"data":{"k":"v"}`},
		{"forwarding is refused on a community server", Call{Path: "kv/a", Token: root, Header: http.Header{"X-Vault-Forward": {"active-node"}}}, 400, `X-Vault-Forward disabled in configuration`},
		{"an encoded slash is a slash", Call{Path: "secret/data/app%2Fa", Token: root}, 200, `"version":1`},
		{"upper case is another mount", Call{Path: "SECRET/data/app/a", Token: root}, 404, `no handler for route`},
		{"HEAD is refused", Call{Method: "HEAD", Path: "kv/a", Token: root}, 405, ""},
	} {
		if c.call.Method == "" {
			c.call.Method = http.MethodGet
		}
		r, err := v.Do(ctx, c.call)
		Must(t, err)
		whole, exact := strings.CutPrefix(c.body, "=")
		if r.Status != c.status || exact && string(r.Body) != whole || !exact && !strings.Contains(string(r.Body), c.body) {
			t.Errorf("%s: status %d: %s", c.name, r.Status, r.Body)
		}
		if r.Header.Get("X-Vault-Index") != "" {
			t.Errorf("%s: a community server sent X-Vault-Index", c.name)
		}
	}
	Must(t, v.Seal(ctx))
	for _, path := range []string{"kv/a", "sys/leader"} {
		r, err := v.Do(ctx, Call{Method: http.MethodGet, Path: path, Token: root})
		Must(t, err)
		if r.Status != 503 || string(r.Body) != "{\"errors\":[\"Vault is sealed\"]}\n" {
			t.Errorf("%s, sealed: %d %s", path, r.Status, r.Body)
		}
	}
}

// TestFactUncleanPathsAreRedirected: a path that is not clean is answered
// with 307 to the clean one, and never served as it is.
func TestFactUncleanPathsAreRedirected(t *testing.T) {
	t.Parallel()
	v := Dev(t)
	_, err := v.Put(t.Context(), "secret", "a", map[string]any{"k": "v"})
	Must(t, err)
	client := newClient()
	defer client.CloseIdleConnections()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{"secret//data/a", "secret/data/../data/a", "secret/./data/a"} {
		r, err := Send(t.Context(), client, v.Addr(), Call{Method: http.MethodGet, Path: path, Token: v.RootToken()})
		Must(t, err)
		if location := r.Header.Get("Location"); r.Status != 307 || location != "/v1/secret/data/a" {
			t.Errorf("%s: status %d, Location %q", path, r.Status, location)
		}
	}
}
