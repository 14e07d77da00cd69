package compat

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// run runs a client to its end and returns what it printed.
func run(t testing.TB, c harness.Command) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	proc, err := harness.Run(ctx, c)
	if proc == nil {
		return "", err
	}
	return proc.Stdout(), err
}

// script is the path of a file in tests/clients.
func script(t testing.TB, name string) string {
	t.Helper()
	root, err := harness.Root()
	harness.Must(t, err)
	return filepath.Join(root, "tests", "clients", name)
}

// cli runs Vault's own command line against the proxy.
type cli struct {
	t     testing.TB
	p     *thaw
	token string
	home  string
}

func (c *cli) try(args ...string) (string, error) {
	env := []string{"HOME=" + c.home, "VAULT_ADDR=" + c.p.base, "VAULT_MAX_RETRIES=0", "VAULT_CLIENT_TIMEOUT=20s", "PATH=" + harness.FromEnv().Path}
	if c.token != "" {
		env = append(env, "VAULT_TOKEN="+c.token)
	}
	return run(c.t, harness.Command{Path: harness.VaultBin(c.t), Args: args, Env: env})
}

func (c *cli) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("vault %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func TestVaultCLIWorksUnchanged(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start()
	for name, token := range map[string]string{"with its token": o.token, "without a token": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &cli{t: t, p: p, token: token, home: t.TempDir()}
			dir := unique("cli")
			path := dir + "/a"
			field := func(want string, args ...string) {
				t.Helper()
				if got := strings.TrimSpace(v.run(args...)); got != want {
					t.Errorf("vault %s: %q, not %q", strings.Join(args, " "), got, want)
				}
			}
			mount := "-mount=" + o.kv
			contains(t, v.run("kv", "put", mount, path, "v=1", "w=x"), "version")
			field("1", "kv", "get", mount, "-field=v", path)
			field("1", "kv", "get", "-field=v", o.kv+"/"+path) // the old way, with the mount in the path
			contains(t, v.run("kv", "patch", mount, path, "v=2"), "version")
			field("2", "kv", "get", mount, "-field=v", path)
			field("x", "kv", "get", mount, "-field=w", path)
			field("1", "kv", "get", mount, "-version=1", "-field=v", path)
			v.run("kv", "patch", mount, "-method=rw", path, "v=3")
			field("3", "kv", "get", mount, "-field=v", path)
			contains(t, v.run("kv", "list", mount, dir), "a")
			contains(t, v.run("kv", "metadata", "get", mount, path), "current_version")
			v.run("kv", "metadata", "put", mount, "-custom-metadata=owner=me", path)
			contains(t, v.run("kv", "metadata", "get", mount, path), "me")
			v.run("kv", "metadata", "patch", mount, "-custom-metadata=owner=you", path)
			contains(t, v.run("kv", "metadata", "get", mount, path), "you")
			contains(t, v.run("kv", "get", mount, path), "you")
			v.run("kv", "delete", mount, path)
			if out, err := v.try("kv", "get", mount, "-field=v", path); err == nil {
				t.Errorf("a deleted secret: %s", out)
			}
			v.run("kv", "undelete", mount, "-versions=3", path)
			field("3", "kv", "get", mount, "-field=v", path)
			v.run("kv", "rollback", mount, "-version=1", path)
			field("1", "kv", "get", mount, "-field=v", path)
			v.run("kv", "destroy", mount, "-versions=2", path)
			if out := v.run("kv", "get", mount, "-version=2", path); strings.Contains(out, "= Data =") {
				t.Errorf("a destroyed version: %s", out)
			}
			contains(t, v.run("read", "-format=json", o.kv+"/data/"+path), `"version": 4`)
			field("1", "kv", "get", mount, "-field=v", path)
			v.run("kv", "metadata", "delete", mount, path)
			if out, err := v.try("kv", "list", mount, dir); err == nil {
				t.Errorf("a removed secret is listed: %s", out)
			}

			v.run("write", o.kv1+"/"+path, "v=one")
			field("one", "read", "-field=v", o.kv1+"/"+path)
			field("one", "kv", "get", "-field=v", o.kv1+"/"+path)
			v.run("kv", "put", o.kv1+"/"+path, "v=two")
			field("two", "read", "-field=v", o.kv1+"/"+path)
			contains(t, v.run("list", o.kv1+"/"+dir), "a")
			v.run("delete", o.kv1+"/"+path)
			if out, err := v.try("read", o.kv1+"/"+path); err == nil {
				t.Errorf("a deleted secret: %s", out)
			}

			contains(t, v.run("status"), "Initialized")
			contains(t, v.run("token", "lookup"), "policies")
			v.run("kv", "put", mount, path, "v=wrapped")
			token := strings.TrimSpace(v.run("read", "-wrap-ttl=60s", "-field=wrapping_token", o.kv+"/data/"+path))
			contains(t, v.run("unwrap", token), "wrapped")
		})
	}
}

func TestVaultCLIReadsWhatIsCachedWithVaultDead(t *testing.T) {
	t.Parallel()
	o := alone(t)
	o.put("app/a", "1")
	harness.Must(t, o.PutKV1(t.Context(), o.kv1, "b", map[string]any{"v": "one"}))
	p := o.start("VAULT_MAX_RETRIES=0")
	v := &cli{t: t, p: p, token: o.token, home: t.TempDir()}
	reads := [][]string{
		{"kv", "get", "-mount=" + o.kv, "-field=v", "app/a"},
		{"kv", "get", "-field=v", o.kv + "/app/a"},
		{"kv", "list", "-mount=" + o.kv, "app"},
		{"kv", "metadata", "get", "-mount=" + o.kv, "app/a"},
		{"read", "-format=json", o.kv + "/data/app/a"},
		{"kv", "get", "-field=v", o.kv1 + "/b"},
		{"read", "-field=v", o.kv1 + "/b"},
	}
	var before []string
	for _, args := range reads {
		before = append(before, v.run(args...))
	}
	o.Kill()
	for i, args := range reads {
		out, err := v.try(args...)
		if err != nil {
			t.Errorf("vault %s with Vault dead: %v", strings.Join(args, " "), err)
			continue
		}
		if a, b := withoutID(t, before[i]), withoutID(t, out); a != b {
			t.Errorf("vault %s: %s, before %s", strings.Join(args, " "), out, before[i])
		}
	}
	_, err := v.try("kv", "get", "-mount="+o.kv, "never/read")
	if err == nil || !strings.Contains(err.Error(), "thaw:") {
		t.Errorf("an uncached secret: %v", err)
	}
}

func withoutID(t testing.TB, out string) string {
	t.Helper()
	var m map[string]any
	if json.Unmarshal([]byte(out), &m) != nil {
		return out
	}
	delete(m, "request_id")
	b, err := json.Marshal(m)
	harness.Must(t, err)
	return string(b)
}

// clientWorks runs a client's script with and without a token, and again for
// what is cached while Vault is away.
func clientWorks(t *testing.T, command func(args ...string) harness.Command) {
	for name, mine := range map[string]bool{"with its token": true, "without a token": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			p := o.start()
			token := ""
			if mine {
				token = o.newToken(o.policy("client", o.all()))
			}
			client := func(mode string) {
				t.Helper()
				out, err := run(t, command(p.base, token, o.kv, o.kv1, mode))
				if err != nil || strings.TrimSpace(out) != "ok" {
					t.Errorf("%q: %s %v", mode, out, err)
				}
			}
			client("all")
			hits := p.metric("thaw_hits_total")
			client("read")
			if p.metric("thaw_hits_total") == hits {
				t.Error("a second client's read was no hit")
			}
			o.count.Cut()
			client("read")
		})
	}
}

func TestHvacWorksUnchanged(t *testing.T) {
	t.Parallel()
	python := filepath.Join(harness.Python(t), "python")
	clientWorks(t, func(args ...string) harness.Command {
		return harness.Command{Path: python, Args: append([]string{script(t, "python/hvac_kv.py")}, args...),
			Env: []string{"PATH=" + harness.FromEnv().Path, "HOME=" + t.TempDir()}} // no ~/.vault-token
	})
}

func TestNodeVaultWorksUnchanged(t *testing.T) {
	t.Parallel()
	dir := harness.NodeVault(t)
	clientWorks(t, func(args ...string) harness.Command {
		return harness.Command{Path: "node", Args: append([]string{script(t, "node/kv.js")}, args...), Dir: dir, Env: nodeEnv(dir)}
	})
}

func nodeEnv(dir string, more ...string) []string {
	env := harness.FromEnv()
	return append([]string{"PATH=" + env.Path, "HOME=" + env.Home, "NODE_PATH=" + filepath.Join(dir, "node_modules")}, more...)
}

// hashi-vault-js comes with tests of its own. They speak TLS.
func TestHashiVaultJSPassesItsOwnKVTests(t *testing.T) {
	t.Parallel()
	dir := harness.NodeVault(t)
	tests := filepath.Join(dir, "node_modules", "hashi-vault-js", "tests", "KV.test.js")
	if _, err := os.Stat(tests); err != nil {
		t.Fatal(err)
	}
	o := shared(t)
	p, ca := overTLS(t, o)
	out, err := run(t, harness.Command{
		Path: "node", Args: []string{"--import", script(t, "node/jest-globals.mjs"), tests}, Dir: dir,
		Env: nodeEnv(dir, "VAULT_URL=https://"+p.addrs[0]+"/v1", "VAULT_KNIGHT_TOKEN="+o.token, "ROOT_PATH="+o.kv, "CA_CERT="+file(t, "ca.pem", string(ca.PEM()))),
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	contains(t, out, "# fail 0", "# pass 1")
	p.base = "https://" + p.addrs[0]
	p.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: ca.Pool()}
	if p.metric("thaw_writes_total") < 8 {
		t.Error("the tests wrote little")
	}
}
