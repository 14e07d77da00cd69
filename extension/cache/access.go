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
	own         *Identity
	every       interval
	pessimistic bool
	shared      Shared // nil: none
	now         func() time.Time
	lost        func() // called after a loss or a gain, without mu: there may be something to take, or too little room
	maxCallers  int    // tokens remembered
	skew        time.Duration
	stale       time.Duration // THAW_STALE_IF_ERROR
	seed        maphash.Seed
	size        atomic.Int64
	unseen      atomic.Bool   // there may be something for lost
	doubts      atomic.Uint64 // how often every capability was made to wait for a read; written under mu

	heard   Heard
	mu      sync.Mutex // guards the fields below
	index   capabilities
	holders map[*Identity]*holder
	callers map[string]*holder // by token
	idle    list.List          // callers that hold nothing, the last used first
	holding list.List          // those that hold something
	lastID  uint64
	doubted time.Time // when last
	losses  []loss
	visited uint64 // holds that were looked at for a loss, or for a reader; tests of the cost read it
}

// loss is a capability that an identity has no more.
type loss struct {
	Capability
	id uint64
}

// holder is an identity and what it may do. All is guarded by Access.mu.
type holder struct {
	*Identity
	held       map[*capability]*hold
	namespaces map[string]int // capabilities in each namespace
	learned    time.Time      // when token was
	token      Token          // what is known of a caller's
	known      bool           // it was asked for
	wanted     bool           // it is to be asked for with nothing else
	unsure     uint64         // how often all that it holds was made to wait for confirmation
	unsureAt   time.Time      // when last
	refused    int            // the status of the last confirmation, if the origin failed it; 0: no answer, or it did not fail
	reset      uint64         // the identity's resets that were taken in
	used       time.Time      // last use
	retry      time.Time      // no confirmation is tried again before this, after the origin failed one
	confirmed  quiet          // that Due finds nothing
	renewed    quiet          // that renewals does
	place      *list.Element  // of a caller, in idle or holding
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
	a := &Access{
		own: o.Own, every: interval(o.RefreshInterval), heard: Heard{every: interval(o.RefreshInterval)}, pessimistic: o.Pessimistic, shared: o.Shared, now: o.Now, lost: lost,
		maxCallers: max(leastCallers, int(o.Bytes/callerBytes)), skew: o.Skew, stale: o.StaleIfError, seed: maphash.MakeSeed(),
		index: capabilities{index: make(map[Capability]*capability)}, holders: make(map[*Identity]*holder), callers: make(map[string]*holder), lastID: ownID,
	}
	a.holders[o.Own] = newHolder(o.Own)
	return a
}

func newHolder(id *Identity) *holder {
	return &holder{Identity: id, held: make(map[*capability]*hold), namespaces: make(map[string]int), reset: id.resets.Load()}
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
	for _, h := range a.holders {
		h.Reset()
		a.currentLocked(h)
	}
}

// EndOwn ends what the extension's own identity holds, here and for all instances:
// its token was revoked through the proxy.
func (a *Access) EndOwn() {
	a.own.Reset()
	if a.shared != nil {
		a.shared.Drop(context.Background(), nil, []Capability{{}}, a.now())
	}
}

// Doubt makes every capability wait for a read: policies were written through the
// proxy. What was asked before that confirms nothing, and no read shares one that was.
func (a *Access) Doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts.Add(1)
	a.doubted = a.now()
}

// currentLocked takes in that the identity was reset. A nil holder is nobody.
func (a *Access) currentLocked(h *holder) *holder {
	if h != nil && h.reset != h.resets.Load() {
		h.reset = h.resets.Load()
		a.emptyLocked(h)
	}
	return h
}

// emptyLocked drops all that h holds.
func (a *Access) emptyLocked(h *holder) {
	for _, held := range h.held {
		a.loseLocked(held)
	}
}

// loseLocked drops one capability of one identity.
func (a *Access) loseLocked(held *hold) {
	h, before := held.by, a.index.size
	a.visited++
	delete(h.held, held.of)
	if h.namespaces[held.of.Namespace]--; h.namespaces[held.of.Namespace] == 0 {
		delete(h.namespaces, held.of.Namespace)
	}
	a.index.remove(held)
	a.size.Add(a.index.size - before)
	a.losses = append(a.losses, loss{held.of.Capability, h.ID})
	a.unseen.Store(true)
	if h.place != nil && len(h.held) == 0 {
		a.holding.Remove(h.place)
		h.place = a.idle.PushFront(h)
	}
}

// takeUnseen returns the losses since the last call, and for each whether nobody
// holds the capability any more.
func (a *Access) takeUnseen() map[loss]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[loss]bool, len(a.losses))
	for _, l := range a.losses {
		c := a.index.index[l.Capability]
		out[l] = c == nil || c.holders == nil || l.List && l.id == ownID // callers have lists of their own
	}
	a.losses = nil
	a.unseen.Store(false)
	return out
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
	h := a.holders[id]
	if h == nil || id.resets.Load() != resets || h.token.Counted {
		return false // reset, or forgotten meanwhile: its token was revoked
	}
	if h.reset != resets {
		h.reset = resets
		a.emptyLocked(h)
	}
	held := h.held[a.index.index[p]]
	if held == nil {
		if h.namespaces[p.Namespace] == 0 && len(h.namespaces) >= maxNamespaces {
			a.forgetNamespaceLocked(h)
		}
		before := a.index.size
		held = &hold{of: a.index.intern(p), by: h}
		a.index.add(held)
		a.size.Add(a.index.size - before)
		a.unseen.Store(true) // there may be too little room
		if h.place != nil && len(h.held) == 0 {
			a.idle.Remove(h.place)
			h.place = a.holding.PushFront(h)
		}
		h.held[held.of] = held
		h.namespaces[p.Namespace]++
		h.confirmed = quiet{}
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
	if h := held.by; at.After(confirmedAt(held)) && !at.Before(h.unsureAt) {
		held.confirmed, held.unsure = at, h.unsure
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

// forgetNamespaceLocked drops the capabilities of h in the namespace that was
// not confirmed for the longest time. Each namespace is a call at each refresh,
// and community Vault, which has none, answers in all that a caller thinks of.
func (a *Access) forgetNamespaceLocked(h *holder) {
	newest := make(map[string]time.Time, len(h.namespaces))
	for c, held := range h.held {
		if at, known := confirmedAt(held), newest[c.Namespace]; at.After(known) || known.IsZero() {
			newest[c.Namespace] = at
		}
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(newest)), func(a, b string) int { return newest[a].Compare(newest[b]) })
	for c, held := range h.held {
		if c.Namespace == oldest {
			a.loseLocked(held)
		}
	}
}

// revoke takes from id what is like p, whatever its query, and returns p and that.
func (a *Access) revoke(id *Identity, p Capability) []Capability {
	a.mu.Lock()
	defer a.mu.Unlock()
	lost := []Capability{p}
	if h := a.currentLocked(a.holders[id]); h != nil {
		lost = append(lost, a.revokeLocked(h, p)...)
	}
	return lost
}

func (a *Access) revokeLocked(h *holder, p Capability) (lost []Capability) {
	for _, c := range a.index.alike(p) {
		if held := h.held[c]; held != nil {
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
	h := a.currentLocked(a.holders[id])
	if h == nil {
		return Confirmation{}, false
	}
	held := h.held[a.index.index[p]]
	return Confirmation{Read: a.readAtLocked(held), At: confirmedAt(held)}, held != nil
}

// allows reports whether anything may be kept for id, and whether its token may be
// used for what its caller did not ask for.
func (a *Access) allows(id *Identity) (keep, lend bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holders[id]
	return h != nil && !h.token.Counted, h != nil && h.lendable()
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
	lends := func(h *holder) bool {
		if k.Personal != 0 && k.Personal != h.ID || !h.lendable() || h.reset != h.resets.Load() || clock.Ended(h.learned, h.token.Expires, now) {
			return false
		}
		_, ok := a.heldLocked(h, p, now)
		return ok
	}
	if lends(a.holders[a.own]) {
		return a.own
	}
	var best *holder
	left := readersMost
	for held := range c.all() {
		if left--; left < 0 {
			break
		}
		a.visited++
		h := held.by
		if !lends(h) {
			continue
		}
		if at := a.readAtLocked(held); !at.IsZero() && !clock.Within(at, now, a.every.reads(readFrom)) {
			return h.Identity
		}
		if best == nil || h.used.After(best.used) {
			best = h
		}
	}
	if best == nil {
		return nil
	}
	return best.Identity
}

// renewing lists those with whose capabilities a read may be due soon.
func (a *Access) renewing(now time.Time) (out []*holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.holders {
		if a.currentLocked(h); h.lendable() && !h.renewed.at(now) {
			out = append(out, h)
		}
	}
	return out
}

// renewals lists capabilities of h with which a read is due soon, at most most of those
// that are wanted.
func (a *Access) renewals(h *holder, now time.Time, most int, wanted func(*Identity, Capability) bool) (out []Check) {
	a.mu.Lock()
	defer a.mu.Unlock()
	spread := func(p Capability) time.Duration { // over what is left, so that not all instances read at once
		return time.Duration(maphash.Comparable(a.seed, p) % uint64(a.every.reads(readFor-readFrom-1)+1))
	}
	next := a.every.reads(1)
	for c, held := range h.held {
		at := a.readAtLocked(held)
		if at.IsZero() { // its next read is sent anyway
			continue
		}
		left := a.every.reads(readFrom) + spread(c.Capability) - clock.Elapsed(at, now)
		switch {
		case left > 0:
			next = min(next, left)
		case wanted(h.Identity, c.Capability):
			if out = append(out, Check{c.key(0), h.Identity}); len(out) == most {
				return out
			}
			next = min(next, a.every.reads(1)/4) // if that read fails
		}
	}
	h.renewed = quiet{now, next}
	return out
}

// setBack makes what other instances confirmed wait for a read: the wall clock was
// set back, so nobody knows how long ago that was.
func (a *Access) setBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.holders[a.own]
	for _, held := range own.held {
		if held.confirmed == clock.Wall(held.confirmed) {
			held.confirmed = time.Time{}
		}
		if held.read == clock.Wall(held.read) {
			held.read = time.Time{}
		}
	}
	own.confirmed = quiet{}
}

// count returns how many callers are remembered.
func (a *Access) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.currentLocked(a.holders[a.own])
	return len(a.callers)
}
