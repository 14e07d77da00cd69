package compat

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// answer is a response of the proxy or of Vault.
type answer struct {
	*harness.Response
	t testing.TB
}

// status fails the test on another status.
func (a *answer) status(want int) *answer {
	a.t.Helper()
	if a.Status != want {
		a.t.Fatalf("status %d, not %d: %s", a.Status, want, a.Body)
	}
	return a
}

func (a *answer) ok() *answer { a.t.Helper(); return a.status(http.StatusOK) }

// hit fails the test if the answer is not from the cache, and verified.
func (a *answer) hit() *answer {
	a.t.Helper()
	if a.Header.Get("X-Cache") != "HIT" || a.isStale() {
		a.t.Fatalf("no hit: X-Cache %q, Cache-Status %q, status %d", a.Header.Get("X-Cache"), a.Header.Get("Cache-Status"), a.Status)
	}
	return a
}

// miss fails the test if the answer is from the cache.
func (a *answer) miss() *answer {
	a.t.Helper()
	if a.Header.Get("X-Cache") == "HIT" {
		a.t.Fatalf("a hit: Cache-Status %q, %s", a.Header.Get("Cache-Status"), a.Body)
	}
	return a
}

func (a *answer) isStale() bool {
	return strings.Contains(a.Header.Get("Cache-Status"), "stale") && a.Header.Get("X-Cache") == "HIT"
}

// stale fails the test if the answer is not from the cache with both marks.
func (a *answer) stale() *answer {
	a.t.Helper()
	if !a.isStale() || a.Header.Get("Warning") != `110 - "Response is Stale"` {
		a.t.Fatalf("not marked stale: X-Cache %q, Cache-Status %q, Warning %q, status %d: %s",
			a.Header.Get("X-Cache"), a.Header.Get("Cache-Status"), a.Header.Get("Warning"), a.Status, a.Body)
	}
	return a
}

// v is the field "v" of a KV v2 secret.
func (a *answer) v() string {
	a.t.Helper()
	var out struct {
		Data struct {
			Data struct{ V string }
		}
	}
	if err := json.Unmarshal(a.ok().Body, &out); err != nil {
		a.t.Fatalf("%v in %s", err, a.Body)
	}
	return out.Data.Data.V
}

// is fails the test if the secret is another one.
func (a *answer) is(want string) *answer {
	a.t.Helper()
	if got := a.v(); got != want {
		a.t.Fatalf("the secret is %q, not %q (X-Cache %q, Cache-Status %q)", got, want, a.Header.Get("X-Cache"), a.Header.Get("Cache-Status"))
	}
	return a
}

// says fails the test if the body lacks a text.
func (a *answer) says(texts ...string) *answer {
	a.t.Helper()
	contains(a.t, string(a.Body), texts...)
	return a
}
