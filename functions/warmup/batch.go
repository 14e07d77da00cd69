package warmup

import (
	"context"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// A batch goes to the tier when it is this large.
const (
	batchRecords = 64
	batchBytes   = 256 << 10
)

// flushTime bounds what a batch costs when memcached is slow.
const flushTime = 5 * time.Second

// batch is what one worker has read and not stored yet.
type batch struct {
	of       []int // what was claimed for it
	records  []cache.Record
	absent   []cache.Key // asked for and not there
	absentAt time.Time   // when the first of them was asked for
	bytes    int
}

func (b *batch) full() bool {
	return len(b.records)+len(b.absent) >= batchRecords || b.bytes >= batchBytes || len(b.of) >= 4*batchRecords
}

// flush stores a batch, and empties it. The error is errLost: nothing was written.
func (p *pass) flush(b *batch) error {
	defer func() { *b = batch{} }()
	if !p.held() {
		return errLost
	}
	if len(b.records)+len(b.absent) > 0 {
		p.store(b)
	}
	p.todo.finish(b.of)
	return nil
}

// store compares a batch with the tier and puts it there.
func (p *pass) store(b *batch) {
	ctx, cancel := context.WithTimeout(p.last, flushTime)
	defer cancel()
	store := p.audience
	held := store.Entries(ctx, append(keysOfRecords(b.records), b.absent...))
	var n Summary
	for _, r := range b.records {
		old, ok := held[r.Key]
		switch {
		case r.Kind != cache.KV1 && r.Kind != cache.Data: // not a secret
		case ok && cache.Fingerprint(old.Status, old.Body) == cache.Fingerprint(r.Status, r.Body):
			n.Unchanged++
		default:
			n.Changed++
		}
	}
	absent := slices.DeleteFunc(b.absent, func(k cache.Key) bool { _, ok := held[k]; return !ok })
	p.share(ctx, b.records)
	if len(absent) > 0 {
		store.Remove(ctx, absent, b.absentAt)
	}
	p.w.note(func(s *Summary) {
		s.Changed, s.Unchanged, s.Removed = s.Changed+n.Changed, s.Unchanged+n.Unchanged, s.Removed+len(absent)
	})
}

// share puts records into the tier and tells functions that they are verified.
func (p *pass) share(ctx context.Context, records []cache.Record) {
	p.put(ctx, records)
	if len(records) > 0 {
		p.audience.PutStamps(ctx, cache.CursorStamp{}, cache.Stamps(records))
	}
}

func pathsOf(items []item) []string {
	paths := make([]string, len(items))
	for i, it := range items {
		paths[i] = it.path
	}
	return paths
}

func keysAt(namespace string, paths []string) []cache.Key {
	keys := make([]cache.Key, len(paths))
	for i, path := range paths {
		keys[i] = cache.Key{Namespace: namespace, Path: path}
	}
	return keys
}

func keysOfRecords(records []cache.Record) []cache.Key {
	keys := make([]cache.Key, len(records))
	for i, r := range records {
		keys[i] = r.Key
	}
	return keys
}

// large is a body that may not fit into memcached's items of 1 MiB.
const large = 900 << 10

// put stores records and looks whether they are there: a write that memcached
// did not take in time leaves no other trace. It tries once more.
func (p *pass) put(ctx context.Context, records []cache.Record) {
	store, left := p.audience, records
	for try := 0; try < 2 && len(left) > 0; try++ {
		store.Put(ctx, left)
		there, now := store.Entries(ctx, keysOfRecords(left)), p.w.o.Now()
		left = slices.DeleteFunc(slices.Clone(left), func(r cache.Record) bool {
			_, ok := there[r.Key]
			return ok || !r.Expires.IsZero() && !now.Before(r.Expires)
		})
	}
	for _, r := range left {
		if len(r.Body) > large {
			p.w.fail(r.Key.Namespace, r.Key.Path, "too large for an item of memcached: it is not shared")
			continue
		}
		p.unstored.Add(1)
		p.w.fail(r.Key.Namespace, r.Key.Path, "memcached did not take it: it is slow, full or away; or it was purged meanwhile")
	}
}
