package differential

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var pairsFlag = flag.Int("pairs", 60, "`pairs` of a policy and a change of it")

// bound is within which thaw knows all that policies can say: twelve refresh intervals
// of a second, a minute at least (docs/guarantees.md, G2), and what the clocks may be
// apart.
const bound = time.Minute + 2*time.Second

// TestG2NoPolicyIsServedThatVaultRefuses compares thaw with Vault through generated
// pairs of a policy and a change of it: for thaw's own token, and for two callers, one
// of which has another policy. After the bound nothing is served that Vault refuses, and
// all that it allows; at once, where the change went through thaw.
func TestG2NoPolicyIsServedThatVaultRefuses(t *testing.T) {
	t.Parallel()
	const batch = 10
	for first := 0; first < *pairsFlag; first += batch {
		synctest.Test(t, func(t *testing.T) {
			w, end := newWorld(t, uint64(first), "THAW_CAPABILITY_REFRESH_INTERVAL=1s")
			defer end()
			// What the own token may besides would hide what the policy says.
			w.origin.SetPolicy("all", map[string][]string{"sys/capabilities-self": {"update"}, "auth/token/lookup-self": {"read"}})
			w.tokens = []string{"", w.origin.AddToken(0, "all", "pair"), w.origin.AddToken(0, "all", "other")}
			for n := range min(batch, *pairsFlag-first) {
				w.setPolicies(false)
				time.Sleep(bound)
				w.compare(fmt.Sprintf("pair %d, before the change", first+n))
				w.compare(fmt.Sprintf("pair %d, again", first+n))
				through := w.r.IntN(2) == 0
				w.setPolicies(through)
				if !through {
					for range 12 { // polls go on
						time.Sleep(bound / 12)
						w.app.Invoke(time.Now(), time.Now().Add(time.Minute))
						synctest.Wait()
					}
				}
				w.compare(fmt.Sprintf("pair %d, after the change, through thaw: %v", first+n, through))
			}
		})
	}
}

// setPolicies gives both policies other texts, directly or through thaw.
func (w *world) setPolicies(through bool) {
	for _, name := range []string{"pair", "other"} {
		text := policyText(w.r)
		if !through {
			if err := w.origin.SetPolicyText(name, text); err != nil {
				w.t.Fatal(err, text)
			}
			continue
		}
		body, _ := json.Marshal(map[string]string{"policy": text})
		if status := w.through("POST", "sys/policies/acl/"+name, "root", string(body)); status >= 300 {
			w.t.Fatalf("%d: %s", status, text)
		}
	}
}

// policyText is a policy over all that constrains a read.
func policyText(r *rand.Rand) string {
	var b strings.Builder
	for _, path := range []string{"secret/data/a/*", "secret/data/a/db", "secret/metadata/*", "secret/data/b/db", "kv/a/*", "kv/*", "nested/deep/data/+/db"} {
		capabilities := [][]string{{"read"}, {"read", "list"}, {"list"}, {"deny"}, {"update"}, nil}[r.IntN(6)]
		if capabilities == nil {
			continue
		}
		fmt.Fprintf(&b, "path %q {\n capabilities = [\"%s\"]\n", path, strings.Join(capabilities, "\", \""))
		switch r.IntN(8) {
		case 0:
			b.WriteString(` required_parameters = ["version"]`)
		case 1:
			b.WriteString(` allowed_parameters = { "version" = ["1"] }`)
		case 2:
			b.WriteString(` denied_parameters = { "version" = [] }`)
		case 3:
			b.WriteString(` min_wrapping_ttl = "1m"` + "\n" + ` max_wrapping_ttl = "5m"`)
		}
		b.WriteString("\n}\n")
	}
	return b.String()
}

// through sends a request through thaw and returns the status.
func (w *world) through(method, path, token, body string) int {
	req, err := http.NewRequest(method, "http://127.0.0.1:8200/v1/"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode
}

// compare reads everything under every token, directly and through thaw.
func (w *world) compare(when string) {
	w.app.Invoke(time.Now(), time.Now().Add(time.Minute))
	synctest.Wait()
	for who, token := range w.tokens {
		asked := token
		if token == "" {
			asked = w.tokens[1] // thaw's own has the same policies
		}
		for _, s := range secrets {
			for _, q := range s.reads() {
				want, _, _ := w.direct(q.method, q.path, asked, "")
				if got := w.through(q.method, q.path, token, ""); got != want {
					w.t.Errorf("%s: token %d, %v: %d through thaw, %d from Vault", when, who, q, got, want)
				}
			}
		}
	}
}
