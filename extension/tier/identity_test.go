package tier

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

func TestG2LoginsThatMayDifferShareNoGrants(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		f := filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	one := config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleID: "one"}
	fromFile := config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleIDFile: file("one\n")}
	aws := config.Auth{Method: config.AuthAWS, Mount: "aws", Role: "shop"}
	tokenFile := config.Auth{Method: config.AuthTokenFile, TokenFile: file("token")}
	for name, c := range map[string]struct {
		a, b       config.Auth
		nsA, nsB   string
		sameGrants bool
	}{
		"one approle role":                  {a: one, b: one, sameGrants: true},
		"its id in a file":                  {a: one, b: fromFile, sameGrants: true},
		"two approle roles":                 {a: one, b: config.Auth{Method: config.AuthAppRole, Mount: "approle", RoleID: "two"}},
		"a file that is not there":          {a: config.Auth{Method: config.AuthAppRole, RoleIDFile: "none"}, b: config.Auth{Method: config.AuthAppRole, RoleIDFile: "none"}},
		"one aws role":                      {a: aws, b: aws, sameGrants: true},
		"two aws roles":                     {a: aws, b: config.Auth{Method: config.AuthAWS, Mount: "aws", Role: "billing"}},
		"two mounts":                        {a: aws, b: config.Auth{Method: config.AuthAWS, Mount: "aws2", Role: "shop"}},
		"two namespaces":                    {a: aws, b: aws, nsA: "a", nsB: "b"},
		"two tokens":                        {a: config.Auth{Method: config.AuthToken, Token: "x"}, b: config.Auth{Method: config.AuthToken, Token: "y"}},
		"one token":                         {a: config.Auth{Method: config.AuthToken, Token: "x"}, b: config.Auth{Method: config.AuthToken, Token: "x"}, sameGrants: true},
		"token files, which hold who knows": {a: tokenFile, b: tokenFile},
	} {
		if got := identity(c.a, c.nsA) == identity(c.b, c.nsB); got != c.sameGrants {
			t.Errorf("%s: same grants: %t", name, got)
		}
	}
}
