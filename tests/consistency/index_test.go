package consistency

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// Policies are cached after they are stored, and OpenBao leaves out of a list what the
// token may not see. So an index that is new does not verify a list, though it does
// verify a secret.
func TestG1AnIndexThatIsNewVerifiesNoFilteredList(t *testing.T) {
	t.Parallel()
	for _, bao := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, standin.ClusterOptions{OpenBao: bao, NodeIDs: true})
			defer w.close()
			w.frozen = true
			x := w.start("VAULT_ADDR=http://10.0.0.2:8200")
			w.direct("POST", "secret/data/quiet/a", `{"data":{"n":1}}`)
			by := func(method, path string) bool {
				return strings.Contains(x.ask(method, path, "", "").header.Get("Cache-Status"), "verified=cursor")
			}
			invocation := func() (list, secret bool) {
				time.Sleep(400 * time.Millisecond) // simulated
				x.invoke()
				return by("LIST", "secret/metadata/quiet"), by("GET", "secret/data/quiet/a")
			}
			for range 9 {
				invocation()
			}
			w.direct("PUT", "sys/policies/acl/other", `{"policy":""}`)
			invocation() // reads both again
			for i := range 8 {
				list, secret := invocation()
				// The index was seen first at the second of these; it is a second old at the fourth.
				if early := bao && i < 2; !secret || list && early || !list && (!bao || i > 3) {
					t.Errorf("OpenBao %v, invocation %d: list %v, secret %v", bao, i, list, secret)
				}
			}
		})
	}
}

// While a leader is elected, sys/leader is answered by a node that does not lead. That is
// over within seconds: a minute later one request does again.
func TestAnElectionCostsNoMoreThanAMinute(t *testing.T) {
	t.Parallel()
	for _, tt := range []standin.ClusterOptions{{OpenBao: true, Version: "2.4.4"}, {OpenBao: true, NodeIDs: true}, {NodeIDs: true}} {
		t.Run(fmt.Sprintf("OpenBao %v %s, node ids %v", tt.OpenBao, tt.Version, tt.NodeIDs), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt)
				defer w.close()
				w.frozen = true
				election := false
				front := &counted{n: map[string]int{}, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if n := w.primary.Active(); election {
						w.primary.Standby(0).ServeHTTP(rw, r)
					} else {
						n.ServeHTTP(rw, r)
					}
				})}
				w.serve("front.test:8200", front)
				q := &quiet{reads: secrets(3, func(i int) string { return fmt.Sprintf("secret/data/quiet/%d", i) })(w), gap: 2 * time.Second}
				w.primary.Flush()
				q.instance = w.start("VAULT_ADDR=http://front.test:8200")
				for range 5 {
					q.invocation()
				}
				election = true
				for range 5 {
					q.invocation()
				}
				election = false
				for range 35 { // 70 s
					q.invocation()
				}
				front.take()
				for range 10 {
					q.invocation()
				}
				if got := front.take(); got["GET sys/leader"] != 10 || got["GET secret/data"] > 0 || q.hits != 3 {
					t.Errorf("%v, %d hits of 3", got, q.hits)
				}
			})
		})
	}
}
