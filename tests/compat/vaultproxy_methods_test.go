package compat

import (
	"fmt"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/sts"
	"github.com/thaw-project/thaw/tests/harness"
)

// plainListener is a listener block.
const plainListener = `
listener "tcp" {
  address = "127.0.0.1:0"
  tls_disable = true
}`

func TestVaultProxy_OtherMethodsOfTheFile(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	ctx := t.Context()

	a := awsOn(o, sts.Options{Region: "eu-west-1"}, map[string]any{"sts_region": "eu-west-1", "iam_server_id_header_value": "vault.example.com"})
	jwtMount := unique("jwt")
	harness.Must(t, o.EnableAuth(ctx, jwtMount, "jwt"))
	issuer, err := harness.NewIssuer()
	harness.Must(t, err)
	harness.Must(t, o.JWTRole(ctx, jwtMount, "r", "fn", "vault", issuer, harness.RoleSpec{Policies: []string{o.policy("jwt", o.all())}, TTL: time.Hour}))
	now := time.Now().Unix()
	jwt, err := issuer.Sign(map[string]any{"sub": "fn", "aud": "vault", "iat": now, "nbf": now - 60, "exp": now + 3600})
	harness.Must(t, err)
	token := file(t, "token", o.token)

	for name, method := range map[string]string{
		"token_file, config block":     `method { type = "token_file"  config { token_file_path = "` + token + `" } }`,
		"token_file, config attribute": `method "token_file" { config = { token_file_path = "` + token + `" } }`,
		"token_file, quoted keys":      `method "token_file" { "config" = { "token_file_path" = "` + token + `" } }`,
		"jwt": `method "jwt" {
  mount_path = "auth/` + jwtMount + `"
  config = {
    path = "` + file(t, "jwt", jwt) + `"
    role = "r"
  }
}`,
		"aws": `method "aws" {
  mount_path = "auth/` + a.mount + `"
  config = {
    type         = "iam"
    role         = "fn"
    region       = "eu-west-1"
    header_value = "vault.example.com"
    access_key    = "` + a.keys.AccessKeyID + `"
    secret_key    = "` + a.keys.SecretAccessKey + `"
    session_token = "` + a.keys.SessionToken + `"
  }
}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := o.in(t).hcl(fmt.Sprintf(`
vault { address = "%s" }
auto_auth { %s }
api_proxy { use_auto_auth_token = true }
cache { cache_static_secrets = true }
%s`, o.count.Addr(), method, plainListener))
			p.get(o.data("a")).is("1")
			p.get(o.data("a")).is("1").hit()
		})
	}
}

func TestVaultProxy_AMethodThatThawDoesNotHaveIsNamed(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"kubernetes", "ldap", "nonsense"} {
		said := refused(t, []string{"-config", config(t, `
vault { address = "http://127.0.0.1:1" }
auto_auth { method %q { config = { role = "r" } } }
%s`, method, plainListener)}, "THAW_LISTEN=")
		contains(t, said, method, "approle", "proxy.hcl:3")
	}
}

func TestVaultProxy_SeveralListenersOfTheFile(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	sock := socket(t)
	p := o.hcl(fmt.Sprintf(`
vault { address = "%s" }
listener "unix" {
  address = "%s"
  tls_disable = true
  require_request_header = true
}
%s`, o.count.Addr(), sock, plainListener))
	if len(p.addrs) != 2 {
		t.Fatalf("serves on %v", p.addrs)
	}
	p.base = "http://" + p.addrs[1]
	p.as(o.token, o.data("a")).is("1")
	p.base, p.client = "http://localhost", unixClient(t, sock)
	p.as(o.token, o.data("a")).status(412) // each has its own rule
	p.as(o.token, o.data("a"), "X-Vault-Request", "true").is("1")
}

func TestVaultProxy_JSONFileMeansTheSame(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	name := file(t, "proxy.json", fmt.Sprintf(`{
  "vault": {"address": %q},
  "auto_auth": {"method": [{"type": "token_file", "config": {"token_file_path": %q}}]},
  "api_proxy": {"use_auto_auth_token": true},
  "cache": {"cache_static_secrets": true},
  "listener": [{"tcp": {"address": "127.0.0.1:0", "tls_disable": true}}]
}`, o.count.Addr(), file(t, "token", o.token)))
	p := start(t, []string{"-config", name}, "THAW_LISTEN=")
	p.get(o.data("a")).is("1")
	p.get(o.data("a")).is("1").hit()
}
