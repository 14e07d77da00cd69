package warmup

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// memory is the shared tier of one audience as its interfaces promise it: the
// later verification stays, what was removed at a time is gone unless verified
// after it, a lock has one holder until its time is over. It fails the test on
// calls that the tier would not take.
type memory struct {
	t   testing.TB
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	records map[cache.Key]cache.Record
	states  map[string][]byte
	stamps  map[cache.Key]cache.Stamp
	cursor  cache.CursorStamp
	used    map[cache.Capability]bool
	removed map[cache.Key]time.Time
	learned map[string]bool // by active_time: whether standbys forward reads
	holder  *memoryLease
	until   time.Time
	puts    int
	hook    func() // before each Put
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, now: time.Now, records: map[cache.Key]cache.Record{}, states: map[string][]byte{}, stamps: map[cache.Key]cache.Stamp{},
		used: map[cache.Capability]bool{}, removed: map[cache.Key]time.Time{}, learned: map[string]bool{}}
}

func (m *memory) audience(name string, prefixes ...string) Audience {
	return Audience{Name: name, Prefixes: prefixes, Tier: m}
}

func (m *memory) Entries(_ context.Context, keys []cache.Key) map[cache.Key]cache.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[cache.Key]cache.Record{}
	for _, k := range keys {
		if r, ok := m.records[k]; ok {
			out[k] = r
		}
	}
	return out
}

func (m *memory) Put(_ context.Context, records []cache.Record) {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		hook()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	for _, r := range records {
		if r.Key.Path == "" || r.Key.Personal != 0 || r.Kind == cache.Other || r.SentAt.IsZero() || r.Status != 200 {
			m.t.Errorf("a record that the tier cannot hold: %+v", r.Key)
			continue
		}
		if old, ok := m.records[r.Key]; ok && !r.SentAt.After(old.SentAt) {
			continue
		}
		if at, ok := m.removed[r.Key]; ok && !r.SentAt.After(at) {
			continue
		}
		m.records[r.Key] = r
	}
}

func (m *memory) Remove(_ context.Context, keys []cache.Key, at time.Time) (lost int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.IsZero() {
		m.t.Error("removed at no time")
	}
	for _, k := range keys {
		if r, ok := m.records[k]; ok && !r.SentAt.After(at) {
			delete(m.records, k)
		}
		m.removed[k] = at
	}
	return 0
}

func (m *memory) State(_ context.Context, name string, into any) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.states[name]
	return ok && json.Unmarshal(b, into) == nil
}

func (m *memory) PutState(_ context.Context, name string, v any, ttl time.Duration) {
	b, err := json.Marshal(v)
	if err != nil || ttl <= 0 || len(b) > 900<<10 {
		m.t.Errorf("state %s: %v, ttl %s, %d bytes", name, err, ttl, len(b))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[name] = b
}

type memoryLease struct {
	m   *memory
	ttl time.Duration
}

func (m *memory) Lock(_ context.Context, name string, ttl time.Duration) (l Lease, held, taken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder != nil && m.now().Before(m.until) {
		return nil, false, true
	}
	m.holder, m.until = &memoryLease{m, ttl}, m.now().Add(ttl)
	return m.holder, true, false
}

func (l *memoryLease) Renew(context.Context) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.holder != l || !l.m.now().Before(l.m.until) {
		return false
	}
	l.m.until = l.m.now().Add(l.ttl)
	return true
}

func (l *memoryLease) Release(context.Context) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.holder == l {
		l.m.holder = nil
	}
}

func (m *memory) PutStamps(_ context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !cursor.At.IsZero() {
		m.cursor = cursor
	}
	for k, s := range entries {
		m.stamps[k] = s
	}
}

func (m *memory) Used(context.Context) map[cache.Capability]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.used)
}

func (m *memory) Learned(_ context.Context, activeTime string, forwards bool, at time.Time) {
	if activeTime == "" || at.IsZero() {
		m.t.Errorf("learned %q, %t, at %s", activeTime, forwards, at)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learned[activeTime] = forwards
}

// Held, PutHeld and EndRole are of no use where there are no identities.
func (m *memory) Held(context.Context) []Held                     { return nil }
func (m *memory) PutHeld(context.Context, Held)                   {}
func (m *memory) EndRole(context.Context, string, time.Time) bool { return true }

// body returns what is stored for a path, or "".
func (m *memory) body(path string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.records[cache.Key{Path: path}].Body)
}

// secrets counts the stored secrets.
func (m *memory) secrets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, r := range m.records {
		if r.Kind == cache.Data || r.Kind == cache.KV1 {
			n++
		}
	}
	return n
}

func (m *memory) has(path, text string) bool { return strings.Contains(m.body(path), text) }
