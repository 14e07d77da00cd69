package consistency

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// G1 where standbys lag: by default what must be fresh is asked of the active
// node, so what another client wrote there is read after the next INVOKE.
func TestG1WhatAnotherClientWroteIsReadAfterTheNextInvoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{})
		defer w.close()
		w.frozen = true
		x := w.start(nodes)
		old, hits := 0, 0
		for i := 1; i <= *pairs; i++ {
			key := fmt.Sprintf("direct/%d", i%5)
			w.direct("POST", "secret/data/"+key, fmt.Sprintf(`{"data":{"n":%d}}`, i))
			time.Sleep(time.Duration(i%7) * 50 * time.Millisecond) // simulated
			x.invoke()
			for range 3 {
				a, n := x.read(key, "")
				if n < i && a.header.Get("Warning") == "" {
					old++
				}
				if a.header.Get("X-Cache") == "HIT" {
					hits++
				}
			}
		}
		if old > 0 || hits < *pairs {
			t.Errorf("%d unmarked old reads of %d, %d hits; %v\n%s", old, 3**pairs, hits, w.primary.Counts(), x.log)
		}
	})
}

// A login is a write: the token is unknown to a standby that lags. That is no
// refusal: nothing is evicted, and there is no second login.
func TestALoginIsSeenByWhatFollowsIt(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"fail", "retry", "forward"} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprint(when, " ", signed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, standin.ClusterOptions{Forwarding: true, ServerSideConsistentTokens: signed, Lag: func() time.Duration { return 400 * time.Millisecond }})
					defer w.close()
					login := w.approle()
					w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
					w.primary.Flush()
					x := w.start(append(login, "VAULT_LOG_LEVEL=DEBUG", "THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT="+when)...)
					if a, n := x.read("app", ""); n != 1 {
						t.Errorf("the read after the login: %d %s", a.status, a.body)
					}
					if a, n := x.read("app", ""); n != 1 || a.header.Get("X-Cache") != "HIT" {
						t.Errorf("the read after it: %d %v", a.status, a.header)
					}
					if n := strings.Count(x.log.String(), "logged in"); n != 1 {
						t.Errorf("%d logins, want 1", n)
					}
					if c := w.primary.Counts(); c["unknown token"] > 0 {
						t.Errorf("the state of the login was not required: %v", c)
					}
				})
			})
		}
	}
}

// A caller that logs in through the proxy gets a token whose state is required
// of what the token is used for, by whomever.
func TestACallersLoginIsSeenByWhatFollowsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{Lag: func() time.Duration { return 400 * time.Millisecond }})
		defer w.close()
		w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
		w.approle()
		w.primary.Flush()
		x := w.start("THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry")
		a := x.ask("POST", "auth/token/create", "", `{"policies":["app","default"]}`)
		_, rest, ok := strings.Cut(a.body, `"client_token":"`)
		token, _, _ := strings.Cut(rest, `"`)
		if !ok || a.status != http.StatusOK {
			t.Fatalf("create a token: %d %s", a.status, a.body)
		}
		if a, n := x.read("app", token); n != 1 {
			t.Errorf("the new token's read: %d %s; %v", a.status, a.body, w.primary.Counts())
		}
	})
}

// What the caller says itself wins, and is passed on as it is.
func TestACallersOwnHeadersWin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{Forwarding: true, Lag: func() time.Duration { return 400 * time.Millisecond }})
		defer w.close()
		x := w.start("THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry")
		state := x.write("app", "", 1).header.Get("X-Vault-Index")
		if state == "" {
			t.Fatal("the write's answer has no X-Vault-Index")
		}
		for _, tt := range []struct {
			headers []string
			status  int
		}{
			{[]string{"X-Vault-Index", state}, http.StatusPreconditionFailed},
			{[]string{"X-Vault-Index", state, "X-Vault-Inconsistent", "forward-active-node"}, http.StatusOK},
			{[]string{"X-Vault-Forward", "active-node"}, http.StatusOK},
			{[]string{"X-Vault-Forward", "nobody"}, http.StatusNotFound}, // neither forwarded nor required
			{nil, http.StatusOK}, // waited for
		} {
			if a := x.ask("GET", "secret/data/app", "", "", tt.headers...); a.status != tt.status {
				t.Errorf("%v: %d, want %d", tt.headers, a.status, tt.status)
			}
		}
	})
}

// never an old answer with a warning: where no node can have the state, the
// answer is 412, after the wait.
func TestWhatNoNodeHasIs412AfterTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{Lag: func() time.Duration { return time.Minute }})
		defer w.close()
		x := w.start("THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry")
		if a, _ := x.read("app", ""); a.status != http.StatusNotFound {
			t.Fatal(a.status)
		}
		x.write("app", "", 1)
		began := time.Now()
		a, _ := x.read("app", "")
		if took := time.Since(began); a.status != http.StatusPreconditionFailed || took < 1800*time.Millisecond || took > 2500*time.Millisecond {
			t.Errorf("%d after %v, want 412 after 2s", a.status, took)
		}
	})
}

// OpenBao's standbys serve reads and know no headers; what they answer may even
// be older than the index that they have applied.
func TestWithoutHeadersReadsFollowTheRaftIndex(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		settings []string
		old      bool
	}{
		{name: "standby", settings: []string{nodes, "THAW_READS=standby"}},
		{name: "a standby's address alone", old: true}, // nothing knows better
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{OpenBao: true, CacheLag: time.Second})
				defer w.close()
				other := w.token()
				time.Sleep(2 * time.Second) // simulated: Flush does not hurry caches
				x := w.start(tt.settings...)
				c := writeAndRead(x, x, other, *pairs, 2200*time.Millisecond)
				t.Log(c, w.primary.Counts())
				if c.failed.Load() > 0 || c.behind.Load() > 0 || (c.old.Load() > 0) != tt.old {
					t.Errorf("%v\n%s", c, x.log)
				}
				if !tt.old && w.primary.Counts()["old"] == 0 {
					t.Error("no standby was read while it lagged: nothing was tested")
				}
			})
		})
	}
}

// A request with a state of its own is answered from the cache where what is cached
// was read at that state or later, in an outage too; else by Vault. That needs no
// setting: what Vault answered to such a request was read at its state.
func TestACallersOwnStateUsesTheCacheWhereThatCoversIt(t *testing.T) {
	t.Parallel()
	for _, settings := range [][]string{nil, {"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry"}} {
		t.Run(strings.Join(settings, " "), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { ownState(t, settings) })
		})
	}
}

func ownState(t *testing.T, settings []string) {
	w := newWorld(t, standin.ClusterOptions{Lag: func() time.Duration { return 400 * time.Millisecond }})
	defer w.close()
	w.frozen = true
	x := w.start(settings...)
	x.invoke()
	read := func(state string) (answer, string) {
		var headers []string
		if state != "" {
			headers = []string{"X-Vault-Index", state}
		}
		a := x.ask("GET", "secret/data/app", "", "", headers...)
		return a, a.header.Get("X-Cache")
	}
	expect := func(when, state string, n, status int, hit bool) {
		t.Helper()
		a, from := read(state)
		if a.status != status || (from == "HIT") != hit || n > 0 && !strings.Contains(a.body, fmt.Sprintf(`"n":%d`, n)) {
			t.Errorf("%s: %d %s %s, want %d, n %d, from the cache %v", when, a.status, from, a.body, status, n, hit)
		}
	}
	first := x.write("app", "", 1).header.Get("X-Vault-Index")
	expect("nothing is cached, and the node lags", first, 0, http.StatusPreconditionFailed, false)
	w.primary.Flush()
	expect("the node has the state", first, 1, http.StatusOK, false)
	expect("what covers the state", first, 1, http.StatusOK, true)
	expect("no state is required", "", 1, http.StatusOK, true)
	expect("no origin sends this: it is for Vault to judge", "v1", 0, http.StatusPreconditionFailed, false)

	// Read again without a state, it is the same answer, and so still covers it.
	x.invoke()
	x.app.Verified(t.Context()) // a read with a state joins none of the poll's
	expect("verified by a poll", first, 1, http.StatusOK, true)

	// Somebody else's write: what is cached was read before it.
	other := w.start()
	later := other.write("app", "", 2).header.Get("X-Vault-Index")
	expect("what does not cover the state, and the node lags", later, 0, http.StatusPreconditionFailed, false)
	expect("a 412 takes nothing out of the cache", first, 1, http.StatusOK, true)
	w.primary.Flush()
	expect("the node has the later state", later, 2, http.StatusOK, false)
	expect("what covers the later state", later, 2, http.StatusOK, true)
	expect("and the state before", first, 2, http.StatusOK, true)

	third := other.write("app", "", 3).header.Get("X-Vault-Index")
	for i := range 3 {
		w.primary.Standby(i % 2).Be(standin.Unreachable)
	}
	w.primary.Active().Be(standin.Unreachable)
	x.invoke()
	expect("an outage, what covers the state", later, 2, http.StatusOK, true)
	if a, _ := read(later); a.header.Get("Warning") == "" {
		t.Errorf("it is not marked: %v", a.header)
	}
	if a, from := read(third); from == "HIT" || a.status < 500 {
		t.Errorf("an outage, what does not cover it: %d %v %s", a.status, a.header, a.body)
	}
}

// What was cached without a state is from before a write for all that is known: a
// request that requires the state of that write is for Vault.
func TestG1WhatWasReadWithoutAStateCoversNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{Lag: func() time.Duration { return 400 * time.Millisecond }})
		defer w.close()
		w.frozen = true
		x := w.start()
		x.invoke()
		x.write("app", "", 1)
		w.primary.Flush()
		if _, n := x.read("app", ""); n != 1 {
			t.Fatal("nothing is cached")
		}
		state := x.write("app", "", 2).header.Get("X-Vault-Index")
		x.read("app", "") // of a node that lags
		if a := x.ask("GET", "secret/data/app", "", "", "X-Vault-Index", state); a.status != http.StatusPreconditionFailed {
			t.Errorf("a node that lags: %d %s", a.status, a.body)
		}
		for i := range 3 {
			w.primary.Standby(i % 2).Be(standin.Unreachable)
		}
		w.primary.Active().Be(standin.Unreachable)
		x.invoke()
		if a := x.ask("GET", "secret/data/app", "", "", "X-Vault-Index", state); a.status < 500 {
			t.Errorf("an outage, with a state: %d %v %s", a.status, a.header, a.body)
		}
	})
}

// A client that reads its own writes through thaw never sees a value from before them,
// whatever others read meanwhile and however far nodes lag, and mostly hits.
func TestG1AClientThatReadsItsOwnWritesSeesThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{Lag: func() time.Duration { return rand.N(60 * time.Millisecond) }})
		defer w.close()
		w.frozen = true
		x := w.start()
		hits, lagging, behind := 0, 0, 0
		for i := 1; i <= *pairs; i++ {
			key := fmt.Sprintf("own/%d", i%3)
			state := x.write(key, "", i).header.Get("X-Vault-Index")
			for range 8 {
				if rand.N(3) == 0 {
					x.invoke()
				}
				if rand.N(2) == 0 {
					x.read(key, "") // without a state: it may be of a node that lags
				}
				a := x.ask("GET", "secret/data/"+key, "", "", "X-Vault-Index", state)
				switch {
				case a.status == http.StatusPreconditionFailed:
					lagging++
				case a.status != http.StatusOK || !strings.Contains(a.body, fmt.Sprintf(`"n":%d}`, i)):
					behind++
					t.Errorf("write %d: %d %s", i, a.status, a.body)
				case a.header.Get("X-Cache") == "HIT":
					hits++
				}
				time.Sleep(rand.N(30 * time.Millisecond)) // simulated
			}
		}
		t.Logf("%d reads: %d hits, %d of nodes that lag", 8**pairs, hits, lagging)
		if hits < *pairs || lagging < *pairs/10 || behind > 0 {
			t.Error("too few of a kind: nothing is tested")
		}
	})
}

// A login is a write that changed no secret: what another instance read before it
// answers here from the shared cache, in an outage, too.
func TestG4ALoginTakesNothingOutOfTheSharedCache(t *testing.T) {
	t.Parallel()
	for _, bao := range []bool{false, true} {
		for _, settings := range [][]string{{nodes}, {"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry"}, {nodes, "THAW_READS=standby"}} {
			t.Run(fmt.Sprint("OpenBao ", bao, " ", settings), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, standin.ClusterOptions{OpenBao: bao})
					defer w.close()
					w.frozen = true
					settings := slices.Concat(w.memcached(), w.approle(), []string{"THAW_MAX_AGE=1m"}, settings)
					for _, name := range []string{"one", "two", "three"} {
						w.direct("POST", "secret/data/"+name, `{"data":{"n":1}}`)
					}
					w.primary.Flush()
					first := w.start(settings...)
					first.invoke()
					for _, name := range []string{"one", "two"} {
						first.read(name, "")
					}
					time.Sleep(2 * time.Second) // simulated
					x := w.start(settings...)
					x.invoke()
					if a, n := x.read("three", ""); n != 1 || !strings.Contains(x.log.String(), "logged in") {
						t.Fatalf("the read with which it logs in: %d %s", a.status, a.body)
					}
					if a, n := x.read("one", ""); n != 1 || a.header.Get("X-Cache") != "HIT" {
						t.Errorf("what another instance read: %d %v %s", a.status, a.header, a.body)
					}
					for i := range 2 {
						w.primary.Standby(i).Be(standin.Unreachable)
					}
					w.primary.Active().Be(standin.Unreachable)
					if a, n := x.read("two", ""); n != 1 {
						t.Errorf("what another instance read, in an outage: %d %s", a.status, a.body)
					}
				})
			})
		}
	}
}

// Nor does a caller's login through thaw: what is read again under another identity
// answers the caller as well, in an outage, too.
func TestG4ACallersLoginIsNoWriteOfASecret(t *testing.T) {
	t.Parallel()
	for _, settings := range [][]string{{nodes}, {"THAW_ENFORCE_CONSISTENCY=always", "THAW_WHEN_INCONSISTENT=retry"}, {nodes, "THAW_READS=standby"}} {
		t.Run(fmt.Sprint(settings), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{OpenBao: len(settings) > 1 && settings[0] == nodes})
				defer w.close()
				w.frozen = true
				role := w.approle()
				id, _ := strings.CutPrefix(role[slices.IndexFunc(role, func(s string) bool { return strings.HasPrefix(s, "THAW_ROLE_ID=") })], "THAW_ROLE_ID=")
				secret, _ := strings.CutPrefix(role[slices.IndexFunc(role, func(s string) bool { return strings.HasPrefix(s, "THAW_SECRET_ID=") })], "THAW_SECRET_ID=")
				x := w.start(settings...)
				var login struct {
					Auth struct {
						Token string `json:"client_token"`
					} `json:"auth"`
				}
				a := x.ask("POST", "auth/approle/login", "", fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, id, secret))
				if err := json.Unmarshal([]byte(a.body), &login); err != nil || login.Auth.Token == "" {
					t.Fatalf("the login: %d %s", a.status, a.body)
				}
				change := func(i int) {
					w.direct("POST", "secret/data/app", fmt.Sprintf(`{"data":{"n":%d}}`, i))
					w.primary.Flush()
					time.Sleep(2 * time.Second) // simulated
					x.invoke()
					x.app.Verified(t.Context())
					if _, n := x.read("app", ""); n != i {
						t.Fatalf("version %d is not read", i)
					}
				}
				change(1)
				if a, n := x.read("app", login.Auth.Token); n != 1 {
					t.Fatalf("the caller's own read: %d %s", a.status, a.body)
				}
				change(2)
				if a, n := x.read("app", login.Auth.Token); n != 2 || a.header.Get("X-Cache") != "HIT" {
					t.Errorf("what was read again under another identity: %d %v %s", a.status, a.header, a.body)
				}
				change(3)
				for i := range 2 {
					w.primary.Standby(i).Be(standin.Unreachable)
				}
				w.primary.Active().Be(standin.Unreachable)
				if a, n := x.read("app", login.Auth.Token); n != 3 {
					t.Errorf("in an outage: %d %s", a.status, a.body)
				}
			})
		})
	}
}
