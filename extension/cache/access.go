package cache

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Access says who may see what. An identity holds a capability once it has read
// the path successfully, or another instance with the same login has; it counts
// while it was confirmed within the refresh interval, and not past the token's end.
//
// Each capability knows its holders, and each identity what it holds. So the
// loss of a capability costs what it is itself, and the end of a token costs what
// that token held, however much others hold. What nobody may see any more is
// listed (takeUnseen) for the cache to drop.
type Access struct {
	own         *Identity
	refresh     time.Duration
	pessimistic bool
	shared      Shared // nil: none
	now         func() time.Time
	lost        func() // called after a loss or a gain, without mu: there may be something to take, or too little room
	size        atomic.Int64
	unseen      atomic.Bool // there may be something for lost

	mu      sync.Mutex // guards the fields below
	index   capabilities
	holders map[*Identity]*holder
	callers map[string]*holder // by token
	idle    list.List          // callers that hold nothing, the last used first
	holding list.List          // those that hold something
	lastID  uint64
	doubts  uint64    // how often everything was doubted
	doubted time.Time // when last
	losses  []loss
	visited uint64 // holds that were looked at for a loss; tests of its cost read it
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
	learned    time.Time      // when expires was learned
	expires    time.Time      // the token's end; zero: unknown, or none
	known      bool           // expires was asked for
	doubts     uint64         // how often its capabilities were doubted
	doubted    time.Time      // when last
	reset      uint64         // the identity's resets that were taken in
	used       time.Time      // last use
	retry      time.Time      // no confirmation is tried again before this, after the origin failed one
	walked     time.Time      // when Due last found nothing,
	quiet      time.Duration  // and how long it will find nothing
	place      *list.Element  // of a caller, in idle or holding
}

const (
	maxCallers    = 1024    // tokens remembered
	maxNamespaces = 256     // in which one identity's capabilities are remembered
	maxToken      = 8 << 10 // bytes of a token that is remembered; Vault's own are far shorter
)

func newAccess(o *Options, lost func()) *Access {
	a := &Access{
		own: o.Own, refresh: o.RefreshInterval, pessimistic: o.Pessimistic, shared: o.Shared, now: o.Now, lost: lost,
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

// Doubt makes every capability wait for confirmation: policies were written
// through the proxy. What was asked before that confirms nothing.
func (a *Access) Doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts++
	a.doubted = a.now()
	for _, h := range a.holders {
		h.retry = time.Time{}
	}
}

// DoubtHeld does that for one identity's capabilities.
func (a *Access) DoubtHeld(id *Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.holders[id]; h != nil {
		h.doubts++
		h.doubted, h.retry = a.now(), time.Time{}
	}
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
	a.resizeLocked(a.index.size - before)
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

// grant records that a request sent at a time was answered to id, or confirmed
// what it may do, and reports whether id holds the capability now.
func (a *Access) grant(id *Identity, p Capability, at time.Time) bool {
	return a.grantFor(id, id.resets.Load(), p, at)
}

// grantFor is grant for a request that was sent when id had been reset so often. A
// reset since then leaves nothing of it, one that comes now takes it.
func (a *Access) grantFor(id *Identity, resets uint64, p Capability, at time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holders[id]
	if h == nil || id.resets.Load() != resets {
		return false // reset, or forgotten meanwhile: its token was revoked
	}
	if h.reset != resets {
		h.reset = resets
		a.emptyLocked(h)
	}
	c := a.index.index[p]
	held := h.held[c]
	if held == nil {
		if h.namespaces[p.Namespace] == 0 && len(h.namespaces) >= maxNamespaces {
			a.forgetNamespaceLocked(h)
		}
		before := a.index.size
		held = &hold{of: a.index.intern(p), by: h}
		a.index.add(held)
		a.resizeLocked(a.index.size - before)
		if h.place != nil && len(h.held) == 0 {
			a.idle.Remove(h.place)
			h.place = a.holding.PushFront(h)
		}
		h.held[held.of] = held
		h.namespaces[p.Namespace]++
		h.walked = time.Time{}
	}
	a.confirmLocked(held, at)
	return true
}

// confirmLocked records a confirmation sent at a time, unless it is outdated.
func (a *Access) confirmLocked(held *hold, at time.Time) {
	if h := held.by; at.After(a.confirmedAtLocked(held)) && !at.Before(h.doubted) && !at.Before(a.doubted) {
		held.confirmed, held.doubts = at, h.doubts+a.doubts
	}
}

// confirmedAtLocked is when a hold was last confirmed; zero: not since it was
// doubted.
func (a *Access) confirmedAtLocked(held *hold) time.Time {
	if held == nil || held.doubts != held.by.doubts+a.doubts {
		return time.Time{}
	}
	return held.confirmed
}

// forgetNamespaceLocked drops the capabilities of h in the namespace that was
// not confirmed for the longest time. Each namespace is a call at each refresh,
// and community Vault, which has none, answers in all that a caller thinks of.
func (a *Access) forgetNamespaceLocked(h *holder) {
	newest := make(map[string]time.Time, len(h.namespaces))
	for c, held := range h.held {
		if at, known := a.confirmedAtLocked(held), newest[c.Namespace]; at.After(known) || known.IsZero() {
			newest[c.Namespace] = at
		}
	}
	var oldest string
	found := false
	for namespace, at := range newest {
		if !found || at.Before(newest[oldest]) {
			oldest, found = namespace, true
		}
	}
	for c, held := range h.held {
		if c.Namespace == oldest {
			a.loseLocked(held)
		}
	}
}

// revoke takes from id what is like p, whatever its query.
func (a *Access) revoke(id *Identity, p Capability) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.currentLocked(a.holders[id]); h != nil {
		a.revokeLocked(h, p)
	}
}

func (a *Access) revokeLocked(h *holder, p Capability) {
	for _, c := range a.index.alike(p) {
		if held := h.held[c]; held != nil {
			a.loseLocked(held)
		}
	}
}

// permit is what an identity may do with an entry now.
type permit uint8

const (
	denied      permit = iota
	unconfirmed        // what it holds wants confirmation before anything else
	allowed
)

// check says whether id may see what needs one capability and was asked for by
// another: the latest version by its number, say. A policy may deny a caller the
// parameter, so it has to hold both.
func (a *Access) check(id *Identity, needs, asked Capability, now time.Time) permit {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.currentLocked(a.holders[id])
	if h == nil {
		return denied
	}
	confirmed, ok := a.heldLocked(h, needs, now)
	if ok && asked.Query != needs.Query && !id.own {
		var at time.Time
		if at, ok = a.heldLocked(h, asked, now); at.Before(confirmed) {
			confirmed = at
		}
	}
	switch {
	case !ok:
		return denied
	case clock.Ended(h.learned, h.expires, now):
		h.Reset()
		a.currentLocked(h)
		h.known, h.expires = false, time.Time{}
		return denied
	case (!a.confirmedLocked(confirmed, now) || !id.own && !h.known) && h.retryDue(now):
		return unconfirmed
	}
	return allowed
}

// heldLocked returns when h's capability was last confirmed. Capabilities say
// nothing of the mounts preflight (it answers 200 where they say deny), so it
// counts as confirmed with the newest of the identity's capabilities below its
// mount, and not at all without one.
func (a *Access) heldLocked(h *holder, p Capability, now time.Time) (at time.Time, ok bool) {
	held := h.held[a.index.index[p]]
	if held == nil {
		return time.Time{}, false
	}
	if _, preflight := preflightPath(p.Path); !preflight {
		return a.confirmedAtLocked(held), true
	}
	for c, below := range h.held {
		if !p.HangsOn(c.Capability) {
			continue
		}
		if confirmed := a.confirmedAtLocked(below); !ok || confirmed.After(at) {
			at, ok = confirmed, true
		}
		if a.confirmedLocked(at, now) {
			break
		}
	}
	return at, ok
}

func (a *Access) confirmedLocked(at, now time.Time) bool {
	return !at.IsZero() && clock.Within(at, now, a.refresh)
}

func (h *holder) retryDue(now time.Time) bool {
	return h.retry.IsZero() || !now.Before(h.retry) || !clock.Within(now, h.retry, time.Minute)
}

// confirmedAt is when id's capability was last confirmed; ok: it holds it.
func (a *Access) confirmedAt(id *Identity, p Capability) (at time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.currentLocked(a.holders[id])
	if h == nil {
		return time.Time{}, false
	}
	held := h.held[a.index.index[p]]
	return a.confirmedAtLocked(held), held != nil
}

// usable reports whether a confirmation sent at a time counts now.
func (a *Access) usable(at time.Time) bool { return a.confirmedLocked(at, a.now()) }

// Reader returns an identity that may read k, the extension's own before any
// caller's; for a personal answer only whose it is. It is nil where there is none.
func (a *Access) Reader(k Key, now time.Time) *Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := k.Capability()
	c := a.index.index[p]
	if c == nil || c.holders == nil {
		return nil
	}
	if own := a.currentLocked(a.holders[a.own]); k.Personal == 0 || k.Personal == ownID {
		if _, ok := a.heldLocked(own, p, now); ok {
			return a.own
		}
	}
	var best *holder
	for held := c.holders; held != nil; held = held.next {
		h := held.by
		if (best == nil || h.used.After(best.used)) && !h.own && (k.Personal == 0 || k.Personal == h.ID) &&
			h.reset == h.resets.Load() && !clock.Ended(h.learned, h.expires, now) {
			if _, ok := a.heldLocked(h, p, now); ok {
				best = h
			}
		}
		if held.next == c.holders {
			break
		}
	}
	if best == nil {
		return nil
	}
	return best.Identity
}

// setBack makes what other instances confirmed wait for confirmation: the wall
// clock was set back, so nobody knows how long ago that was.
func (a *Access) setBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := a.holders[a.own]
	for _, held := range own.held {
		if held.confirmed == clock.Wall(held.confirmed) {
			held.confirmed = time.Time{}
		}
	}
	own.walked = time.Time{}
}

// count returns how many callers are remembered.
func (a *Access) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.currentLocked(a.holders[a.own])
	return len(a.callers)
}
