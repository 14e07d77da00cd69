package cache

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// known says that a token's end was asked for: it has none.
func (w *world) known(tokens ...string) {
	for _, token := range tokens {
		w.Learned(w.Caller(token), Token{})
	}
}

func TestG2A403CountsAlthoughOthersVerifyTheEntryMeanwhile(t *testing.T) {
	t.Parallel()
	w, a := heldBy(t, func(*Options) {}, "alice", "bob")
	w.Begin(w.clock.add(time.Minute))
	w.deny("alice", a.Path)
	release := w.held(a, "alice") // her read is refused, but slowly
	w.clock.add(time.Millisecond)
	w.load(a, "bob") // his is sent later and answered before
	release()
	w.expect(a, "bob", Fresh, "one")
	w.expect(a, "alice", Absent, "")
}

func TestG2A403IsOutdatedOnlyByALaterSuccessOfTheSameToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := key("secret/data/a")
	w.origin.put(a.Path, "one")
	w.deny("alice", a.Path)
	release := w.held(a, "alice")
	w.allow("alice")
	w.clock.add(time.Millisecond)
	w.loadAs(Want{Key: a, ID: w.Caller("alice"), Alone: true})
	release()
	w.known("alice")
	w.expect(a, "alice", Fresh, "one")
}

func TestG2ARevokedTokenLosesAllItsGrantsWithTheFirst403(t *testing.T) {
	t.Parallel()
	for body, lost := range map[string]bool{
		`{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`: true,
		`{"errors":["bad token"]}`:                                    true,
		`{"errors":["permission denied"]}`:                            true, // OpenBao
		`{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`: false,
		`no JSON`: false,
	} {
		if got := wire.TokenRefused(403, []byte(body)); got != lost {
			t.Errorf("%s: %v", body, got)
		}
	}
	w := newWorld(t)
	a, b := key("secret/data/a"), key("secret/data/b")
	w.origin.put(a.Path, "one")
	w.origin.put(b.Path, "two")
	w.load(a, "alice")
	w.load(b, "alice")
	w.known("alice")
	w.clock.add(time.Millisecond)
	w.origin.RevokeToken("alice")
	if got := w.load(a, "alice"); got.Status != http.StatusForbidden {
		t.Fatalf("status %d", got.Status)
	}
	w.expect(b, "alice", Absent, "")
}

func TestG2AReadOnItsWayBringsNoGrantBackAfterA403(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, first := key("secret/data/a"), Key{Path: "secret/data/a", Query: "version=1"}
	w.origin.put(a.Path, "one")
	w.origin.put(a.Path, "two")
	release := w.held(first, "alice")
	w.origin.RevokeToken("alice")
	w.clock.add(time.Millisecond)
	w.load(a, "alice")
	release()
	w.known("alice")
	w.expect(first, "alice", Absent, "")
}

// Policies may allow and deny parameters of a read, such as the version.
func TestG2AGrantIsForTheQueryThatWasRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, first := key("secret/data/a"), Key{Path: "secret/data/a", Query: "version=1"}
	w.origin.put(a.Path, "one")
	w.origin.put(a.Path, "two")
	w.load(a, "")
	w.load(first, "")
	w.load(a, "alice")
	w.known("alice")
	w.expect(a, "alice", Fresh, "two")
	w.expect(first, "alice", Absent, "")
}

// The latest answers for its version, but a policy may deny to name one.
func TestG3AVersionIsNotServedOnTheGrantForTheLatest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, second := key("secret/data/a"), Key{Path: "secret/data/a", Query: "version=2"}
	w.origin.put(a.Path, "one")
	w.origin.put(a.Path, "two")
	w.load(a, "")
	w.load(a, "alice")
	w.load(a, "bob")
	w.known("alice", "bob")
	w.expect(second, "", Absent, "")
	w.expect(second, "alice", Absent, "")

	w.load(second, "alice") // the origin lets her
	w.expect(second, "alice", Fresh, "two")
	w.expect(second, "bob", Absent, "")
	w.Cache.mu.Lock()
	w.removeLocked(w.store.slots[second]) // for room
	w.Cache.mu.Unlock()
	w.expect(second, "alice", Fresh, "two")
	w.expect(second, "bob", Absent, "")

	// Both rights have to be confirmed.
	id := w.Caller("alice")
	asked := w.clock.add(6 * time.Minute)
	w.Confirm(id, asked, []Capability{a.Capability()}, nil)
	w.Begin(asked)
	w.load(a, "bob")
	w.expect(second, "alice", Unconfirmed, "two")
	w.Confirm(id, asked, []Capability{second.Capability()}, nil)
	w.expect(second, "alice", Fresh, "two")
	w.Confirm(id, asked.Add(time.Millisecond), nil, []Capability{second.Capability()})
	w.expect(second, "alice", Absent, "")
}

// https://openbao.org/docs/rfcs/filtering-list
func TestG3ListsAreNotSharedAmongCallers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	list := Key{Path: "secret/metadata", Op: List}
	w.origin.put("secret/data/all", "x")
	w.load(list, "")
	w.load(list, "alice")
	w.origin.put("secret/data/all", "")
	w.origin.put("secret/data/few", "x")
	w.load(list, "bob")
	w.known("alice", "bob")
	w.expect(list, "alice", Fresh, "all")
	w.expect(list, "bob", Fresh, "few")
	w.expect(list, "", Fresh, "all")

	// Each is verified for whom it is, and is gone when its own read says so.
	w.Begin(w.clock.add(time.Minute))
	checks := w.Unverified(w.clock.now())
	if len(checks) != 3 {
		t.Fatalf("%d lists to verify, want 3", len(checks))
	}
	for _, k := range checks {
		check := Check{k, w.Reader(k, w.clock.now())}
		if check.Key.Personal != 0 && check.Key.Personal != check.ID.ID {
			t.Errorf("the list of %d is to be read as %d", check.Key.Personal, check.ID.ID)
		}
		w.loadAs(Want{Key: check.Key, ID: check.ID, Poll: true})
		if !w.Verified(check.Key, w.clock.now()) {
			t.Errorf("the list of %d was read, and is not verified", check.Key.Personal)
		}
	}
	w.expect(list, "alice", Fresh, "few")
	w.origin.put("secret/data/few", "")
	w.clock.add(time.Millisecond)
	w.load(list, "alice")
	w.expect(list, "alice", Absent, "")
}

func TestG2DoubtOutweighsWhatWasAskedBefore(t *testing.T) {
	t.Parallel()
	w, a := heldBy(t, func(*Options) {}, "alice")
	id := w.Caller("alice")
	asked := w.clock.now()
	release := w.held(a, "alice")
	w.clock.add(time.Millisecond)
	w.Doubt()
	w.Confirm(id, asked, []Capability{a.Capability()}, nil)
	w.expect(a, "alice", Aged, "")
	release() // it was sent before
	w.expect(a, "alice", Aged, "")
	w.Confirm(id, w.clock.now(), []Capability{a.Capability()}, nil) // which says nothing of constraints
	w.expect(a, "alice", Aged, "")
	w.load(a, "alice")
	w.expect(a, "alice", Fresh, "one")
}

// TestG2DoubtIsNotAnsweredByAReadThatWasSentBefore: whoever asks after a policy was
// written shares no read that was sent before, though nothing is cached yet.
func TestG2DoubtIsNotAnsweredByAReadThatWasSentBefore(t *testing.T) {
	t.Parallel()
	for _, cached := range []bool{false, true} {
		for name, doubt := range map[string]func(w *world){"a policy": func(w *world) { w.Doubt() }, "none": func(*world) {}} {
			synctest.Test(t, func(t *testing.T) {
				var holders []string
				if cached {
					holders = []string{"alice"}
				}
				w, a := heldBy(t, func(*Options) {}, holders...)
				release := w.held(a, "alice")
				doubt(w)
				w.deny("alice", a.Path)
				status := make(chan int, 1)
				go func() { status <- w.load(a, "alice").Status }()
				synctest.Wait() // she has her answer, or shares the read that is stopped
				shares := len(status) == 0
				release()
				if got := <-status; shares != (name == "none") || shares != (got == http.StatusOK) {
					t.Errorf("%s, cached %v: %d, shared %v", name, cached, got, shares)
				}
				if !shares {
					w.expect(a, "alice", Absent, "")
				}
			})
		}
	}
}

func TestG2OptedInAnswersWantConfirmationToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
	k := key("pki/cert/ca")
	w.Learn(Mount{Path: "pki"})
	w.origin.says(k.Path, `{"lease_id":"","data":{"v":"one"},"wrap_info":null,"auth":null,"mount_type":"pki"}`)
	read := func() { w.loadAs(Want{Key: k, ID: w.Caller("alice"), OptIn: true}) }
	read()
	w.known("alice")
	w.optedIn(k, "alice", Fresh, "one")
	w.clock.add(6 * time.Minute)
	w.optedIn(k, "alice", Unconfirmed, "one")
	rights, _ := w.Due(w.Caller("alice"), w.clock.now())
	w.Confirm(w.Caller("alice"), w.clock.now(), rights[""], nil)
	w.optedIn(k, "alice", Fresh, "one")
	w.Confirm(w.Caller("alice"), w.clock.add(time.Second), nil, rights[""])
	w.optedIn(k, "alice", Absent, "")

	read()
	w.clock.add(time.Millisecond)
	w.origin.answer(k.Path, nil)
	read()
	w.optedIn(k, "alice", Absent, "")
}

func TestG4AFailureThatIsNoJSONIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := key("secret/data/a")
	w.origin.put(a.Path, "one")
	w.load(a, "")
	w.inBetween(&foreign{http.StatusBadGateway, "text/html", `{"errors":["trouble"]}`})
	w.Begin(w.clock.add(time.Minute))
	w.clock.add(time.Millisecond)
	answer := w.load(a, "")
	if answer.Stream == nil {
		t.Fatal("the page was not passed on")
	}
	answer.Stream.Close()
	w.expect(a, "", Failing, "one")
}
