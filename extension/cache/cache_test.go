package cache

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

func TestG1HitNeedsAVerificationOfThisEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
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
	w.origin.put("secret/data/a", "one")
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
		w.origin.put(fmt.Sprintf("secret/data/%d", i), "x")
	}
	w.load(key("secret/data/0"), "")
	w.load(key("secret/data/1"), "")
	at := w.origin.Index(t.Context(), 0)
	w.origin.put("secret/data/2", "y")
	w.load(key("secret/data/2"), "")

	epoch := w.Begin(w.clock.add(time.Minute))
	w.Revalidate(at, Revalidation{w.clock.now(), epoch})
	w.expect(key("secret/data/0"), "", Fresh, "")
	w.expect(key("secret/data/1"), "", Fresh, "")
	w.expect(key("secret/data/2"), "", Unverified, "")
	if got := w.Unverified(w.clock.now()); len(got) != 1 || got[0].Path != "secret/data/2" {
		t.Fatalf("unproven: %v", got)
	}
	// Another leader's cursor with the same index proves nothing.
	w.Begin(w.clock.add(time.Minute))
	w.Revalidate(Index{Applied: at.Applied, ActiveTime: "other"}, Revalidation{w.clock.now(), epoch + 1})
	w.expect(key("secret/data/0"), "", Unverified, "")
}

// What a cursor proved stays proven as of then when the cursor moves on.
func TestG4WhatACursorProvedCountsAfterItMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.RefreshInterval = 3 * time.Hour })
	w.origin.put("secret/data/0", "x")
	w.load(key("secret/data/0"), "")
	first := w.origin.Index(t.Context(), 0)
	w.Revalidate(first, Revalidation{w.clock.add(50 * time.Minute), w.Begin(w.clock.now())})
	proven := w.clock.now()

	w.origin.put("secret/data/1", "y")
	w.Revalidate(w.origin.Index(t.Context(), 0), Revalidation{w.clock.add(time.Minute), w.Begin(w.clock.now())})
	w.expect(key("secret/data/0"), "", Unverified, "x")
	w.clock.add(58 * time.Minute) // StaleIfError is an hour
	if hit := w.look(key("secret/data/0"), "", w.clock.now()); !hit.Stale || !hit.Verified.At.Equal(proven) {
		t.Errorf("verified at %v, may be stale: %v", hit.Verified.At, hit.Stale)
	}
	w.clock.add(2 * time.Minute)
	if hit := w.look(key("secret/data/0"), "", w.clock.now()); hit.Stale {
		t.Error("may be stale for longer than an hour")
	}
}

func TestG1AClockSetBackVerifiesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "")
	w.clock.add(-time.Minute)
	if s := w.state(key("secret/data/a"), ""); s == Fresh {
		t.Fatal("fresh although the clock was set back")
	}
}

func TestElapsedTakesTheLongerOfBothClocks(t *testing.T) {
	t.Parallel()
	base := time.Now() // with a monotonic reading
	if got := clock.Elapsed(base, base.Add(time.Second)); got != time.Second {
		t.Errorf("both: %v", got)
	}
	frozen := time.Unix(base.Add(time.Hour).Unix(), 0) // wall only, later
	if got := clock.Elapsed(base, frozen); got < 59*time.Minute {
		t.Errorf("a freeze counts: %v", got)
	}
	if clock.Within(base, base.Round(0).Add(-time.Hour), time.Minute) {
		t.Error("a step back is within")
	}
}

func TestG2ASecondTokensFirstReadGoesToTheOrigin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "alice")
	w.Learned(w.Caller("alice"), Token{})
	w.expect(key("secret/data/a"), "alice", Fresh, "one")
	w.expect(key("secret/data/a"), "bob", Absent, "")
	w.expect(key("secret/data/a"), "", Absent, "")

	// Bob's read replaces the answer for both.
	w.origin.put("secret/data/a", "two")
	w.clock.add(time.Millisecond)
	w.load(key("secret/data/a"), "bob")
	w.expect(key("secret/data/a"), "alice", Fresh, "two")
}

func TestG2GrantsWantConfirmation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "alice")
	id := w.Caller("alice")
	w.expect(key("secret/data/a"), "alice", Fresh, "")
	w.Learned(id, Token{Expires: w.clock.now().Add(time.Hour)})

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
		w.origin.put("secret/data/a", "one")
		w.load(key("secret/data/a"), "")
		now := w.clock.add(6 * time.Minute)
		w.expect(key("secret/data/a"), "", Unconfirmed, "")
		w.ConfirmFailed(w.Own(), now.Add(time.Second), 0)
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
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "alice")
	w.Learned(w.Caller("alice"), Token{})
	w.Forget("alice")
	w.expect(key("secret/data/a"), "alice", Absent, "")
	if !w.Empty() {
		t.Error("nobody may see the entry, and it is still there")
	}
}

func TestG2ARevocationDuringAReadLeavesNoGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	release := w.held(key("secret/data/a"), "alice")
	w.Forget("alice")
	release()
	w.expect(key("secret/data/a"), "alice", Absent, "")
	if !w.Empty() {
		t.Error("stored for a revoked token")
	}
}

func TestG3AListAndAReadOfOnePathAreTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("kv/a", "value")
	w.origin.put("kv/a/b", "x")
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
	for _, v := range []string{"one", "two", "three"} {
		w.origin.put("secret/data/a", v)
	}
	w.load(key("secret/data/a"), "")
	w.expect(Key{Path: "secret/data/a", Query: "version=3"}, "", Absent, "") // a policy may deny the parameter
	w.load(Key{Path: "secret/data/a", Query: "version=3"}, "")
	w.expect(Key{Path: "secret/data/a", Query: "version=3"}, "", Fresh, "three")
	w.expect(Key{Path: "secret/data/a", Query: "version=2"}, "", Absent, "")
}

func TestDeletionTimeEndsAnEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Recheck = time.Hour })
	w.origin.write("secret/metadata/a", `{"delete_version_after":"1m"}`)
	w.origin.put("secret/data/a", "one")
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
		w.origin.put("secret/data/a", fmt.Sprint("v", v))
		w.load(Key{Path: "secret/data/a", Query: fmt.Sprintf("version=%d", v)}, "")
	}
	w.origin.write("secret/metadata/a", `{"max_versions":2}`)
	w.origin.put("secret/data/a", "v4")
	w.load(key("secret/metadata/a"), "")
	w.expect(Key{Path: "secret/data/a", Query: "version=1"}, "", Absent, "")
	w.expect(Key{Path: "secret/data/a", Query: "version=2"}, "", Absent, "")
	w.expect(Key{Path: "secret/data/a", Query: "version=3"}, "", Fresh, "v3")
}

// A secret below sys/mounts is named like what changes the mount table when it is written.
// That its versions were pruned says nothing of any other secret's.
func TestPrunedVersionsOfOneSecretLeaveThoseOfOthers(t *testing.T) {
	t.Parallel()
	for _, pruned := range []string{"a", "sys/mounts/a"} {
		w := newWorld(t)
		other := Key{Path: "secret/data/b", Query: "version=1"}
		w.origin.write("secret/metadata/"+pruned, `{"max_versions":1}`)
		for range 3 {
			w.origin.put("secret/data/"+pruned, "one")
		}
		w.origin.put("secret/data/b", "one")
		w.load(other, "")
		w.load(Key{Path: "secret/metadata/" + pruned}, "")
		w.expect(other, "", Fresh, "one")
	}
}

func TestG4TroubleEvictsNothingAndARefusalAtOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 472, 473, 500, 502, 503, 504} {
		w := newWorld(t)
		w.origin.put("secret/data/a", "one")
		w.load(key("secret/data/a"), "")
		w.inBetween(trouble(status))
		w.Begin(w.clock.add(time.Minute))
		w.clock.add(time.Millisecond)
		w.load(key("secret/data/a"), "")
		h := w.look(key("secret/data/a"), "", w.clock.now())
		if h.State != Failing || !h.Stale {
			t.Errorf("%d: state %d, stale %v", status, h.State, h.Stale)
		}
	}
	for _, refuse := range []func(w *world){
		func(w *world) { w.deny("", "secret/data/a") },       // 403
		func(w *world) { w.origin.put("secret/data/a", "") }, // 404
	} {
		w := newWorld(t)
		w.origin.put("secret/data/a", "one")
		w.load(key("secret/data/a"), "")
		refuse(w)
		w.clock.add(time.Millisecond)
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Absent, "")
	}
}

// KV v2 answers 400 while it upgrades a mount, which it looks for after every
// change of the leader; 412 is a node that lags, 307 one that forwards nothing.
func TestG4AnAnswerThatSaysNothingOfTheSecretNeitherEvictsNorVerifies(t *testing.T) {
	t.Parallel()
	for _, status := range []int{307, 400, 405, 412} {
		w := newWorld(t)
		w.origin.put("secret/data/a", "one")
		w.load(key("secret/data/a"), "")
		w.inBetween(trouble(status))
		w.Begin(w.clock.add(time.Minute))
		w.load(key("secret/data/a"), "")
		want := Unverified
		if status == 307 {
			want = Failing // nobody answered: such a node sends its client elsewhere
		}
		w.expect(key("secret/data/a"), "", want, "one")

		w = newWorld(t, func(o *Options) { o.Pessimistic = true })
		w.origin.put("secret/data/a", "one")
		w.load(key("secret/data/a"), "")
		w.inBetween(trouble(status))
		w.Begin(w.clock.add(time.Minute))
		w.load(key("secret/data/a"), "")
		w.expect(key("secret/data/a"), "", Absent, "")
	}
}

func TestG4StaleIsBoundedAndPessimisticRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "")
	epoch := w.Begin(w.clock.add(time.Minute))
	w.Fail(Revalidation{w.clock.now(), epoch}, errors.New("down"))
	w.expect(key("secret/data/a"), "", Failing, "one")
	w.ConfirmFailed(w.Own(), w.clock.now().Add(2*time.Hour), 0)
	w.clock.add(time.Hour)
	if h := w.look(key("secret/data/a"), "", w.clock.now()); h.Stale {
		t.Error("stale longer than THAW_STALE_IF_ERROR")
	}

	w = newWorld(t, func(o *Options) { o.Pessimistic = true })
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "")
	w.Fail(Revalidation{w.clock.now(), 0}, errors.New("down"))
	w.expect(key("secret/data/a"), "", Absent, "")
}

func TestA403TakesOnlyThatIdentitysGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	w.load(key("secret/data/a"), "")
	w.load(key("secret/data/a"), "bob")
	w.deny("bob", "secret/data/a")
	w.clock.add(time.Millisecond)
	w.load(key("secret/data/a"), "bob")
	w.expect(key("secret/data/a"), "bob", Absent, "")
	w.expect(key("secret/data/a"), "", Fresh, "one")
}

func TestG7MemoryIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	w := newWorld(t, func(o *Options) { o.Bytes = limit })
	for i := range 500 {
		p := fmt.Sprintf("secret/data/%d", i)
		w.origin.put(p, strings.Repeat("x", 500))
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

// TestWhatIsReadAgainBelongsToTheNewLeases: an answer that stayed the same is not
// read again and again once the leases of before have ended.
func TestWhatIsReadAgainBelongsToTheNewLeases(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TTL = time.Minute })
	k := key("identity/oidc/config")
	w.origin.says(k.Path, `{"data":{"issuer":"same"}}`)
	read := func() { w.loadAs(Want{Key: k, ID: w.Own(), OptIn: true}) }
	read()
	w.optedIn(k, "", Fresh, "same")
	w.Own().EndLeases()
	w.optedIn(k, "", Absent, "")
	read()
	w.optedIn(k, "", Fresh, "same")
}
