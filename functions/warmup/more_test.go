package warmup

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/tests/standin"
)

// TestALateWriteOfAFrozenLeaderLoses: it was frozen in the middle of a batch,
// another instance took over and stored what had changed meanwhile.
func TestALateWriteOfAFrozenLeaderLoses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 10 {
		s.put(fmt.Sprint("s", i), "old")
	}
	var ahead atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s.tier.now = clock
	frozen, thaw := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.tier.hook = func() {
		first := false
		once.Do(func() { first = true })
		if first {
			close(frozen)
			<-thaw
		}
	}
	first := s.warmer(func(o *Options) { o.Now, o.Workers = clock, 1 }, "secret/")
	done := make(chan Summary)
	go func() { done <- first.Run(t.Context(), Order{}) }()
	<-frozen // it has read "old", and is about to store it
	ahead.Store(int64(10 * time.Minute))
	for i := range 10 {
		s.put(fmt.Sprint("s", i), "new")
	}
	expect(t, s.run(s.warmer(func(o *Options) { o.Now = clock }, "secret/"), Order{}), "full", 10, 10, 0, 0)
	close(thaw)
	if sum := <-done; sum.Complete {
		t.Errorf("the frozen one: %+v", sum)
	}
	for i := range 10 {
		if !s.tier.has(fmt.Sprint("secret/data/s", i), "new") {
			t.Errorf("s%d: %s", i, s.tier.body(fmt.Sprint("secret/data/s", i)))
		}
	}
	// What the late one left in the state does not hide the newer pass for long.
	if sum := s.run(s.warmer(func(o *Options) { o.Now = clock }, "secret/"), Order{}); !sum.Complete {
		t.Errorf("afterwards: %+v", sum)
	}
}

// reticent is an origin that says nothing of itself.
type reticent struct{}

func (reticent) Leader(context.Context) (vault.Leader, error) { return vault.Leader{}, nil }
func (reticent) Health(context.Context) (vault.Health, error) { return vault.Health{}, nil }

// refusing answers 429 to everything below secret/data/ but the first n.
func (s *scene) refusing(n int) *atomic.Int64 {
	var refused atomic.Int64
	var passed atomic.Int64
	s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/secret/data/") || passed.Add(1) <= int64(n) {
			return false
		}
		refused.Add(1)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	return &refused
}

func TestACycleIsGivenUpAfterTenAttemptsAWorkerAndNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 200 {
		s.put(fmt.Sprintf("s%03d", i), "x")
	}
	refused := s.refusing(100)
	sum := s.run(s.warmer(nil, "secret/"), Order{})
	if sum.Complete || sum.Resume == nil || !strings.Contains(sum.Resume.Reason, "rate limited") {
		t.Errorf("%+v", sum.Resume)
	}
	if n := int(refused.Load()); n < 30 || n > 32 || sum.RateLimited != n {
		t.Errorf("%d refused, %d in the summary", n, sum.RateLimited)
	}
	if sum.Resume.Missing != len(sum.Failed) || sum.Failed["secret/data/s199"] == "" || s.tier.secrets() != 100 || sum.Resume.Missing != 100 {
		t.Errorf("%d missing, %d named, %d stored", sum.Resume.Missing, len(sum.Failed), s.tier.secrets())
	}
	s.origin.SetFault(nil)
	if sum = s.run(s.warmer(nil, "secret/"), Order{}); !sum.Complete || s.tier.secrets() != 200 || sum.Fetched != 100 {
		t.Errorf("%+v", sum)
	}
}

func TestTheLegacyImplementationHeedsNoRateLimit(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 50 {
		s.put(fmt.Sprintf("s%03d", i), "x")
	}
	s.refusing(20)
	sum := s.run(s.legacy("secret/"), Order{})
	if sum.Complete || sum.Fetched != 20 || len(sum.Failed) != 30 || sum.RateLimited != 30 || sum.Resume.Missing != 30 {
		t.Errorf("%+v", sum)
	}
	// The cursor stands, and they are tried again all the same.
	s.origin.SetFault(nil)
	if sum = s.run(s.legacy("secret/"), Order{}); !sum.Complete || s.tier.secrets() != 50 {
		t.Errorf("%+v", sum)
	}
}

func (s *scene) legacy(prefixes ...string) *Warmer {
	return s.warmer(func(o *Options) {
		o.Backoff, o.Workers = nil, 5
		o.Origin = plainOrigin{s.server.URL}
	}, prefixes...)
}

// plainOrigin asks as root, without a backoff.
type plainOrigin struct{ addr string }

func (plainOrigin) Ready(context.Context) error { return nil }

func (p plainOrigin) Ask(ctx context.Context, method, _, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.addr+"/v1/"+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", "root")
	return http.DefaultClient.Do(req)
}

func TestAPurgeTakesASecretFromEveryAudience(t *testing.T) {
	t.Parallel()
	a, b := newMemory(t), newMemory(t)
	at := time.Now().Add(-time.Minute)
	for _, m := range []*memory{a, b} {
		for _, k := range []cache.Key{
			{Path: "secret/data/app/db"}, {Path: "secret/data/app/db", Query: "version=3"}, {Path: "secret/metadata/app/db"}, {Path: "secret/subkeys/app/db"},
			{Path: "secret/metadata/app", Op: cache.List}, {Path: "secret/metadata", Op: cache.List}, {Path: "secret/data/app/other"}, {Path: "secret/data/app/db", Query: "version=150"},
		} {
			r := cache.Record{Entry: cache.Entry{Key: k, Kind: cache.Data, Status: 200, Version: 150}, SentAt: at}
			m.Put(t.Context(), []cache.Record{r})
		}
	}
	p, err := Purge(t.Context(), []Audience{a.audience("a"), b.audience("b")}, "/v1/secret/data/app/db", time.Now())
	if err != nil || p.Audiences != 2 || p.Path != "secret/data/app/db" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, m := range []*memory{a, b} {
		if len(m.records) != 1 {
			t.Errorf("left: %v", m.records)
		}
		// A read that was sent before does not bring it back.
		m.Put(t.Context(), []cache.Record{{Entry: cache.Entry{Key: cache.Key{Path: "secret/data/app/db"}, Kind: cache.Data, Status: 200}, SentAt: at}})
		if len(m.records) != 1 {
			t.Error("a late write brought it back")
		}
	}
	for _, bad := range []string{"", "/", "a/../b", "a//b", "a%2fb", "a\x00"} {
		if _, err := Purge(t.Context(), nil, bad, time.Now()); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestOpenBaoIsListedInOneRequestWhereItAllows(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusBadRequest} {
		s := newBao(t, standin.Options{})
		old := refusing("SCAN", "/detailed-metadata/", http.StatusNotFound) // it came after the recursive list
		refused := refusing("SCAN", "/metadata/", status)
		s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
			return old(w, r) || status != http.StatusOK && refused(w, r)
		})
		sum := s.run(s.warmer(nil, "secret/"), Order{})
		expect(t, sum, "full", 3, 3, 0, 0)
		listed := s.origin.Counts()["LIST /v1/secret/metadata/b"] > 0
		if listed == (status == http.StatusOK) || !sum.Complete {
			t.Errorf("SCAN answers %d: listed folder by folder: %t", status, listed)
		}
	}
}

func TestNamesThatNoCacheCanHoldAreLeftOut(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	s := &scene{t: t, tier: newMemory(t), server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/"):
			fmt.Fprint(w, `{"request_id":"x","data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`)
		case r.Method == "LIST":
			json.NewEncoder(w).Encode(map[string]any{"request_id": "x", "data": map[string]any{"keys": []string{"ok", "..", "../up", "a//b", "%2e", "", "/", "new\nline", "back\\slash", strings.Repeat("x", 3000)}}})
		case r.URL.Path == "/v1/secret/data/ok":
			fmt.Fprint(w, `{"request_id":"x","data":{"data":{},"metadata":{"version":1}}}`)
		default:
			got.Add(1)
			w.WriteHeader(http.StatusNotFound)
		}
	}))}
	t.Cleanup(s.server.Close)
	sum := s.run(s.warmer(func(o *Options) { o.Asker = reticent{} }, "secret/"), Order{})
	if sum.Fetched != 1 || got.Load() > 0 || !sum.Complete {
		t.Errorf("%d odd requests, %+v", got.Load(), sum)
	}
}

func TestAStateThatMakesNoSenseCostsAFullPass(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, r := range map[string]record{
		"nothing":         {},
		"from the future": {Full: now.Add(time.Hour), Verified: now.Add(time.Hour)},
		"long ago":        {Full: now.Add(-24 * time.Hour), Verified: now.Add(-24 * time.Hour)},
		"cut long ago":    {Cut: &progress{Pass: passFull, Began: now.Add(-24 * time.Hour), After: "z"}},
		"cut oddly":       {Cut: &progress{Pass: "x", Began: now, After: "z"}},
	} {
		if pass, resume := r.due(now, false, time.Hour, time.Minute); pass != passFull || resume != nil {
			t.Errorf("%s: %s, %v", name, pass, resume)
		}
	}
	young := record{Full: now.Add(-10 * time.Minute), Verified: now.Add(-2 * time.Minute)}
	for every, want := range map[time.Duration]string{0: passModified, time.Minute: passModified, 5 * time.Minute: passNothing} {
		if pass, _ := young.due(now, false, time.Hour, every); pass != want {
			t.Errorf("every %s: %s, want %s", every, pass, want)
		}
	}
	young.Cut = &progress{Pass: passModified, Began: now.Add(-time.Minute), After: "m"}
	if pass, resume := young.due(now, false, time.Hour, 5*time.Minute); pass != passModified || resume == nil {
		t.Errorf("cut: %s, %v", pass, resume)
	}
	if pass, resume := young.due(now, true, time.Hour, 5*time.Minute); pass != passFull || resume != nil {
		t.Errorf("forced: %s, %v", pass, resume)
	}
}

func TestAMemcachedThatForgetsLeavesThePassIncomplete(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "x")
	s.put("b", "x")
	future := s.tier.removed
	future[cache.Key{Path: "secret/data/b"}] = time.Now().Add(time.Hour) // takes nothing for b
	sum := s.run(s.warmer(nil, "secret/"), Order{})
	if sum.Complete || sum.Failed["secret/data/b"] == "" || sum.Failed["secret/data/a"] != "" {
		t.Errorf("%+v", sum)
	}
	delete(future, cache.Key{Path: "secret/data/b"})
	if sum = s.run(s.warmer(nil, "secret/"), Order{}); !sum.Complete || s.tier.secrets() != 2 {
		t.Errorf("%+v", sum)
	}
}

func TestSeveralAudiencesAreKeptApart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a/x", "1")
	s.put("b/x", "2")
	other := newMemory(t)
	w := s.warmer(func(o *Options) { o.Audiences = append(o.Audiences, other.audience("second", "secret/b/")) }, "secret/a/")
	expect(t, s.run(w, Order{}), "full", 2, 2, 0, 0)
	if s.tier.secrets() != 1 || other.secrets() != 1 || other.body("secret/data/b/x") == "" {
		t.Errorf("%d and %d", s.tier.secrets(), other.secrets())
	}
}

func TestAPrefixMayNameASecret(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("app", "itself")
	s.put("app/below", "below")
	s.put("apple", "no")
	expect(t, s.run(s.warmer(nil, "secret/app"), Order{}), "full", 2, 2, 0, 0)
	if !s.tier.has("secret/data/app", "itself") || s.tier.body("secret/data/apple") != "" {
		t.Error("the wrong ones")
	}
}

func TestAnInterruptedListOfWorkIsTakenUpWhereItWasLeft(t *testing.T) {
	t.Parallel()
	var items []item
	for i := range 20 {
		items = append(items, item{path: fmt.Sprintf("s%02d", i)})
	}
	names := func(list []item) (out []string) {
		for _, it := range list {
			out = append(out, it.path)
		}
		return out
	}
	first := newTodo(items, "", nil)
	for range 10 {
		first.claim()
	}
	first.finish([]int{0, 1, 2, 4, 5, 6, 8, 9})
	after, left := first.position()
	if after != "s09" || fmt.Sprint(left) != "[s03 s07]" || len(first.missing()) != 12 {
		t.Fatalf("after %s, left %v, missing %d", after, left, len(first.missing()))
	}
	second := newTodo(items, after, left)
	if got := names(second.list); len(got) != 12 || got[0] != "s03" || got[1] != "s07" || got[2] != "s10" {
		t.Fatalf("%v", got)
	}
	// Cut off again before it claimed what was left.
	second.claim()
	second.finish([]int{0})
	if after, left = second.position(); after != "s09" || fmt.Sprint(left) != "[s07]" {
		t.Errorf("after %s, left %v", after, left)
	}
	for {
		if _, ok := second.claim(); !ok {
			break
		}
	}
	second.finish([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	if after, left = second.position(); after != "s19" || len(left) != 0 || len(second.missing()) != 0 {
		t.Errorf("after %s, left %v", after, left)
	}
}
