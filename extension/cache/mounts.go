package cache

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/wire"
)

// Mounts says what a path is: which mounts are KV, as far as that is known, and
// who was not told which mount a path is on. The mounts preflight decides, beside
// mount_type in an answer. An answer of another shape than the mount's only has the
// preflight asked again. That a mount is not KV counts for a refresh interval:
// reads of it go past the cache, so that no answer can contradict it.
type Mounts struct {
	options *Options

	mu       sync.Mutex      // guards the fields below
	versions map[Key]version // by place
	size     int64           // estimated memory of those that were learned
	refusals map[Key]time.Time
}

// version is that of a mount, and when it was learned.
type version struct {
	number int
	at     time.Time // zero: it is configured
}

const (
	maxMounts   = 4096
	mountSize   = 128      // estimated memory of a mount besides its strings
	mountRoom   = 64 << 10 // bytes that learned mounts may take at least; else a sixteenth of the cache
	maxRefusals = 1024     // remembered; forgetting one costs a request
)

func newMounts(o *Options) *Mounts {
	m := &Mounts{options: o}
	m.reset()
	return m
}

// reset forgets all but the configured mounts.
func (m *Mounts) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.versions, m.refusals, m.size = make(map[Key]version), make(map[Key]time.Time), 0
	for _, c := range m.options.Mounts {
		m.versions[c.place()] = version{number: c.Version}
	}
}

// Knows looks the mount of a path up: its version (0: known not to be KV) and
// whether anything is known.
func (m *Mounts) Knows(namespace, path string) (Mount, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		v, ok := m.versions[Key{Namespace: namespace, Path: path[:end]}]
		if ok && (v.number > 0 || clock.Within(v.at, m.options.Now(), m.options.RefreshInterval)) {
			return Mount{namespace, path[:end], v.number}, true
		}
	}
	return Mount{}, false
}

// Learn remembers a mount.
func (m *Mounts) Learn(mount Mount) {
	if mount.Path == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.versions[mount.place()]; !ok {
		// A caller chooses the namespace, and the path where nothing is known of
		// the mount: both may be long.
		if len(m.versions) >= maxMounts || m.size+mount.size() > max(m.options.Bytes/16, mountRoom) {
			return
		}
		m.size += mount.size()
	}
	m.versions[mount.place()] = version{mount.Version, m.options.Now()}
}

// unlearn forgets a mount.
func (m *Mounts) unlearn(mount Mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.versions[mount.place()]; ok && !v.at.IsZero() {
		m.size -= mount.size()
	}
	delete(m.versions, mount.place())
}

// refusalOf is the place of a key as one of which somebody is not told the mount.
func refusalOf(k Key, id *Identity) Key {
	return Key{Namespace: k.Namespace, Path: k.Path, Personal: id.ID}
}

// refused reports whether r was not longer ago than a refresh interval: who was not told
// which mount a path is on, or, of nobody, of which mount the origin was asked once more.
func (m *Mounts) refused(r Key, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.refusals[r]
	return ok && clock.Within(at, now, m.options.RefreshInterval)
}

// refuse remembers r.
func (m *Mounts) refuse(r Key, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.refusals) >= maxRefusals {
		clear(m.refusals)
	}
	m.refusals[r] = now
}

// place says which mount an answer is from. What is known decides, unless the answer
// contradicts it: then the origin is asked, once in a refresh interval for each mount.
// Where nothing is known and the answer does not tell its mount_type, the origin is
// asked, too.
func (f *fill) place(ctx context.Context, r *reading) {
	c, key, now := f.c, f.want.Key, f.c.o.Now()
	if r.mount, r.known = c.mounts.Knows(key.Namespace, key.Path); r.known {
		if !r.contradicts() || c.mounts.refused(r.mount.place(), now) {
			return
		}
		c.mounts.refuse(r.mount.place(), now)
	} else if r.shape.MountType != "" || !askable(key.Path) {
		return
	}
	m, known, elsewhere := f.mountOf(ctx)
	switch {
	case known:
		r.mount, r.known = m, true
		c.mounts.refuse(m.place(), now)
	case elsewhere:
		c.mounts.unlearn(r.mount)
		r.known = false
		if none := (Mount{Namespace: key.Namespace, Path: key.Path}); r.shape.MountType == "" {
			f.learn(none, key.Path)
			c.mounts.refuse(none.place(), now)
		}
	default: // nobody says
		c.mu.Lock()
		r.kept = c.harmlessLocked(key, f.id)
		c.mu.Unlock()
	}
}

// mountOf asks the origin which mount a path is on and remembers it, for servers
// whose answers carry no mount_type (OpenBao, Vault before 1.16). elsewhere: it
// named one that the path is not on. What an answer says counts for all. The question
// spends a use of the token, so thaw's own asks first in place of one whose uses may be
// counted. A refusal is about who asked, and keeps only that identity from asking for a
// while.
func (f *fill) mountOf(ctx context.Context) (m Mount, known, elsewhere bool) {
	if _, lend := f.c.access.allows(f.want.ID); !lend {
		if m, known, elsewhere = f.mountAs(ctx, f.c.o.Own); known || elsewhere {
			return m, known, elsewhere
		}
	}
	return f.mountAs(ctx, f.want.ID)
}

// mountAs is mountOf under one identity.
func (f *fill) mountAs(ctx context.Context, id *Identity) (m Mount, known, elsewhere bool) {
	c, w := f.c, f.want
	if c.mounts.refused(refusalOf(w.Key, id), c.o.Now()) {
		return Mount{}, false, false
	}
	key := Key{Namespace: w.Key.Namespace, Path: preflightPrefix + w.Key.Path}
	res, err := c.o.Origin.Read(ctx, Question{Key: key, ID: id, Harmless: true})
	if err != nil {
		return Mount{}, false, false
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || res.StatusCode == http.StatusPreconditionFailed || wire.FromCache(res.Header) || wire.New(res.StatusCode, res.Header, body).Word(wire.Secret) == wire.Failure {
		return Mount{}, false, false // a 412 is a node's that lags, and a cache in between may know an older mount
	}
	m, ok := ParseMount(w.Key.Namespace, body)
	switch {
	case res.StatusCode != http.StatusOK || !ok:
		c.mounts.refuse(refusalOf(w.Key, id), c.o.Now())
		return Mount{}, false, false
	case !m.holds(w.Key.Path):
		return Mount{}, false, true
	}
	f.learn(m, w.Key.Path)
	return m, true, false
}

// learn remembers the mount that a path is on, and none below it, unless a write may
// have changed it since it was asked for.
func (f *fill) learn(mount Mount, path string) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.forget && !f.want.Skip { // Skip forgets every fill, and must not ask again each time
		return
	}
	m := f.c.mounts
	for old, ok := m.Knows(mount.Namespace, path); ok && len(old.Path) > len(mount.Path); old, ok = m.Knows(mount.Namespace, path) {
		m.unlearn(old)
	}
	m.Learn(mount)
}

// harmlessLocked reports whether a read of key for id is known to change nothing:
// its mount is known to be KV, it asks for that, or its answer is here. Whatever
// else has the shape of such a path may make credentials.
func (c *Cache) harmlessLocked(key Key, id *Identity) bool {
	if _, ok := preflightPath(key.Path); ok && key.Op == Read {
		return true
	}
	if m, ok := c.mounts.Knows(key.Namespace, key.Path); ok {
		return m.Version > 0
	}
	s := c.findLocked(key, id)
	return s != nil && s.entry.Kind != Other
}
