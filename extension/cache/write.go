package cache

import (
	"path"
	"strings"
	"time"
)

// Write is a write through the proxy in progress.
type Write struct {
	namespace string
	path      string   // cleaned, without slashes at either end
	all       bool     // what it can change cannot be told from its path
	paths     []target // what it can change
}

// target is one KV resource: a path as it stands, or a KV v2 key of a mount.
type target struct {
	prefix string // mount of a KV v2 key; empty for a plain path
	rest   string
}

// NewWrite describes a write to an API path (decoded, without /v1/).
func NewWrite(namespace, apiPath string) *Write {
	w := &Write{namespace: namespace, path: strings.Trim(path.Clean("/"+apiPath), "/")}
	// A mount table or storage that changes may change anything.
	for _, p := range [...]string{"sys/mounts", "sys/remount", "sys/namespaces", "sys/raw", "sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force", "sys/replication"} {
		if w.path == p || hasPathPrefix(w.path, p) || strings.Contains("/"+w.path+"/", "/"+p+"/") {
			w.all = true
		}
	}
	w.paths = targets(joined(namespace, w.path))
	if namespace != "" {
		// Community servers ignore the namespace header.
		w.paths = append(w.paths, targets(w.path)...)
	}
	return w
}

func targets(p string) []target {
	out := []target{{rest: p}}
	for i := 1; i < len(p); i++ {
		if p[i] != '/' {
			continue
		}
		kind, rest, _ := strings.Cut(p[i+1:], "/")
		switch kind {
		case "data", "metadata", "subkeys", "delete", "undelete", "destroy", "detailed-metadata":
			out = append(out, target{prefix: p[:i], rest: rest})
		}
	}
	return out
}

// affects reports whether the write can change what key answers: the path
// itself, the lists above it, and for KV v2 the data, versions, metadata and
// subkeys of the key and the lists above it.
func (w *Write) affects(k Key) bool {
	if w.all {
		return true
	}
	if w.affectsPath(k, k.Path) {
		return true
	}
	return k.Namespace != "" && w.affectsPath(k, joined(k.Namespace, k.Path))
}

func (w *Write) affectsPath(k Key, p string) bool {
	for _, t := range w.paths {
		if t.prefix == "" {
			if p == t.rest || k.Op == List && hasPathPrefix(t.rest, p) {
				return true
			}
			continue
		}
		below, ok := strings.CutPrefix(p, t.prefix+"/")
		if !ok {
			continue
		}
		kind, rest, _ := strings.Cut(below, "/")
		switch kind {
		case "data", "metadata", "subkeys", "detailed-metadata":
			if rest == t.rest || k.Op == List && (rest == "" || hasPathPrefix(t.rest, rest)) {
				return true
			}
		}
	}
	return false
}

// hasPathPrefix reports whether p lies below prefix.
func hasPathPrefix(p, prefix string) bool {
	return len(p) > len(prefix) && p[:len(prefix)] == prefix && p[len(prefix)] == '/'
}

// resourceOf maps data, metadata and subkeys of one KV v2 key to one name.
func resourceOf(p string) string {
	for i := 1; i < len(p); i++ {
		if p[i] != '/' {
			continue
		}
		kind, rest, _ := strings.Cut(p[i+1:], "/")
		switch kind {
		case "data", "metadata", "subkeys":
			return p[:i] + "\x00" + rest
		}
	}
	return p
}

// BeginWrite evicts what w can change and keeps reads that begin until
// EndWrite from being stored. Every BeginWrite needs its EndWrite.
func (c *Cache) BeginWrite(w *Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes[w] = struct{}{}
	c.writeCount++
	c.invalidateLocked(w)
}

// EndWrite evicts again what w can change: it is called when the origin has
// answered and before that answer is returned.
func (c *Cache) EndWrite(w *Write) {
	c.mu.Lock()
	delete(c.writes, w)
	c.writeCount++
	var keys []Key
	if c.o.Shared != nil {
		c.written.add(w, c.o.Now())
		if !w.all {
			keys = w.sharedKeys(c.slots)
		}
	}
	c.invalidateLocked(w)
	c.mu.Unlock()
	c.drop(keys, nil, c.o.Now())
}

// maxEnded bounds what is known of writes one by one.
const maxEnded = 64

// writings are the latest writes through the proxy and when each ended: what the
// shared tier holds may be of before, whether Drop got there or not.
type writings struct {
	writes []endedWrite
	rest   time.Time // when the last of those that are not kept ended
}

type endedWrite struct {
	w  *Write
	at time.Time
}

func (e *writings) add(w *Write, at time.Time) {
	for i := range e.writes {
		if o := e.writes[i].w; o.namespace == w.namespace && o.path == w.path {
			e.writes = append(e.writes[:i], e.writes[i+1:]...)
			break
		}
	}
	if len(e.writes) == maxEnded {
		e.rest = e.writes[0].at
		e.writes = e.writes[1:]
	}
	e.writes = append(e.writes, endedWrite{w, at})
}

// since returns when the last write of k ended that an answer verified by a
// request sent at sentAt may not have seen; zero: it has seen all.
func (e *writings) since(k Key, sentAt time.Time) time.Time {
	var last time.Time
	if !sentAt.After(e.rest) {
		last = e.rest
	}
	for _, o := range e.writes {
		if !sentAt.After(o.at) && o.w.affects(k) {
			last = o.at // they are in order
		}
	}
	return last
}

func (c *Cache) invalidateLocked(w *Write) {
	c.spoilWhereLocked(func(f *flight) bool { return w.affects(f.key) })
	if w.all {
		c.resetMountsLocked()
		clear(c.refusals)
	} else if c.segments[firstSegment(w.path)] == 0 && c.segments[firstSegment(joined(w.namespace, w.path))] == 0 {
		return
	}
	for k, s := range c.slots {
		if w.affects(k) {
			c.removeLocked(s)
			c.counters.Invalidated++
		}
	}
}

// Purge drops the entries whose path begins with prefix, in one namespace.
func (c *Cache) Purge(namespace, prefix string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for k, s := range c.slots {
		if k.Namespace == namespace && strings.HasPrefix(k.Path, prefix) {
			c.removeLocked(s)
			n++
		}
	}
	c.spoilWhereLocked(func(f *flight) bool {
		return f.key.Namespace == namespace && strings.HasPrefix(f.key.Path, prefix)
	})
	return n
}

// DropOptedIn drops what id has because requests opted in: its token was
// replaced, and the leases of the old one end with that.
func (c *Cache) DropOptedIn(id *Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.slots {
		if s.entry.Kind == Other && s.entry.Key.Personal == id.ID {
			c.removeLocked(s)
		}
	}
	c.spoilWhereLocked(func(f *flight) bool { return f.id == id && f.optedIn })
}
