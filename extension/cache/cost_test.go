package cache

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// crowd is a world in which callers hold capabilities for the same secrets, one
// list of their own each, and the extension holds all.
func crowd(t *testing.T, callers, secrets int) *world {
	t.Helper()
	w := newWorld(t, func(o *Options) { o.Bytes = 1 << 30 })
	for i := range secrets {
		w.origin.put(fmt.Sprint("secret/data/", i), "one")
	}
	for c := range callers {
		token := fmt.Sprint("caller-", c)
		for i := range secrets {
			w.load(key(fmt.Sprint("secret/data/", i)), token)
		}
		w.load(Key{Path: "secret/metadata", Op: List}, token)
		w.known(token)
	}
	return w
}

// losses counts the holds that lose visits.
func (w *world) losses(lose func()) uint64 {
	before := w.visited
	lose()
	return w.visited - before
}

// What one caller loses costs what it held, however many others there are and
// whatever they hold.
func TestALossCostsWhatWasLost(t *testing.T) {
	t.Parallel()
	const secrets = 12
	for _, others := range []int{1, 10, 100} {
		for name, c := range map[string]struct {
			lose func(w *world)
			want uint64
		}{
			"a token that is forgotten": {func(w *world) { w.Forget("caller-0") }, secrets + 1},
			"other policies": {func(w *world) {
				w.Caller("caller-0").Reset()
				w.state(key("secret/data/0"), "caller-0")
			}, secrets + 1},
			"a token that ended": {func(w *world) {
				w.Learned(w.Caller("caller-0"), Token{Expires: w.clock.now().Add(time.Second)})
				w.clock.add(time.Minute)
				w.state(key("secret/data/0"), "caller-0")
			}, secrets + 1},
			"a capability that is confirmed no more": {func(w *world) {
				w.Confirm(w.Caller("caller-0"), w.clock.add(time.Millisecond), nil, []Capability{key("secret/data/3").Capability()})
			}, 1},
			"a 403 that is about the path": {func(w *world) {
				w.deny("caller-0", "secret/data/3")
				w.clock.add(time.Millisecond)
				w.load(key("secret/data/3"), "caller-0")
			}, 1},
			"policies that are written": {func(w *world) { w.Doubt() }, 0},
		} {
			w := crowd(t, 1+others, secrets)
			entries := w.Counters().Entries
			if got := w.losses(func() { c.lose(w) }); got != c.want {
				t.Errorf("%s, beside %d others: %d holds visited, want %d", name, others, got, c.want)
			}
			personal := 0 // what only that caller saw
			if c.want > 1 {
				personal = 1
			}
			if got := w.Counters().Entries; got != entries-personal {
				t.Errorf("%s, beside %d others: %d entries of %d are left", name, others, got, entries)
			}
			w.expect(key("secret/data/0"), "caller-1", w.state(key("secret/data/0"), "caller-1"), "one")
		}
	}
}

// The index knows each capability once, and nothing of what nobody holds.
func TestTheIndexOfHoldersIsWhatIsHeld(t *testing.T) {
	t.Parallel()
	w := crowd(t, 20, 5)
	w.load(Key{Path: "secret/data/0", Query: "version=1"}, "caller-3")
	if n := len(w.index.index); n != 5+1+1 {
		t.Errorf("%d capabilities are known, want 7", n)
	}
	w.Forget("caller-3")
	if n := len(w.index.index); n != 5+1 {
		t.Errorf("%d capabilities are known after one that only one held, want 6", n)
	}
	for i := range 20 {
		w.Forget(fmt.Sprint("caller-", i))
	}
	if n, size := len(w.index.index), w.index.size.Load(); n != 0 || size != 0 {
		t.Errorf("%d capabilities, %d bytes when nobody holds any", n, size)
	}
	if n := w.Counters(); n.Entries != 0 || n.Bytes != 0 {
		t.Errorf("%d entries, %d bytes that nobody may see", n.Entries, n.Bytes)
	}
}

// An index check is one note for all entries that were read at that index.
func TestAnIndexCheckIsOneNoteForAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 300
	for i := range n {
		w.origin.put(fmt.Sprint("secret/data/", i), "one")
	}
	for i := range n {
		w.load(key(fmt.Sprint("secret/data/", i)), "")
	}
	if len(w.groups) != 1 {
		t.Fatalf("%d groups of entries that were read at one index", len(w.groups))
	}
	now := w.clock.add(time.Minute)
	w.Revalidate(w.origin.Index(t.Context(), 0), Revalidation{now, w.Begin(now)})
	if left := w.Unverified(now); len(left) != 0 {
		t.Errorf("%d are not verified", len(left))
	}
	w.Clear()
	w.Revalidate(Index{Applied: 99, ActiveTime: "t"}, Revalidation{w.clock.add(1), w.Begin(w.clock.now())})
	if len(w.groups) != 1 {
		t.Errorf("%d groups are kept of no entries", len(w.groups))
	}
}

// What is due is looked for once, not at each poll.
func TestNothingThatIsDueCostsNothing(t *testing.T) {
	t.Parallel()
	w := crowd(t, 1, 30)
	id := w.Caller("caller-0")
	walked := func() time.Time {
		w.Due(id, w.clock.now())
		return id.confirmed.since
	}
	first := walked()
	for range 9 {
		w.clock.add(30 * time.Second)
		if walked() != first {
			t.Fatal("looked for again although nothing can be due")
		}
	}
	w.clock.add(time.Minute)
	if due, _ := w.Due(id, w.clock.now()); len(due[""]) != 31 {
		t.Errorf("%d are due after the interval, want 31", len(due[""]))
	}
	w.Confirm(id, w.clock.now(), func() []Capability { d, _ := w.Due(id, w.clock.now()); return d[""] }(), nil)
	if due, _ := w.Due(id, w.clock.now()); len(due) != 0 {
		t.Errorf("due just after it was confirmed: %v", due)
	}
}

// Who reads again for all is found among a few, however many may: the extension, or who
// of the last was there last.
func TestAReaderIsFoundAmongAFew(t *testing.T) {
	t.Parallel()
	for _, callers := range []int{1, 5, 200} {
		w := crowd(t, callers, 3)
		k := key("secret/data/1")
		used := w.Caller(fmt.Sprint("caller-", callers-1))
		var got *Identity
		if n := w.losses(func() { got = w.Reader(k, w.clock.now()) }); n > readersMost || got != used {
			t.Errorf("of %d callers: %d holds visited; the reader is %v", callers, n, got == used)
		}
		for c := range callers { // of none of them is it known whether its token may be lent
			w.Caller(fmt.Sprint("caller-", c)).known = false
		}
		if n := w.losses(func() { got = w.Reader(k, w.clock.now()) }); n > readersMost {
			t.Errorf("of %d callers who lend nothing: %d holds visited", callers, n)
		}
		w.load(k, "")
		if n := w.losses(func() { got = w.Reader(k, w.clock.now()) }); n > 0 || got != w.Own() {
			t.Errorf("of %d callers and the extension: %d holds visited; the reader is the extension: %v", callers, n, got == w.Own())
		}
	}
}

// Renewals look at who may have something due, one identity at a time, and look again at
// what could not be renewed after a quarter of an interval.
func TestRenewalsLookAtWhatCanBeDue(t *testing.T) {
	t.Parallel()
	const callers, interval = 5, 5 * time.Minute
	w := crowd(t, callers, 30)
	looks := func(after time.Duration, most, due, at int) {
		t.Helper()
		now := w.clock.add(after)
		own := func(id *Identity) bool { return id.own } // which holds nothing here
		if n := len(slices.DeleteFunc(w.renewing(now), own)); n != at {
			t.Errorf("after %v: %d identities are looked at, want %d", after, n, at)
		}
		if n := len(w.Rereads(now, most)); n != due {
			t.Errorf("after %v: %d reads are due, want %d", after, n, due)
		}
	}
	looks(time.Minute, 8, 0, callers)
	looks(time.Minute, 8, 0, 0)
	looks(12*interval, 8, 8, callers)
	looks(time.Second, 1000, callers*31, callers) // and they fail
	looks(time.Second, 1000, 0, 0)
	looks(interval/4, 1000, callers*31, callers)
}

// A walk over all entries lets others have the lock between its pieces, and
// bears what they do meanwhile.
func TestAWalkBearsWhatHappensBetweenItsPieces(t *testing.T) {
	t.Parallel()
	s := newStore(1 << 20)
	slots := make([]*slot, 10)
	for i := range slots {
		slots[i] = &slot{entry: &Entry{Key: key(fmt.Sprint("a/", i))}}
		s.insert(slots[i], nil)
	}
	var seen []string
	visit := func(sl *slot) bool { seen = append(seen, sl.entry.Key.Path); return true }
	once := sync.OnceFunc(func() {
		s.remove(slots[6]) // the next
		s.use(slots[5])    // the next but one
		s.remove(slots[9]) // one that is past
		s.insert(&slot{entry: &Entry{Key: key("a/new")}}, nil)
	})
	s.walk(3, visit, once) // from 9, the last that was stored
	if got := fmt.Sprint(seen); got != "[a/9 a/8 a/7 a/4 a/3 a/2 a/1 a/0]" {
		t.Errorf("visited %s", got)
	}
	if len(s.walks) != 0 {
		t.Error("a walk that is over is still known")
	}
}

// Where no invocation begins, polls read again what was asked for within the last
// minute, however many others there are, and the others once in a while so that they
// are there in an outage.
func TestPollsReadWhatWasAskedForInTheLastMinute(t *testing.T) {
	t.Parallel()
	const secrets = 50
	w := newWorld(t, func(o *Options) { o.StaleIfError = 24 * time.Hour })
	name := func(n int) Key { return key(fmt.Sprint("secret/data/", n)) }
	for n := range secrets {
		w.origin.put(name(n).Path, "one")
		w.load(name(n), "")
	}
	after := func(d time.Duration, asked ...int) int {
		w.clock.add(d)
		for _, n := range asked {
			w.look(name(n), "", w.clock.now())
		}
		return len(w.Unverified(w.clock.now()))
	}
	if n := after(10 * time.Second); n != secrets {
		t.Errorf("%d of %d that were read just now", n, secrets)
	}
	for range 5 {
		after(15*time.Second, 0)
	}
	for range 20 {
		if n := after(time.Second, 0); n != 1 {
			t.Fatalf("%d are to be read again, want the one that is asked for", n)
		}
	}
	if n := after(time.Second, 0, 7); n != 2 {
		t.Errorf("%d are to be read again, want the two that are asked for", n)
	}
	after(time.Hour, 0)
	if n := after(15 * time.Second); n != secrets {
		t.Errorf("after an hour %d of %d are to be read again, to be there in an outage", n, secrets)
	}
}
