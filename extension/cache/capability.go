package cache

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Capability is what an identity may do: read, or list, one path with one query.
// The query counts because policies may require, allow or deny parameters of
// reads, such as the version
// (https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints),
// and sys/capabilities-self says nothing of them.
type Capability struct {
	Namespace, Path string
	List            bool
	Query           string
}

// Capability returns what it takes to read a key.
func (k Key) Capability() Capability {
	return Capability{k.Namespace, k.Path, k.Op == List, k.Query}
}

// key is the key that the capability is needed for; personal as in Key.
func (p Capability) key(personal uint64) Key {
	k := Key{Namespace: p.Namespace, Path: p.Path, Query: p.Query, Personal: personal}
	if p.List {
		k.Op = List
	}
	return k
}

// plain is the capability without its query.
func (p Capability) plain() Capability {
	p.Query = ""
	return p
}

// HangsOn reports whether p counts as confirmed with o: if they are the same,
// or p is to read the mounts preflight and o is below its mount.
func (p Capability) HangsOn(o Capability) bool {
	mount, preflight := preflightPath(p.Path)
	if !preflight {
		return p == o
	}
	return p.Namespace == o.Namespace && strings.HasPrefix(o.Path, mount) && (len(o.Path) == len(mount) || o.Path[len(mount)] == '/')
}

// Estimated memory, in bytes.
const (
	capabilitySize = 192 // of a capability besides its strings
	holdSize       = 96  // of one identity's hold on it
	identitySize   = 512
)

func (p Capability) size() int64 {
	return capabilitySize + int64(len(p.Namespace)+len(p.Path)+len(p.Query))
}

// capability is one that somebody holds, with all who do.
type capability struct {
	Capability
	holders  *hold                    // a ring; nil: none
	bare     *capability              // the same without a query; itself where it has none
	variants map[*capability]struct{} // of one without a query: those with one
}

// Confirmation says what is known of one identity's capability. The times are
// those at which requests were sent.
type Confirmation struct {
	Read  time.Time // the read that the origin last answered to the identity
	At    time.Time // the last confirmation: that read, or sys/capabilities-self
	Ended time.Time // the end of the capability; zero: it did not end since Read

	Missed bool // there was nothing to read: that tells nothing of what is there later
}

// hold is one identity's hold on a capability.
type hold struct {
	of         *capability
	by         *Identity
	read       time.Time // when the read was sent that the origin last answered to the identity
	doubts     uint64    // Access.doubts then
	confirmed  time.Time // when the request was sent that last confirmed it
	unsure     uint64    // Identity.unsure then
	found      bool      // the origin answered a read with 200, and not with 404 alone
	next, prev *hold     // the others who hold it
}

// capabilities is the index of who holds what.
type capabilities struct {
	index map[Capability]*capability
	size  atomic.Int64 // estimated memory of all identities and capabilities
}

func (x *capabilities) intern(p Capability) *capability {
	if c := x.index[p]; c != nil {
		return c
	}
	c := &capability{Capability: p}
	x.index[p] = c
	x.size.Add(p.size())
	c.bare = c
	if p.Query != "" {
		c.bare = x.intern(p.plain())
		if c.bare.variants == nil {
			c.bare.variants = make(map[*capability]struct{})
		}
		c.bare.variants[c] = struct{}{}
	}
	return c
}

// release forgets a capability that nobody holds.
func (x *capabilities) release(c *capability) {
	if c.holders != nil || len(c.variants) > 0 {
		return
	}
	delete(x.index, c.Capability)
	x.size.Add(-c.Capability.size())
	if c.bare != c {
		delete(c.bare.variants, c)
		x.release(c.bare)
	}
}

// all are the holds on a capability, the last first.
func (c *capability) all() iter.Seq[*hold] {
	return func(yield func(*hold) bool) {
		if c.holders == nil {
			return
		}
		for h := c.holders.prev; yield(h) && h != c.holders; h = h.prev {
		}
	}
}

func (x *capabilities) add(h *hold) {
	x.size.Add(holdSize)
	if first := h.of.holders; first != nil {
		h.next, h.prev = first, first.prev
		h.prev.next, first.prev = h, h
		return
	}
	h.next, h.prev = h, h
	h.of.holders = h
}

func (x *capabilities) remove(h *hold) {
	x.size.Add(-holdSize)
	h.next.prev, h.prev.next = h.prev, h.next
	switch {
	case h.next == h:
		h.of.holders = nil
	case h.of.holders == h:
		h.of.holders = h.next
	}
	x.release(h.of)
}

// alike lists the capabilities that differ from p in their query at most.
func (x *capabilities) alike(p Capability) []*capability {
	bare := x.index[p.plain()]
	if bare == nil {
		return nil
	}
	return append(slices.Collect(maps.Keys(bare.variants)), bare)
}
