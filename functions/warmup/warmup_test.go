package warmup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
	"github.com/thaw-project/thaw/tests/standin"
)

// scene is a stand-in for the origin, reached over loopback, and a tier.
type scene struct {
	t      testing.TB
	origin *standin.Origin
	server *httptest.Server
	tier   *memory
}

func newScene(t testing.TB) *scene { return newSceneOf(t, standin.Options{}) }

func newSceneOf(t testing.TB, o standin.Options) *scene {
	t.Helper()
	s := &scene{t: t, origin: standin.New(o), tier: newMemory(t)}
	s.server = httptest.NewServer(s.origin)
	t.Cleanup(s.server.Close)
	return s
}

// do is one request as root.
func (s *scene) do(method, path string, body any) {
	s.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+"/v1/"+path, bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", "root")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

func (s *scene) put(path, value string) {
	s.t.Helper()
	s.do(http.MethodPost, "secret/data/"+path, map[string]any{"data": map[string]string{"value": value}})
}

func (s *scene) put1(path, value string) {
	s.t.Helper()
	s.do(http.MethodPost, "kv/"+path, map[string]string{"value": value})
}

// took is what was asked for since the counts were reset, with a prefix of method and
// path, which is cut off.
func (s *scene) took(prefix string) []string {
	var out []string
	for what, n := range s.origin.Counts() {
		if rest, ok := strings.CutPrefix(what, prefix); ok {
			out = append(out, slices.Repeat([]string{rest}, n)...)
		}
	}
	slices.Sort(out)
	return out
}

// reads are the secrets that were read since then, and resets the counts.
func (s *scene) reads() string {
	defer s.origin.ResetCounts()
	return strings.Join(s.took("GET /v1/secret/data/"), " ")
}

// refusing answers requests of a method with a status, if path is part of theirs.
func refusing(method, path string, status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path+"/", path) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, `{"errors":["refused"]}`)
		return true
	}
}

// warmer is a Warmer with a session of its own.
func (s *scene) warmer(change func(*Options), prefixes ...string) *Warmer {
	s.t.Helper()
	return s.warmerAs("root", change, prefixes...)
}

func (s *scene) warmerAs(token string, change func(*Options), prefixes ...string) *Warmer {
	s.t.Helper()
	client, err := vault.New(vault.Options{Config: config.Config{Addrs: []string{s.server.URL}, ClientTimeout: 5 * time.Second}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	o := Options{Workers: 3, FullEvery: time.Hour, Keep: 25 * time.Hour, Log: slog.New(slog.DiscardHandler), Audiences: []Audience{s.tier.audience("prod", prefixes...)}}
	o.Backoff = backoff.New(backoff.Options{Attempts: 30})
	backed := backoff.NewClient(client, o.Backoff)
	tokens, err := auth.New(auth.Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken, Token: config.Secret(token)}}, Origin: backed})
	if err != nil {
		s.t.Fatal(err)
	}
	o.Origin, o.Asker = NewOrigin(backed, tokens), NewAsker(client, o.Backoff)
	if change != nil {
		change(&o)
	}
	return New(o)
}

func (s *scene) run(w *Warmer, order Order) Summary {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	sum := w.Run(ctx, order)
	s.t.Logf("%+v", sum)
	return sum
}

// expect compares the numbers of a summary.
func expect(t testing.TB, got Summary, pass string, fetched, changed, unchanged, removed int) {
	t.Helper()
	want := fmt.Sprint(pass, " ", fetched, " ", changed, " ", unchanged, " ", removed)
	if have := fmt.Sprint(got.Pass, " ", got.Fetched, " ", got.Changed, " ", got.Unchanged, " ", got.Removed); have != want {
		t.Errorf("pass, fetched, changed, unchanged, removed: %s, want %s", have, want)
	}
}

func TestAFirstRunLoadsEverything(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 20 {
		s.put(fmt.Sprintf("app/%d/db", i), fmt.Sprint("v2-", i))
		s.put1(fmt.Sprintf("app/%d", i), fmt.Sprint("v1-", i))
	}
	s.put("other", "x")
	s.put1("elsewhere/a", "no")
	sum := s.run(s.warmer(nil, "secret/", "kv/app/"), Order{})
	expect(t, sum, "full", 41, 41, 0, 0)
	if !sum.Complete || !sum.Leader || len(sum.Failed) > 0 {
		t.Errorf("summary %+v", sum)
	}
	if s.tier.secrets() != 41 || !s.tier.has("secret/data/app/7/db", "v2-7") || !s.tier.has("kv/app/19", "v1-19") || s.tier.body("kv/elsewhere/a") != "" {
		t.Errorf("%d secrets in the tier", s.tier.secrets())
	}
	r := s.tier.records[cache.Key{Path: "secret/data/other"}]
	if r.Kind != cache.Data || r.Version != 1 || r.Index.Zero() || s.tier.stamps[r.Key].Fingerprint != cache.Fingerprint(200, r.Body) {
		t.Errorf("record %+v", r)
	}
	for k := range s.tier.records {
		if k.Op == cache.List {
			t.Errorf("a list is there, which no identity reads: %+v", k)
		}
	}
	if s.tier.holder != nil {
		t.Error("the lock is still held")
	}
}

func TestNothingIsDueAfterACompleteRunUntilItsTime(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "1")
	now := time.Now()
	w := s.warmer(func(o *Options) {
		o.ModifiedEvery = 5 * time.Minute
		o.Now = func() time.Time { return now }
	}, "secret/")
	s.run(w, Order{})
	s.origin.ResetCounts()
	expect(t, s.run(w, Order{}), "nothing", 0, 0, 0, 0)
	if n := s.origin.Requests(); n != 0 {
		t.Errorf("%d requests for nothing", n)
	}
	now = now.Add(5*time.Minute + time.Second)
	expect(t, s.run(w, Order{}), "modified", 0, 0, 1, 0)
	now = now.Add(time.Hour)
	expect(t, s.run(w, Order{}), "full", 1, 0, 1, 0)
	expect(t, s.run(w, Order{Full: true}), "full", 1, 0, 1, 0)
}

// TestWhatIsToBeWarmedAnewIsLoadedAtOnce: whoever adds a prefix need not wait for the
// next full pass, although nothing was written and nothing else is due.
func TestWhatIsToBeWarmedAnewIsLoadedAtOnce(t *testing.T) {
	t.Parallel()
	private := func(o *Options) { o.Skip = []string{"secret/data/b/*"} }
	confirmed := func(o *Options) { o.ConfirmedOnly = true }
	for name, c := range map[string]struct {
		before, after func(*Options)
		was, now      []string
		fetched       int
	}{
		"nothing is new":               {was: []string{"secret/a/"}, now: []string{"secret/a/"}},
		"a prefix more":                {was: []string{"secret/a/"}, now: []string{"secret/a/", "secret/b/"}, fetched: 2},
		"a prefix less":                {was: []string{"secret/a/", "secret/b/"}, now: []string{"secret/a/"}, fetched: 1},
		"another":                      {was: []string{"secret/a/"}, now: []string{"secret/b/"}, fetched: 1},
		"everything":                   {was: []string{"secret/a/"}, now: []string{"*"}, fetched: 2},
		"what was not shared":          {before: private, was: []string{"secret/"}, now: []string{"secret/"}, fetched: 2},
		"what nobody is known to read": {before: confirmed, was: []string{"secret/"}, now: []string{"secret/"}, fetched: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.put("a/1", "x")
			s.put("b/1", "x")
			with := func(change func(*Options)) func(*Options) {
				return func(o *Options) {
					o.ModifiedEvery = 5 * time.Minute
					if change != nil {
						change(o)
					}
				}
			}
			s.run(s.warmer(with(c.before), c.was...), Order{})
			sum := s.run(s.warmer(with(c.after), c.now...), Order{})
			if sum.Fetched != c.fetched || !sum.Complete {
				t.Errorf("fetched %d, want %d: %+v", sum.Fetched, c.fetched, sum)
			}
			// And once is enough.
			expect(t, s.run(s.warmer(with(c.after), c.now...), Order{}), "nothing", 0, 0, 0, 0)
		})
	}
}

// TestAPassOfOtherPrefixesDoesNotGoOn: what it had done is not what is to be done now.
func TestAPassOfOtherPrefixesDoesNotGoOn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a/1", "x")
	s.put("b/1", "x")
	w := s.warmer(nil, "secret/")
	s.tier.PutState(t.Context(), stateName, record{
		Of:  w.scope(&Audience{Prefixes: []string{"secret/b/"}}),
		Cut: &progress{Pass: passFull, Began: time.Now(), After: "secret/data/b/1"},
	}, time.Hour)
	expect(t, s.run(w, Order{}), "full", 2, 2, 0, 0)
}

func TestAStandingCursorCostsAtMostThreeRequests(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 50 {
		s.put(fmt.Sprint("s", i), "x")
	}
	s.run(s.warmer(nil, "secret/"), Order{})
	s.origin.ResetCounts()
	// A process of its own, as after a cold start.
	sum := s.run(s.warmer(nil, "secret/"), Order{})
	expect(t, sum, "modified", 0, 0, 50, 0)
	if n := s.origin.Requests(); n > 3 || !sum.Complete {
		t.Errorf("%d requests: %v", n, s.origin.Counts())
	}
}

func TestAModifiedPassFindsWhatChanged(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 10 {
		s.put(fmt.Sprint("app/s", i), "old")
	}
	s.put1("app/one", "old")
	w := s.warmer(nil, "secret/", "kv/")
	s.run(w, Order{})
	s.put("app/s3", "new")
	s.put("app/s10", "new")
	s.put1("app/one", "new")
	s.do(http.MethodDelete, "secret/metadata/app/s4", nil) // gone for good
	s.do(http.MethodDelete, "secret/data/app/s5", nil)     // its latest version is deleted
	expect(t, s.run(w, Order{}), "modified", 10, 3, 7, 2)
	if !s.tier.has("secret/data/app/s3", "new") || !s.tier.has("kv/app/one", "new") || s.tier.body("secret/data/app/s4")+s.tier.body("secret/data/app/s5") != "" {
		t.Error("the tier does not hold what the origin does")
	}
	expect(t, s.run(w, Order{}), "modified", 0, 0, 11, 0)
}

func TestAForbiddenPrefixIsSkippedAndNamed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("app/a", "x")
	s.put("app/private/b", "x")
	s.put("app/private/c", "x")
	s.put1("x", "y")
	root := s.warmer(nil, "secret/", "kv/")
	s.run(root, Order{})
	s.do(http.MethodPost, "sys/policies/acl/warm", map[string]string{"policy": `
path "secret/metadata" { capabilities = ["list"] }
path "secret/metadata/" { capabilities = ["list"] }
path "secret/metadata/app/" { capabilities = ["list"] }
path "secret/data/app/*" { capabilities = ["read"] }
path "secret/data/app/private/*" { capabilities = ["deny"] }`})
	s.do(http.MethodPost, "auth/token/create", map[string]any{"id": "warm", "policies": []string{"warm"}})
	sum := s.run(s.warmerAs("warm", nil, "secret/", "kv/"), Order{Full: true})
	if !sum.Complete || len(sum.Failed) != 2 {
		t.Errorf("summary %+v", sum)
	}
	for _, path := range []string{"kv/", "secret/app/private/"} {
		if sum.Failed[path] == "" {
			t.Errorf("%s is not named: %v", path, sum.Failed)
		}
	}
	if sum.Fetched != 1 || sum.Removed != 0 || s.tier.body("secret/data/app/private/b") == "" || s.tier.body("kv/x") == "" {
		t.Error("what could not be listed was removed")
	}
}

func TestADeadlineCutsThePassOffAndTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const n = 400
	for i := range n {
		s.put(fmt.Sprintf("app/%03d", i), "x")
	}
	w := s.warmer(nil, "secret/")
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(spare+2*time.Second))
	defer cancel()
	// The time is over in the middle of the pass.
	reads := make(chan struct{}, n)
	s.origin.SetFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if len(r.URL.Path) > len("/v1/secret/data/") && r.URL.Path[:16] == "/v1/secret/data/" {
			reads <- struct{}{}
			if len(reads) > 150 {
				<-r.Context().Done()
			}
		}
		return false
	})
	first := w.Run(ctx, Order{})
	t.Logf("%+v", first)
	if first.Complete || first.Resume == nil || first.Resume.After == "" || s.tier.secrets() < 100 || s.tier.secrets() >= n {
		t.Fatalf("%d secrets, summary %+v", s.tier.secrets(), first)
	}
	s.origin.SetFault(nil)
	s.put("app/000", "changed meanwhile")
	second := s.run(s.warmer(nil, "secret/"), Order{})
	if !second.Complete || second.Pass != "full" || first.Fetched+second.Fetched > n+3 || s.tier.secrets() != n {
		t.Errorf("%d secrets, summary %+v", s.tier.secrets(), second)
	}
	// Something changed after the first part had read it: the cursor of the
	// whole pass is that of its begin, so the next run looks again.
	third := s.run(s.warmer(nil, "secret/"), Order{})
	expect(t, third, "modified", n, 1, n-1, 0)
}

func TestAnAbsentOriginPausesThePassAndNothingIsRemoved(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 100 {
		s.put(fmt.Sprint("s", i), "x")
	}
	s.run(s.warmer(nil, "secret/"), Order{})
	var reads atomic.Int64 // sys/leader is asked beside the pass
	s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/sys/health" {
			return false
		}
		if reads.Add(1) == 40 {
			s.origin.Seal()
			time.AfterFunc(time.Second, s.origin.Unseal)
		}
		return false
	})
	sum := s.run(s.warmer(func(o *Options) { o.Workers = 1 }, "secret/"), Order{Full: true})
	if !sum.Complete || sum.Removed != 0 || s.tier.secrets() != 100 {
		t.Errorf("%d secrets, summary %+v", s.tier.secrets(), sum)
	}
	s.server.Close()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(spare+time.Second))
	defer cancel()
	sum = s.warmer(nil, "secret/").Run(ctx, Order{Full: true})
	if sum.Complete || sum.Resume == nil || s.tier.secrets() != 100 {
		t.Errorf("summary %+v", sum)
	}
}

func TestOneInstanceLeads(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "x")
	lease, _, _ := s.tier.Lock(t.Context(), "warm-up", time.Minute)
	sum := s.run(s.warmer(nil, "secret/"), Order{})
	if sum.Leader || sum.Complete || sum.Fetched != 0 || s.origin.Requests() > 1 {
		t.Errorf("summary %+v", sum)
	}
	lease.Release(t.Context())
	expect(t, s.run(s.warmer(nil, "secret/"), Order{}), "full", 1, 1, 0, 0)
}

func TestALostLeadStopsThePass(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 300 {
		s.put(fmt.Sprint("s", i), "x")
	}
	// Frozen past its lease in the middle of the first write.
	var ahead atomic.Int64
	s.tier.hook = func() { ahead.Store(int64(time.Hour)) }
	w := s.warmer(func(o *Options) {
		o.Now, o.Workers = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, 1
	}, "secret/")
	sum := s.run(w, Order{})
	if sum.Complete || sum.Resume == nil || s.tier.secrets() > 64 {
		t.Errorf("%d secrets, summary %+v", s.tier.secrets(), sum)
	}
}

func TestStampsStayYoungWhileItRuns(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "x")
	sum := s.run(s.warmer(func(o *Options) { o.ModifiedEvery = time.Hour }, "secret/"), Order{For: 2500 * time.Millisecond})
	if !sum.Complete || sum.Fetched != 1 {
		t.Errorf("summary %+v", sum)
	}
	if age := time.Since(s.tier.cursor.At); age > 2*time.Second || s.tier.cursor.Committed == 0 {
		t.Errorf("the cursor's stamp is %s old", age)
	}
}

func TestOnlyConfirmedPathsOnRequest(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "x")
	s.put("b", "x")
	s.tier.used[cache.Capability{Path: "secret/data/b"}] = true
	s.run(s.warmer(func(o *Options) { o.ConfirmedOnly = true }, "secret/"), Order{})
	if s.tier.body("secret/data/a") != "" || s.tier.body("secret/data/b") == "" {
		t.Error("what nobody may read was stored, or what somebody may was not")
	}
}

func TestPathsThatAreNotSharedAreNotRead(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("app/a", "x")
	s.put("private/b", "x")
	s.run(s.warmer(func(o *Options) { o.Skip = []string{"secret/data/private/*"} }, "secret/"), Order{})
	if n := s.origin.Counts()["GET /v1/secret/data/private/b"]; n != 0 || s.tier.secrets() != 1 {
		t.Errorf("read %d times, %d secrets", n, s.tier.secrets())
	}
}
