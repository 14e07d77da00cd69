package cache

import (
	"container/list"
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Access says who may see what. An identity holds a capability once it has read
// the path with the query successfully, or another instance of the same identity
// has. sys/capabilities-self never creates one: a policy may ask for parameters,
// for wrapping or for a second person, of which it says nothing. It confirms one,
// which is due once in a refresh interval. A read under the identity is due once in
// twelve intervals, and after policies were written through the proxy: from the
// ninth on polls make it beside the hits (Rereads), then the request itself is
// sent. Nothing counts past the token's end.
//
// Each capability knows its holders, and each identity what it holds. So the
// loss of a capability costs what it is itself, and the end of a token costs what
// that token held, however much others hold. What nobody may see any more is
// listed (takeUnseen) for the cache to drop.
type Access struct {
	o      *Options
	every  interval
	lost   func() // called after a loss or a gain, without mu: there may be something to take, or too little room
	seed   maphash.Seed
	unseen atomic.Bool   // there may be something for lost
	doubts atomic.Uint64 // how often every capability was made to wait for a read; written under mu

	heard   Heard
	mu      sync.Mutex // guards the fields below, and what Identity says
	index   capabilities
	holders map[*Identity]bool   // who may hold something: the extension, and callers
	callers map[string]*Identity // by token
	idle    list.List            // callers that hold nothing, the last used first
	holding list.List            // those that hold something
	lastID  uint64
	doubted time.Time // when last
	losses  []Key     // of capabilities that an identity, which it is personal to, has no more
	visited uint64    // holds that were looked at for a loss, or for a reader; tests of the cost read it
}

// quiet is for how long there is nothing to find.
type quiet struct {
	since time.Time // zero: not known
	lasts time.Duration
}

func (q quiet) at(now time.Time) bool {
	return clock.Within(q.since, now, q.lasts)
}

const (
	leastCallers  = 1024     // tokens that are remembered,
	callerBytes   = 16 << 10 // or one for so much of the cache's memory if that is more
	maxNamespaces = 256      // in which one identity's capabilities are remembered
	maxToken      = 8 << 10  // bytes of a token that is remembered; Vault's own are far shorter
)

func newAccess(o *Options, lost func()) *Access {
	every := interval(o.RefreshInterval)
	a := &Access{
		o: o, every: every, lost: lost, seed: maphash.MakeSeed(), heard: Heard{every: every}, index: capabilities{index: make(map[Capability]*capability)},
		holders: make(map[*Identity]bool), callers: make(map[string]*Identity), lastID: ownID,
	}
	a.rememberLocked(o.Own)
	return a
}

// rememberLocked lets an identity hold something.
func (a *Access) rememberLocked(id *Identity) {
	id.access, id.held, id.namespaces = a, make(map[*capability]*hold), make(map[string]int)
	a.holders[id] = true
}

// lock locks mu; the function it returns unlocks it and has the losses taken.
func (a *Access) lock() (unlock func()) {
	a.mu.Lock()
	return func() {
		a.mu.Unlock()
		if a.unseen.Load() {
			a.lost()
		}
	}
}

// clear drops what everybody holds.
func (a *Access) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.holders {
		a.resetLocked(id)
	}
}

// EndOwn ends what the extension's own identity holds, here and for all instances:
// its token was revoked through the proxy.
func (a *Access) EndOwn() {
	a.o.Own.Reset()
	if a.o.Shared != nil {
		a.o.Shared.Drop(context.Background(), nil, []Capability{{}}, a.o.Now())
	}
}

// Doubt makes every capability wait for a read: policies were written through the
// proxy. What was asked before that confirms nothing, and no read shares one that was.
func (a *Access) Doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts.Add(1)
	a.doubted = a.o.Now()
}

// resetLocked is Identity.Reset.
func (a *Access) resetLocked(id *Identity) {
	id.resets.Add(1)
	a.emptyLocked(id)
}

// emptyLocked drops all that id holds.
func (a *Access) emptyLocked(id *Identity) {
	for _, held := range id.held {
		a.loseLocked(held)
	}
}

// loseLocked drops one capability of one identity.
func (a *Access) loseLocked(held *hold) {
	id := held.by
	a.visited++
	delete(id.held, held.of)
	if id.namespaces[held.of.Namespace]--; id.namespaces[held.of.Namespace] == 0 {
		delete(id.namespaces, held.of.Namespace)
	}
	a.index.remove(held)
	a.losses = append(a.losses, held.of.key(id.ID))
	a.unseen.Store(true)
	if id.place != nil && len(id.held) == 0 {
		a.holding.Remove(id.place)
		id.place = a.idle.PushFront(id)
	}
}

// takeUnseen has dropped what nobody may see any more, by the losses since the last call.
func (a *Access) takeUnseen(drop func(Key)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.losses {
		drop(k)
		c := a.index.index[k.Capability()]
		if c == nil || c.holders == nil || k.Op == List && k.Personal == ownID { // callers have lists of their own
			k.Personal = 0
			drop(k)
		}
	}
	a.losses = nil
	a.unseen.Store(false)
}

// grant records that a read was answered to id which was sent at a time, when id
// had been reset so often, and reports whether id holds the capability now. A reset
// since then leaves nothing of it, one that comes now takes it.
func (a *Access) grant(id *Identity, resets uint64, p Capability, at time.Time, missed bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grantLocked(id, resets, p, Confirmation{Read: at, At: at, Missed: missed})
}

func (a *Access) grantLocked(id *Identity, resets uint64, p Capability, c Confirmation) bool {
	if !a.holders[id] || id.resets.Load() != resets || id.token.Counted {
		return false // reset, or forgotten meanwhile: its token was revoked
	}
	held := id.held[a.index.index[p]]
	if held == nil {
		if id.namespaces[p.Namespace] == 0 && len(id.namespaces) >= maxNamespaces {
			a.forgetNamespaceLocked(id)
		}
		held = &hold{of: a.index.intern(p), by: id}
		a.index.add(held)
		a.unseen.Store(true) // there may be too little room
		if id.place != nil && len(id.held) == 0 {
			a.idle.Remove(id.place)
			id.place = a.holding.PushFront(id)
		}
		id.held[held.of] = held
		id.namespaces[p.Namespace]++
		id.confirmed = quiet{}
	}
	held.found = held.found || !c.Missed
	if c.Read.After(a.readAtLocked(held)) && !c.Read.Before(a.doubted) {
		held.read, held.doubts = c.Read, a.doubts.Load()
	}
	a.confirmLocked(held, c.At)
	return true
}

// confirmLocked records a confirmation sent at a time, unless it is outdated.
func (a *Access) confirmLocked(held *hold, at time.Time) {
	if id := held.by; at.After(confirmedAt(held)) && !at.Before(id.unsureAt) {
		held.confirmed, held.unsure = at, id.unsure
	}
}

// confirmedAt is when a hold was last confirmed; zero: not since its holder was
// made unsure.
func confirmedAt(held *hold) time.Time {
	if held == nil || held.unsure != held.by.unsure {
		return time.Time{}
	}
	return held.confirmed
}

// readAtLocked is when a hold was last read with; zero: not since it was doubted.
func (a *Access) readAtLocked(held *hold) time.Time {
	if held == nil || held.doubts != a.doubts.Load() {
		return time.Time{}
	}
	return held.read
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// forgetNamespaceLocked drops the capabilities of id in the namespace that was
// not confirmed for the longest time. Each namespace is a call at each refresh,
// and community Vault, which has none, answers in all that a caller thinks of.
func (a *Access) forgetNamespaceLocked(id *Identity) {
	newest := make(map[string]time.Time, len(id.namespaces))
	for c, held := range id.held {
		if at, known := confirmedAt(held), newest[c.Namespace]; at.After(known) || known.IsZero() {
			newest[c.Namespace] = at
		}
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(newest)), func(a, b string) int { return newest[a].Compare(newest[b]) })
	for c, held := range id.held {
		if c.Namespace == oldest {
			a.loseLocked(held)
		}
	}
}

// revoke takes from id what is like p, whatever its query, and returns p and that.
func (a *Access) revoke(id *Identity, p Capability) []Capability {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Capability{p}, a.revokeLocked(id, p)...)
}

func (a *Access) revokeLocked(id *Identity, p Capability) (lost []Capability) {
	for _, c := range a.index.alike(p) {
		if held := id.held[c]; held != nil {
			a.loseLocked(held)
			lost = append(lost, c.Capability)
		}
	}
	return lost
}

// confirmedAt says what counts of id's capability; ok: it holds it.
func (a *Access) confirmedAt(id *Identity, p Capability) (of Confirmation, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := id.held[a.index.index[p]]
	return Confirmation{Read: a.readAtLocked(held), At: confirmedAt(held)}, held != nil
}

// allows reports whether anything may be kept for id, and whether its token may be
// used for what its caller did not ask for.
func (a *Access) allows(id *Identity) (keep, lend bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holders[id] && !id.token.Counted, a.holders[id] && id.lendable()
}

// readersMost is how many callers are looked at for a read. Where none of them lends a
// token, as nothing is known of it yet, each caller's own read verifies.
const readersMost = 32

// Reader returns an identity that may read k: the extension's own, or of some callers,
// those first who came last, one whose read is due, or who was there last. For a personal
// answer it is only whose that is. It is nil where there is none.
func (a *Access) Reader(k Key, now time.Time) *Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := k.Capability()
	c := a.index.index[p]
	if c == nil {
		return nil
	}
	lends := func(id *Identity) bool {
		if k.Personal != 0 && k.Personal != id.ID || !id.lendable() || clock.Ended(id.learned, id.token.Expires, now) {
			return false
		}
		_, ok := a.heldLocked(id, p, now)
		return ok
	}
	if lends(a.o.Own) {
		return a.o.Own
	}
	var best *Identity
	left := readersMost
	for held := range c.all() {
		if left--; left < 0 {
			break
		}
		a.visited++
		id := held.by
		if !lends(id) {
			continue
		}
		if at := a.readAtLocked(held); !at.IsZero() && !clock.Within(at, now, a.every.reads(readFrom)) {
			return id
		}
		if best == nil || id.used.After(best.used) {
			best = id
		}
	}
	return best
}

// renewing lists those with whose capabilities a read may be due soon.
func (a *Access) renewing(now time.Time) (out []*Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.holders {
		if id.lendable() && !id.renewed.at(now) {
			out = append(out, id)
		}
	}
	return out
}

// renewals lists capabilities of id with which a read is due soon, at most most of those
// that are wanted.
func (a *Access) renewals(id *Identity, now time.Time, most int, wanted func(Capability) bool) (out []Check) {
	a.mu.Lock()
	defer a.mu.Unlock()
	spread := func(p Capability) time.Duration { // over what is left, so that not all instances read at once
		return time.Duration(maphash.Comparable(a.seed, p) % uint64(a.every.reads(readFor-readFrom-1)+1))
	}
	next := a.every.reads(1)
	for c, held := range id.held {
		at := a.readAtLocked(held)
		if at.IsZero() { // its next read is sent anyway
			continue
		}
		left := a.every.reads(readFrom) + spread(c.Capability) - clock.Elapsed(at, now)
		switch {
		case left > 0:
			next = min(next, left)
		case wanted(c.Capability):
			if out = append(out, Check{c.key(0), id}); len(out) == most {
				return out
			}
			next = min(next, a.every.reads(1)/4) // if that read fails
		}
	}
	id.renewed = quiet{now, next}
	return out
}

// setBack makes what other instances confirmed wait for a read: the wall clock was
// set back, so nobody knows how long ago that was.
func (a *Access) setBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, held := range a.o.Own.held {
		if held.confirmed == clock.Wall(held.confirmed) {
			held.confirmed = time.Time{}
		}
		if held.read == clock.Wall(held.read) {
			held.read = time.Time{}
		}
	}
	a.o.Own.confirmed = quiet{}
}

// count returns how many callers are remembered.
func (a *Access) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.callers)
}
