package warmup

import (
	"bytes"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPrefixesInEverySpelling: what a prefix means, by what is stored.
func TestPrefixesInEverySpelling(t *testing.T) {
	t.Parallel()
	app := []string{"secret/data/app/a", "secret/data/app/sub/b"}
	data := []string{"secret/data/data/x"} // in a folder that is called data
	kv := []string{"kv/app/c"}
	whole := slices.Concat(app, data, kv, []string{"secret/data/other", "team/one/d", "team/two/data/e"})
	for prefix, want := range map[string][]string{
		"*":                     whole,
		"secret/":               slices.Concat(app, data, []string{"secret/data/other"}),
		"secret/app/":           app,
		"/v1/secret/app":        app,
		"secret/data/app/":      app,
		"secret/metadata/app/":  app,
		"/v1/secret/data/app/a": {"secret/data/app/a"},
		"secret/data/":          data, // as it is written: there is such a folder
		"secret/metadata/":      slices.Concat(app, data, []string{"secret/data/other"}),
		"kv/app/":               kv,
		"team/":                 {"team/one/d", "team/two/data/e"}, // above mounts
		"team/two/":             {"team/two/data/e"},
	} {
		t.Run(strings.ReplaceAll(prefix, "/", "_"), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.do(http.MethodPost, "sys/mounts/team/one", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
			s.do(http.MethodPost, "sys/mounts/team/two", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
			for _, path := range whole {
				s.do(http.MethodPost, path, map[string]any{"data": map[string]string{"v": "x"}})
			}
			sum := s.run(s.warmer(nil, prefix), Order{})
			var have []string
			for k, r := range s.tier.records {
				if k.Op == 0 && r.Status == http.StatusOK && !strings.HasPrefix(k.Path, "sys/") {
					have = append(have, k.Path)
				}
			}
			slices.Sort(have)
			if want := slices.Sorted(slices.Values(want)); !slices.Equal(have, want) || !sum.Complete || len(sum.Failed) > 0 {
				t.Errorf("warmed %v, want %v; %v", have, want, sum.Failed)
			}
		})
	}
}

// TestAPrefixThatHoldsNothingIsNotCompleteInSilence: it may be misspelt.
func TestAPrefixThatHoldsNothingIsNotCompleteInSilence(t *testing.T) {
	t.Parallel()
	for prefix, said := range map[string]bool{
		"secret/": false, "secret/app": false, "secret/app/": false, "secret/app/a": false, "secret/data/app/a": false, "/v1/secret/metadata/app/": false, "*": false,
		"kv/":    false, // a mount with nothing in it
		"kv/app": true, "kv/app/": true, "secret/ap": true, "secret/ap/": true, "secret/app/b": true, "secret/data/ap": true, "secret/data/ap/": true, "/v1/secret/metadata/ap/": true,
	} {
		t.Run(strings.ReplaceAll(prefix, "/", "_"), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.put("app/a", "x")
			var log bytes.Buffer
			sum := s.run(s.warmer(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }, prefix), Order{})
			want := 0
			if said {
				want = 1
			}
			if n := strings.Count(log.String(), "no secret has this prefix"); n != want || !sum.Complete || len(sum.Failed) > 0 {
				t.Errorf("said %d times, want %d: %+v", n, want, sum)
			}
		})
	}
}

// TestAPrefixInTheAPIsStyleUnderANarrowPolicy: refused is refused in either
// spelling.
func TestAPrefixInTheAPIsStyleUnderANarrowPolicy(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("app/a", "x")
	s.put("no/b", "x")
	s.do(http.MethodPut, "sys/policies/acl/narrow", map[string]string{"policy": `path "secret/data/app/*" { capabilities = ["read"] }
path "secret/metadata/app/*" { capabilities = ["list", "read"] }`})
	s.do(http.MethodPost, "auth/token/create", map[string]any{"id": "narrow", "policies": []string{"narrow"}})
	sum := s.run(s.warmerAs("narrow", nil, "secret/data/app/", "secret/data/no/"), Order{})
	if !s.tier.has("secret/data/app/a", "x") || s.tier.body("secret/data/no/b") != "" || !slices.Equal(slices.Collect(maps.Keys(sum.Failed)), []string{"secret/data/no/"}) {
		t.Errorf("%+v", sum)
	}
}

// TestALockOutIsOver: an origin that refused everything for a while and answers
// again is read at full speed. sys/leader, which is exempt from quotas, was
// answered meanwhile and says nothing about the limit.
func TestAfterALockOutItDoesNotCrawl(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 62 {
		s.put("app/"+string(rune('a'+i/8))+string(rune('a'+i%8)), "x")
	}
	quiet := s.run(s.warmer(nil, "secret/"), Order{}).Seconds // on this host, with what else it does
	over := time.Now().Add(3 * time.Second)
	s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/leader") || strings.HasPrefix(r.URL.Path, "/v1/sys/health") || time.Now().After(over) {
			return false
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	sum := s.run(s.warmer(nil, "secret/"), Order{Full: true})
	if !sum.Complete || s.tier.secrets() != 62 || sum.RateLimited == 0 || sum.Seconds > 15+20*quiet {
		t.Errorf("%v without a lock-out: %+v", quiet, sum)
	}
}

// TestALookThatReadsEverythingSaysWhatItCosts where there is no index to compare.
func TestALookThatReadsEverythingSaysWhatItCosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "x")
	s.put("b", "x")
	var log bytes.Buffer
	blind := func(o *Options) {
		o.Asker, o.ModifiedEvery, o.Log = reticent{}, 5*time.Minute, slog.New(slog.NewTextHandler(&log, nil))
		o.Now = func() time.Time { return time.Now().Add(6 * time.Minute) }
	}
	s.run(s.warmer(func(o *Options) { blind(o); o.Now = nil }, "secret/"), Order{})
	if strings.Contains(log.String(), "requests_an_hour") {
		t.Error("said of a full pass")
	}
	if sum := s.run(s.warmer(blind, "secret/"), Order{}); sum.Pass != "modified" || sum.Fetched != 2 {
		t.Errorf("%+v", sum)
	}
	if n := strings.Count(log.String(), "secrets=2 requests_an_hour=24"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}
