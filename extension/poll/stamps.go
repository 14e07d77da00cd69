package poll

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/cursor"
)

// Stamps are what the instances of one audience tell each other about
// verifications. A stamp that is lost, forged or too old is not there.
type Stamps interface {
	// Near returns the cursor's young stamp and those of keys, in one round trip. If
	// the cursor's is there it may leave over some keys (far).
	Near(ctx context.Context, keys []cache.Key) (cursor cache.CursorStamp, stamps map[cache.Key]cache.Stamp, far []cache.Key)
	// Stamps returns the same of all keys.
	Stamps(ctx context.Context, keys []cache.Key) (cache.CursorStamp, map[cache.Key]cache.Stamp)
	// PutStamps records where the cursor was, and verifications.
	PutStamps(ctx context.Context, cursor cache.CursorStamp, entries map[cache.Key]cache.Stamp)
	// Taken reports whether another is known to verify key just now; else it
	// keeps others from it for a short while, or until free, which whoever
	// verified nothing calls. The zero Key is the cursor. It excludes nothing:
	// without it work is done twice. Who waited in vain for the holder of one lock,
	// which may have been frozen, tries the next.
	Taken(ctx context.Context, key cache.Key, lock int) (free func(context.Context), taken bool)
}

// The wait for another instance that verifies: at most for the holders of two
// locks, since the first may have been frozen. Each lock wait is a share of the
// poll's budget (150ms of 500ms); after both enough of it has to be left for our own
// requests.
const (
	waits    = 2
	waitOf10 = 3
	// Between two looks, of all that wait in one poll together: at first, and
	// doubled with each up to the last.
	glance     = 4 * time.Millisecond
	glanceMost = 64 * time.Millisecond
)

// lockWait is how long the holder of one lock is waited for.
func (p *Poller) lockWait() time.Duration { return p.o.Timeout * waitOf10 / 10 }

// Looked waits until the running poll has looked at the stamps: what another
// instance found changed counts for this invocation, whatever was verified
// before it.
func (p *Poller) Looked(ctx context.Context) {
	if r := p.runs(); r != nil && p.o.Stamps != nil {
		r.await(ctx, r.looked)
	}
}

// TakeStamps takes over what other instances know of the origin, without a poll.
func (p *Poller) TakeStamps(ctx context.Context) {
	if p.o.Stamps != nil {
		p.takeOver(ctx)
	}
}

// look is the first look at the stamps of a poll.
func (p *Poller) look(r *run) (cursor bool) {
	defer close(r.looked)
	cursor, made := p.takeOver(r.budget.ctx)
	if len(made) > 0 {
		p.counts.stamps.Add(uint64(len(made)))
		p.counts.stampAge.Store(int64(clock.Elapsed(slices.MinFunc(made, time.Time.Compare), p.o.Now())))
	}
	return cursor
}

// takeOver takes over what other instances verified and reports whether the
// cursor's stamp is young, so that it need not be asked; made is when the stamps that
// there were were made. Those that are not at hand are asked for only if the cursor's
// leaves their entries unverified.
func (p *Poller) takeOver(ctx context.Context) (cursor bool, made []time.Time) {
	ledger := p.o.Cache.Ledger()
	c, stamps, far := p.o.Stamps.Near(ctx, ledger.Held())
	cursor = p.trustStamps(ctx, c, stamps)
	if !c.At.IsZero() {
		made = append(made, c.At)
	}
	now := p.o.Now()
	if far = slices.DeleteFunc(far, func(k cache.Key) bool { return ledger.Verified(k, now) }); len(far) > 0 {
		_, more := p.o.Stamps.Stamps(ctx, far)
		p.trustStamps(ctx, cache.CursorStamp{}, more)
		maps.Copy(stamps, more)
	}
	for _, s := range stamps {
		made = append(made, s.At)
	}
	return cursor, made
}

func (p *Poller) trustStamps(ctx context.Context, c cache.CursorStamp, stamps map[cache.Key]cache.Stamp) (cursor bool) {
	if cursor = p.o.Cursor.Take(c, p.o.Cache.Ledger().Epoch()); cursor {
		p.o.Cache.Ledger().RevalidateShared(c.Index(), c.At)
	}
	for k, s := range stamps {
		if !p.o.Cache.Ledger().Stamped(k, s) {
			p.o.Cache.FillShared(ctx, k) // someone found another answer
		}
	}
	return cursor
}

// shareCursor asks for the cursor unless another instance just does, and tells
// the others where it is.
func (p *Poller) shareCursor(r *run) (cursor.Outcome, error) {
	ctx := r.budget.ctx
	ours, free := p.take(r, cache.Key{}, func() (found bool) {
		found, _ = p.takeOver(ctx)
		return found
	})
	if !ours {
		return cursor.Useless, nil
	}
	got, stamp, err := p.o.Cursor.Query(ctx, p.o.Cache.Ledger(), r.epoch)
	if !stamp.At.IsZero() {
		p.o.Stamps.PutStamps(ctx, stamp, nil)
	} else {
		free(ctx)
	}
	return got, err
}

// left reports whether key still wants a read of the origin by us: another
// instance may be at it. One that would have to log in first lets others go
// before it, as long as there are others: else of many instances each would be
// the first once, and log in.
// Whoever reads in vain calls free.
func (p *Poller) left(r *run, key cache.Key) (ours bool, free func(context.Context)) {
	if p.o.Stamps == nil {
		return true, nothingHeld
	}
	verified := func() bool {
		if p.o.Cache.Ledger().Verified(key, p.o.Now()) {
			return true
		}
		p.lookAgain(r)
		return p.o.Cache.Ledger().Verified(key, p.o.Now())
	}
	if p.o.LoggedIn != nil && !p.o.LoggedIn() && p.o.Cache.Ledger().SharedLately(key, p.o.Now()) && glances(r.patience, p.lockWait(), func(time.Duration) bool { return verified() }) {
		return false, nothingHeld
	}
	return p.take(r, key, verified)
}

// nothingHeld frees nothing.
func nothingHeld(context.Context) {}

// take waits until it is for us to verify key, or another instance has: done
// says so. A lock that ends meanwhile was of an earlier verification.
func (p *Poller) take(r *run, key cache.Key, done func() bool) (ours bool, free func(context.Context)) {
	for lock := range waits {
		free, taken := p.o.Stamps.Taken(r.budget.ctx, key, lock)
		verified := false
		if taken {
			glances(r.patience, p.lockWait(), func(pause time.Duration) bool {
				if verified = done(); !verified && pause >= glanceMost {
					free, taken = p.o.Stamps.Taken(r.budget.ctx, key, lock)
				}
				return verified || !taken
			})
		} else if verified = done(); verified {
			// Another was at it since we looked, and is through.
			free(r.budget.ctx)
		}
		switch {
		case verified:
			return false, nothingHeld
		case !taken:
			return true, free
		}
	}
	return true, nothingHeld
}

// lookAgain looks at the stamps once more, for all that wait in r, unless
// another of them does or just has.
func (p *Poller) lookAgain(r *run) {
	now := time.Now().UnixNano()
	last := r.glanced.Load()
	if time.Duration(now-last) < glance || !r.glanced.CompareAndSwap(last, now) {
		return
	}
	p.takeOver(r.budget.ctx)
}

// glances looks again and again, for a while and as long as ctx lasts, whether another
// instance is done. done gets the pause before.
func glances(ctx context.Context, while time.Duration, done func(pause time.Duration) bool) bool {
	end := time.NewTimer(while)
	defer end.Stop()
	pause := glance
	next := time.NewTimer(pause)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			if done(pause) {
				return true
			}
			pause = min(2*pause, glanceMost)
			next.Reset(pause)
		case <-end.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
