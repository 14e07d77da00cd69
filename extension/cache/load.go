package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// Want says what to read from the origin, and how.
type Want struct {
	Key   Key
	ID    *Identity
	OptIn bool // the caller opted in to caching what is not KV
	Alone bool // share no read that began before
	Poll  bool // one attempt, no retries; nobody waits for a stream
	Skip  bool // store nothing

	After *Change // the change that the read follows; nil: none

	// Unless, if set, makes Load return ErrVerified where the entry is verified
	// at that time: someone else was quicker. It is looked at under the lock
	// under which the read begins.
	Unless time.Time
}

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
}

// pollFetchTimeout bounds a read that a poll began: the poll itself waits less.
const pollFetchTimeout = 10 * time.Second

// OriginFailure reports whether the status is trouble of the origin rather
// than an answer to the question: rate limits, 5xx, and the health statuses
// 472 and 473.
func OriginFailure(status int) bool {
	return status == http.StatusTooManyRequests || status >= 500 || status == 472 || status == 473
}

type flightKey struct {
	key Key
	id  *Identity
}

// flight is one read of the origin in progress.
type flight struct {
	key    Key
	id     *Identity
	epoch  uint64
	began  time.Time
	done   chan struct{}
	cancel context.CancelFunc

	// Written before done is closed, read after.
	answer    Answer
	err       error
	shareable bool // waiters may have the answer too
	stored    Key  // where the answer was stored, if it was
	refused   bool // the origin answered that there is nothing here for us

	// Guarded by Cache.mu.
	spoiled bool // nothing of it is to be stored, nobody new may share it
	waiters int
	keep    bool   // goes on when nobody waits
	left    bool   // the caller who began it is gone: nobody takes a stream
	over    bool   // done is closed, or about to be
	readAt  string // the state that the read requires
	optedIn bool   // the request is on its way, and its caller opted in
}

// Load reads key from the origin with id's token, stores what may be stored,
// and returns the answer. Callers for the same key and identity share one
// read. When ctx ends the caller leaves; the read goes on for the others.
//
// Errors are those of the origin's transport or of the login, or ctx's.
func (c *Cache) Load(ctx context.Context, w Want) (Answer, error) {
	w.Key.Personal = 0 // whose the answer is will be seen
	for {
		f, mine, err := c.start(ctx, w)
		if err != nil {
			return Answer{}, err
		}
		if err := c.wait(ctx, f, mine); err != nil {
			return Answer{}, err
		}
		switch {
		case mine:
			return f.answer, f.err
		case f.shareable:
			a := f.answer
			a.Shared = true
			return a, f.err
		}
		w.Alone = true
	}
}

// Running waits for a read of key that someone else began in this epoch, and
// reports whether there was one.
func (c *Cache) Running(ctx context.Context, key Key) bool {
	c.mu.Lock()
	var found *flight
	for f := range c.running {
		if f.key == key && f.epoch == c.epoch && !f.spoiled {
			found = f
			break
		}
	}
	c.mu.Unlock()
	if found == nil {
		return false
	}
	select {
	case <-found.done:
	case <-ctx.Done():
	}
	return true
}

// joinLocked joins the read of the same key and identity that is under way.
func (c *Cache) joinLocked(w Want) *flight {
	if w.Alone {
		return nil
	}
	f := c.flights[flightKey{w.Key, w.ID}]
	if f == nil || f.spoiled || c.o.Consistency != nil && !c.o.Consistency.Covers(f.readAt, c.o.Consistency.Required(w.ID)) || f.epoch != c.epoch || !Within(f.began, c.o.Now(), c.o.MaxAge+c.o.Recheck) {
		return nil
	}
	f.waiters++
	c.counters.Shared++
	return f
}

func (c *Cache) wait(ctx context.Context, f *flight, first bool) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	f.waiters--
	f.left = f.left || first
	abandoned := f.waiters == 0 && !f.keep
	if abandoned && !f.over {
		c.spoilLocked(f)
	}
	unclaimed := first && f.over
	c.mu.Unlock()
	if unclaimed {
		<-f.done
		if f.answer.Stream != nil {
			f.answer.Stream.Close()
		}
	}
	if abandoned {
		f.cancel()
	}
	return context.Cause(ctx)
}

// start joins a read, or begins one: then it is mine. The read is not the
// caller's: it runs under a context of its own, so that one who leaves fails
// nobody else.
func (c *Cache) start(ctx context.Context, w Want) (f *flight, mine bool, err error) {
	c.mu.Lock()
	if f := c.joinLocked(w); f != nil {
		c.mu.Unlock()
		return f, false, nil
	}
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return nil, false, ErrClosed
	}
	if s := c.findLocked(w.Key, w.ID); s != nil && !w.Unless.IsZero() && c.freshLocked(c.markLocked(s), w.Unless) &&
		(c.o.Consistency == nil || c.coversLocked(s.entry, w.ID)) {
		c.mu.Unlock()
		return nil, false, ErrVerified
	}
	flightCtx, cancelCause := context.WithCancelCause(context.WithoutCancel(ctx))
	cancel := func() { cancelCause(context.Canceled) }
	limit := c.o.FetchTimeout
	if w.Poll {
		limit = min(limit, pollFetchTimeout)
	}
	timer := time.AfterFunc(limit, func() { cancelCause(context.DeadlineExceeded) })
	stop := context.AfterFunc(c.ctx, cancel)
	f = &flight{
		key: w.Key, id: w.ID, began: c.o.Now(), done: make(chan struct{}), waiters: 1,
		cancel: cancel, spoiled: w.Skip,
	}
	f.epoch = c.epoch
	if c.o.Consistency != nil {
		f.readAt = c.o.Consistency.Required(w.ID)
	}
	mount, known := c.mountLocked(w.Key.Namespace, w.Key.Path)
	f.keep = known && mount.Version > 0 || c.findLocked(w.Key, w.ID) != nil
	for write := range c.writes {
		if write.affects(f.key) {
			f.spoiled = true
		}
	}
	c.running[f] = struct{}{}
	if !f.spoiled {
		c.flights[flightKey{w.Key, w.ID}] = f
	}
	c.counters.Fills++
	c.fills.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.fills.Done()
		c.fly(flightCtx, f, w)
		timer.Stop() // a stream may last
		c.mu.Lock()
		delete(c.running, f)
		if k := (flightKey{w.Key, w.ID}); c.flights[k] == f {
			delete(c.flights, k)
		}
		f.over = true
		left := f.left
		c.mu.Unlock()
		body := f.answer.Stream
		if body != nil {
			f.answer.Stream = &stream{body, func() { stop(); cancel() }}
		}
		if body == nil || left {
			stop()
			cancel()
		}
		if body != nil && left {
			body.Close()
		}
		if c.o.Shared != nil && w.ID == c.own && !w.Skip {
			// Before the callers have their answer: the host may freeze as soon
			// as they do, and others would read again what was just read.
			c.tell(f, w)
		}
		close(f.done)
	}()
	return f, true, nil
}

// tell says in the shared tier what a read under our own identity brought.
func (c *Cache) tell(f *flight, w Want) {
	switch {
	case f.refused && f.answer.Status == http.StatusForbidden:
		c.drop(nil, []Right{w.Key.right()}, f.answer.SentAt)
	case f.refused: // a 404 is kept here alone
		c.drop([]Key{w.Key}, nil, f.answer.SentAt)
	case f.answer.Stored:
		c.share(f.stored)
	}
}

type stream struct {
	io.ReadCloser
	release func()
}

func (s *stream) Close() error {
	defer s.release()
	return s.ReadCloser.Close()
}

// spoilLocked makes sure that nothing of f is stored and that nobody who comes
// later shares it.
func (c *Cache) spoilLocked(f *flight) {
	f.spoiled = true
	if k := (flightKey{f.key, f.id}); c.flights[k] == f {
		delete(c.flights, k)
	}
}

// spoilWhereLocked spoils the reads on their way for which which says so.
func (c *Cache) spoilWhereLocked(which func(*flight) bool) {
	for f := range c.running {
		if which(f) {
			c.spoilLocked(f)
		}
	}
}

// fly does the read and settles it.
func (c *Cache) fly(ctx context.Context, f *flight, w Want) {
	if err := c.o.Origin.Ready(ctx, w.ID); err != nil {
		f.err, f.shareable = err, true
		c.settleFailure(f, c.o.Now(), err)
		return
	}
	if w.OptIn {
		c.mu.Lock()
		f.optedIn = true
		c.mu.Unlock()
	}
	ctx = c.requireFor(ctx, f, w.After)
	if w.After != nil {
		ctx = context.WithValue(ctx, changeKey{}, w.After)
	}
	// The anchor must have been received before the read is sent.
	anchor := c.o.Origin.Anchor(ctx)
	sentAt := c.o.Now()
	res, err := c.o.Origin.Read(ctx, w.Key, w.ID, !w.Poll)
	if err != nil {
		f.err, f.shareable = err, true
		if ctx.Err() == nil || !errors.Is(context.Cause(ctx), context.Canceled) {
			c.settleFailure(f, sentAt, err)
		}
		return
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, SentAt: sentAt}
	if !isJSON(res.Header) && res.ContentLength != 0 {
		if OriginFailure(a.Status) { // a load balancer's page, say
			c.settleFailure(f, sentAt, statusError(a.Status, w.Key))
		}
		a.Stream = res.Body
		f.answer = a
		return
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, c.o.MaxBody+1))
	if err != nil {
		res.Body.Close()
		f.err = fmt.Errorf("read the answer for %s: %w", w.Key.Path, err)
		f.shareable = true
		c.settleFailure(f, sentAt, f.err)
		return
	}
	if int64(len(body)) > c.o.MaxBody {
		a.Stream = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), res.Body), res.Body}
		f.answer = a
		return
	}
	res.Body.Close()
	a.Body = bytes.Clone(body) // without io.ReadAll's spare capacity
	f.answer = a
	c.settle(ctx, f, w, anchor)
}

func isJSON(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && t == "application/json"
}
