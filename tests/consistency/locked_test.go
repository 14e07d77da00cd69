package consistency

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/thaw-project/thaw/tests/standin"
)

// An administrator who locks a namespace is answered as one who takes a right away:
// what is cached there is not served, and nothing waits or is asked again. Other
// namespaces, and what is read after it was unlocked, are as before.
func TestALockedNamespaceIsARefusalAndNoOutage(t *testing.T) {
	t.Parallel()
	for _, addrs := range []string{"VAULT_ADDR=http://10.0.0.2:8200", nodes} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, standin.ClusterOptions{})
			defer w.close()
			w.frozen = true
			x := w.start(addrs)
			w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
			read := func(ns string) answer {
				return x.ask("GET", "secret/data/app", "root", "", "X-Vault-Namespace", ns)
			}
			for range 2 {
				x.invoke()
				if a, b := read("team"), read("other"); a.status != http.StatusOK || b.status != http.StatusOK {
					t.Fatal(a, b)
				}
			}
			w.origin.LockNamespace("team")
			w.direct("POST", "secret/data/app", `{"data":{"n":2}}`)
			for range 3 {
				x.invoke()
				before := w.origin.Requests()
				if a := read("team"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "has been locked") || a.header.Get("Warning") != "" {
					t.Errorf("%s: %d %s %v", addrs, a.status, a.body, a.header)
				}
				if n := w.origin.Requests() - before; n > 3 {
					t.Errorf("%s: %d requests for what is locked", addrs, n)
				}
				if b := read("other"); b.status != http.StatusOK || b.header.Get("Warning") != "" {
					t.Errorf("%s: another namespace: %d %v", addrs, b.status, b.header)
				}
			}
			w.origin.LockNamespace("")
			x.invoke()
			if a := read("team"); a.status != http.StatusOK || !strings.Contains(a.body, `"n":2`) {
				t.Errorf("%s: unlocked: %d %s", addrs, a.status, a.body)
			}
		})
	}
}
