package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneReadAtATimeAndWaitersShareIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.origin.put("secret/data/a", "one")
		ctx, leave := context.WithCancel(context.Background())
		first := make(chan error, 1)
		release := w.stopped(key("secret/data/a"), func() {
			_, err := w.Load(ctx, Want{Key: key("secret/data/a"), ID: w.Own()})
			first <- err
		})
		const waiters = 20
		var wg sync.WaitGroup
		for range waiters {
			wg.Go(func() {
				a, err := w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.Own()})
				if err != nil || !strings.Contains(string(a.Body), "one") {
					t.Errorf("waiter: %s %v", a.Body, err)
				}
			})
		}
		synctest.Wait() // each has joined
		leave()         // who began it leaves, and fails nobody
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
		release()
		wg.Wait()
		if shared := w.Counters().Shared; w.origin.reads != 1 || shared != waiters {
			t.Errorf("%d reads, which %d shared", w.origin.reads, shared)
		}
	})
}

func TestOneReadAtATimeHoweverTheCallersArrive(t *testing.T) {
	t.Parallel()
	const callers = 8
	for range 500 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.origin.put("secret/data/a", "one")
			hold, start := make(chan struct{}), make(chan struct{})
			w.origin.hold["secret/data/a"] = hold
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					<-start
					w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.Own()})
				})
			}
			close(start)
			synctest.Wait() // each has joined or begun a read
			close(hold)
			wg.Wait()
			if n := w.Counters(); n.Fills != 1 || n.Shared+n.Fills != callers {
				t.Fatalf("%d reads for %d callers who came at once", n.Fills, callers)
			}
		})
	}
}

func TestAVerifiedEntryIsNotReadAgainUnless(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "one")
	want := Want{Key: key("secret/data/a"), ID: w.Own()}
	load := func(unless time.Time) error {
		want.Unless = unless
		_, err := w.Load(t.Context(), want)
		return err
	}
	now := w.Cache.o.Now()
	if err := load(now); err != nil {
		t.Fatalf("what is not there cannot be verified: %v", err)
	}
	if err := load(now); !errors.Is(err, ErrVerified) || w.origin.reads != 1 {
		t.Errorf("%v after %d reads, want ErrVerified after 1", err, w.origin.reads)
	}
	if err := load(time.Time{}); err != nil || w.origin.reads != 2 {
		t.Errorf("%v after %d reads, want 2", err, w.origin.reads)
	}
	if err := load(now.Add(time.Hour)); err != nil || w.origin.reads != 3 {
		t.Errorf("%v after %d reads: it is not verified that long", err, w.origin.reads)
	}
	w.Begin(now.Add(time.Millisecond))
	if err := load(now.Add(time.Millisecond)); err != nil || w.origin.reads != 4 {
		t.Errorf("%v after %d reads: it is not verified in the new epoch", err, w.origin.reads)
	}
}

func TestADynamicSecretIsNeverShared(t *testing.T) {
	t.Parallel()
	for optIn, password := range map[[2]bool]string{{false, false}: "", {true, false}: "1", {false, true}: "2"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
			w.origin.database("app", 60)
			k := key("database/creds/app")
			var wg sync.WaitGroup
			release := w.stopped(k, func() { w.loadAs(Want{Key: k, ID: w.Own(), OptIn: optIn[0]}) })
			wg.Go(func() { w.loadAs(Want{Key: k, ID: w.Own(), OptIn: optIn[1]}) })
			synctest.Wait()
			if n := w.Counters().Shared; n != 1 {
				t.Errorf("opted in %v: %d callers wait for the other's read", optIn, n)
			}
			release()
			wg.Wait()
			if w.origin.reads != 2 {
				t.Errorf("opted in %v: %d reads for two callers", optIn, w.origin.reads)
			}
			w.expect(k, "", Absent, "")
			if optIn[0] || optIn[1] {
				w.optedIn(k, "", Fresh, password)
			}
		})
	}
}

func TestOptedInAnswersArePersonalAndEndWithTheirLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
	w.origin.database("app", 60)
	k := key("database/creds/app")
	w.loadAs(Want{Key: k, ID: w.Own(), OptIn: true})
	w.Begin(w.clock.add(30 * time.Second))
	w.optedIn(k, "", Fresh, "1")
	w.optedIn(k, "alice", Absent, "")
	w.clock.add(30 * time.Second)
	w.optedIn(k, "", Absent, "")
}

func TestAReadUnderTheOldTokenLeavesNothingThatOptedIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		id   func(*world) *Identity // whose token is replaced
		want State
	}{
		{"its own", func(w *world) *Identity { return w.Own() }, Absent},
		{"another's", func(w *world) *Identity { return w.Caller("alice") }, Fresh},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
			k := key("database/creds/app")
			w.origin.database("app", 60)
			release := w.stopped(k, func() { w.loadAs(Want{Key: k, ID: w.Own(), OptIn: true}) })
			c.id(w).EndLeases()
			release()
			w.optedIn(k, "", c.want, "")
		})
	}
}

func TestACallerWithNothingButPersonalAnswersHits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TTL = time.Hour })
	w.origin.says("team/sys/config", `{"lease_id":"","data":{"a":"one"},"wrap_info":null,"auth":null,"mount_type":"system"}`)
	k := Key{Namespace: "team", Path: "sys/config"}
	alice := w.Caller("alice")
	if _, lifetime := w.Due(alice, w.clock.now()); lifetime {
		t.Error("the end of a token that read nothing is asked for")
	}
	w.loadAs(Want{Key: k, ID: alice, OptIn: true})
	w.optedIn(k, "alice", Fresh, "one")
	w.clock.add(6 * time.Minute)
	w.optedIn(k, "alice", Unconfirmed, "one")
	rights, lifetime := w.Due(alice, w.clock.now())
	if len(rights["team"]) != 1 || !lifetime {
		t.Fatalf("due: %v, lifetime %v; want both", rights, lifetime)
	}
	w.Confirm(alice, w.clock.now(), rights["team"], nil)
	w.Learned(alice, Token{Expires: w.clock.now().Add(time.Minute)})
	w.optedIn(k, "alice", Fresh, "one")
	w.clock.add(time.Minute)
	w.optedIn(k, "alice", Absent, "")
}

func TestWrappedAndLoginAnswersAreNeverStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.says("kv/a", `{"lease_id":"","data":null,"wrap_info":{"token":"t"},"auth":null,"mount_type":"kv"}`)
	w.origin.says("kv/b", `{"lease_id":"","data":{},"wrap_info":null,"auth":{"client_token":"t"},"mount_type":"kv"}`)
	w.load(key("kv/a"), "")
	w.load(key("kv/b"), "")
	if !w.Empty() {
		t.Error("stored")
	}
}

func TestAnOlderAnswerReplacesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", "old")
	release := w.held(key("secret/data/a"), "")
	w.clock.add(time.Millisecond)
	w.origin.put("secret/data/a", "new")
	w.load(key("secret/data/a"), "bob")
	release()
	w.Learned(w.Caller("bob"), Token{})
	w.expect(key("secret/data/a"), "bob", Fresh, "new")
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
	w.origin.put("secret/data/a", "one")
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

func TestG7RefusedQuestionsForMountsAreBounded(t *testing.T) {
	t.Parallel()
	w := baoWorld(t)
	for i := range maxRefusals + 10 {
		k := key(fmt.Sprint("kv/", i))
		w.origin.put(k.Path, "x")
		w.origin.answer(preflightPrefix+k.Path, nothing())
		w.load(k, "")
	}
	if n := len(w.Mounts.refusals); n == 0 || n > maxRefusals {
		t.Errorf("%d refusals are remembered, want at most %d", n, maxRefusals)
	}
	if n := len(w.Mounts.versions); n != 0 {
		t.Errorf("%d mounts are known, want none", n)
	}
}

// What no token can change counts for all: another mount answers.
func TestAnotherMountIsLearnedOnce(t *testing.T) {
	t.Parallel()
	w := baoWorld(t)
	a := key("team/secret/a")
	w.mounted(a.Path, "secret", "kv", "2")
	w.origin.put(a.Path, "x")
	w.load(a, "alice")
	w.load(a, "bob")
	if m, known := w.Knows("", a.Path); !known || m.Version != 0 || w.origin.reads != 3 {
		t.Errorf("%+v, known %v after %d requests; want no KV mount after 3", m, known, w.origin.reads)
	}
}

func sumTokens(w *world) int64 {
	w.Access.mu.Lock()
	defer w.Access.mu.Unlock()
	var n int64
	for token := range w.Access.callers {
		n += int64(len(token))
	}
	return n
}

// slowTier is a shared tier that takes its time to keep something.
type slowTier struct {
	*tier
	keeping, kept chan struct{}
}

func (s *slowTier) Keep(context.Context, []Record, map[Capability]Confirmation) {
	s.keeping <- struct{}{}
	<-s.kept
}

// TestNobodySharesAReadThatIsBeingPublished: once its answer is here, a read can
// be older than a write or than an epoch that began since.
func TestNobodySharesAReadThatIsBeingPublished(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(w *world){
		"a write": func(w *world) {
			change := NewWrite("", "secret/data/a")
			w.BeginWrite(change)
			w.origin.put("secret/data/a", "two")
			w.EndWrite(change, false)
		},
		"an epoch": func(w *world) {
			w.origin.put("secret/data/a", "two")
			w.Begin(w.clock.add(time.Second / 2))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				shared := &slowTier{tier: newTier(), keeping: make(chan struct{}, 2), kept: make(chan struct{})}
				w := newWorld(t, func(o *Options) { o.Shared = shared })
				k := key("secret/data/a")
				w.origin.put(k.Path, "one")
				begin := func() chan Answer {
					done := make(chan Answer, 1)
					go func() {
						a, _ := w.Load(t.Context(), Want{Key: k, ID: w.Own()})
						done <- a
					}()
					return done
				}
				first := begin()
				<-shared.keeping
				between(w)
				second := begin()
				synctest.Wait() // it has read for itself, or waits for the first
				close(shared.kept)
				<-first
				if a := <-second; a.Shared || !strings.Contains(string(a.Body), "two") {
					t.Errorf("shared %v: %s", a.Shared, a.Body)
				}
			})
		})
	}
}

// TestAResetWhileACapabilityIsGrantedTakesIt: an identity is reset while a read of
// before grants it something, so that may be at any step of that.
func TestAResetWhileACapabilityIsGrantedTakesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, p := w.Own(), Capability{Path: "secret/data/a"}
	for range 50_000 {
		resets := id.resets.Load()
		var resetting sync.WaitGroup
		resetting.Go(id.Reset)
		granted := w.grant(id, resets, p, w.clock.now(), false)
		resetting.Wait()
		if _, held := w.confirmedAt(id, p); held {
			t.Fatalf("granted (%v) for what it was after %d resets, and kept after %d", granted, resets, id.resets.Load())
		}
	}
}

// TestAReadThatAFreezeInterruptedIsSentAgain: its connection died in the freeze,
// and the origin is well.
func TestAReadThatAFreezeInterruptedIsSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := key("secret/data/a")
		w.origin.put(k.Path, "one")
		hold := make(chan struct{})
		w.origin.mu.Lock()
		w.origin.hold[k.Path], w.origin.err = hold, errors.New("connection reset by peer")
		w.origin.mu.Unlock()
		answers := make(chan error, 2)
		for range cap(answers) {
			go func() {
				a, err := w.Load(t.Context(), Want{Key: k, ID: w.Own()})
				if err == nil && !strings.Contains(string(a.Body), `"one"`) {
					err = fmt.Errorf("answered %d", a.Status)
				}
				answers <- err
			}()
		}
		synctest.Wait() // one reads, and the other waits for that
		if n := w.Counters().Shared; n != 1 {
			t.Errorf("%d share the read", n)
		}
		w.clock.add(time.Hour)
		w.origin.mu.Lock()
		w.origin.err = nil
		delete(w.origin.hold, k.Path)
		w.origin.mu.Unlock()
		close(hold)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
}
