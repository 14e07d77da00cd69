package consistency

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// Shared keeps states for all instances of an audience.
type Shared interface {
	// Merged returns the records under name; they count together. Where they
	// cannot be had there are none.
	Merged(ctx context.Context, name string) [][]byte
	// Merge replaces them by what merge makes of them, and returns when that is
	// done. Of two at the same time none is lost. The record is kept for ttl.
	Merge(ctx context.Context, name string, ttl time.Duration, merge func(old [][]byte) []byte) error
}

// name is where an identity's states are kept. The audience's own identity is
// one; a caller's is named by its token, hashed.
func (w who) name() string {
	if w.own {
		return "states/own"
	}
	return "states/" + hex.EncodeToString(w.token[:])
}

// Refresh takes over what other instances recorded for id. It is one call of
// the shared tier, before each request: a state that was looked up earlier says
// nothing of a write since.
func (k *Keeper) Refresh(ctx context.Context, id *cache.Identity) {
	w := whoIs(id)
	if k.o.Shared == nil || w.nobody() {
		return
	}
	states := joined(k.o.Shared.Merged(ctx, w.name()))
	if len(states) == 0 || Covers(k.find(w).required, strings.Join(states, separator)) {
		return
	}
	now, until := k.o.Now(), time.Time{}
	if _, raft := raftIndex(strings.Join(states, separator)); raft {
		until = now.Add(k.o.Wait) // written just now, for all that is known
	}
	k.update(w, func(r *record) {
		r.take(states, now, until)
		r.wrote = true
	})
}

// joined is the states of several records.
func joined(records [][]byte) []string {
	var all []string
	for _, r := range records {
		all = union(all, shareable(strings.Split(string(r), separator)))
	}
	return all
}

// shareable leaves out what only this instance can make sense of.
func shareable(states []string) []string {
	return only(states, func(s state) bool { return s.cluster != writePrefix })
}

// only is those that are states, and good.
func only(states []string, good func(state) bool) []string {
	return slices.DeleteFunc(slices.Clone(states), func(raw string) bool {
		s, ok := parse(raw)
		return !ok || !good(s)
	})
}

// publishTries is how often a state is put into the shared tier that does not
// take it: a read elsewhere may depend on it, and nobody can ask for it again.
const publishTries = 3

// publish makes states known to the other instances, before the answer that
// carried them is returned.
func (k *Keeper) publish(ctx context.Context, w who, states []string) {
	if k.o.Shared == nil || w.nobody() {
		return
	}
	states = shareable(states)
	if len(states) == 0 {
		return
	}
	var err error
	for range publishTries {
		err = k.o.Shared.Merge(context.WithoutCancel(ctx), w.name(), lifetime, func(old [][]byte) []byte {
			return []byte(strings.Join(union(joined(old), states), separator))
		})
		if err == nil {
			return
		}
	}
	k.o.Log.Warn("the state of a write could not be kept in memcached: other instances may read what was there before it", "error", err)
}
