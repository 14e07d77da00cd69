package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

const clearPath = "/proxy/v1/cache-clear"

// filled returns a world with one secret cached for thaw and for two callers,
// and another in a namespace. No verification ends.
func filled(t *testing.T, change ...func(*options, *cache.Options)) (w *world, one, two string) {
	t.Helper()
	w = newWorld(t, append(change, func(_ *options, o *cache.Options) { o.Recheck = time.Hour })...)
	w.put("app", "value")
	w.put("apple", "value")
	one, two = w.origin.AddToken(0, "root"), w.origin.AddToken(0, "root")
	for range 2 {
		w.get(app)
		w.get("/v1/secret/data/apple")
		w.get(app, "X-Vault-Token", one)
		w.get(app, "X-Vault-Token", two)
		w.get(app, "X-Vault-Namespace", "team")
	}
	return w, one, two
}

func TestCacheClear(t *testing.T) {
	t.Parallel()
	// Whether what filled cached is still served: thaw's own app and apple, the
	// callers' app, and the one in the namespace.
	type kept struct{ app, apple, one, two, team bool }
	all := kept{true, true, true, true, true}
	for body, want := range map[string]kept{
		`{"type":"all"}`:                                                                {},
		`{"type":"all","value":"ignored"}`:                                              {},
		`{"type":"request_path","value":"/v1/secret/data"}`:                             {team: true},
		`{"type":"request_path","value":"v1/secret/data/apple"}`:                        {app: true, one: true, two: true, team: true},
		`{"type":"request_path","value":"secret/data/nothing"}`:                         all,
		`{"type":"request_path","value":"/v1/secret/data/app","namespace":"/team/"}`:    {app: true, apple: true, one: true, two: true},
		`{"type":"request_path","value":"/v1/secret/data/app","namespace":"elsewhere"}`: all,
		`{"type":"token","value":"ONE"}`:                                                {app: true, apple: true, two: true, team: true},
		`{"type":"token","value":"unknown"}`:                                            all,
		`{"type":"token_accessor","value":"x"}`:                                         {},
		`{"type":"lease","value":"x"}`:                                                  {},
	} {
		for _, method := range []string{"POST", "PUT"} {
			w, one, two := filled(t)
			if a := w.do(method, clearPath, strings.ReplaceAll(body, "ONE", one)); a.StatusCode != 200 || a.body != "" {
				t.Errorf("%s %s: %d %s", method, body, a.StatusCode, a.body)
			}
			hit := func(path string, headers ...string) bool {
				return w.get(path, headers...).Header.Get("X-Cache") == "HIT"
			}
			got := kept{one: hit(app, "X-Vault-Token", one)}
			// The read of one caller fills the entry, but grants nobody else.
			got.two, got.app = hit(app, "X-Vault-Token", two), hit(app)
			got.apple, got.team = hit("/v1/secret/data/apple"), hit(app, "X-Vault-Namespace", "team")
			if strings.Contains(body, "request_path") && !want.app && !want.one {
				got.two, got.app = false, false // the grants stay, and the entry is back
			}
			if got != want {
				t.Errorf("%s: kept %+v, want %+v", body, got, want)
			}
		}
	}
}

func TestCacheClearCountsNamespacesAsReadsDo(t *testing.T) {
	t.Parallel()
	prepend := func(o *options, _ *cache.Options) { o.Namespace, o.PrependNamespace = "own", true }
	w, _, _ := filled(t, prepend)
	w.do("POST", clearPath, `{"type":"request_path","value":"secret/data/app","namespace":"team"}`)
	w.expect(w.get(app, "X-Vault-Namespace", "team"), 200, missStored, "value")
	w.expect(w.get(app), 200, hitRead, "value")
	w.do("POST", clearPath, `{"type":"request_path","value":"secret/data/app"}`)
	w.expect(w.get(app), 200, missStored, "value")
}

func TestCacheClearSaysWhatItTakes(t *testing.T) {
	t.Parallel()
	w, _, _ := filled(t)
	for body, says := range map[string]string{
		"":                            "must be JSON",
		"all":                         "must be JSON",
		`"all"`:                       "must be JSON",
		`{"type":1}`:                  "must be JSON",
		`{}`:                          "type is one of",
		`{"type":"everything"}`:       "type is one of",
		`{"type":"ALL"}`:              "type is one of",
		`{"type":"request_path"}`:     "request_path needs a value",
		`{"type":"token","value":""}`: "token needs a value",
		strings.Repeat(" ", 1<<20) + `{"type":"all"}`: "must be JSON",
	} {
		w.refused(w.do("POST", clearPath, body), http.StatusBadRequest, says)
	}
	for _, method := range []string{"GET", "DELETE", "PATCH"} {
		a := w.do(method, clearPath, "")
		w.refused(a, http.StatusMethodNotAllowed, "POST, PUT")
		if a.Header.Get("Allow") != "POST, PUT" {
			t.Errorf("Allow: %q", a.Header.Get("Allow"))
		}
	}
	w.expect(w.get(app), 200, hitRead, "value")
	if n := w.origin.Counts()["POST "+clearPath]; n != 0 {
		t.Error("it went to the origin, too")
	}
}

func TestMetricsAreText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.get("/proxy/v1/metrics")
	if a.StatusCode != 200 || a.body != "thaw_up 1\n" || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%d %q %q", a.StatusCode, a.body, a.Header.Get("Content-Type"))
	}
	w.refused(w.do("POST", "/proxy/v1/metrics", ""), http.StatusMethodNotAllowed, "GET")
}

func TestRequestsAreCountedOnceByWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("app", "one")
	w.get(app)                                    // miss
	w.get(app)                                    // hit
	w.get("/v1/sys/seal-status")                  // bypass
	w.do("POST", app, `{"data":{}}`)              // write
	w.get(app, "Host", "evil")                    // refused
	w.get(app, "Cache-Control", "only-if-cached") // failed
	w.get("/proxy/v1/metrics")                    // neither
	want := Counts{Requests: 5, Hits: 1, Misses: 1, Bypass: 1, Writes: 1, Refused: 1, Failed: 1}
	if got := w.Counts(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
