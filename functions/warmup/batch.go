package warmup

import (
	"context"
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
	records  []cache.Record
	absent   []cache.Key // asked for and not there
	absentAt time.Time   // when the first of them was asked for
	bytes    int
}

func (b *batch) add(r cache.Record) {
	b.records = append(b.records, r)
	b.bytes += len(r.Body)
}

func (b *batch) lose(k cache.Key, at time.Time) {
	if len(b.absent) == 0 {
		b.absentAt = at
	}
	b.absent = append(b.absent, k)
}

func (b *batch) empty() bool { return len(b.records)+len(b.absent) == 0 }

func (b *batch) full() bool {
	return len(b.records)+len(b.absent) >= batchRecords || b.bytes >= batchBytes
}

func (b *batch) reset() {
	clear(b.records)
	b.records, b.absent, b.bytes = b.records[:0], b.absent[:0], 0
}

// storeList takes the answer of a list or of the mounts preflight.
func (p *pass) storeList(r cache.Record) {
	if cache.MatchPath(p.w.o.Skip, r.Key.Path) {
		return
	}
	p.lists.mu.Lock()
	p.lists.add(r)
	var full batch
	if p.lists.full() {
		full, p.lists.batch = p.lists.batch, batch{}
	}
	p.lists.mu.Unlock()
	p.flush(&full)
}

// flush compares a batch with the tier and puts it there. It reports whether
// this instance still leads; if not, nothing was written.
func (p *pass) flush(b *batch) bool {
	defer b.reset()
	if b.empty() {
		return true
	}
	if !p.l.held() {
		return false
	}
	ctx, cancel := context.WithTimeout(p.last, flushTime)
	defer cancel()
	a := p.l.audience
	keys := make([]cache.Key, 0, len(b.records)+len(b.absent))
	for _, r := range b.records {
		keys = append(keys, r.Key)
	}
	held := a.Store.Entries(ctx, append(keys, b.absent...))
	stamps := make(map[cache.Key]cache.Stamp, len(b.records))
	changed, unchanged, removed := 0, 0, 0
	for _, r := range b.records {
		print := cache.Fingerprint(r.Status, r.Body)
		stamps[r.Key] = cache.Stamp{At: r.SentAt, Fingerprint: print}
		if r.Kind != cache.KV1 && r.Kind != cache.Data {
			continue // not a secret
		}
		if old, ok := held[r.Key]; ok && cache.Fingerprint(old.Status, old.Body) == print {
			unchanged++
		} else {
			changed++
		}
	}
	var absent []cache.Key
	for _, k := range b.absent {
		if _, ok := held[k]; ok {
			absent = append(absent, k)
			removed++
		}
	}
	if len(b.records) > 0 {
		p.put(ctx, b.records)
		if p.w.o.Stamps {
			a.Marks.PutStamps(ctx, cache.CursorStamp{}, stamps)
		}
	}
	if len(absent) > 0 {
		a.Store.Remove(ctx, absent, b.absentAt)
	}
	p.w.note(func(s *Summary) {
		s.Changed += changed
		s.Unchanged += unchanged
		s.Removed += removed
	})
	return true
}

// large is a body that may not fit into memcached's items of 1 MiB.
const large = 900 << 10

// put stores records and looks whether they are there: a write that memcached
// did not take in time leaves no other trace. It tries once more.
func (p *pass) put(ctx context.Context, records []cache.Record) {
	a, left := p.l.audience, records
	for try := range 2 {
		a.Store.Put(ctx, left)
		keys := make([]cache.Key, len(left))
		for i, r := range left {
			keys[i] = r.Key
		}
		there := a.Store.Entries(ctx, keys)
		var missing []cache.Record
		now := p.w.o.Now()
		for _, r := range left {
			if _, ok := there[r.Key]; !ok && (r.Expires.IsZero() || now.Before(r.Expires)) {
				missing = append(missing, r)
			}
		}
		if left = missing; len(left) == 0 || try == 1 {
			break
		}
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
