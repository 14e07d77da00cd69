package harness

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// version reads the latest version number of a KV v2 secret with a token.
func version(t *testing.T, v *Vault, token, path string) float64 {
	t.Helper()
	r, err := v.Do(t.Context(), Call{Method: http.MethodGet, Path: path, Token: token})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	data, err := r.Data()
	if err != nil {
		t.Fatal(err)
	}
	return data["metadata"].(map[string]any)["version"].(float64)
}

func TestDevVaultIsTheVersionThatWasAskedFor(t *testing.T) {
	t.Parallel()
	v := Dev(t)
	r, err := v.Root(t.Context(), http.MethodGet, "sys/health", nil)
	Must(t, err)
	if !strings.Contains(string(r.Body), `"version":"`+VaultVersion+`"`) && FromEnv().VaultBin == "" {
		t.Errorf("sys/health: %s", r.Body)
	}
	n, err := v.Put(t.Context(), "secret", "a", map[string]any{"k": "v"})
	Must(t, err)
	if n != 1 || version(t, v, v.RootToken(), "secret/data/a") != 1 {
		t.Errorf("version %d", n)
	}
}

func TestRaftKeepsItsDataThroughKillSealAndRestart(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := Raft(t)
	token, err := v.CreateToken(ctx, TokenSpec{Policies: []string{"root"}, Batch: false})
	Must(t, err)
	_, err = v.Put(ctx, "secret", "a", map[string]any{"k": "v"})
	Must(t, err, v.PutKV1(ctx, "kv", "a", map[string]any{"k": "v"}))
	addr := v.Addr()

	v.Kill()
	if _, err := v.Do(ctx, Call{Method: http.MethodGet, Path: "sys/health"}); err == nil {
		t.Error("a killed server answered")
	}
	Must(t, v.Restart(ctx))
	if v.Addr() != addr || version(t, v, token, "secret/data/a") != 1 {
		t.Error("another address or version after a restart")
	}

	Must(t, v.Seal(ctx))
	r, err := v.Do(ctx, Call{Method: http.MethodGet, Path: "secret/data/a", Token: token})
	Must(t, err)
	if r.Status != http.StatusServiceUnavailable {
		t.Errorf("sealed: status %d", r.Status)
	}
	Must(t, v.Unseal(ctx))

	Must(t, v.Freeze(ctx))
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := v.Do(short, Call{Method: http.MethodGet, Path: "sys/health"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("frozen: %v", err)
	}
	Must(t, v.Thaw())
	if version(t, v, token, "secret/data/a") != 1 {
		t.Error("another version after a freeze")
	}

	v.Stop()
	Must(t, v.StartSealed(ctx))
	if status, err := v.health(ctx); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("started sealed: status %d, %v", status, err)
	}
	Must(t, v.Unseal(ctx))
	if version(t, v, token, "secret/data/a") != 1 {
		t.Error("another version after a stop")
	}
}

func TestKVHelpersDoWhatTheySay(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := Dev(t)
	put := func(data map[string]any) { t.Helper(); _, err := v.Put(ctx, "secret", "a", data); Must(t, err) }
	status := func(path string) int {
		t.Helper()
		r, err := v.Do(ctx, Call{Method: http.MethodGet, Path: path, Token: v.RootToken()})
		Must(t, err)
		return r.Status
	}
	put(map[string]any{"k": "1"})
	put(map[string]any{"k": "2"})
	Must(t, v.Patch(ctx, "secret", "a", map[string]any{"l": "3"}))
	if n := version(t, v, v.RootToken(), "secret/data/a"); n != 3 {
		t.Errorf("version %v after two writes and a patch", n)
	}
	Must(t, v.Delete(ctx, "secret", "a"))
	if got := status("secret/data/a"); got != 404 {
		t.Errorf("deleted: %d", got)
	}
	Must(t, v.Undelete(ctx, "secret", "a", 3))
	if got := status("secret/data/a"); got != 200 {
		t.Errorf("undeleted: %d", got)
	}
	Must(t, v.DeleteVersions(ctx, "secret", "a", 1), v.Destroy(ctx, "secret", "a", 2))
	for _, n := range []string{"1", "2"} {
		if got := status("secret/data/a?version=" + n); got != 404 {
			t.Errorf("version %s: %d", n, got)
		}
	}
	Must(t, v.PutMetadata(ctx, "secret", "a", map[string]any{"max_versions": 5}),
		v.PatchMetadata(ctx, "secret", "a", map[string]any{"custom_metadata": map[string]string{"x": "y"}}))
	r, err := v.Root(ctx, http.MethodGet, "secret/metadata/a", nil)
	Must(t, err)
	if s := string(r.Body); !strings.Contains(s, `"max_versions":5`) || !strings.Contains(s, `"x":"y"`) {
		t.Errorf("metadata: %s", s)
	}
	Must(t, v.DeleteMetadata(ctx, "secret", "a"))
	if got := status("secret/metadata/a"); got != 404 {
		t.Errorf("metadata deleted: %d", got)
	}
	Must(t, v.EnableKV(ctx, "old", 1), v.PutKV1(ctx, "old", "a", map[string]any{"k": "v"}), v.DeleteKV1(ctx, "old", "a"))
	if got := status("old/a"); got != 404 {
		t.Errorf("KV v1, deleted: %d", got)
	}
}

func TestLoginsWork(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v := Dev(t)
	Must(t, v.PutPolicy(ctx, "app", `path "secret/data/*" { capabilities = ["read"] }`),
		v.EnableAuth(ctx, "approle", "approle"), v.EnableAuth(ctx, "jwt", "jwt"))
	login := func(path string, body map[string]any) string {
		t.Helper()
		r, err := v.Do(ctx, Call{Method: http.MethodPost, Path: path, Body: body})
		if err == nil {
			err = r.Err()
		}
		Must(t, err)
		token, err := r.token()
		Must(t, err)
		return token
	}
	app := RoleSpec{Policies: []string{"app"}, TTL: time.Minute}
	roleID, secretID, err := v.AppRole(ctx, "approle", "r", app)
	Must(t, err)
	if token := login("auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secretID}); !strings.HasPrefix(token, "hvs.") {
		t.Error("approle: not a service token")
	}

	issuer, err := NewIssuer()
	Must(t, err)
	app.Batch = true
	Must(t, v.JWTRole(ctx, "jwt", "r", "me", "vault", issuer, app))
	jwt, err := issuer.Sign(map[string]any{"sub": "me", "aud": "vault", "exp": time.Now().Add(time.Minute).Unix()})
	Must(t, err)
	if token := login("auth/jwt/login", map[string]any{"role": "r", "jwt": jwt}); !strings.HasPrefix(token, "hvb.") {
		t.Error("jwt: not a batch token")
	}
	token, err := v.CreateToken(ctx, TokenSpec{Policies: []string{"app"}, TTL: time.Minute, MaxTTL: time.Hour, NumUses: 5, NoDefault: true})
	Must(t, err, v.RevokeToken(ctx, token))
}

func TestMissingVaultSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := FindVault(t.Context(), "/nonexistent/vault")
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "VAULT_BIN") {
		t.Errorf("error = %v", err)
	}
}
