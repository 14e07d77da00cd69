package cache

import (
	"container/list"
	"strings"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Identity is who asks: the extension itself, or one caller's token. What it
// may see is for Access to say. The extension's own stays the same through all
// its logins, so whoever logs in says what a login changed.
type Identity struct {
	ID    uint64 // tells identities apart in keys; 0: of nobody whom Access knows
	Token string // the caller's token; empty for the extension's own identity
	own   bool

	accepted atomic.Bool // the origin answered it as only somebody known is answered

	resets atomic.Uint64
	leases atomic.Uint64
	barred atomic.Bool // the origin refused its last login
	ends   atomic.Pointer[time.Time]
	access *Access // nil: nothing is remembered of it

	// What it may do. Guarded by Access.mu.
	held       map[*capability]*hold
	namespaces map[string]int // capabilities in each namespace
	learned    time.Time      // when token was
	token      Token          // what is known of a caller's
	known      bool           // it was asked for
	wanted     bool           // it is to be asked for with nothing else
	unsure     uint64         // how often all that it holds was made to wait for confirmation
	unsureAt   time.Time      // when last
	refused    int            // the status of the last confirmation, if the origin failed it; 0: no answer, or it did not fail
	used       time.Time      // last use
	retry      time.Time      // no confirmation is tried again before this, after the origin failed one
	confirmed  quiet          // that Due finds nothing
	renewed    quiet          // that renewals does
	place      *list.Element  // of a caller, in idle or holding
}

// Token is what the origin says of a caller's token.
type Token struct {
	Asked   time.Time // when the question was sent; zero: nobody asked
	Expires time.Time // zero: never, or not known
	Orphan  bool      // no other token's revocation ends it
	Counted bool      // its uses are: it is lent to nothing, and nothing is kept for it
	Hidden  bool      // it may not look at itself
}

// ownID is the ID of the extension's own identity.
const ownID = 1

// NewOwn returns an identity for the extension itself. One process has one.
func NewOwn() *Identity { return &Identity{ID: ownID, own: true} }

// Own reports whether this is the extension's identity.
func (id *Identity) Own() bool { return id.own }

// Accept says that the origin knows the identity's token: it answered what nobody
// is answered who has none.
func (id *Identity) Accept() { id.accepted.Store(true) }

// Share is whose share of the places at the origin the identity has (package
// queue): its own, or that of all who are not known.
func (id *Identity) Share() any {
	if id.own || id.accepted.Load() {
		return id
	}
	return nil
}

// Reset ends all capabilities of the identity: its policies or its entity
// changed, or it was revoked. Reads on their way were allowed by what it was
// before, and leave nothing.
func (id *Identity) Reset() {
	id.resets.Add(1) // whoever waits for the lock must not grant it anything
	if id.access != nil {
		id.access.mu.Lock()
		defer id.access.mu.Unlock()
		id.access.emptyLocked(id)
	}
}

// Resets returns how often Reset was called.
func (id *Identity) Resets() uint64 { return id.resets.Load() }

// SetEnd says when the token of the extension's own identity ends; zero: never, or
// not known.
func (id *Identity) SetEnd(at time.Time) {
	if old := id.ends.Load(); old == nil || !old.Equal(at) {
		id.ends.Store(&at)
	}
}

// ended reports whether the token of the extension's own identity has ended.
func (id *Identity) ended(now time.Time) bool {
	at := id.ends.Load()
	return at != nil && !at.IsZero() && clock.Until(*at, now) <= 0
}

// lendable reports whether a token may be used for what its caller did not ask for:
// the extension's own, and one whose uses are known not to be counted. Those of batch
// tokens never are
// (https://developer.hashicorp.com/vault/docs/concepts/tokens#token-type-comparison).
func (id *Identity) lendable() bool {
	return id.own || id.known && !id.token.Counted && !id.token.Hidden || strings.HasPrefix(id.Token, "hvb.") || strings.HasPrefix(id.Token, "b.")
}

// Bar says whether the origin refused the identity's last login. While it did,
// what other instances may do says nothing of this one.
func (id *Identity) Bar(refused bool) {
	if refused {
		id.Reset()
	}
	id.barred.Store(refused)
}

// EndLeases ends what was leased to the identity and kept because a request
// opted in: its token was replaced or its leases were revoked.
func (id *Identity) EndLeases() { id.leases.Add(1) }

// listsFor is whose the lists are that id reads. OpenBao may filter a list by
// what the token may read
// (https://openbao.org/docs/rfcs/filtering-list), so callers share none.
func (id *Identity) listsFor() uint64 {
	if id.own {
		return 0
	}
	return id.ID
}
