package cache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/queue"
)

// Want says what to read from the origin, and how.
type Want struct {
	Key   Key
	ID    *Identity
	OptIn bool // the caller opted in to caching what is not KV
	Alone bool // share no read that began before
	Anew  bool // share no read that was sent before
	Poll  bool // one attempt, no retries; nobody waits for a stream
	Skip  bool // store nothing

	After *Change // the change that the read follows; nil: none
	State string  // the state of the origin that the request itself requires: this and no other; empty: none

	// Unless, if set, makes Load return ErrVerified where the entry is verified
	// at that time: someone else was quicker. It is looked at under the lock
	// under which the read begins.
	Unless time.Time
}

// RequestError is a failure that may be about one request alone: a refusal for load, or
// what something in between answered, for the length of a token, say. A caller can bring
// that about for itself, so it says little to others.
type RequestError struct {
	Of *Identity
	error
}

// Unwrap gives what came.
func (e *RequestError) Unwrap() error { return e.error }

// ErrLoad says that the origin refused a request for load.
var ErrLoad = errors.New("the origin refuses it for load")

// ErrRestyled says that a 401 or 403 is not of the origin's shape. It may be its
// refusal all the same, dressed up by something in between.
var ErrRestyled = errors.New("it may be the origin's refusal, dressed up by something in between")

// ErrNotReady says that no request could be sent under the identity, since its login
// failed. It says nothing of the origin, or of the entry, to others.
var ErrNotReady = errors.New("the login failed")

// notReady makes an error of Origin.Ready one that is ErrNotReady, too.
type notReady struct{ error }

func (e notReady) Unwrap() []error { return []error{e.error, ErrNotReady} }

// ErrVerified is returned by Load for a Want with Unless.
var ErrVerified = errors.New("the entry is verified")

// Answer is what the origin said. Either Body holds all of it, or Stream gives
// it: an answer that is no JSON, or too large to be kept.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Stream io.ReadCloser // nil, or the caller's to read and close
	SentAt time.Time
	Shared bool // read for another caller
	Stored bool
	// Failure says why the origin could not answer: its own 429 (ErrLoad), 472, 473
	// or 5xx, or this is not the origin's word (package wire). It is a *RequestError
	// but for a 5xx. nil: it could.
	Failure error
}

// Close closes the stream, if there is one.
func (a Answer) Close() {
	if a.Stream != nil {
		a.Stream.Close()
	}
}

// Change says of a read that it follows a change. The Origin sets Weak if it
// could not make sure that a node with the change answers.
type Change struct {
	Index string // the state of the change; empty: not known
	Weak  bool
}

// pollFetchTimeout bounds a read that a poll began: the poll itself waits less.
const pollFetchTimeout = 10 * time.Second

type fillKey struct {
	key   Key
	id    *Identity
	state string // that the requests require themselves
}

// fill is one read of the origin in progress: a call of the group fills.
type fill struct {
	c      *Cache
	want   Want
	key    Key
	id     *Identity
	epoch  uint64
	doubts uint64 // Access.doubts when it began
	began  time.Time

	// Written before the call is over, read after.
	answer    Answer
	err       error
	shareable bool         // waiters may have the answer too
	stored    Key          // where the answer was stored, if it was
	gone      bool         // there is nothing any more, or nothing that may be kept
	asked     uint64       // when that was last asked for, as record has it; 0: now
	lost      []Capability // what the identity may not do any more, whichever of its tokens it has
	leases    uint64
	kv        bool // the path is known to be KV's, or the mounts preflight's

	// Guarded by Cache.mu.
	call   *coalesce.Call[*fill]
	ticket *queue.Ticket
	ours   bool   // work of our own waits for it, or did
	sent   bool   // it had a place at the origin
	forget bool   // nothing of it is stored, and nobody new may share it
	resets uint64 // the identity's when the request was sent
	readAt string // the state that the read requires

	parted atomic.Bool // the answer is here, or the caller who began it is gone: with both, nobody takes a stream
}

// Load reads key from the origin with id's token, stores what may be stored,
// and returns the answer. Callers for the same key and identity share one
// read. When ctx ends the caller leaves; the read goes on for the others. With the
// last of them it ends, unless it has a place at the origin: a caller's request, one
// with a ticket in ctx, holds nothing when the caller is gone. What makes sure of
// entries for everybody goes on.
//
// Errors are those of the origin's transport or of the login, ctx's,
// coalesce.ErrClosed after Close, or a queue.Limit where ctx's deadline came before
// the read had a place.
func (c *Cache) Load(ctx context.Context, w Want) (Answer, error) {
	w.Key.Personal = 0 // whose the answer is will be seen
	for {
		call, own, ticket, err := c.start(ctx, w)
		if err != nil {
			return Answer{}, err
		}
		f, err := call.Wait(ctx)
		if f == nil && own != nil && own.parted.Swap(true) {
			own.answer.Close()
		}
		if f == nil && ticket.InLine() && errors.Is(err, context.DeadlineExceeded) {
			err = errQueued
		}
		switch {
		case errors.Is(err, coalesce.ErrAgain) && ctx.Err() == nil: // a freeze interrupted it
		case f == nil:
			return Answer{}, err
		case own != nil:
			return f.answer, f.err
		case f.shareable:
			a := f.answer
			a.Shared = true
			return a, f.err
		default:
			w.Alone = true
		}
	}
}

// start joins a read, or begins one: then it is own. The read is not the
// caller's: one who leaves fails nobody else.
func (c *Cache) start(ctx context.Context, w Want) (call *coalesce.Call[*fill], own *fill, ticket *queue.Ticket, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return nil, nil, nil, coalesce.ErrClosed
	}
	if s := c.findLocked(w.Key, w.ID); s != nil && !w.Unless.IsZero() && c.Covers(s.entry, c.o.Required(w.ID)) && c.Covers(s.entry, w.State) &&
		c.o.fresh(c.ledger.judgeLocked(s, w.Unless).Verified, &c.ledger.moment, w.Unless) {
		return nil, nil, nil, ErrVerified
	}
	k := fillKey{w.Key, w.ID, w.State}
	current := c.current[k]
	if f := current; w.Alone || f == nil || w.Anew && f.sent || !f.joinableLocked() { // nil: one that has its answer may be publishing it
		c.fills.Forget(k)
	}
	f := &fill{c: c, want: w, key: w.Key, id: w.ID, epoch: c.ledger.moment.epoch, began: c.o.Now(), forget: w.Skip, resets: w.ID.resets.Load(), doubts: c.access.doubts.Load()}
	f.readAt = cmp.Or(w.State, c.o.Required(w.ID))
	asks := queue.TicketOf(ctx)
	ctx, f.ticket = queue.NewTicket(ctx, asks.Share())
	f.ticket.Placed = f.placed
	call, mine := c.fills.Start(ctx, k, func(ctx context.Context) (*fill, error) {
		f.run(ctx)
		return f, f.err
	})
	if !mine {
		c.counters.Shared++
		current.joinLocked(call, asks)
		return call, nil, current.ticket, nil
	}
	f.call = call
	f.joinLocked(call, asks)
	for write := range c.writes {
		f.forget = f.forget || write.affects(f.key)
	}
	c.running[f] = struct{}{}
	c.current[k] = f
	if f.forget {
		c.fills.Forget(k)
	}
	c.counters.Fills++
	return call, f, f.ticket, nil
}

// joinLocked takes note of who waits for f: a caller's request, with a ticket, or
// work of our own.
func (f *fill) joinLocked(call *coalesce.Call[*fill], asks *queue.Ticket) {
	if asks != nil {
		return
	}
	f.ours = true
	f.ticket.Promote()
	call.Persist(f.outlastsLocked())
}

// outlastsLocked reports whether the read may go on when nobody waits for it. What
// may make credentials ends.
func (f *fill) outlastsLocked() bool {
	mount, known := f.c.mounts.Knows(f.key.Namespace, f.key.Path)
	return known && mount.Version > 0 || f.c.findLocked(f.key, f.id) != nil
}

// placed is told when a caller's read gets a place at the origin, and gives it
// back: in between it goes on whoever leaves.
func (f *fill) placed(on bool) {
	c := f.c
	c.mu.Lock()
	f.sent = true
	call, persist := f.call, (on || f.ours) && f.outlastsLocked()
	c.mu.Unlock()
	call.Persist(persist)
}

// errQueued is why a caller's read fails whose time was over while it was in line.
const errQueued = queue.Limit("too many requests are in flight already (THAW_MAX_IN_FLIGHT)")

// joinableLocked reports whether somebody who comes now may have what f brings.
func (f *fill) joinableLocked() bool {
	c := f.c
	return !f.forget && f.resets == f.id.resets.Load() && f.doubts == c.access.doubts.Load() && f.epoch == c.ledger.moment.epoch &&
		(f.want.State != "" || c.o.covers(f.readAt, c.o.Required(f.id))) &&
		clock.Within(f.began, c.o.Now(), c.o.MaxAge+c.o.Recheck)
}

// Await waits for a read of key that someone began in this epoch, and reports
// whether there was one.
func (c *Cache) Await(ctx context.Context, key Key) bool {
	key.Personal = 0 // as Load has it
	c.mu.Lock()
	var found *fill
	for f := range c.running {
		if f.key == key && f.epoch == c.ledger.moment.epoch && !f.forget {
			found = f
			break
		}
	}
	c.mu.Unlock()
	if found == nil {
		return false
	}
	select {
	case <-found.call.Done():
	case <-ctx.Done():
	}
	return true
}

// forgetFillsLocked makes sure that nothing is stored of the reads on their way
// for which which says so, and that nobody who comes later shares them.
func (c *Cache) forgetFillsLocked(which func(*fill) bool) {
	for f := range c.running {
		if which(f) {
			f.forget = true
		}
	}
}

// run is the work of a fill. Its request outlives the call where the answer is a
// stream.
func (f *fill) run(ctx context.Context) {
	c, w := f.c, f.want
	request, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if errors.Is(cause, context.DeadlineExceeded) {
			cause = c.o.FetchEnded
		}
		cancel(cause)
	})
	closing := context.AfterFunc(c.ctx, func() { cancel(coalesce.ErrClosed) })
	if w.Poll {
		timer := time.AfterFunc(min(c.o.FetchTimeout, pollFetchTimeout), func() { cancel(context.DeadlineExceeded) })
		defer timer.Stop() // a stream may last
	}
	release := func() {
		closing()
		cancel(context.Canceled)
	}
	if c.o.Shared != nil && w.ID.own && !w.Skip {
		// Before the callers have their answer: the host may freeze as soon
		// as they do, and others would read again what was just read.
		defer f.publish()
	}
	defer f.land(unlink, release)
	f.ask(request)
}

// land ends a fill. A stream goes on to whoever began it.
func (f *fill) land(unlink func() bool, release func()) {
	c, stream := f.c, f.answer.Stream
	if stream != nil {
		unlink()
		f.answer.Stream = &released{stream, release, f.ticket}
	} else {
		release()
	}
	c.mu.Lock()
	delete(c.running, f)
	if k := (fillKey{f.key, f.id, f.want.State}); c.current[k] == f {
		delete(c.current, k)
	}
	c.dropUnseenLocked()
	c.mu.Unlock()
	if f.parted.Swap(true) {
		f.answer.Close()
	}
}

// released releases the request with its body.
type released struct {
	io.ReadCloser
	release func()
	ticket  *queue.Ticket
}

// Lasts says that the answer is taken as a caller pleases.
func (s *released) Lasts() { s.ticket.Lasts() }

func (s *released) Close() error {
	defer s.release()
	return s.ReadCloser.Close()
}
