package differential

import (
	"flag"
	"log/slog"
	"net"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/tests/harness"
)

var realFlag = flag.Int("real", 200, "`requests` in all with a real Vault as the origin")

// TestOnlyRealVaultsWordCounts is TestOnlyVaultsWordCounts with a real Vault behind
// the front, and on the real clock: pauses between invocations are short there.
func TestOnlyRealVaultsWordCounts(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	for _, policy := range []struct{ name, text string }{
		{"all", `path "secret/*" { capabilities = ["read", "list"] } path "kv/*" { capabilities = ["read", "list"] } path "nested/*" { capabilities = ["read", "list"] }`},
		{"some", `path "secret/data/a/*" { capabilities = ["read"] } path "secret/metadata/a/*" { capabilities = ["read", "list"] } path "kv/a/*" { capabilities = ["read", "list"] }`},
	} {
		harness.Must(t, v.PutPolicy(t.Context(), policy.name, policy.text))
	}
	token := func(policy string) string {
		id, err := v.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{policy}, TTL: 24 * time.Hour})
		harness.Must(t, err)
		return id
	}
	to, err := url.Parse(v.Addr())
	harness.Must(t, err)
	origin := httputil.NewSingleHostReverseProxy(to)
	origin.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of reads that were given up
	w := worldOf(t, *seedFlag, origin, v.RootToken())
	w.pause = func(d time.Duration) { harness.Pause(t.Context(), d/200) }
	harness.Must(t, v.EnableKV(t.Context(), "nested/deep", 2))
	w.tokens = []string{"", token("all"), token("some")}
	at, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	end := w.start(at, at.Addr().String(), harness.FreeAddr(t), token("all"), app.Hooks{Frozen: true}, nil, []string{"VAULT_MAX_RETRIES=0"})
	defer end()
	w.run(*realFlag)
	found := map[string]int{}
	w.add(found)
	report(t, *realFlag, found)
}
