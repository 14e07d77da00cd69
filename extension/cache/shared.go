package cache

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// Record is an entry as the shared tier holds it.
type Record struct {
	Entry
	Date   string
	Index  Index     `json:"Anchor"` // recorded before the request was sent; the tag is what backups have
	SentAt time.Time // when the request that last verified it was sent
}

// Stamps are those of records: reading them verified them.
func Stamps(records []Record) map[Key]Stamp {
	stamps := make(map[Key]Stamp, len(records))
	for _, r := range records {
		stamps[r.Key] = Stamp{At: r.SentAt, Fingerprint: Fingerprint(r.Status, r.Body)}
	}
	return stamps
}

// Shared is the tier that the instances of one audience share. Its calls are
// bounded to milliseconds, and what it cannot give is a miss. It holds nothing
// but what was read under the extension's own identity.
type Shared interface {
	// Fetch returns the records there are for keys, and what is known of the
	// identity's capabilities for them.
	Fetch(ctx context.Context, keys []Key) ([]Record, map[Capability]Confirmation)
	// Keep stores records and confirmations; what was verified later stays.
	Keep(ctx context.Context, records []Record, confirmed map[Capability]Confirmation)
	// Drop says that what was stored for keys before at is no more, and that
	// the identity lost capabilities; the empty one stands for all.
	Drop(ctx context.Context, keys []Key, lost []Capability, at time.Time)
}

func (s *slot) record() Record {
	r := Record{Entry: *s.entry, Date: s.entry.date[0], SentAt: s.truth.read.At}
	if s.truth.index != nil {
		r.Index = s.truth.index.at
	}
	return r
}

// FillShared takes what the shared tier holds for key into memory, if the
// extension's own identity is known to be allowed to read it, and reports whether
// there was anything. Such an entry is verified as of the record, no more: unless
// that lies within MaxAge a poll has to verify it before it is served.
func (c *Cache) FillShared(ctx context.Context, key Key) bool {
	keys := []Key{key}
	if versionOf(key.Query) > 0 {
		latest := key
		latest.Query = ""
		keys = append(keys, latest)
	}
	return c.fillShared(ctx, keys, key)
}

// FillNewer takes over what other instances read of keys, which are held here,
// since they were verified here: for an index that was just checked. It is one
// call of the shared tier, and takes keys for its own.
func (c *Cache) FillNewer(ctx context.Context, keys []Key) {
	c.fillShared(ctx, keys, Key{})
}

// fillShared takes what there is for keys into memory, until there is an answer
// for want; the zero Key stands for all.
func (c *Cache) fillShared(ctx context.Context, keys []Key, want Key) bool {
	keys = slices.DeleteFunc(keys, func(k Key) bool { return k.Personal != 0 })
	if c.o.Shared == nil || len(keys) == 0 {
		return false
	}
	records, confirmed := c.o.Shared.Fetch(ctx, keys)
	before := make(map[Key]bool, len(records))
	for _, r := range records {
		_, before[r.Key] = c.access.confirmedAt(c.o.Own, r.Key.Capability())
	}
	c.access.Take(confirmed)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range records {
		if _, held := c.access.confirmedAt(c.o.Own, r.Key.Capability()); !held || !c.takeLocked(r) {
			continue
		}
		c.counters.FromShared++
		if !before[r.Key] {
			c.counters.Borrowed++
		}
		if want != (Key{}) && c.findLocked(want, c.o.Own) != nil {
			return true
		}
	}
	return false
}

// takeLocked stores a record of the shared tier, unless what is known here is
// newer.
func (c *Cache) takeLocked(r Record) bool {
	old := c.store.slots[r.Key]
	if !r.Expires.IsZero() {
		r.Expires = onOurClock(r.Expires, r.SentAt, c.o.Now())
	}
	switch {
	case clock.Ended(r.FetchedAt, r.Expires, c.o.Now()),
		r.Kind == Other || r.Key.Personal != 0 || MatchPath(c.o.NoCache, r.Key.Path),
		len(c.writes) > 0, // the record may be from before a write through this proxy
		!c.written.of(r.Key, r.SentAt.Add(c.o.Skew)).IsZero(), // from before an own write
		old != nil && !r.SentAt.After(old.truth.read.At):
		return false
	}
	e := r.Entry
	e.date[0], e.length[0] = r.Date, strconv.Itoa(len(r.Body))
	truth := record{read: Revalidation{r.SentAt.Add(-c.o.Skew), sharedEpoch}}
	if written := c.written.of(r.Key, truth.read.At); !written.IsZero() {
		// As the clocks may be, it is from before an own write, and so may be
		// what verifies it. What was read here since then is not.
		if old != nil && old.truth.read.At.After(written) {
			return false
		}
		truth = record{since: written.Add(1)}
	}
	c.insertLocked(&slot{entry: &e, truth: truth, shared: true}, r.Index)
	return true
}

// publish says in the shared tier what a read under our own identity brought.
func (f *fill) publish() {
	c := f.c
	switch {
	case len(f.lost) > 0:
		c.o.Shared.Drop(context.Background(), nil, f.lost, f.answer.SentAt)
	case f.gone: // a 404 is kept here alone
		c.o.Shared.Drop(context.Background(), []Key{f.want.Key}, nil, f.answer.SentAt)
	case f.answer.Stored && f.stored.Personal == 0:
		needs := f.stored.Capability()
		confirmed, held := c.access.confirmedAt(c.o.Own, needs)
		var r []Record
		c.ledger.look(f.stored, func(s *slot) {
			if held && !s.truth.read.At.IsZero() && s.truth.read.Epoch != sharedEpoch {
				r = []Record{s.record()}
			}
		})
		if r != nil {
			c.o.Shared.Keep(context.Background(), r, map[Capability]Confirmation{needs: confirmed})
		}
	}
}
