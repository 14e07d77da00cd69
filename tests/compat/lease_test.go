package compat

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// leases is an upstream that answers like a Vault with a database engine: each
// read of database/creds/ makes new credentials with a lease.
type leases struct {
	addr  string
	reads atomic.Int64
}

func leasesFor(t *testing.T, seconds int) *leases {
	l := &leases{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/database/creds/", func(w http.ResponseWriter, r *http.Request) {
		n := l.reads.Add(1)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"request_id":"r%d","lease_id":"database/creds/app/%d","renewable":true,"lease_duration":%d,"data":{"username":"u%d"},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"database"}`+"\n", n, n, seconds, n)
	})
	mux.HandleFunc("GET /v1/auth/token/lookup-self", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"data":{"ttl":0,"creation_ttl":0,"policies":["root"],"type":"service"}}`)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintln(w, `{"errors":[]}`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	l.addr = server.URL
	return l
}

func TestLeasedAnswersAreNeverKeptPastTheirLease(t *testing.T) {
	t.Parallel()
	l := leasesFor(t, 2)
	p := start(t, nil, "VLE_VAULT_ADDR="+l.addr, "VAULT_TOKEN=t", "VAULT_DEFAULT_CACHE_TTL=1h")
	optIn := []string{"X-Vault-Cache-Control", "cache"}
	const path = "database/creds/app"
	// Not asked for: every read makes new credentials, none is shared.
	p.get(path).ok().says("u1")
	p.get(path).ok().says("u2")
	p.get(path, optIn...).ok().miss().says("u3")
	began := time.Now()
	p.get(path, optIn...).ok().hit().says("u3")
	harness.Eventually(t, patience, "the lease's end", func() bool { return p.get(path, optIn...).ok().Header.Get("X-Cache") == "MISS" })
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("kept for %v", d)
	}
	if n := l.reads.Load(); n != 4 {
		t.Errorf("%d reads", n)
	}
	p.as("another", path, optIn...).ok().miss().says("u5")
}

func TestLeasedAnswersAreNotServedStalePastTheirLease(t *testing.T) {
	t.Parallel()
	l := leasesFor(t, 1)
	c := harness.Count(t, harness.CounterConfig{Origin: l.addr})
	p := start(t, nil, "VLE_VAULT_ADDR="+c.Addr(), "VAULT_TOKEN=t", "VAULT_DEFAULT_CACHE_TTL=1h", "VAULT_MAX_RETRIES=0")
	optIn := []string{"X-Vault-Cache-Control", "cache"}
	p.get("database/creds/app", optIn...).ok()
	p.get("database/creds/app", optIn...).ok().hit()
	c.Cut()
	harness.Pause(t.Context(), 1100*time.Millisecond)
	if r := p.get("database/creds/app", optIn...); r.Status == http.StatusOK {
		t.Errorf("credentials that have ended: %s", r.Body)
	}
}

// Concurrent readers of what has side effects share nothing.
func TestLeasedReadsAreNotCoalesced(t *testing.T) {
	t.Parallel()
	l := leasesFor(t, 3600)
	p := start(t, nil, "VLE_VAULT_ADDR="+l.addr, "VAULT_TOKEN=t")
	const n = 8
	users := make(chan any, n)
	for range n {
		go func() {
			r, err := p.try(t.Context(), http.MethodGet, "database/creds/app", "", nil)
			if err != nil {
				users <- err
				return
			}
			users <- (&answer{r, t}).field("data", "username")
		}()
	}
	seen := map[any]bool{}
	for range n {
		u := <-users
		if seen[u] {
			t.Errorf("%v was given twice", u)
		}
		seen[u] = true
	}
}

// Real leases: the tokens that auth/token/create makes are Vault's own; none
// of their answers is ever cached.
func TestAnswersWithATokenAreNeverCached(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start("VAULT_DEFAULT_CACHE_TTL=1h", "VAULT_DEFAULT_CACHE_ENABLED=true")
	root := o.RootToken()
	one := p.do(http.MethodPost, "auth/token/create", root, map[string]string{"ttl": "1m"}).ok().field("auth", "client_token")
	two := p.do(http.MethodPost, "auth/token/create", root, map[string]string{"ttl": "1m"}).ok().field("auth", "client_token")
	if one == nil || one == two {
		t.Errorf("tokens %v and %v", one, two)
	}
	for range 2 { // what a caller without a token may see stays uncached
		p.get("sys/health").ok().miss()
		p.get("sys/seal-status").ok().miss()
		p.get("sys/leader").ok().miss()
	}
}
