package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
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
}

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
	keep    bool // goes on when nobody waits
	left    bool // the caller who began it is gone: nobody takes a stream
	over    bool // done is closed, or about to be
}

// Load reads key from the origin with id's token, stores what may be stored,
// and returns the answer. Callers for the same key and identity share one
// read. When ctx ends the caller leaves; the read goes on for the others.
//
// Errors are those of the origin's transport or of the login, or ctx's.
func (c *Cache) Load(ctx context.Context, w Want) (Answer, error) {
	if !w.Alone {
		if f := c.join(w); f != nil {
			if err := c.wait(ctx, f, false); err != nil {
				return Answer{}, err
			}
			if f.shareable {
				a := f.answer
				a.Shared = true
				return a, f.err
			}
		}
	}
	f, err := c.start(ctx, w)
	if err != nil {
		return Answer{}, err
	}
	if err := c.wait(ctx, f, true); err != nil {
		return Answer{}, err
	}
	return f.answer, f.err
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

func (c *Cache) join(w Want) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flights[flightKey{w.Key, w.ID}]
	if f == nil || f.spoiled || f.epoch != c.epoch || !Within(f.began, c.o.Now(), c.o.MaxAge+c.o.Recheck) {
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

// start begins a read. The read is not the caller's: it runs under a context
// of its own, so that one who leaves fails nobody else.
func (c *Cache) start(ctx context.Context, w Want) (*flight, error) {
	flightCtx, cancelCause := context.WithCancelCause(context.WithoutCancel(ctx))
	cancel := func() { cancelCause(context.Canceled) }
	limit := c.o.FetchTimeout
	if w.Poll {
		limit = min(limit, pollFetchTimeout)
	}
	timer := time.AfterFunc(limit, func() { cancelCause(context.DeadlineExceeded) })
	stop := context.AfterFunc(c.ctx, cancel)
	f := &flight{
		key: w.Key, id: w.ID, began: c.o.Now(), done: make(chan struct{}), waiters: 1,
		cancel: cancel, spoiled: w.Skip,
	}
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		stop()
		timer.Stop()
		cancel()
		return nil, ErrClosed
	}
	f.epoch = c.epoch
	mount, known := c.mountLocked(w.Key.Namespace, w.Key.Path)
	f.keep = known && mount.Version > 0 || c.slots[w.Key] != nil
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
		close(f.done)
		if c.o.Shared != nil && w.ID == c.own && !w.Skip {
			switch {
			case f.answer.Stored:
				c.share(f.stored)
			case f.refused && f.answer.Status == http.StatusForbidden:
				c.drop(nil, []Right{w.Key.right()}, f.answer.SentAt)
			case f.refused:
				c.drop([]Key{w.Key}, nil, f.answer.SentAt)
			}
		}
	}()
	return f, nil
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

// fly does the read and settles it.
func (c *Cache) fly(ctx context.Context, f *flight, w Want) {
	if err := c.o.Origin.Ready(ctx, w.ID); err != nil {
		f.err, f.shareable = err, true
		c.settleFailure(f, c.o.Now(), err)
		return
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

// settleFailure records that the origin failed the verification of an entry.
func (c *Cache) settleFailure(f *flight, sentAt time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[f.key]
	if s == nil {
		return
	}
	if c.o.Pessimistic {
		c.removeLocked(s)
		return
	}
	if sentAt.After(s.failed.At) {
		s.failed, s.failedErr = Mark{sentAt, f.epoch}, err
	}
}

// settle takes an answer in: what it says about entries and grants, and
// whether waiters may share it. An answer that came from something between us
// and the origin (RFC 9111: it carries Age) verifies nothing.
func (c *Cache) settle(ctx context.Context, f *flight, w Want, anchor Anchor) {
	a := &f.answer
	between := a.Header.Get("Age") != "" || a.Header.Get("X-Cache") == "HIT"
	f.shareable = a.Status != http.StatusOK
	if OriginFailure(a.Status) {
		c.settleFailure(f, a.SentAt, fmt.Errorf("the origin answered %d for %s", a.Status, w.Key.Path))
		return
	}
	if a.Status != http.StatusOK {
		c.settleRefusal(f, w, between)
		return
	}
	e := c.entry(ctx, w, a, anchor)
	if e == nil {
		return
	}
	f.shareable = e.Kind != Other
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.spoiled {
		return
	}
	mark := Mark{a.SentAt, f.epoch}
	if between {
		mark, e.Anchor = Mark{}, Anchor{}
		if n, err := strconv.Atoi(a.Header.Get("Age")); err == nil && n > 0 {
			e.FetchedAt = e.FetchedAt.Add(-time.Duration(min(n, 1<<30)) * time.Second)
		}
	}
	if e.Key.Personal == 0 {
		c.grantToLocked(w.ID, e.Key, a.SentAt)
		if _, ok := w.ID.grants[e.Key.right()]; !ok {
			return // the identity was forgotten meanwhile
		}
	}
	a.Stored, f.stored = true, e.Key
	if old := c.slots[e.Key]; old != nil {
		if old.mark.At.After(a.SentAt) {
			return // verified later than this was sent
		}
		if old.entry.Status == e.Status && SameAnswer(old.entry.Body, e.Body) {
			if between {
				return
			}
			same := *old.entry
			same.Anchor, same.Expires = e.Anchor, e.Expires
			old.mark = mark
			if c.o.TTL > 0 {
				same = *e
			}
			old.entry = &same
			return
		}
	}
	c.insertLocked(&slot{entry: e, mark: mark})
	if e.Kind == Metadata {
		c.pruneLocked(e)
	}
}

// settleRefusal takes in an answer that is neither success nor failure: the
// entry is no more, or no more this identity's.
func (c *Cache) settleRefusal(f *flight, w Want, between bool) {
	a := &f.answer
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[w.Key]
	if between || s != nil && s.mark.At.After(a.SentAt) {
		return
	}
	// A read that was sent before this one must not bring back what it found.
	for other := range c.running {
		if other != f && other.key == f.key && !other.began.After(f.began) {
			c.spoilLocked(other)
		}
	}
	f.refused = true
	if a.Status == http.StatusForbidden {
		c.revokeLocked(w.ID, w.Key.right())
		c.counters.Invalidated++
		return
	}
	if s != nil {
		c.removeLocked(s)
		c.counters.Invalidated++
	}
	if a.Status == http.StatusNotFound && c.o.NegativeTTL > 0 && !f.spoiled && !MatchPath(c.o.NoCache, w.Key.Path) {
		if m, ok := c.mountLocked(w.Key.Namespace, w.Key.Path); ok && m.Version > 0 {
			e := newEntry(w.Key, a)
			e.Kind = Data
			if w.Key.Op == List {
				e.Kind = Listing
			}
			e.Expires = a.SentAt.Add(c.o.NegativeTTL)
			c.grantToLocked(w.ID, w.Key, a.SentAt)
			c.insertLocked(&slot{entry: e, mark: Mark{a.SentAt, f.epoch}})
		}
	}
}

// pruneLocked drops versions older than a key's oldest_version.
func (c *Cache) pruneLocked(metadata *Entry) {
	s, ok := parseShape(metadata.Body)
	if !ok || s.oldest < 2 {
		return
	}
	for k, sl := range c.slots {
		if n := versionOf(k.Query); n > 0 && n < s.oldest && k.Namespace == metadata.Key.Namespace &&
			resourceOf(k.Path) == resourceOf(metadata.Key.Path) {
			c.removeLocked(sl)
			c.counters.Invalidated++
		}
	}
}

func newEntry(key Key, a *Answer) *Entry {
	return &Entry{
		Key: key, Status: a.Status, Header: endToEnd(a.Header), Date: a.Header.Get("Date"), Body: a.Body, FetchedAt: a.SentAt,
		DateValue: a.Header["Date"], LengthValue: []string{strconv.Itoa(len(a.Body))},
	}
}

// entry makes an entry of a 200, or returns nil for what must not be cached.
func (c *Cache) entry(ctx context.Context, w Want, a *Answer, anchor Anchor) *Entry {
	s, ok := parseShape(a.Body)
	if !ok || !isNull(s.WrapInfo) || !isNull(s.Auth) {
		return nil
	}
	e := newEntry(w.Key, a)
	e.Anchor = anchor
	if mounted, ok := preflightPath(w.Key.Path); ok && w.Key.Op == Read && w.Key.Query == "" {
		m, ok := ParseMount(w.Key.Namespace, a.Body)
		if !ok || mounted != m.Path && !hasPathPrefix(mounted, m.Path) {
			return nil
		}
		c.Learn(m)
		e.Key.Path, e.Kind = preflightPrefix+m.Path, Preflight
		if !Within(anchor.FirstSeen.Add(time.Second), a.SentAt, time.Duration(1<<62)) {
			// The mount table is cached after it is stored: an index seen for
			// less than a second proves nothing of it.
			e.Anchor = Anchor{}
		}
		return c.allowed(e)
	}
	mount, known := c.Knows(w.Key.Namespace, w.Key.Path)
	isKV := known && mount.Version > 0
	switch s.MountType {
	case "kv", "generic":
		isKV = true
	case "":
		if !known && askable(w.Key.Path) {
			mount, known = c.ask(ctx, w)
			isKV = known && mount.Version > 0
		}
	default:
		isKV = false
	}
	if isKV && s.LeaseID == "" {
		e.Kind = kindOf(w.Key, mount, known && mount.Version > 0, s)
	}
	switch e.Kind {
	case Other:
		if !w.OptIn || c.o.TTL <= 0 || s.LeaseID != "" && s.LeaseDuration <= 0 {
			return nil
		}
		if s.LeaseID != "" {
			e.Expires = a.SentAt.Add(time.Duration(s.LeaseDuration) * time.Second)
		}
		e.Key.Personal, e.Anchor = w.ID.ID, Anchor{}
	case Data, Subkeys:
		e.Version = s.version
		if !s.deletion.IsZero() {
			e.Expires = s.deletion
			if !a.SentAt.Before(e.Expires) {
				return nil
			}
		}
	}
	return c.allowed(e)
}

func (c *Cache) allowed(e *Entry) *Entry {
	if c.o.Bytes <= 0 || MatchPath(c.o.NoCache, e.Key.Path) {
		return nil
	}
	return e
}

// askable reports whether a path may be on a KV mount.
func askable(path string) bool {
	switch firstSegment(path) {
	case "sys", "auth", "identity", "cubbyhole":
		return false
	}
	return true
}

// ask learns which mount a path is on, for servers whose answers carry no
// mount_type (OpenBao, Vault before 1.16). What cannot be learned is not
// asked again for this path.
func (c *Cache) ask(ctx context.Context, w Want) (Mount, bool) {
	key := Key{Namespace: w.Key.Namespace, Path: preflightPrefix + w.Key.Path}
	unknown := Mount{Namespace: w.Key.Namespace, Path: w.Key.Path}
	res, err := c.o.Origin.Read(ctx, key, w.ID, false)
	if err != nil {
		return Mount{}, false
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || OriginFailure(res.StatusCode) {
		return Mount{}, false
	}
	m, ok := ParseMount(w.Key.Namespace, body)
	if res.StatusCode != http.StatusOK || !ok || !hasPathPrefix(w.Key.Path, m.Path) && w.Key.Path != m.Path {
		c.Learn(unknown)
		return Mount{}, false
	}
	c.Learn(m)
	return m, true
}
