package differential

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// outages are the ways in which the origin is away, and come back.
var outages = map[string]struct{ begin, end func(f *fleet) }{
	"refused": {(*fleet).cut, (*fleet).listen},
	"sealed":  {func(f *fleet) { f.origin.Seal() }, func(f *fleet) { f.origin.Unseal() }},
	"silent": answering(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server does not see before that who leaves
		<-r.Context().Done()
	}),
	"rate limited": page(http.StatusTooManyRequests, "application/json", `{"errors":["request path \"x\": rate limit quota exceeded"]}`),
	"bad gateway":  page(http.StatusBadGateway, "text/html", "<html>"+mark+"</html>"),
	"a page":       page(http.StatusOK, "text/html", "<html>"+mark+"</html>"),
	"a refusal":    page(http.StatusForbidden, "text/html", "<html>"+mark+"</html>"),
	"not found":    page(http.StatusNotFound, "text/plain", mark),
	"JSON":         page(http.StatusOK, "application/json", `{"message":"`+mark+`"}`),
	"a login page": answering(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://login.test/"+mark)
		send(w, http.StatusFound, "text/html", mark)
	}),
}

// page has something else answer each request so.
func page(status int, kind, body string) struct{ begin, end func(f *fleet) } {
	return answering(func(w http.ResponseWriter, _ *http.Request) { send(w, status, kind, body) })
}

// answering has something else answer in the origin's place.
func answering(h http.HandlerFunc) struct{ begin, end func(f *fleet) } {
	set := func(f *fleet, h http.HandlerFunc) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.trouble = h
	}
	return struct{ begin, end func(f *fleet) }{func(f *fleet) { set(f, h) }, func(f *fleet) { set(f, nil) }}
}

// TestG4AnHourAwayInTheLifeOfAFleet: instances start all the time. Under optimistic each
// serves, marked, whatever its identity had read anywhere; under pessimistic nothing. None
// ever serves what its identity did not read, or had lost. After it everything is fresh.
func TestG4AnHourAwayInTheLifeOfAFleet(t *testing.T) {
	t.Parallel()
	for name, o := range outages {
		for _, behaviour := range []string{"optimistic", "pessimistic"} {
			t.Run(name+" "+behaviour, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t, 1, "THAW_CAPABILITY_REFRESH_BEHAVIOR="+behaviour, "VAULT_CLIENT_TIMEOUT=2s", "VAULT_MAX_RETRIES=0")
					defer f.end()
					h := hour{fleet: f, reads: map[string]map[read]bool{}, known: map[read]string{}, sealed: name == "sealed"}
					h.before()
					o.begin(f)
					h.away(behaviour == "optimistic")
					o.end(f)
					h.after()
					for _, m := range h.living {
						m.stop()
					}
				})
			})
		}
	}
}

// hour is the life of a fleet around an outage.
type hour struct {
	*fleet
	living []*member
	reads  map[string]map[read]bool // by identity: what it has read
	known  map[read]string          // what Vault held before the outage
	sealed bool                     // nothing can be written meanwhile
	hosts  int
}

// all is what there is to read: once each.
func all() (out []read) {
	for _, s := range secrets {
		for i, q := range s.reads() {
			if i == 0 || q != s.reads()[i-1] {
				out = append(out, q)
			}
		}
	}
	return out
}

// start starts another instance of an identity, in its first invocation.
func (h *hour) start(m *member) *member {
	h.hosts++
	next := h.another(m, h.hosts%90)
	next.invoke()
	h.living = append(h.living, next)
	return next
}

// everything is a policy that allows all that there is to read.
const everything = `path "secret/*" { capabilities = ["read", "list"] } path "kv/*" { capabilities = ["read", "list"] } path "nested/*" { capabilities = ["read", "list"] }`

// before is life before the outage: instances of two identities start, and each reads a
// part of what its identity reads. The policies allow everything to everybody.
func (h *hour) before() {
	for _, role := range []string{"one", "two"} {
		if err := h.origin.SetPolicyText(role, everything); err != nil {
			h.t.Fatal(err)
		}
	}
	oneAlice, twoBob := h.members[0], h.members[3]
	for i, q := range all() {
		m := oneAlice
		if i%3 == 1 {
			m = twoBob
		}
		if i%3 == 2 && i%2 == 0 {
			continue // nobody reads it
		}
		at := h.start(m)
		if status, _ := at.ask(q.method, q.path, "", ""); status != http.StatusOK {
			h.t.Fatalf("%v, %v: %d", at, q, status)
		}
		if h.reads[m.String()] == nil {
			h.reads[m.String()] = map[read]bool{}
		}
		h.reads[m.String()][q] = true
		time.Sleep(time.Minute)
	}
	// What one identity had read is taken from it, and it notices.
	taken := read{"GET", "secret/data/a/db"}
	if err := h.origin.SetPolicyText("one", everything+` path "secret/data/a/db" { capabilities = ["deny"] }`); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(6 * time.Minute)
	at := h.start(oneAlice)
	if status, _ := at.ask(taken.method, taken.path, "", ""); status != http.StatusForbidden {
		h.t.Fatalf("%v after its policy changed: %d", taken, status)
	}
	for q := range h.reads[oneAlice.String()] {
		if path, _, _ := strings.Cut(q.path, "?"); path == taken.path {
			delete(h.reads[oneAlice.String()], q)
		}
	}
	for _, q := range all() {
		_, body := h.from(oneAlice.addr, q.method, q.path, "root", "")
		h.known[q] = canonical(string(body))
	}
	h.thin(4)
}

// thin ends the oldest instances but one, which lives for ever.
func (h *hour) thin(most int) {
	for len(h.living) > most {
		h.living[1].stop()
		h.living = slices.Delete(h.living, 1, 2)
	}
}

// away is the hour.
func (h *hour) away(serves bool) {
	const half = 30 * time.Minute
	began, rotated := time.Now(), h.sealed
	for time.Since(began) < time.Hour && !h.t.Failed() {
		time.Sleep(4 * time.Minute)
		h.start(h.members[h.hosts%len(h.members)])
		h.thin(6)
		if time.Since(began) > half && !rotated {
			rotated = true
			for _, s := range secrets {
				h.write(s)
			}
		}
		for _, m := range h.living {
			m.invoke()
			for _, q := range all() {
				had := h.reads[m.String()][q]
				if !had && h.r.IntN(4) > 0 {
					continue // each may take as long as a request may
				}
				switch a := m.read(q); {
				case had && serves && (a.status != http.StatusOK || !a.stale || a.body != h.known[q]):
					h.t.Errorf("after %v: %v, which read it before, gets of %v: %d, marked %v: %.200s", time.Since(began), m, q, a.status, a.stale, a.body)
				case (!had || !serves) && a.value():
					h.t.Errorf("after %v: %v is served %v: %.200s", time.Since(began), m, q, a.body)
				}
			}
		}
	}
}

// after is life after the outage: whoever lives and whoever starts reads all as it is now,
// for Vault and for thaw.
func (h *hour) after() {
	time.Sleep(time.Second)
	for _, m := range h.members {
		h.start(m)
	}
	for _, m := range h.living {
		m.invoke()
		for _, q := range all() {
			status, body := h.from(m.addr, q.method, q.path, h.logIn(m), "")
			if a := m.read(q); a.status != status || a.stale || a.body != canonical(string(body)) {
				h.t.Errorf("afterwards: %v gets of %v: %d, marked %v: %.200s; Vault says %d: %.200s", m, q, a.status, a.stale, a.body, status, canonical(string(body)))
			}
		}
	}
}

// got is an answer.
type got struct {
	status int
	stale  bool
	body   string
}

// value reports whether it holds what a read of Vault's brought.
func (a got) value() bool { return strings.Contains(a.body, `"lease_id"`) }

func (m *member) read(q read) got {
	req, err := http.NewRequest(q.method, "http://127.0.0.1:8200/v1/"+q.path, nil)
	if err != nil {
		panic(err)
	}
	res, err := m.client.Do(req)
	if err != nil {
		m.f.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return got{res.StatusCode, res.Header.Get("Warning") != "", canonical(string(body))}
}
