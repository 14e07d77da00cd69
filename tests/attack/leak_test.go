package attack

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// What the proxy tells of itself, to whoever may ask, holds none of the secrets
// that went through it, nor those of its configuration.
func TestStatusAndMetricsTellNoSecret(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	const value, local, key, gateway = "planted-value-of-a-secret", "planted-local-token", "planted-key-of-32-bytes-for-AES!", "planted-gateway-credential"
	o.put("a", value)
	caller, err := o.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{o.kv}, TTL: time.Hour})
	harness.Must(t, err)
	p := o.start("THAW_LOCAL_TOKEN="+local, "CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:1", "THAW_CACHE_KEY="+base64.StdEncoding.EncodeToString([]byte(key)),
		`VAULT_HEADERS={"X-Gateway":"`+gateway+`"}`, "VAULT_MAX_RETRIES=0")
	const mine = "X-Thaw-Token: " + local
	for _, head := range []string{"X-A: b", "X-Vault-Token: " + caller, "X-Vault-Token: hvs.planted-stranger", "Authorization: Bearer " + caller} {
		p.get(o.data("a"), mine, head)
	}
	o.count.Cut()
	p.get(o.data("uncached"), mine, "X-Vault-Token: "+caller)
	harness.Must(t, o.count.Mend())
	for _, path := range []string{"metrics", "status", "nothing", "cache-clear"} {
		a := p.get("/proxy/v1/"+path, mine)
		if a.status != http.StatusOK && path != "nothing" && path != "cache-clear" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		for _, secret := range []string{value, local, key, gateway, o.token, caller, "planted-stranger"} {
			for _, spelt := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))} {
				if strings.Contains(a.body, spelt) {
					t.Errorf("%s tells %.12s...:\n%s", path, secret, a.body)
				}
			}
		}
		if p.get("/proxy/v1/"+path).status != http.StatusForbidden {
			t.Errorf("%s is told without the local token", path)
		}
	}
}
