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
// pairs of policies and a change of them: for thaw's own login under two roles and as two
// principals, which share a memcached and an audience, and for three callers. After the
// bound nothing is served that Vault refuses, and all that it allows; at once, where the
// change went through the same process.
func TestG2NoPolicyIsServedThatVaultRefuses(t *testing.T) {
	t.Parallel()
	const batch = 10
	hits := 0
	for first := 0; first < *pairsFlag; first += batch {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, uint64(first), "THAW_CAPABILITY_REFRESH_INTERVAL=1s")
			defer f.end()
			for n := range min(batch, *pairsFlag-first) {
				when := func(what string) string { return fmt.Sprintf("pair %d, %s", first+n, what) }
				f.change(nil)
				f.pass(bound)
				f.compare(when("before the change"), false, f.members...)
				f.restart()
				f.compare(when("again"), false, pick(f.r, f.members), pick(f.r, f.members))
				if f.r.IntN(2) == 0 {
					through := pick(f.r, f.members)
					f.change(through)
					f.compare(when("at once, after a change through "+through.String()), true, through)
				} else {
					f.change(nil)
				}
				f.pass(bound)
				f.restart()
				f.compare(when("after the change"), false, f.members...)
			}
			hits += f.hits
		})
	}
	if t.Logf("%d pairs, %d hits", *pairsFlag, hits); hits < 50**pairsFlag {
		t.Errorf("%d hits of %d pairs: the cache was not asked", hits, *pairsFlag)
	}
}

func pick[E any](r *rand.Rand, of []E) E { return of[r.IntN(len(of))] }

// change gives policies, entities and roles others of what they say, directly or
// through a member.
func (f *fleet) change(through *member) {
	write := func(path string, fields map[string]any) {
		body, _ := json.Marshal(fields)
		if through == nil {
			f.root("POST", path, string(body))
		} else if status, _ := through.ask("POST", path, "root", string(body)); status >= 300 {
			f.t.Fatalf("%s %s: %d", path, body, status)
		}
	}
	alone := f.r.IntN(3) // through a member 0: everything, 1: policies, 2: entities
	for _, name := range []string{"one", "two", "caller", "other"} {
		if through != nil && alone == 2 {
			break
		}
		write("sys/policies/acl/"+name, map[string]any{"policy": policyText(f.r)})
	}
	names := f.r.Perm(len(f.entities))
	for i, id := range f.entities {
		if through != nil && alone == 1 {
			break
		}
		name := []string{"a", "b", "db"}
		name = append(name, fmt.Sprint("somebody", i), fmt.Sprint("nobody", i), fmt.Sprint("else", i))
		write("identity/entity/id/"+id, map[string]any{
			"name": name[names[i]], "metadata": map[string]string{"team": pick(f.r, []string{"a", "b", "c"}), "key": pick(f.r, []string{"db", "api"})},
		})
	}
	for _, role := range []string{"one", "two"} { // for logins to come: thaw's tokens end within the bound
		f.setNetworks(role, pick(f.r, []string{"", "", "", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.1.0.0/16,10.2.0.0/16", "192.168.0.0/16"}))
	}
}

// policyText is a policy over all that constrains a read.
func policyText(r *rand.Rand) string {
	var b strings.Builder
	for _, path := range []string{
		"secret/data/a/*", "secret/data/a/db", "secret/metadata/*", "secret/data/b/db", "kv/a/*", "kv/*", "nested/deep/data/+/db",
		"secret/data/{{identity.entity.metadata.team}}/*", "secret/data/{{identity.entity.name}}/{{identity.entity.metadata.key}}",
		"kv/{{identity.entity.metadata.team}}/{{identity.entity.name}}", "secret/metadata/{{identity.entity.metadata.team}}/*", "kv/{{identity.entity.name}}/+",
	} {
		capabilities := [][]string{{"read"}, {"read", "list"}, {"read", "list"}, {"list"}, {"deny"}, {"update"}, nil, nil}[r.IntN(8)]
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

// compare reads everything through members, under their own login and the callers'
// tokens, and asks Vault the same from the same place. Vault's word for the own login is
// what it says to thaw's token, or to a new one. Right after a change, now, a login that
// was refused may not have been tried again.
func (f *fleet) compare(when string, now bool, through ...*member) {
	for _, m := range through {
		m.invoke()
		for who, token := range append([]string{""}, f.callers...) {
			if token != "" && m.role == "two" { // half of the callers' reads are enough
				continue
			}
			fresh, old := token, ""
			if token == "" {
				fresh, old = f.logIn(m), m.token()
			}
			for _, s := range secrets {
				for _, q := range s.reads() {
					got, hit := m.ask(q.method, q.path, token, "")
					if hit {
						f.hits++
					}
					if want := m.direct(q, fresh); got != want && (old == "" || got != m.direct(q, old)) && !(now && token == "" && got == http.StatusForbidden) {
						f.t.Errorf("%s: %v, token %d, %v: %d through thaw, hit %v; %d from Vault", when, m, who, q, got, hit, want)
					}
				}
			}
		}
	}
}

// ask sends a request through the member and returns the status, and whether it was
// served from the cache.
func (m *member) ask(method, path, token, body string) (status int, hit bool) {
	req, err := http.NewRequest(method, "http://127.0.0.1:8200/v1/"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := m.client.Do(req)
	if err != nil {
		m.f.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode, res.Header.Get("X-Cache") == "HIT"
}

// direct asks Vault from where the member is.
func (m *member) direct(q read, token string) int {
	status, _ := m.f.from(m.addr, q.method, q.path, token, "")
	return status
}
