package cache

import (
	"context"
	"strings"
	"time"
)

// Identity is who asks: the extension itself, or one caller's token. Grants
// are kept by identity, so the extension's own survive a new login.
type Identity struct {
	ID    uint64
	Token string // the caller's token; empty for the extension's own identity
	own   bool

	// Guarded by Cache.mu.
	grants  map[Right]time.Time // when the right was last confirmed: the confirming request was sent
	rights  map[string]int      // how many of them are in each namespace
	learned time.Time           // when expires was learned
	expires time.Time           // the token's end; zero: unknown, or none
	known   bool                // expires was asked for
	doubted time.Time           // what was confirmed before this is no confirmation
	used    time.Time           // last use, to forget the longest unused
	retry   time.Time           // no confirmation is tried again before this, after the origin failed one
}

// Own reports whether this is the extension's identity.
func (id *Identity) Own() bool { return id.own }

// listsFor is whose the lists are that id reads. OpenBao may filter a list by
// what the token may read
// (https://openbao.org/docs/rfcs/filtering-list), so callers share none.
func (id *Identity) listsFor() uint64 {
	if id.own {
		return 0
	}
	return id.ID
}

// Right is what a grant allows: to read, or to list, one path with one query.
// The query counts because policies may require, allow or deny parameters of
// reads, such as the version
// (https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints),
// and sys/capabilities-self says nothing of them.
type Right struct {
	Namespace, Path string
	List            bool
	Query           string
}

// right returns the right that a key needs.
func (k Key) right() Right {
	return Right{k.Namespace, k.Path, k.Op == List, k.Query}
}

// like reports whether r and o differ in their query at most.
func (r Right) like(o Right) bool {
	r.Query = o.Query
	return r == o
}

// HangsOn reports whether r counts as confirmed with o: if they are the same,
// or r is to read the mounts preflight and o is below its mount.
func (r Right) HangsOn(o Right) bool {
	mount, preflight := preflightPath(r.Path)
	if !preflight {
		return r == o
	}
	return r.Namespace == o.Namespace && strings.HasPrefix(o.Path, mount) && (len(o.Path) == len(mount) || o.Path[len(mount)] == '/')
}

func (r Right) size() int64 { return grantSize + int64(len(r.Namespace)+len(r.Path)+len(r.Query)) }

const (
	grantSize     = 256  // estimated memory of a grant besides its strings
	maxCallers    = 1024 // tokens remembered
	maxNamespaces = 256  // in which one identity's rights are remembered
	identitySize  = 512
	maxToken      = 8 << 10 // bytes of a token that is remembered; Vault's own are far shorter
)

// OwnIdentity returns the extension's own identity.
func (c *Cache) OwnIdentity() *Identity { return c.own }

// Caller returns the identity of a caller's token.
func (c *Cache) Caller(token string) *Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.callerLocked(token)
}

func (c *Cache) callerLocked(token string) *Identity {
	if id := c.callers[token]; id != nil {
		return id
	}
	id := c.newIdentityLocked(token)
	id.used = c.o.Now()
	if len(token) > maxToken {
		return id // it is served, but nothing is remembered of it
	}
	c.callers[token] = id
	c.size += identitySize + int64(len(token))
	c.thinLocked(id)
	return id
}

// thinLocked keeps the number and the memory of callers in bounds when keep has
// been added. Anyone may send any token, so those that were granted nothing go
// first: a guess costs no one else's grants or entries.
func (c *Cache) thinLocked(keep *Identity) {
	for len(c.callers) > maxCallers || c.size > c.o.Bytes {
		var oldest *Identity
		for _, id := range c.callers {
			if id != keep && (oldest == nil || len(id.grants) == 0 && len(oldest.grants) > 0 ||
				(len(id.grants) == 0) == (len(oldest.grants) == 0) && id.used.Before(oldest.used)) {
				oldest = id
			}
		}
		if oldest == nil || len(oldest.grants) > 0 && len(c.callers) <= maxCallers {
			c.trimLocked(nil)
			return
		}
		c.forgetLocked(oldest)
	}
}

func (c *Cache) newIdentityLocked(token string) *Identity {
	c.lastID++
	return &Identity{ID: c.lastID, Token: token, grants: make(map[Right]time.Time), rights: make(map[string]int)}
}

// Forget drops a caller's token with its grants and what only it could see.
func (c *Cache) Forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id := c.callers[token]; id != nil {
		c.forgetLocked(id)
	}
}

// ForgetCallers drops every caller's token: one of them was revoked and it is
// not known which.
func (c *Cache) ForgetCallers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.callers {
		c.forgetLocked(id)
	}
}

// FlushGrants drops an identity's grants: its policies or entity changed. Reads
// on their way were allowed by what it was before, and leave nothing.
func (c *Cache) FlushGrants(id *Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id.dropLocked(c)
	c.spoilWhereLocked(func(f *flight) bool { return f.id == id })
}

// Doubt makes every grant wait for confirmation: policies were written through
// the proxy. What was asked before that confirms nothing.
func (c *Cache) Doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now()
	c.own.doubtLocked(now)
	for _, id := range c.callers {
		id.doubtLocked(now)
	}
}

// DoubtGrants makes one identity's grants wait for confirmation.
func (c *Cache) DoubtGrants(id *Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id.doubtLocked(c.o.Now())
}

func (id *Identity) doubtLocked(now time.Time) {
	for r := range id.grants {
		id.grants[r] = time.Time{}
	}
	id.doubted, id.retry = now, time.Time{}
}

func (c *Cache) forgetLocked(id *Identity) {
	if c.callers[id.Token] != id {
		return
	}
	delete(c.callers, id.Token)
	c.size -= identitySize + int64(len(id.Token))
	id.dropLocked(c)
	c.spoilWhereLocked(func(f *flight) bool { return f.id == id })
}

// dropLocked drops every grant, and the entries that nobody may see any more.
func (id *Identity) dropLocked(c *Cache) {
	granted := len(id.grants) > 0
	for r := range id.grants {
		id.loseLocked(c, r)
	}
	for _, s := range c.slots {
		if s.entry.Key.Personal == id.ID || granted && s.entry.Key.Personal == 0 && !c.seenLocked(s.entry.Key) {
			c.removeLocked(s)
		}
	}
}

// seenLocked reports whether anyone holds a grant for k.
func (c *Cache) seenLocked(k Key) bool {
	if _, ok := c.grantLocked(c.own, k); ok {
		return true
	}
	for _, id := range c.callers {
		if _, ok := c.grantLocked(id, k); ok {
			return true
		}
	}
	return false
}

// grantLocked returns when id's right to k was last confirmed. Capabilities say
// nothing of the mounts preflight (it answers 200 where they say deny), so it
// counts as confirmed with the newest of the identity's rights below its mount,
// and not at all without one.
func (c *Cache) grantLocked(id *Identity, k Key) (time.Time, bool) {
	at, ok := id.grants[k.right()]
	if _, preflight := preflightPath(k.Path); !ok || !preflight {
		return at, ok
	}
	ok = false
	for r, confirmed := range id.grants {
		if k.right().HangsOn(r) {
			if !ok || confirmed.After(at) {
				at = confirmed
			}
			ok = true
		}
	}
	return at, ok
}

func (c *Cache) grantToLocked(id *Identity, k Key, at time.Time) {
	if id != c.own && c.callers[id.Token] != id {
		return // forgotten meanwhile: its token was revoked
	}
	r := k.right()
	old, ok := id.grants[r]
	if !ok {
		if id.rights[r.Namespace] == 0 && len(id.rights) >= maxNamespaces {
			c.forgetNamespaceLocked(id)
		}
		id.rights[r.Namespace]++
		c.size += r.size()
	}
	if at.Before(id.doubted) {
		at = time.Time{}
	}
	if !ok || at.After(old) {
		id.grants[r] = at
	}
	if !ok && c.size > c.o.Bytes {
		c.trimLocked(nil)
	}
}

// loseLocked drops one grant.
func (id *Identity) loseLocked(c *Cache, r Right) {
	delete(id.grants, r)
	c.size -= r.size()
	if id.rights[r.Namespace]--; id.rights[r.Namespace] == 0 {
		delete(id.rights, r.Namespace)
	}
}

// forgetNamespaceLocked drops the grants of id in the namespace that was not
// confirmed for the longest time. Each namespace is a call at each refresh, and
// community Vault, which has none, answers in all that a caller thinks of.
func (c *Cache) forgetNamespaceLocked(id *Identity) {
	newest := make(map[string]time.Time, len(id.rights))
	for r, at := range id.grants {
		if known, ok := newest[r.Namespace]; !ok || at.After(known) {
			newest[r.Namespace] = at
		}
	}
	var oldest string
	found := false
	for namespace, at := range newest {
		if !found || at.Before(newest[oldest]) {
			oldest, found = namespace, true
		}
	}
	for r := range id.grants {
		if r.Namespace == oldest {
			id.loseLocked(c, r)
		}
	}
	for k, s := range c.slots {
		if k.Namespace == oldest && (k.Personal == id.ID || k.Personal == 0 && !c.seenLocked(k)) {
			c.removeLocked(s)
		}
	}
}

// revokeLocked takes from id what is like r, whatever its query.
func (c *Cache) revokeLocked(id *Identity, r Right) {
	for g := range id.grants {
		if g.like(r) {
			id.loseLocked(c, g)
		}
	}
	for k, s := range c.slots {
		if k.right().like(r) && (k.Personal == id.ID || k.Personal == 0 && !c.seenLocked(k)) {
			c.removeLocked(s)
		}
	}
}

// Learned records when a caller's token ends; the zero time means never.
func (c *Cache) Learned(id *Identity, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id.learned, id.expires, id.known = c.o.Now(), expires, true
}

// Due lists the rights of id that want confirmation at now, by namespace, and
// whether the end of its token is to be learned. Both are empty while a
// confirmation that the origin failed is not to be repeated. Preflights are
// left out: capabilities say nothing of them.
func (c *Cache) Due(id *Identity, now time.Time) (rights map[string][]Right, lifetime bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !id.retryDue(now) {
		return nil, false
	}
	lifetime = !id.own && !id.known && len(id.grants) > 0
	due := make(map[string]bool)
	for r, at := range id.grants {
		if _, ok := preflightPath(r.Path); !ok && !c.confirmedLocked(at, now) {
			due[r.Namespace] = true
		}
	}
	if len(due) == 0 {
		return nil, lifetime
	}
	// One call confirms all of a namespace: those not yet due ride along, behind
	// the others.
	rights = make(map[string][]Right)
	for _, wanted := range [...]bool{true, false} {
		for r, at := range id.grants {
			if _, ok := preflightPath(r.Path); !ok && due[r.Namespace] && wanted == !c.confirmedLocked(at, now) {
				rights[r.Namespace] = append(rights[r.Namespace], r)
			}
		}
	}
	return rights, lifetime
}

func (c *Cache) confirmedLocked(at, now time.Time) bool {
	return !at.IsZero() && Within(at, now, c.o.RefreshInterval)
}

// Confirm records the answer to a confirmation sent at sentAt: held are the
// rights that id still has, lost those that it has no more.
func (c *Cache) Confirm(id *Identity, sentAt time.Time, held, lost []Right) {
	c.confirm(id, sentAt, held, lost)
	if c.o.Shared == nil || !id.own {
		return
	}
	grants := make(map[Right]time.Time, len(held))
	for _, r := range held {
		grants[r] = sentAt
	}
	c.o.Shared.Keep(context.Background(), nil, grants)
	c.drop(nil, lost, sentAt)
}

func (c *Cache) confirm(id *Identity, sentAt time.Time, held, lost []Right) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id.retry = time.Time{}
	for _, r := range held {
		if old, ok := id.grants[r]; ok && sentAt.After(old) && !sentAt.Before(id.doubted) {
			id.grants[r] = sentAt
		}
	}
	for _, r := range lost {
		if id.grants[r].After(sentAt) {
			continue // read successfully after the question was sent
		}
		c.revokeLocked(id, r)
		c.counters.Invalidated++
	}
}

// ConfirmFailed records that the origin failed a confirmation of id's grants.
// Under the optimistic behaviour they stay, and the next try is at again.
func (c *Cache) ConfirmFailed(id *Identity, again time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Pessimistic {
		id.dropLocked(c)
		return
	}
	id.retry = again
}
