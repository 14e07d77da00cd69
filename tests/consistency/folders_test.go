package consistency

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// Where neither version nor node id makes the index worth anything, one list per
// folder stands in for its secrets' reads, and whatever it does not show is read.
func TestOneListPerFolderStandsInForItsSecretsReads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		may    bool // the policy has it
		origin standin.ClusterOptions
		asked  int // of balancers, who answers sys/leader and sys/health
	}{
		{"allowed true", true, standin.ClusterOptions{}, 0},
		{"allowed false", false, standin.ClusterOptions{}, 0},
		{"without an index", true, standin.ClusterOptions{NoIndex: true}, 0},
		{"the leader is not reached", true, standin.ClusterOptions{}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const secrets = 20
				may := c.may
				c.origin.OpenBao = true
				w := newWorld(t, c.origin)
				defer w.close()
				w.frozen = true
				list := ""
				if may {
					list = `path \"secret/detailed-metadata/*\" { capabilities = [\"list\"] } `
				}
				w.direct("PUT", "sys/policies/acl/app", `{"policy":"`+list+`path \"secret/data/*\" { capabilities = [\"read\"] }"}`)
				_, rest, _ := strings.Cut(w.direct("POST", "auth/token/create", `{"policies":["app","default"]}`), `"client_token":"`)
				token, _, _ := strings.Cut(rest, `"`)
				name := func(i int) string { return fmt.Sprintf("many/%02d", i) }
				put := func(i, n int) { w.direct("POST", "secret/data/"+name(i), fmt.Sprintf(`{"data":{"n":%d}}`, n)) }
				for i := range secrets {
					put(i, 1)
				}
				var leaders, all atomic.Int64
				w.through(balancers()[c.asked], &leaders, &all)
				x := w.start("VAULT_ADDR=http://balanced.test:8200", "VAULT_TOKEN="+token)
				read := func() (values []int, requests int64) {
					before := all.Load()
					x.invoke()
					time.Sleep(100 * time.Millisecond) // simulated: the poll is over
					for i := range secrets {
						a, n := x.read(name(i), "")
						if a.header.Get("Warning") != "" {
							t.Errorf("%s is stale", name(i))
						}
						values = append(values, n)
					}
					return values, all.Load() - before
				}
				w.primary.Flush() // the token is known to standbys
				for range 4 {
					read()
				}
				for range 5 {
					if _, n := read(); may && n > 2 || !may && n < secrets {
						t.Errorf("%d requests in a quiet invocation", n)
					}
				}
				put(3, 2)
				w.direct("DELETE", "secret/metadata/"+name(5), "")
				put(5, 3) // version 1 again
				w.direct("DELETE", "secret/data/"+name(7), "")
				w.direct("DELETE", "secret/metadata/"+name(9), "")
				got, n := read()
				for i, v := range got {
					if want := map[int]int{3: 2, 5: 3, 7: -1, 9: -1}[i]; want != 0 && v != want || want == 0 && v != 1 {
						t.Errorf("%s is %d", name(i), v)
					}
				}
				if may && n > 10 {
					t.Errorf("%d requests for four changes", n)
				}
				if lists := w.origin.Counts()["LIST /v1/secret/detailed-metadata/many/"]; may != (lists > 3) {
					t.Errorf("%d lists", lists)
				}
				// What is cached of a policy that ends is not kept alive by lists.
				w.direct("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/detailed-metadata/*\" { capabilities = [\"list\"] }"}`)
				time.Sleep(6 * time.Minute) // simulated: the refresh interval is over
				x.invoke()
				if a, _ := x.read(name(1), ""); a.status != http.StatusForbidden {
					t.Errorf("after its right ended: %d", a.status)
				}
			})
		})
	}
}
