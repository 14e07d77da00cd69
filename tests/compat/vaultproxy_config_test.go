package compat

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// config writes a configuration file and returns its name.
func config(t *testing.T, format string, args ...any) string {
	t.Helper()
	return file(t, "proxy.hcl", fmt.Sprintf(format, args...))
}

// hcl runs thaw on a file. The listener is the file's.
func (o *origin) hcl(text string, vars ...string) *thaw {
	o.t.Helper()
	return start(o.t, []string{"-config", config(o.t, "%s", text)}, append([]string{"THAW_LISTEN=", "THAW_RECHECK=10m"}, vars...)...)
}

// approleFile is Vault Proxy's configuration as its documentation has it.
func (o *origin) approleFile(apiProxy, cache, method string) (text, secretFile string) {
	o.t.Helper()
	mount, roleID, secretID := o.approle(harness.RoleSpec{})
	secretFile = file(o.t, "secret-id", secretID+"\n")
	return fmt.Sprintf(`
pid_file = "./pidfile"

vault {
  address = "%s"
  retry {
    num_retries = 5
  }
}

auto_auth {
  method "approle" {
    mount_path = "auth/%s"
    config = {
      role_id_file_path = "%s"
      secret_id_file_path = "%s"
      %s
    }
  }

  sink "file" {
    config = {
      path = "/tmp/file-foo"
    }
  }
}

cache {
  %s
}

api_proxy {
  %s
}

listener "tcp" {
  address = "127.0.0.1:0"
  tls_disable = true
}
`, o.count.Addr(), mount, file(o.t, "role-id", roleID), secretFile, method, cache, apiProxy), secretFile
}

func TestTHAW_CONFIG_ReadsVaultProxysFile(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	text, secretFile := o.approleFile("use_auto_auth_token = true", "cache_static_secrets = true", "")
	name := config(t, "%s", text)
	for _, how := range []string{"-config", "THAW_CONFIG"} {
		t.Run(how, func(t *testing.T) {
			secret, err := os.ReadFile(secretFile)
			harness.Must(t, err)
			args, vars := []string{"-config", name}, []string{"THAW_LISTEN="}
			if how == "THAW_CONFIG" {
				args, vars = nil, []string{"THAW_LISTEN=", "THAW_CONFIG=" + name}
			}
			p := start(t, args, vars...)
			p.get(o.data("a")).is("1")
			p.get(o.data("a")).is("1").hit()
			if _, err := os.Stat(secretFile); !os.IsNotExist(err) {
				t.Errorf("the secret id's file is still there: %v", err)
			}
			for _, key := range []string{"pid_file", "sink"} {
				p.logs.await(t, key, p.proc)
				if n := p.logs.lines(key); n != 1 {
					t.Errorf("%d lines about %s, which thaw has no use for", n, key)
				}
			}
			harness.Must(t, os.WriteFile(secretFile, secret, 0o600))
		})
	}
}

func TestVaultProxy_remove_secret_id_file_after_reading(t *testing.T) {
	t.Parallel()
	t.Run("false keeps the file", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		text, secretFile := o.approleFile("use_auto_auth_token = true", "", "remove_secret_id_file_after_reading = false")
		o.hcl(text).get(o.data("a")).is("1")
		if _, err := os.Stat(secretFile); err != nil {
			t.Error(err)
		}
	})
	t.Run("a file that cannot be removed is a WARN", func(t *testing.T) {
		t.Parallel()
		o := shared(t)
		o.put("a", "1")
		text, secretFile := o.approleFile("use_auto_auth_token = true", "", "")
		open, err := os.Open(secretFile)
		harness.Must(t, err)
		t.Cleanup(func() { open.Close() })
		// Another process's open file: it can be read, and unlink is refused even to root.
		fd := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), open.Fd())
		p := o.hcl(strings.ReplaceAll(text, secretFile, fd))
		p.get(o.data("a")).is("1")
		p.logs.await(t, "could not be removed", p.proc)
	})
}

func TestVaultProxy_use_auto_auth_token(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value      string
		without    int // status of a read without a token
		with       int // of a read with a token that may not
		lookupSelf int // of lookup-self with such a token, as whom?
	}{
		{`use_auto_auth_token = true`, 200, 403, 200},
		{`use_auto_auth_token = "force"`, 200, 200, 200},
		{`use_auto_auth_token = false`, 403, 403, 200},
		{``, 403, 403, 200},
	} {
		t.Run(c.value, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			weak := o.newToken("default")
			text, _ := o.approleFile(c.value, "cache_static_secrets = true", "")
			p := o.hcl(text)
			for range 2 { // the second time from the cache, where there is one
				p.get(o.data("a")).status(c.without)
				p.as(weak, o.data("a")).status(c.with)
			}
			// Whose token was used tells its path of creation.
			path := p.as(weak, "auth/token/lookup-self").status(c.lookupSelf).field("data", "path")
			if forced := strings.Contains(c.value, "force"); forced == (path == "auth/token/create-orphan") {
				t.Errorf("the caller's lookup-self was made with the token of %v", path)
			}
		})
	}
}

func TestVaultProxy_require_request_header(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.hcl(fmt.Sprintf(`
vault { address = "%s" }
listener "tcp" {
  address = "127.0.0.1:0"
  tls_disable = true
  require_request_header = true
}`, o.count.Addr()))
	const name = "X-Vault-Request"
	p.as(o.token, o.data("a"), name, "true").is("1")
	for _, head := range [][]string{nil, {name, "false"}, {name, ""}, {name, "True"}, {name, "true", name, "true"}, {name, "true,true"}} {
		p.as(o.token, o.data("a"), head...).status(http.StatusPreconditionFailed).says(name)
	}
	p.local(http.MethodGet, "metrics", "").status(http.StatusPreconditionFailed)
	// The same as a variable.
	q := o.startWith("THAW_REQUIRE_REQUEST_HEADER=true")
	q.as(o.token, o.data("a")).status(http.StatusPreconditionFailed)
	q.as(o.token, o.data("a"), name, "true").is("1")
}

func TestVaultProxy_prepend_configured_namespace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ prepend, caller, want string }{
		{"true", "", "org"}, {"true", "team", "org/team"}, {"true", "/team/a/", "org/team/a"},
		{"false", "", "org"}, {"false", "team", "team"},
	} {
		t.Run(c.prepend+" "+c.caller, func(t *testing.T) {
			t.Parallel()
			o := shared(t) // a community server ignores the namespace
			o.put("a", "1")
			p := o.hcl(fmt.Sprintf(`
vault {
  address   = "%s"
  namespace = "org/"
}
api_proxy { prepend_configured_namespace = %s }
listener "tcp" {
  address = "127.0.0.1:0"
  tls_disable = true
}`, o.count.Addr(), c.prepend), "VAULT_TOKEN="+o.token)
			var head []string
			if c.caller != "" {
				head = []string{"X-Vault-Namespace", c.caller}
			}
			p.as(o.token, o.data("a"), head...).is("1")
			p.do(http.MethodPost, o.data("a"), o.token, map[string]any{"data": map[string]string{"v": "2"}}, head...).ok()
			for _, r := range o.count.Requests() {
				if strings.HasPrefix(r.Path, "/v1/"+o.kv) && strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != c.want {
					t.Errorf("%s %s: namespace %q, not %q", r.Method, r.Path, r.Header["X-Vault-Namespace"], c.want)
				}
			}
		})
	}
}

func TestVaultProxy_cache_static_secrets(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	for cache, want := range map[string]string{"cache_static_secrets = true": "HIT", "cache_static_secrets = false": "MISS", "": "MISS"} {
		text, _ := o.approleFile("use_auto_auth_token = true", cache, "")
		p := o.hcl(text)
		p.get(o.data("a")).is("1")
		if got := p.get(o.data("a")).is("1").Header.Get("X-Cache"); got != want {
			t.Errorf("%q: X-Cache %s", cache, got)
		}
	}
	bare := fmt.Sprintf(`
vault { address = "%s" }
cache { cache_static_secrets = true }
`, o.count.Addr())
	said := refused(t, []string{"-config", config(t, "%s", bare+"listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}")}, "THAW_LISTEN=")
	contains(t, said, "cache_static_secrets", "auto_auth")
	said = refused(t, []string{"-config", config(t, "%s", bare+"auto_auth { method \"token_file\" { config = { token_file_path = \"/x\" } } }")}, "THAW_LISTEN=")
	contains(t, said, "cache_static_secrets", "listener")
}

func TestVaultProxy_TheEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	p := o.hcl(`
vault { address = "`+nowhere+`" }
listener "tcp" {
  address = "127.0.0.1:1"
  tls_disable = true
}
log_level = "error"
`, "VAULT_ADDR="+o.count.Addr(), "THAW_LISTEN=127.0.0.1:0", "VAULT_LOG_LEVEL=INFO")
	p.as(o.token, o.data("a")).is("1")
}

func TestVaultProxy_BadFilesAreRefusedWithFileAndLineAllAtOnce(t *testing.T) {
	t.Parallel()
	name := config(t, `vault {
  adress = "http://127.0.0.1:1"
}
cache {
  static_secret_token_capability_refresh_behavior = "hopeful"
  static_secret_token_capability_refresh_interval = "often"
}
api_proxy {
  use_auto_auth_token = "perhaps"
}
listener "tcp" {
  address = "127.0.0.1:0"
  requires_request_header = true
}
`)
	said := refused(t, []string{"-config", name}, "THAW_LISTEN=")
	base := filepath.Base(name)
	for line, key := range map[int]string{2: "adress", 5: "hopeful", 6: "often", 9: "perhaps", 13: "requires_request_header"} {
		contains(t, said, base+":"+strconv.Itoa(line), key)
	}
	contains(t, said, "address", "require_request_header") // what was meant
	contains(t, refused(t, []string{"-config", config(t, "vault {\n  address = \n}")}), "proxy.hcl")
	contains(t, refused(t, []string{"-config", "/nowhere/proxy.hcl"}), "/nowhere/proxy.hcl")
}
