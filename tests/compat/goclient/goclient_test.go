// Package goclient runs Vault's own Go client, hashicorp/vault/api, against
// thaw unchanged. It is a module of its own, so that the client's dependencies
// stay out of what is shipped.
package goclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/thaw-project/thaw/tests/harness"
)

// binary is thaw, built by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(runSuite(m)) }

func runSuite(m *testing.M) int {
	dir, err := os.MkdirTemp("", "thaw-goclient-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "thaw")
	if err := harness.Build(context.Background(), binary, "./extension"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// lines passes on each line that is written.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		select {
		case l <- line:
		default:
		}
	}
	return len(b), nil
}

// serve runs thaw in front of an origin, and returns thaw's address.
func serve(t *testing.T, origin string, settings ...string) string {
	t.Helper()
	said := make(lines, 100)
	proc, err := harness.Start(harness.Command{
		Path: binary, Args: []string{"proxy"}, Stderr: said,
		Env: append([]string{"HOME=" + t.TempDir(), "VLE_VAULT_ADDR=" + origin, "THAW_LISTEN=127.0.0.1:0"}, settings...),
	})
	must(t, err)
	t.Cleanup(func() {
		proc.Kill()
		if t.Failed() {
			t.Log(proc.Tail(4000))
		}
	})
	var serving struct{ Addresses []string }
	timeout := time.After(30 * time.Second)
	for len(serving.Addresses) == 0 {
		select {
		case line := <-said:
			if strings.Contains(line, `"msg":"serving"`) {
				must(t, json.Unmarshal([]byte(line), &serving))
			}
		case <-timeout:
			t.Fatalf("thaw does not serve:\n%s", proc.Output())
		}
	}
	return "http://" + serving.Addresses[0]
}

// world is thaw before a Vault of its own, and a client of it.
type world struct {
	vault *harness.Vault
	count *harness.Counter
	*api.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{vault: harness.Dev(t)}
	w.count = harness.Count(t, harness.CounterConfig{Origin: w.vault.Addr()})
	must(t, w.vault.EnableKV(t.Context(), "kv", 1))
	addr := serve(t, w.count.Addr(), "VAULT_TOKEN="+w.vault.RootToken(), "THAW_RECHECK=10m")
	cfg := api.DefaultConfig()
	must(t, cfg.Error)
	cfg.Address = addr
	cfg.MaxRetries = 0
	var err error
	w.Client, err = api.NewClient(cfg)
	must(t, err)
	w.SetToken(w.vault.RootToken())
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// holds fails the test on another secret or an error.
func holds(t testing.TB, s *api.KVSecret, err error, want map[string]any) {
	t.Helper()
	must(t, err)
	if !maps.Equal(s.Data, want) {
		t.Fatalf("%v, not %v", s.Data, want)
	}
}

type m = map[string]any

func TestKVv2(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, token := range map[string]string{"with its token": w.vault.RootToken(), "without a token": ""} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			c, err := w.Clone()
			must(t, err)
			c.SetToken(token)
			kv := c.KVv2("secret")
			path := strings.ReplaceAll(name, " ", "-") + "/a"
			get := func(want m) {
				t.Helper()
				for range 2 { // from Vault, and from the cache
					s, err := kv.Get(ctx, path)
					holds(t, s, err, want)
				}
			}
			gone := func(err error) {
				t.Helper()
				if !errors.Is(err, api.ErrSecretNotFound) {
					t.Fatalf("%v", err)
				}
			}
			_, err = kv.Get(ctx, path)
			gone(err)
			put, err := kv.Put(ctx, path, m{"v": "1"})
			must(t, err)
			if put.VersionMetadata.Version != 1 {
				t.Errorf("version %d", put.VersionMetadata.Version)
			}
			get(m{"v": "1"})
			_, err = kv.Patch(ctx, path, m{"w": "2"})
			must(t, err)
			get(m{"v": "1", "w": "2"})
			_, err = kv.Patch(ctx, path, m{"w": "3"}, api.WithMergeMethod(api.KVMergeMethodReadWrite))
			must(t, err)
			get(m{"v": "1", "w": "3"})
			if _, err = kv.Put(ctx, path, m{}, api.WithCheckAndSet(1)); err == nil {
				t.Error("a stale check-and-set was accepted")
			}
			s, err := kv.GetVersion(ctx, path, 1)
			holds(t, s, err, m{"v": "1"})
			versions, err := kv.GetVersionsAsList(ctx, path)
			must(t, err)
			if len(versions) != 3 {
				t.Errorf("%d versions", len(versions))
			}
			must(t, kv.PutMetadata(ctx, path, api.KVMetadataPutInput{CustomMetadata: m{"owner": "me"}}))
			must(t, kv.PatchMetadata(ctx, path, api.KVMetadataPatchInput{CustomMetadata: m{"owner": "you"}}))
			meta, err := kv.GetMetadata(ctx, path)
			must(t, err)
			if meta.CustomMetadata["owner"] != "you" || meta.CurrentVersion != 3 {
				t.Errorf("metadata %+v", meta)
			}
			must(t, kv.Delete(ctx, path))
			if s, err := kv.Get(ctx, path); err == nil && s.Data != nil {
				t.Errorf("a deleted secret: %v", s.Data)
			}
			must(t, kv.Undelete(ctx, path, []int{3}))
			get(m{"v": "1", "w": "3"})
			_, err = kv.Rollback(ctx, path, 1)
			must(t, err)
			get(m{"v": "1"})
			must(t, kv.Destroy(ctx, path, []int{2}))
			if s, err := kv.GetVersion(ctx, path, 2); err == nil && s.Data != nil {
				t.Errorf("a destroyed version: %v", s.Data)
			}
			list, err := c.Logical().ListWithContext(ctx, "secret/metadata/"+strings.Split(path, "/")[0])
			must(t, err)
			if keys, _ := list.Data["keys"].([]any); !slices.Equal(keys, []any{"a"}) {
				t.Errorf("keys %v", list.Data)
			}
			must(t, kv.DeleteMetadata(ctx, path))
			_, err = kv.Get(ctx, path)
			gone(err)
		})
	}
}

func TestKVv1AndLogical(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	kv := w.KVv1("kv")
	for _, v := range []string{"1", "2"} {
		must(t, kv.Put(ctx, "a", m{"v": v}))
		for range 2 {
			s, err := kv.Get(ctx, "a")
			holds(t, s, err, m{"v": v})
		}
	}
	s, err := w.Logical().ReadWithContext(ctx, "kv/a")
	must(t, err)
	if s.Data["v"] != "2" || s.LeaseDuration == 0 {
		t.Errorf("%+v", s)
	}
	must(t, kv.Delete(ctx, "a"))
	if _, err := kv.Get(ctx, "a"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("%v", err)
	}
	s, err = w.Logical().ReadWithContext(ctx, "kv/nothing")
	if s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
}

func TestTokensWrappingAndSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.vault.Put(ctx, "secret", "a", m{"v": "1"})
	must(t, err)
	health, err := w.Sys().HealthWithContext(ctx)
	must(t, err)
	if !health.Initialized || health.Sealed {
		t.Errorf("%+v", health)
	}
	created, err := w.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"root"}, TTL: "1h"})
	must(t, err)
	mine, err := w.Clone()
	must(t, err)
	mine.SetToken(created.Auth.ClientToken)
	for range 2 {
		s, err := mine.KVv2("secret").Get(ctx, "a")
		holds(t, s, err, m{"v": "1"})
	}
	self, err := mine.Auth().Token().LookupSelfWithContext(ctx)
	must(t, err)
	if id, _ := self.TokenID(); id != created.Auth.ClientToken {
		t.Error("lookup-self is about another token")
	}
	_, err = mine.Auth().Token().RenewSelfWithContext(ctx, 60)
	must(t, err)

	mine.SetWrappingLookupFunc(func(string, string) string { return "60s" })
	wrapped, err := mine.Logical().ReadWithContext(ctx, "secret/data/a")
	must(t, err)
	mine.SetWrappingLookupFunc(nil)
	if wrapped.WrapInfo == nil || wrapped.WrapInfo.Token == "" {
		t.Fatalf("not wrapped: %+v", wrapped)
	}
	plain, err := mine.Logical().UnwrapWithContext(ctx, wrapped.WrapInfo.Token)
	must(t, err)
	if data, _ := plain.Data["data"].(m); data["v"] != "1" {
		t.Errorf("unwrapped: %v", plain.Data)
	}

	must(t, mine.Auth().Token().RevokeSelfWithContext(ctx, ""))
	var refused *api.ResponseError
	if _, err := mine.KVv2("secret").Get(ctx, "a"); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
		t.Errorf("after revoke-self: %v", err)
	}
}

func TestCachedSecretsWithVaultAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.vault.Put(ctx, "secret", "a", m{"v": "1"})
	must(t, err)
	s, err := w.KVv2("secret").Get(ctx, "a")
	holds(t, s, err, m{"v": "1"})
	w.count.Cut()
	s, err = w.KVv2("secret").Get(ctx, "a")
	holds(t, s, err, m{"v": "1"})
	var failed *api.ResponseError
	if _, err = w.KVv2("secret").Get(ctx, "never"); !errors.As(err, &failed) || !strings.HasPrefix(failed.Errors[0], "thaw: ") {
		t.Errorf("an uncached secret: %v", err)
	}
}

// The client's namespace goes along (a community server ignores it).
func TestNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.vault.Put(t.Context(), "secret", "a", m{"v": "1"})
	must(t, err)
	s, err := w.WithNamespace("team").KVv2("secret").Get(t.Context(), "a")
	holds(t, s, err, m{"v": "1"})
	for _, r := range w.count.Requests() {
		if r.Path == "/v1/secret/data/a" && strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != "team" {
			t.Errorf("namespace %q", r.Header["X-Vault-Namespace"])
		}
	}
}
