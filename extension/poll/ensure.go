package poll

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/queue"
)

// Reads makes sure of what a read is answered with: the one place where what is
// cached, who may see it, polls and the origin meet.
//
// It looks the entry up and, where that is not good enough, does what may mend
// it, each remedy once, the cheapest first (see next): take the entry over from
// the shared cache, have the capability confirmed, wait for the poll, wait for
// somebody else's read of it. What is left is to ask the origin; where that
// fails, the entry may be served although it is not verified.
type Reads struct{ o ReadOptions }

// ReadOptions configures Reads.
type ReadOptions struct {
	Cache       *cache.Cache
	Poll        Waiter
	Permissions Confirmer
	Require     func(ctx context.Context, id *cache.Identity) // learns what other instances wrote under id; nil: not needed
	Waiting     *Waiting                                      // how long reads may wait; nil: as long as they like
	StaleWait   time.Duration                                 // how long a read that can fall back waits for an origin that says nothing
	Ahead       time.Duration                                 // a hit that was verified longer ago starts a poll; 0: none does
	Now         func() time.Time
}

// Waiter makes sure that what is cached was verified for this invocation.
type Waiter interface {
	Reading()
	Wait(ctx context.Context, key cache.Key)
	Ahead()
}

// Confirmer confirms what a capability of an identity hangs on when that is due.
type Confirmer interface {
	Confirm(ctx context.Context, id *cache.Identity, p cache.Capability)
}

// NewReads returns Reads for what o names.
func NewReads(o ReadOptions) *Reads { return &Reads{o} }

// Want is what a request asks for.
type Want struct {
	Key        cache.Key
	ID         *cache.Identity
	OptIn      bool          // keep the answer although it is no KV
	Again      bool          // ask the origin
	NoStore    bool          // keep nothing of it
	OnlyCached bool          // do not ask the origin
	Held       bool          // that it is cached is enough: it is read ahead, and verified when it is wanted
	State      string        // the state of the origin that the request itself requires; empty: none
	MaxAge     time.Duration // of its verification; negative: not said
	StaleFor   time.Duration // how long ago it must have been true while the origin fails; negative: not said
}

// Result says what an Outcome is.
type Result uint8

// Results.
const (
	Hit       Result = iota // Hit is verified
	Stale                   // Hit is not, and the origin fails
	Miss                    // Answer is the origin's
	NotCached               // there is none, and the origin is not to be asked
	Failed                  // Err says why there is none
	Left                    // the caller is gone
)

// Outcome is what a read is answered with.
type Outcome struct {
	Result Result
	Hit    cache.Hit
	At     time.Time // when Hit was looked up
	Answer cache.Answer
	Known  bool // of a Miss: something was cached,
	Asked  bool // which would have done, but for what the request says
	Err    error
}

// remedy is what is done about a lookup's result.
type remedy uint8

const (
	serve remedy = iota
	serveStale
	fillShared
	confirm
	awaitPoll
	awaitFill
	ask
)

// takes reports whether a verified entry is what the request asks for.
func (w *Want) takes(hit *cache.Hit, now time.Time) bool {
	return hit.State == cache.Fresh && !w.Again && (w.MaxAge < 0 || clock.Within(hit.True, now, w.MaxAge))
}

// serves reports whether hit needs no remedy.
func (w *Want) serves(hit *cache.Hit, now time.Time) bool {
	return w.takes(hit, now) || w.Held && hit.State != cache.Absent
}

// mayBeStale reports whether hit may be served although it is not verified.
func (w *Want) mayBeStale(hit *cache.Hit, now time.Time) bool {
	return hit.Stale && hit.Entry != nil && (w.StaleFor < 0 || clock.Within(hit.True, now, w.StaleFor))
}

// excuses reports whether a failure lets id have what is cached: whether it is an
// outage. Our own limits on sending are none, and a refusal for load is none while
// the origin answers others: a caller could bring either about, and keep what was
// taken away. A 401 or 403 without the origin's shape is none for good while anything
// else is the origin's word: it may be its refusal, dressed up.
func (r *Reads) excuses(id *cache.Identity, hit *cache.Hit, why error, now time.Time) bool {
	switch {
	case limited(why):
		return hit.Confirmed && !hit.Overdue
	case errors.Is(why, cache.ErrLoad) && r.heard().Others(now):
		return id.Own() || !hit.Overdue
	case errors.Is(why, cache.ErrRestyled) && r.heard().Anything(now):
		return hit.Lately
	}
	return true
}

func (r *Reads) heard() *cache.Heard { return r.o.Cache.Ledger().Heard() }

// next says what to do about hit, after the remedies that were tried.
func (r *Reads) next(w *Want, hit *cache.Hit, tried [ask]bool, now time.Time) remedy {
	switch {
	case w.serves(hit, now):
		return serve
	case w.Again:
		return ask
	case hit.State == cache.Absent && w.ID.Own() && !tried[fillShared]:
		return fillShared
	case hit.State == cache.Unconfirmed && !tried[confirm]:
		return confirm
	case hit.State == cache.Failing && w.mayBeStale(hit, now) && r.excuses(w.ID, hit, hit.Err, now):
		return serveStale
	case hit.State == cache.Unverified && !tried[awaitPoll]:
		return awaitPoll
	case hit.State == cache.Unverified && !tried[awaitFill] && !w.OnlyCached:
		return awaitFill
	}
	return ask
}

// Ensure makes sure of an entry within ctx.
func (r *Reads) Ensure(ctx context.Context, w Want) Outcome {
	waiting := r.o.Waiting
	if w.Held {
		waiting = nil // nobody waits
	} else {
		r.o.Poll.Reading()
	}
	if r.o.Require != nil {
		r.o.Require(ctx, w.ID)
	}
	for {
		now := r.o.Now()
		hit := r.lookup(&w, now)
		if w.serves(&hit, now) {
			return r.hit(&w, hit, now)
		}
		bounded, wait := waiting.Begin(ctx, w.Key.Path, w.ID.Own())
		o := r.mend(ctx, bounded, wait, w, hit, now)
		if again := wait.End(); !again || o.Result != Failed || ctx.Err() != nil {
			return o
		}
	}
}

// lookup looks up what may answer a request. What failed another's request says nothing
// while the origin answers others: who sent that may have brought it about, and have
// others do with what is old.
func (r *Reads) lookup(w *Want, now time.Time) cache.Hit {
	hit := r.o.Cache.Lookup(w.Key, w.ID, w.OptIn, now)
	if hit.State == cache.Failing {
		if one, ok := errors.AsType[*cache.RequestError](hit.Err); ok && one.Of != w.ID && r.heard().Others(now) {
			if hit.State = cache.Unverified; hit.Overdue {
				hit.State = cache.Aged
			}
		}
	}
	if hit.Entry != nil && !r.o.Cache.Covers(hit.Entry, w.State) {
		return cache.Hit{}
	}
	return hit
}

// hit answers with a verified entry.
func (r *Reads) hit(w *Want, hit cache.Hit, now time.Time) Outcome {
	if r.o.Ahead > 0 && !w.Held && clock.Elapsed(hit.Verified.At, now) > r.o.Ahead {
		r.o.Poll.Ahead()
	}
	return Outcome{Hit: hit, At: now}
}

// mend does one remedy after the other about hit, which was looked up now, within ctx.
// The caller is gone when its own ends.
func (r *Reads) mend(caller, ctx context.Context, wait *Wait, w Want, hit cache.Hit, now time.Time) Outcome {
	var tried [ask]bool
	for {
		todo := r.next(&w, &hit, tried, now)
		if todo < ask && ctx.Err() != nil && todo != serve && todo != serveStale {
			todo = ask // there is no time left for it
		}
		switch todo {
		case serve:
			return r.hit(&w, hit, now)
		case serveStale:
			return Outcome{Result: Stale, Hit: hit, At: now}
		case fillShared:
			wait.on(forShared)
			r.o.Cache.FillShared(ctx, w.Key)
		case confirm:
			wait.on(forConfirm)
			patient, cancel := context.WithTimeout(ctx, r.o.StaleWait)
			r.o.Permissions.Confirm(patient, w.ID, hit.Entry.Key.Capability())
			cancel()
		case awaitPoll:
			wait.on(forPoll)
			r.o.Poll.Wait(ctx, hit.Entry.Key)
		case awaitFill: // the poll may be reading just this entry
			wait.on(forFill)
			patient, cancel := context.WithTimeout(ctx, r.o.StaleWait)
			read := r.o.Cache.Await(patient, hit.Entry.Key)
			cancel()
			if read {
				break
			}
			fallthrough
		case ask:
			wait.on(forOrigin)
			return r.ask(caller, ctx, w, hit)
		}
		tried[todo] = true
		if caller.Err() != nil {
			return Outcome{Result: Left}
		}
		now = r.o.Now()
		hit = r.lookup(&w, now)
	}
}

// errNoMore is why a read fails that could have fallen back when it began.
var errNoMore = errors.New("the origin fails, and the cached answer is no more")

// ask asks the origin. known is what is cached, to fall back to; its Entry is nil
// where there is nothing. A poll or another's read may have been quicker since then.
func (r *Reads) ask(caller, ctx context.Context, w Want, known cache.Hit) Outcome {
	if w.OnlyCached {
		return Outcome{Result: NotCached}
	}
	began := r.o.Now()
	ctx, _ = queue.NewTicket(ctx, w.ID.Share())
	load := cache.Want{Key: w.Key, ID: w.ID, OptIn: w.OptIn, Anew: w.Again || w.MaxAge == 0, Skip: w.NoStore, State: w.State}
	if !w.Again && w.MaxAge < 0 {
		load.Unless = began
	}
	fallBack := w.mayBeStale(&known, began)
	a, err := r.load(ctx, load, fallBack)
	if errors.Is(err, cache.ErrVerified) {
		if o := r.again(w, nil); o.Result == Hit {
			return o
		}
		load.Unless = time.Time{}
		a, err = r.load(ctx, load, fallBack)
	}
	if errors.Is(err, context.DeadlineExceeded) && fallBack && clock.Froze(began.Add(r.o.StaleWait), r.o.Now()) {
		a, err = r.load(ctx, load, fallBack) // a freeze took the time that the origin had
	}
	failed := err != nil || a.Failure != nil
	switch {
	case caller.Err() != nil:
		a.Close()
		return Outcome{Result: Left}
	case failed && (fallBack || w.ID.Own()):
		if !fallBack { // another instance may have read it meanwhile, or have confirmed what is due here
			r.o.Cache.FillShared(caller, w.Key)
		}
		// The entry may have gone meanwhile: another read was refused.
		// What a limit of ours ends is no outage: for a capability whose confirmation
		// is due there is no excuse then.
		if o := r.again(w, cmp.Or(err, a.Failure)); o.Result != Failed && !(queue.Limited(err) && o.Hit.State == cache.Unconfirmed) {
			a.Close()
			return o
		}
		if fallBack && err == nil && !known.Overdue && !errors.Is(a.Failure, cache.ErrRestyled) {
			a.Close()
			err = errNoMore
		}
	}
	if err != nil {
		return Outcome{Result: Failed, Err: err}
	}
	return Outcome{Result: Miss, Answer: a, Known: known.Entry != nil, Asked: w.Again || known.State == cache.Fresh}
}

// again looks up once more what may be served after a failure: Hit, Stale, or
// Failed for nothing.
func (r *Reads) again(w Want, why error) Outcome {
	now := r.o.Now()
	o := Outcome{Hit: r.lookup(&w, now), At: now}
	switch {
	case w.takes(&o.Hit, now):
	case w.mayBeStale(&o.Hit, now) && r.excuses(w.ID, &o.Hit, why, now):
		o.Result = Stale
	default:
		o.Result = Failed
	}
	return o
}

// load asks the origin. One that says nothing must not hold up what is cached.
func (r *Reads) load(ctx context.Context, w cache.Want, fallBack bool) (cache.Answer, error) {
	if ctx.Err() != nil {
		return cache.Answer{}, context.Cause(ctx)
	}
	if fallBack {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.o.StaleWait)
		defer cancel()
	}
	return r.o.Cache.Load(ctx, w)
}
