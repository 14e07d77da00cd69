package cache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestG1HitNeedsAVerificationOfThisEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "")
	w.expect(key("secret/data/a"), "", Fresh, "one")

	w.Begin(w.clock.add(10 * time.Millisecond))
	w.expect(key("secret/data/a"), "", Unverified, "one")

	w.clock.add(time.Millisecond)
	w.load(key("secret/data/a"), "")
	w.expect(key("secret/data/a"), "", Fresh, "one")
	w.clock.add(time.Second + time.Millisecond)
	w.expect(key("secret/data/a"), "", Unverified, "one")
}

func TestG1MaxAgeReachesBackBeforeTheEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.MaxAge = 3 * time.Second })
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "")
	w.Begin(w.clock.add(3 * time.Second))
	w.expect(key("secret/data/a"), "", Fresh, "one")
	w.clock.add(time.Second)
	w.expect(key("secret/data/a"), "", Fresh, "one")
	w.clock.add(time.Millisecond)
	w.expect(key("secret/data/a"), "", Unverified, "one")
	w.load(key("secret/data/a"), "")
	w.Begin(w.clock.add(3*time.Second + time.Millisecond))
	w.expect(key("secret/data/a"), "", Unverified, "one")
}

func TestG1TheCursorProvesAllWithItsAnchor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 {
		w.origin.put(fmt.Sprintf("secret/data/%d", i), v2("x", 1, ""))
	}
	w.load(key("secret/data/0"), "")
	w.load(key("secret/data/1"), "")
	at := w.origin.Anchor(t.Context())
	w.origin.put("secret/data/2", v2("y", 2, ""))
	w.load(key("secret/data/2"), "")

	epoch := w.Begin(w.clock.add(time.Minute))
	w.Prove(at, Mark{w.clock.now(), epoch})
	w.expect(key("secret/data/0"), "", Fresh, "")
	w.expect(key("secret/data/1"), "", Fresh, "")
	w.expect(key("secret/data/2"), "", Unverified, "")
	if got := w.Unproven(w.clock.now()); len(got) != 1 || got[0].Key.Path != "secret/data/2" {
		t.Fatalf("unproven: %v", got)
	}
	// Another leader's cursor with the same index proves nothing.
	w.Begin(w.clock.add(time.Minute))
	w.Prove(Anchor{Applied: at.Applied, ActiveTime: "other"}, Mark{w.clock.now(), epoch + 1})
	w.expect(key("secret/data/0"), "", Unverified, "")
}

func TestG1AClockSetBackVerifiesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "")
	w.clock.add(-time.Minute)
	if s := w.state(key("secret/data/a"), ""); s == Fresh {
		t.Fatal("fresh although the clock was set back")
	}
}

func TestElapsedTakesTheLongerOfBothClocks(t *testing.T) {
	t.Parallel()
	base := time.Now() // with a monotonic reading
	if got := Elapsed(base, base.Add(time.Second)); got != time.Second {
		t.Errorf("both: %v", got)
	}
	frozen := time.Unix(base.Add(time.Hour).Unix(), 0) // wall only, later
	if got := Elapsed(base, frozen); got < 59*time.Minute {
		t.Errorf("a freeze counts: %v", got)
	}
	if Within(base, base.Round(0).Add(-time.Hour), time.Minute) {
		t.Error("a step back is within")
	}
}

func TestG2ASecondTokensFirstReadGoesToTheOrigin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "alice")
	w.Learned(w.Caller("alice"), time.Time{})
	w.expect(key("secret/data/a"), "alice", Fresh, "one")
	w.expect(key("secret/data/a"), "bob", Absent, "")
	w.expect(key("secret/data/a"), "", Absent, "")

	// Bob's read replaces the answer for both.
	w.origin.put("secret/data/a", v2("two", 2, ""))
	w.clock.add(time.Millisecond)
	w.load(key("secret/data/a"), "bob")
	w.expect(key("secret/data/a"), "alice", Fresh, "two")
}

func TestG2GrantsWantConfirmation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "alice")
	id := w.Caller("alice")
	w.expect(key("secret/data/a"), "alice", Unconfirmed, "") // its end is not known yet
	w.Learned(id, w.clock.now().Add(time.Hour))
	w.expect(key("secret/data/a"), "alice", Fresh, "")

	now := w.clock.add(5*time.Minute + time.Millisecond)
	w.expect(key("secret/data/a"), "alice", Unconfirmed, "")
	due, _ := w.Due(id, now)
	if len(due[""]) != 1 {
		t.Fatalf("due: %v", due)
	}
	w.Confirm(id, now, due[""], nil)
	w.expect(key("secret/data/a"), "alice", Unverified, "")
	w.Confirm(id, w.clock.add(time.Millisecond), nil, due[""])
	w.expect(key("secret/data/a"), "alice", Absent, "")

	w.load(key("secret/data/a"), "alice")
	w.clock.add(time.Hour)
	w.expect(key("secret/data/a"), "alice", Absent, "") // past the token's end
}

func TestG2Optimistic(t *testing.T) {
	t.Parallel()
	for _, pessimistic := range []bool{false, true} {
		w := newWorld(t, func(o *Options) { o.Pessimistic = pessimistic })
		w.origin.put("secret/data/a", v2("one", 1, ""))
		w.load(key("secret/data/a"), "")
		now := w.clock.add(6 * time.Minute)
		w.expect(key("secret/data/a"), "", Unconfirmed, "")
		w.ConfirmFailed(w.OwnIdentity(), now.Add(time.Second))
		want := Unverified
		if pessimistic {
			want = Absent
		}
		w.expect(key("secret/data/a"), "", want, "")
	}
}

func TestG2RevokedTokensLoseTheirHits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "alice")
	w.Learned(w.Caller("alice"), time.Time{})
	w.Forget("alice")
	w.expect(key("secret/data/a"), "alice", Absent, "")
	if !w.Empty() {
		t.Error("nobody may see the entry, and it is still there")
	}
}

func TestG2ARevocationDuringAReadLeavesNoGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.Caller("alice")})
	}()
	<-w.origin.arrived
	w.Forget("alice")
	close(hold)
	<-done
	w.expect(key("secret/data/a"), "alice", Absent, "")
	if !w.Empty() {
		t.Error("stored for a revoked token")
	}
}

func TestG3KeysTellRequestsApart(t *testing.T) {
	t.Parallel()
	cases := []struct {
		method, target, namespace string
		cacheable                 bool
		want                      Key
	}{
		{"GET", "/v1/secret/data/a", "", true, Key{Path: "secret/data/a"}},
		{"GET", "/v1/secret/data/A", "", true, Key{Path: "secret/data/A"}},
		{"GET", "/v1/secret/data/a?version=2", "", true, Key{Path: "secret/data/a", Query: "version=2"}},
		{"GET", "/v1/secret/data/a?version=0", "", true, Key{Path: "secret/data/a"}},
		{"GET", "/v1/secret/data/a?version=02", "", false, Key{}},
		{"GET", "/v1/secret/data/a?version=2&version=3", "", false, Key{}},
		{"GET", "/v1/secret/data/a?version=-1", "", false, Key{}},
		{"LIST", "/v1/secret/metadata/a", "", true, Key{Path: "secret/metadata/a", Op: List}},
		{"LIST", "/v1/secret/metadata/a/", "", true, Key{Path: "secret/metadata/a", Op: List}},
		{"GET", "/v1/secret/metadata/a?list=true", "", true, Key{Path: "secret/metadata/a", Op: List}},
		{"GET", "/v1/secret/metadata/a?list=1", "", false, Key{}},
		{"GET", "/v1/secret/data/a", "ns1/ns2", true, Key{Namespace: "ns1/ns2", Path: "secret/data/a"}},
		{"GET", "/v1/secret/data/a", "ns1//ns2", false, Key{}},
		{"GET", "/v1/secret/data/%61", "", false, Key{}}, // another spelling
		{"GET", "/v1/secret/data%2fa", "", false, Key{}},
		{"GET", "/v1/secret//data/a", "", false, Key{}},
		{"GET", "/v1/secret/data/a/", "", false, Key{}},
		{"GET", "/v1/secret/./data/a", "", false, Key{}},
		{"GET", "/v1/secret/../data/a", "", false, Key{}},
		{"GET", "/v1/secret/data/a%00", "", false, Key{}},
		{"GET", "/v1/secret/data/a%25", "", false, Key{}},
		{"GET", "/v1/secret/data/a;b", "", true, Key{Path: "secret/data/a;b"}},
		{"GET", "/v1/secret/data/a?", "", false, Key{}},
		{"GET", "/v1/", "", false, Key{}},
		{"GET", "/v1/secret/data/%C3%A9", "", true, Key{Path: "secret/data/é"}},
		{"GET", "/v1/secret/data/%c3%a9", "", false, Key{}},
		{"PUT", "/v1/secret/data/a", "", false, Key{}},
		{"HEAD", "/v1/secret/data/a", "", false, Key{}},
		{"GET", "/other", "", false, Key{}},
	}
	for _, c := range cases {
		u, err := url.ParseRequestURI(c.target)
		if err != nil {
			t.Fatal(err)
		}
		r := Classify(c.method, u, c.namespace)
		if r.Cacheable != c.cacheable || c.cacheable && r.Key != c.want {
			t.Errorf("%s %s in %q: %v %+v, want %v %+v", c.method, c.target, c.namespace, r.Cacheable, r.Key, c.cacheable, c.want)
		}
	}
}

func TestG3AListAndAReadOfOnePathAreTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("kv/a", v1("value"))
	w.origin.put("kv/a/", `{"lease_id":"","data":{"keys":["b"]},"wrap_info":null,"auth":null,"mount_type":"kv"}`)
	list := Key{Path: "kv/a", Op: List}
	w.load(key("kv/a"), "")
	w.expect(list, "", Absent, "")
	w.load(list, "")
	w.expect(list, "", Fresh, "b")
	w.expect(key("kv/a"), "", Fresh, "value")
}

func TestALatestReadAnswersItsVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("three", 3, ""))
	w.load(key("secret/data/a"), "")
	w.expect(Key{Path: "secret/data/a", Query: "version=3"}, "", Fresh, "three")
	w.expect(Key{Path: "secret/data/a", Query: "version=2"}, "", Absent, "")
}

func TestDeletionTimeEndsAnEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Recheck = time.Hour })
	at := w.clock.now().Add(time.Minute).Format(time.RFC3339Nano)
	w.origin.put("secret/data/a", v2("one", 1, `"deletion_time":"`+at+`"`))
	w.load(key("secret/data/a"), "")
	w.clock.add(time.Minute - time.Millisecond)
	w.expect(key("secret/data/a"), "", Fresh, "one")
	w.clock.add(time.Millisecond)
	w.expect(key("secret/data/a"), "", Absent, "")
}

func TestARiseOfOldestVersionDropsPrunedVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for v := 1; v <= 3; v++ {
		w.origin.put(fmt.Sprintf("secret/data/a?version=%d", v), v2(fmt.Sprint("v", v), v, ""))
		w.load(Key{Path: "secret/data/a", Query: fmt.Sprintf("version=%d", v)}, "")
	}
	w.origin.put("secret/metadata/a", `{"lease_id":"","data":{"current_version":3,"oldest_version":3,"versions":{"3":{}}},"wrap_info":null,"auth":null,"mount_type":"kv"}`)
	w.load(key("secret/metadata/a"), "")
	w.expect(Key{Path: "secret/data/a", Query: "version=1"}, "", Absent, "")
	w.expect(Key{Path: "secret/data/a", Query: "version=2"}, "", Absent, "")
	w.expect(Key{Path: "secret/data/a", Query: "version=3"}, "", Fresh, "v3")
}

func TestWritesEvictWhatTheyCanChange(t *testing.T) {
	t.Parallel()
	keys := []Key{
		{Path: "secret/data/a/b"}, {Path: "secret/data/a/b", Query: "version=1"}, {Path: "secret/metadata/a/b"}, {Path: "secret/subkeys/a/b"},
		{Path: "secret/metadata", Op: List}, {Path: "secret/metadata/a", Op: List}, {Path: "secret/data/other"}, {Path: "secret/metadata/other"},
		{Path: "kv/a/b"}, {Path: "kv/a", Op: List}, {Path: "kv", Op: List}, {Path: "kv/c"}, {Namespace: "ns", Path: "secret/data/a/b"},
	}
	// The same path in a namespace goes too: community servers ignore the header.
	v2all := "ns/secret/data/a/b secret/data/a/b secret/data/a/b?version=1 secret/metadata/a/b secret/subkeys/a/b secret/metadata/ secret/metadata/a/"
	cases := []struct {
		namespace, path string
		evicts          string
	}{
		{"", "secret/data/a/b", v2all},
		{"", "secret/metadata/a/b", v2all},
		{"", "secret/delete/a/b", v2all},
		{"", "secret/undelete/a/b", v2all},
		{"", "secret/destroy/a/b", v2all},
		{"", "secret/data/a/b/", v2all},
		{"", "secret/data/x/../a/b", v2all},
		{"", "secret//data/a/b", v2all},
		{"ns", "secret/data/a/b", v2all},
		{"", "ns/secret/data/a/b", "ns/secret/data/a/b"},
		{"", "kv/a/b", "kv/a/b kv/a/ kv/"},
		{"", "transit/encrypt/a", ""},
		{"", "sys/mounts/secret", "all"},
		{"", "sys/remount", "all"},
	}
	for _, c := range cases {
		w := newWorld(t)
		for _, k := range keys {
			p := joined(k.Namespace, k.Path)
			if k.Op == List {
				p += "/"
			}
			if k.Query != "" {
				p += "?" + k.Query
			}
			w.origin.put(p, v2("x", 1, ""))
			w.load(k, "")
		}
		write := NewWrite(c.namespace, c.path)
		w.BeginWrite(write)
		w.EndWrite(write)
		var gone []string
		for _, k := range keys {
			if w.state(k, "") == Absent {
				p := joined(k.Namespace, k.Path)
				if k.Op == List {
					p += "/"
				}
				if k.Query != "" {
					p += "?" + k.Query
				}
				gone = append(gone, p)
			}
		}
		want := strings.Fields(c.evicts)
		if c.evicts == "all" {
			if len(gone) != len(keys) {
				t.Errorf("write %s: evicted only %v", c.path, gone)
			}
			continue
		}
		left := map[string]bool{}
		for _, g := range gone {
			left[g] = true
		}
		for _, p := range want {
			if !left[p] {
				t.Errorf("write %q %s: %s stays", c.namespace, c.path, p)
			}
			delete(left, p)
		}
		if len(left) > 0 {
			t.Errorf("write %q %s: evicted %v besides", c.namespace, c.path, left)
		}
	}
}

func TestAFillDuringAWriteIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("old", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.OwnIdentity()})
	}()
	<-w.origin.arrived
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	w.EndWrite(write)
	close(hold)
	<-done
	w.expect(key("secret/data/a"), "", Absent, "")
}

func TestAReadAfterAWriteSharesNoReadFromBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("old", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	go w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.OwnIdentity()})
	<-w.origin.arrived
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	w.origin.put("secret/data/a", v2("new", 2, ""))
	w.EndWrite(write)
	w.origin.mu.Lock()
	delete(w.origin.hold, "secret/data/a")
	w.origin.mu.Unlock()
	a := w.load(key("secret/data/a"), "")
	close(hold)
	if !strings.Contains(string(a.Body), "new") || a.Shared {
		t.Fatalf("got %s, shared %v", a.Body, a.Shared)
	}
}

func TestOneReadAtATimeAndWaitersShareIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	ctx, leave := context.WithCancel(context.Background())
	first := make(chan error)
	go func() {
		_, err := w.Load(ctx, Want{Key: key("secret/data/a"), ID: w.OwnIdentity()})
		first <- err
	}()
	<-w.origin.arrived
	const waiters = 20
	var wg sync.WaitGroup
	for range waiters {
		wg.Go(func() {
			a, err := w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.OwnIdentity()})
			if err != nil || !strings.Contains(string(a.Body), "one") {
				t.Errorf("waiter: %s %v", a.Body, err)
			}
		})
	}
	for w.Counters().Shared < waiters {
		// Each waiter counts itself when it joins; there is nothing to wait on.
	}
	leave() // who began it leaves, and fails nobody
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	close(hold)
	wg.Wait()
	if w.origin.reads != 1 {
		t.Errorf("%d reads", w.origin.reads)
	}
}

func TestADynamicSecretIsNeverShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("database/creds/app", `{"lease_id":"database/creds/app/1","lease_duration":60,"data":{"password":"p"},"wrap_info":null,"auth":null,"mount_type":"database"}`)
	hold := make(chan struct{})
	w.origin.hold["database/creds/app"] = hold
	k := key("database/creds/app")
	var wg sync.WaitGroup
	wg.Go(func() { w.Load(context.Background(), Want{Key: k, ID: w.OwnIdentity()}) })
	<-w.origin.arrived
	wg.Go(func() { w.Load(context.Background(), Want{Key: k, ID: w.OwnIdentity()}) })
	for w.Counters().Shared < 1 {
	}
	close(hold)
	wg.Wait()
	if w.origin.reads != 2 {
		t.Errorf("%d reads for two callers", w.origin.reads)
	}
	w.expect(k, "", Absent, "")
}

func TestOptedInAnswersArePersonalAndEndWithTheirLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
	w.origin.put("database/creds/app", `{"lease_id":"l","lease_duration":60,"data":{"password":"p"},"wrap_info":null,"auth":null,"mount_type":"database"}`)
	k := key("database/creds/app")
	if _, err := w.Load(t.Context(), Want{Key: k, ID: w.OwnIdentity(), OptIn: true}); err != nil {
		t.Fatal(err)
	}
	w.Begin(w.clock.add(30 * time.Second))
	w.expect(k, "", Fresh, "p")
	w.expect(k, "alice", Absent, "")
	w.clock.add(30 * time.Second)
	w.expect(k, "", Absent, "")
}

func TestWrappedAndLoginAnswersAreNeverStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("kv/a", `{"lease_id":"","data":null,"wrap_info":{"token":"t"},"auth":null,"mount_type":"kv"}`)
	w.origin.put("kv/b", `{"lease_id":"","data":{},"wrap_info":null,"auth":{"client_token":"t"},"mount_type":"kv"}`)
	w.load(key("kv/a"), "")
	w.load(key("kv/b"), "")
	if !w.Empty() {
		t.Error("stored")
	}
}

func TestG4TroubleEvictsNothingAndARefusalAtOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 472, 473, 500, 502, 503, 504} {
		w := newWorld(t)
		w.origin.put("secret/data/a", v2("one", 1, ""))
		w.load(key("secret/data/a"), "")
		w.origin.status = status
		w.Begin(w.clock.add(time.Minute))
		w.clock.add(time.Millisecond)
		w.load(key("secret/data/a"), "")
		h := w.Lookup(key("secret/data/a"), "", w.clock.now())
		if h.State != Failing || !h.Stale {
			t.Errorf("%d: state %d, stale %v", status, h.State, h.Stale)
		}
	}
	for _, status := range []int{400, 403, 404} {
		w := newWorld(t)
		w.origin.put("secret/data/a", v2("one", 1, ""))
		w.load(key("secret/data/a"), "")
		w.origin.status = status
		w.clock.add(time.Millisecond)
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Absent, "")
	}
}

func TestG4StaleIsBoundedAndPessimisticRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "")
	epoch := w.Begin(w.clock.add(time.Minute))
	w.Fail(Mark{w.clock.now(), epoch}, errors.New("down"))
	w.expect(key("secret/data/a"), "", Failing, "one")
	w.ConfirmFailed(w.OwnIdentity(), w.clock.now().Add(2*time.Hour))
	w.clock.add(time.Hour)
	if h := w.Lookup(key("secret/data/a"), "", w.clock.now()); h.Stale {
		t.Error("stale longer than THAW_STALE_IF_ERROR")
	}

	w = newWorld(t, func(o *Options) { o.Pessimistic = true })
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "")
	w.Fail(Mark{w.clock.now(), 0}, errors.New("down"))
	w.expect(key("secret/data/a"), "", Absent, "")
}

func TestA403TakesOnlyThatIdentitysGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("secret/data/a"), "")
	w.load(key("secret/data/a"), "bob")
	w.origin.denied["bob secret/data/a"] = true
	w.clock.add(time.Millisecond)
	w.load(key("secret/data/a"), "bob")
	w.expect(key("secret/data/a"), "bob", Absent, "")
	w.expect(key("secret/data/a"), "", Fresh, "one")
}

func TestAnOlderAnswerReplacesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("old", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.OwnIdentity()})
	}()
	<-w.origin.arrived
	w.clock.add(time.Millisecond)
	w.origin.mu.Lock()
	delete(w.origin.hold, "secret/data/a")
	w.origin.mu.Unlock()
	w.origin.put("secret/data/a", v2("new", 2, ""))
	w.load(key("secret/data/a"), "bob")
	close(hold)
	<-done
	w.Learned(w.Caller("bob"), time.Time{})
	w.expect(key("secret/data/a"), "bob", Fresh, "new")
}

func TestAnAnswerWithAgeVerifiesNothing(t *testing.T) {
	t.Parallel()
	for _, h := range []http.Header{{"Age": {"7"}}, {"X-Cache": {"HIT"}}} {
		w := newWorld(t)
		w.origin.header = h
		w.origin.put("secret/data/a", v2("one", 1, ""))
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Unverified, "one")
		w.Prove(w.origin.Anchor(t.Context()), Mark{w.clock.now(), 0})
		w.expect(key("secret/data/a"), "", Unverified, "one")
	}
}

func TestNegativeAnswersOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Learn(Mount{Path: "secret", Version: 2})
	w.load(key("secret/data/none"), "")
	w.expect(key("secret/data/none"), "", Absent, "")

	w = newWorld(t, func(o *Options) { o.NegativeTTL = 3 * time.Second; o.Recheck = time.Minute })
	w.Learn(Mount{Path: "secret", Version: 2})
	w.load(key("secret/data/none"), "")
	w.expect(key("secret/data/none"), "", Fresh, "")
	w.clock.add(3 * time.Second)
	w.expect(key("secret/data/none"), "", Absent, "")
}

func TestThePreflightAnswersForItsWholeMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("sys/internal/ui/mounts/secret/a", `{"lease_id":"","data":{"path":"secret/","type":"kv","options":{"version":"2"}},"wrap_info":null,"auth":null,"mount_type":"system"}`)
	w.origin.put("secret/data/a", v2("one", 1, ""))
	w.load(key("sys/internal/ui/mounts/secret/a"), "")
	// Without a grant below the mount nobody gets it.
	w.expect(key("sys/internal/ui/mounts/secret/a"), "", Absent, "")
	w.load(key("secret/data/a"), "")
	w.expect(key("sys/internal/ui/mounts/secret/a"), "", Fresh, "secret/")
	w.expect(key("sys/internal/ui/mounts/secret/other"), "", Fresh, "secret/")
	w.expect(key("sys/internal/ui/mounts/secretive/x"), "", Absent, "")
	if m, ok := w.Knows("", "secret/data/x"); !ok || m.Version != 2 {
		t.Errorf("mount: %+v %v", m, ok)
	}
}

func TestServersWithoutMountTypeAreAskedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("sys/internal/ui/mounts/secret/data/a", `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`)
	w.origin.put("secret/data/a", strings.Replace(v2("one", 1, ""), `,"mount_type":"kv"`, "", 1))
	w.origin.put("secret/data/b", strings.Replace(v2("two", 1, ""), `,"mount_type":"kv"`, "", 1))
	w.load(key("secret/data/a"), "")
	w.load(key("secret/data/b"), "")
	w.expect(key("secret/data/a"), "", Fresh, "one")
	w.expect(key("secret/data/b"), "", Fresh, "two")
	if w.origin.reads != 3 {
		t.Errorf("%d reads, want 2 and one preflight", w.origin.reads)
	}
}

func TestG7MemoryIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	w := newWorld(t, func(o *Options) { o.Bytes = limit })
	for i := range 500 {
		p := fmt.Sprintf("secret/data/%d", i)
		w.origin.put(p, v2(strings.Repeat("x", 500), 1, ""))
		w.load(key(p), fmt.Sprintf("token-%d", i%50))
		if n := w.Counters().Bytes; n > limit {
			t.Fatalf("%d bytes after %d", n, i)
		}
	}
	if c := w.Counters(); c.Entries == 0 || c.Evicted == 0 {
		t.Errorf("%+v", c)
	}
	w.Clear()
	if c := w.Counters(); c.Entries != 0 || c.Bytes != int64(c.Identities)*(identitySize)+sumTokens(w) {
		t.Errorf("after clearing: %+v", c)
	}
}

func sumTokens(w *world) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var n int64
	for token := range w.callers {
		n += int64(len(token))
	}
	return n
}

func TestSameAnswerIgnoresTheRequestID(t *testing.T) {
	t.Parallel()
	a := []byte(`{"request_id":"1","data":{"v":"x"}}`)
	if !SameAnswer(a, []byte(`{"request_id":"22","data":{"v":"x"}}`)) || SameAnswer(a, []byte(`{"request_id":"1","data":{"v":"y"}}`)) {
		t.Error("request_id")
	}
	if SameAnswer([]byte(`{"request_id":"a\"b","x":1}`), []byte(`{"request_id":"a\"c","x":1}`)) {
		t.Error("an escaped quote is no end")
	}
}

func TestMatchPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"secret/data/a", "secret/data/a", true},
		{"secret/data/a", "secret/data/ab", false},
		{"secret/data/*", "secret/data/a/b", true},
		{"secret/data/a*", "secret/data/ab", true},
		{"secret/+/a", "secret/data/a", true},
		{"secret/+/a", "secret/data/x/a", false},
		{"secret/+/*", "secret/data/x/a", true},
		{"*", "anything/at/all", true},
		{"/kv/x", "kv/x", true},
	} {
		if got := MatchPath([]string{c.pattern}, c.path); got != c.want {
			t.Errorf("%s against %s: %v", c.pattern, c.path, got)
		}
	}
}

func TestNoCachePathsStayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.NoCache = []string{"secret/data/otp/*"} })
	w.origin.put("secret/data/otp/a", v2("x", 1, ""))
	w.load(key("secret/data/otp/a"), "")
	w.expect(key("secret/data/otp/a"), "", Absent, "")
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"secret/data/a", "secret/data/a?version=3", "a//b", "a/%2e%2e/b", "a?list=true", "é/ü", "a;b?x=1;y=2"} {
		f.Add("GET", s, "")
		f.Add("LIST", s, "ns")
	}
	f.Fuzz(func(t *testing.T, method, target, namespace string) {
		u, err := url.ParseRequestURI("/v1/" + target)
		if err != nil {
			return
		}
		r := Classify(method, u, Namespace(namespace))
		if !r.Cacheable {
			return
		}
		// What is asked of the origin for a key is classified as that key.
		again := &url.URL{Path: "/v1/" + r.Key.Path, RawQuery: r.Key.Query}
		parsed, err := url.ParseRequestURI(again.RequestURI())
		if err != nil {
			t.Fatalf("the key's own URL %s: %v", again, err)
		}
		if second := Classify(r.Key.Method(), parsed, r.Key.Namespace); !second.Cacheable || second.Key != r.Key {
			t.Fatalf("%+v became %+v", r.Key, second)
		}
		if strings.Contains("/"+r.Key.Path+"/", "/../") || strings.Contains(r.Key.Path, "//") {
			t.Fatalf("path %q", r.Key.Path)
		}
	})
}
