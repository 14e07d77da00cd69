package tier

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// TestG2IdentitiesThatMayDifferShareNoCapabilities: by all that Vault's policies
// can tell apart: mount, role and principal.
func TestG2IdentitiesThatMayDifferShareNoCapabilities(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		f := filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	jwt := func(claims string) config.Config {
		token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
		return config.Config{Auth: config.Auth{Method: config.AuthJWT, Mount: "jwt", Role: "shop", JWTFile: file(token)}}
	}
	approle := func(id string) config.Config {
		return config.Config{Auth: config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleID: id}}
	}
	with := func(c config.Config, change func(*config.Config)) config.Config {
		change(&c)
		return c
	}
	fromFile := with(approle(""), func(c *config.Config) { c.Auth.RoleIDFile = file("one\n") })
	noFile := with(approle(""), func(c *config.Config) { c.Auth.RoleIDFile = "none" })
	temporary := config.AWS{AccessKeyID: "ASIA1", SessionToken: "t"}
	aws := config.Config{Auth: config.Auth{Method: config.AuthAWS, Mount: "aws", Role: "shop"}, Platform: config.Platform{FunctionName: "cart", Region: "eu-west-1", AWS: temporary}}
	outside := with(aws, func(c *config.Config) { c.Platform.FunctionName = "" })
	assumed := with(aws, func(c *config.Config) { c.Auth.AssumeRole = "arn:aws:iam::1:role/a" })
	azure := config.Config{Auth: config.Auth{Method: config.AuthAzure, Mount: "azure", Role: "shop", AzureResourceID: "/subscriptions/s/sites/a"}}
	token := func(v string) config.Config {
		return config.Config{Auth: config.Auth{Method: config.AuthToken, Token: config.Secret(v)}}
	}
	tokenFile := config.Config{Auth: config.Auth{Method: config.AuthTokenFile, TokenFile: file("token")}}
	for name, c := range map[string]struct {
		a, b   config.Config
		shared bool
	}{
		"one approle role":         {approle("one"), approle("one"), true},
		"its id in a file":         {approle("one"), fromFile, true},
		"two approle roles":        {approle("one"), approle("two"), false},
		"a file that is not there": {noFile, noFile, false},
		"one function":             {aws, with(aws, func(c *config.Config) { c.Platform.AWS.AccessKeyID = "ASIA2" }), true},
		"two functions":            {aws, with(aws, func(c *config.Config) { c.Platform.FunctionName = "till" }), false},
		"two regions":              {aws, with(aws, func(c *config.Config) { c.Platform.Region = "eu-west-2" }), false},
		"no function":              {outside, outside, false},
		"one assumed role":         {assumed, with(assumed, func(c *config.Config) { c.Platform.FunctionName = "till" }), true},
		"two assumed roles":        {assumed, with(assumed, func(c *config.Config) { c.Auth.AssumeRole = "arn:aws:iam::1:role/b" }), false},
		"one user's key": {with(outside, func(c *config.Config) { c.Platform.AWS = config.AWS{AccessKeyID: "AKIA1"} }),
			with(outside, func(c *config.Config) { c.Platform.AWS = config.AWS{AccessKeyID: "AKIA1"} }), true},
		"two roles":           {aws, with(aws, func(c *config.Config) { c.Auth.Role = "billing" }), false},
		"two mounts":          {aws, with(aws, func(c *config.Config) { c.Auth.Mount = "aws2" }), false},
		"two namespaces":      {with(aws, func(c *config.Config) { c.Namespace = "a" }), with(aws, func(c *config.Config) { c.Namespace = "b" }), false},
		"one subject":         {jwt(`{"iss":"i","sub":"s","exp":1,"jti":"a"}`), jwt(`{"iss":"i","sub":"s","exp":2,"jti":"b"}`), true},
		"two subjects":        {jwt(`{"iss":"i","sub":"s"}`), jwt(`{"iss":"i","sub":"r"}`), false},
		"two issuers":         {jwt(`{"iss":"i","sub":"s"}`), jwt(`{"iss":"j","sub":"s"}`), false},
		"no subject":          {jwt(`{"iss":"i"}`), jwt(`{"iss":"i"}`), false},
		"one app":             {azure, azure, true},
		"two apps":            {azure, with(azure, func(c *config.Config) { c.Auth.AzureResourceID = "/subscriptions/s/sites/b" }), false},
		"a client of its own": {azure, with(azure, func(c *config.Config) { c.Auth.AzureClientID = "c" }), false},
		"two tokens":          {token("x"), token("y"), false},
		"one token":           {token("x"), token("x"), true},
		"token files":         {tokenFile, tokenFile, false},
	} {
		if got := identity(c.a) == identity(c.b); got != c.shared {
			t.Errorf("%s: they share capabilities: %t", name, got)
		}
	}
	if who := identity(approle("one")); who.Role != "one" {
		t.Errorf("an approle's role is known as %q, want its id", who.Role)
	}
}
