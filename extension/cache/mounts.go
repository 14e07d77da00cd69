package cache

import (
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Mounts says what a path is: which mounts are KV, as far as that is known, and
// who was not told which mount a path is on.
type Mounts struct {
	configured []Mount
	room       int64         // bytes that learned mounts may take
	refresh    time.Duration // how long a refusal counts

	mu       sync.Mutex // guards the fields below
	versions map[mountKey]int
	size     int64 // estimated memory of those that were learned
	refusals map[refusal]time.Time
}

type mountKey struct{ namespace, path string }

// refusal names who was not told which mount a path is on.
type refusal struct {
	id              uint64
	namespace, path string
}

const (
	maxMounts   = 4096
	mountSize   = 128      // estimated memory of a mount besides its strings
	mountRoom   = 64 << 10 // bytes that mounts may take at least, however small the cache
	maxRefusals = 1024     // remembered; forgetting one costs a request
)

func newMounts(o *Options) *Mounts {
	m := &Mounts{configured: o.Mounts, room: max(o.Bytes/16, mountRoom), refresh: o.RefreshInterval}
	m.reset()
	return m
}

// reset forgets all but the configured mounts.
func (m *Mounts) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.versions, m.refusals, m.size = make(map[mountKey]int), make(map[refusal]time.Time), 0
	for _, c := range m.configured {
		m.versions[mountKey{c.Namespace, c.Path}] = c.Version
	}
}

// Knows looks the mount of a path up: its version (0: known not to be KV) and
// whether anything is known.
func (m *Mounts) Knows(namespace, path string) (Mount, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '/') {
		if v, ok := m.versions[mountKey{namespace, path[:end]}]; ok {
			return Mount{namespace, path[:end], v}, true
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
	k := mountKey{mount.Namespace, mount.Path}
	if _, ok := m.versions[k]; !ok {
		// A caller chooses the namespace, and the path where nothing is known of
		// the mount: both may be long.
		size := mountSize + int64(len(mount.Namespace)+len(mount.Path))
		if len(m.versions) >= maxMounts || m.size+size > m.room {
			return
		}
		m.size += size
	}
	m.versions[k] = mount.Version
}

func refusalOf(key Key, id *Identity) refusal { return refusal{id.ID, key.Namespace, key.Path} }

// refused reports whether id was refused the mount of key's path, not longer ago
// than a refresh interval.
func (m *Mounts) refused(key Key, id *Identity, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.refusals[refusalOf(key, id)]
	return ok && clock.Within(at, now, m.refresh)
}

// refuse remembers that id was refused the mount of key's path.
func (m *Mounts) refuse(key Key, id *Identity, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.refusals) >= maxRefusals {
		clear(m.refusals)
	}
	m.refusals[refusalOf(key, id)] = now
}
