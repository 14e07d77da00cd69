package poll

import (
	"context"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// Stamp is the shared record of one entry's verification: when the verifying
// request was sent, and what the answer was.
type Stamp struct {
	At          time.Time
	Fingerprint [32]byte
}

// CursorStamp is the shared record of where the cursor was.
type CursorStamp struct {
	At     time.Time // when the request was sent; zero: none
	Anchor cache.Anchor
}

// Stamps are what the instances of one audience tell each other about
// verifications. A stamp that is lost, forged or too old is not there.
type Stamps interface {
	// Stamps returns the young stamps of keys and the cursor's, in one round trip.
	Stamps(ctx context.Context, keys []cache.Key) (CursorStamp, map[cache.Key]Stamp)
	// PutCursor records where the cursor was.
	PutCursor(ctx context.Context, s CursorStamp)
	// Lock keeps others from verifying key for a short while; the zero Key is
	// the cursor. It is no more than a courtesy: without it work is done twice.
	// Who waited in vain for the holder, which may have been frozen, tries for
	// the next turn.
	Lock(ctx context.Context, key cache.Key, turn int) (got bool)
}

// The wait for another instance that verifies.
const (
	courtesy = 150 * time.Millisecond // at most, in each turn
	turns    = 2                      // holders that are waited for
	glance   = 10 * time.Millisecond  // between two looks
)

// Looked waits until the running poll has looked at the stamps: what another
// instance found changed counts for this invocation, whatever was verified
// before it.
func (p *Poller) Looked(ctx context.Context) {
	if r := p.looking.Load(); r != nil {
		select {
		case <-r.looked:
		case <-ctx.Done():
		}
	}
}

// look is the first look at the stamps of a poll.
func (p *Poller) look(r *run) (cursor bool) {
	defer p.endLook(r)
	return p.fromStamps(r.budget.ctx)
}

// endLook lets those go on who wait for r's look at the stamps. It may be
// called again.
func (p *Poller) endLook(r *run) {
	r.look.Do(func() { close(r.looked) })
	p.looking.CompareAndSwap(r, nil)
}

// fromStamps takes over what other instances verified and reports whether the
// cursor's stamp is young, so that it need not be asked.
func (p *Poller) fromStamps(ctx context.Context) (cursor bool) {
	held := p.o.Cache.Held()
	keys := make([]cache.Key, 0, len(held))
	for k := range held {
		keys = append(keys, k)
	}
	c, stamps := p.o.Stamps.Stamps(ctx, keys)
	if !c.At.IsZero() && !c.Anchor.Zero() {
		p.o.Cache.ProveShared(c.Anchor, c.At)
		p.o.Cursor.take(c.Anchor, p.o.Cache.Epoch())
		cursor = true
	}
	for k, s := range stamps {
		if !p.o.Cache.Stamped(k, s.Fingerprint, s.At) {
			p.o.Cache.Adopt(ctx, k) // someone found another answer
		}
	}
	return cursor
}

// shareCursor asks for the cursor unless another instance just does, and tells
// the others where it is.
func (p *Poller) shareCursor(ctx context.Context, epoch uint64) (outcome, error) {
	if !p.o.Stamps.Lock(ctx, cache.Key{}, 0) {
		if p.awaitOther(ctx, func() bool { return p.fromStamps(ctx) }) {
			return useless, nil
		}
	}
	got, err := p.o.Cursor.verify(ctx, p.o.Cache, epoch)
	if s := p.o.Cursor.stamp(); err == nil && (got == proved || got == moved) && !s.At.IsZero() {
		p.o.Stamps.PutCursor(ctx, s)
	}
	return got, err
}

// left reports whether key still wants a read of the origin by us: another
// instance may be at it.
func (p *Poller) left(ctx context.Context, key cache.Key) bool {
	if p.o.Stamps == nil {
		return true
	}
	for turn := range turns {
		if p.o.Stamps.Lock(ctx, key, turn) {
			return true
		}
		if p.awaitOther(ctx, func() bool {
			if _, stamps := p.o.Stamps.Stamps(ctx, []cache.Key{key}); len(stamps) > 0 {
				if s := stamps[key]; !p.o.Cache.Stamped(key, s.Fingerprint, s.At) {
					p.o.Cache.Adopt(ctx, key)
				}
			}
			return p.o.Cache.Verified(key, p.o.Now())
		}) {
			return false
		}
	}
	return true
}

// awaitOther looks again and again whether another instance is done.
func (p *Poller) awaitOther(ctx context.Context, done func() bool) bool {
	end := time.NewTimer(courtesy)
	defer end.Stop()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if done() {
				return true
			}
		case <-end.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
