package cache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/wire"
)

// maxBody is how long an answer may be, in bytes, to be kept. Larger ones are passed through.
const maxBody = 4 << 20

// ask does the read of a fill and takes in what it brings.
func (f *fill) ask(ctx context.Context) {
	c, w := f.c, f.want
	if c.o.Shared == nil {
		c.o.Origin.Index(ctx, f.epoch) // where there is none, it is asked for beside a login
	}
	if err := c.o.Origin.Ready(ctx, w.ID); err != nil {
		f.err, f.shareable = notReady{err}, true
		return
	}
	c.mu.Lock()
	// A login that was needed may have replaced the token, or changed the policies.
	f.leases, f.resets = w.ID.leases.Load(), w.ID.resets.Load()
	f.kv = c.harmlessLocked(w.Key, w.ID)
	c.mu.Unlock()
	ctx = f.require(ctx)
	// The index must have been received before the read is sent.
	index := c.o.Origin.Index(ctx, f.epoch)
	sentAt := c.o.Now()
	res, err := c.o.Origin.Read(ctx, Question{Key: w.Key, ID: w.ID, Retry: !w.Poll, Harmless: f.kv, After: w.After, State: w.State})
	if err != nil {
		f.err, f.shareable = err, true
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, coalesce.ErrAgain) && !clock.Froze(f.began.Add(c.o.FetchTimeout), c.o.Now()) {
			f.failed(sentAt, err)
		}
		return
	}
	f.answer = Answer{Status: res.StatusCode, Header: res.Header, SentAt: sentAt}
	if !wire.JSON(res.Header) && res.ContentLength != 0 { // a load balancer's page, say, or what is not KV
		f.unanswered(wire.Answer{Status: res.StatusCode, Header: res.Header})
		f.answer.Stream = res.Body
		return
	}
	body, err := wire.Read(res, maxBody+1)
	switch {
	case err != nil:
		res.Body.Close()
		f.err, f.shareable = fmt.Errorf("read the answer for %s: %w", w.Key.Path, err), true
		f.failed(sentAt, f.err)
	case int64(len(body)) > maxBody:
		res.Body = wire.Prepend(body, res.Body)
		if head := wire.Peek(res, 64<<10); head.Word(f.endpoint()) == wire.Failure {
			f.unanswered(head)
		} else if res.StatusCode == http.StatusOK {
			f.supersede()
		}
		f.answer.Stream = res.Body
	default:
		res.Body.Close()
		f.answer.Body = body
		f.settle(ctx, index)
	}
}

// failed records that the origin failed the verification of an entry. What a limit
// of ours ended says nothing of the origin, and what a request's own state brought
// about says nothing to others.
func (f *fill) failed(sentAt time.Time, err error) {
	if queue.Limited(err) || f.want.State != "" {
		return
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	switch s := f.c.findLocked(f.key, f.id); {
	case s == nil:
	case f.c.o.Pessimistic:
		f.c.removeLocked(s)
	case s.truth.failed == nil || sentAt.After(s.truth.failed.At):
		s.truth.failed = &failure{Revalidation{sentAt, f.epoch}, err}
	}
}

// unanswered records that the origin could not answer: by its own word, or since
// what came is not its word.
func (f *fill) unanswered(a wire.Answer) {
	err := fmt.Errorf("the origin answered %d for %s", a.Status, f.key.Path)
	switch {
	case a.Status == http.StatusTooManyRequests:
		err = fmt.Errorf("%w: %w", err, ErrLoad)
	case !wire.Failed(a.Status):
		err = fmt.Errorf("something in the place of the origin answered %d for %s, with %s", a.Status, f.key.Path, a.Form())
		if restyled(a.Status) {
			err = fmt.Errorf("%w: %w", err, ErrRestyled)
		}
	}
	if a.Status < 500 {
		err = &RequestError{f.id, err}
	}
	f.answer.Failure = err
	f.failed(f.answer.SentAt, err)
}

// endpoint is what the read asks for, as far as it decides the answer's shape.
func (f *fill) endpoint() wire.Endpoint {
	if f.want.OptIn && f.key.Op != List && !f.kv { // of anything
		return wire.Other
	}
	return f.key.endpoint()
}

// supersede removes what is kept where the origin answers now with what may not
// be kept: a lease, another engine's answer, too large a one. A request's wish is
// no such reason.
func (f *fill) supersede() {
	c := f.c
	if f.want.Skip || wire.FromCache(f.answer.Header) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(f.key, f.id)
	if s == nil || s.entry.Kind == Other || s.entry.Kind == Preflight || s.truth.read.At.After(f.answer.SentAt) {
		return
	}
	f.gone = true
	c.removeLocked(s)
	c.counters.Invalidated++
}

// settle takes an answer in: what it says about entries and capabilities, and
// whether waiters may share it.
func (f *fill) settle(ctx context.Context, index Index) {
	a := &f.answer
	f.shareable = a.Status != http.StatusOK
	said := wire.New(a.Status, a.Header, a.Body)
	word := said.Word(f.endpoint())
	if word != wire.Failure && !wire.FromCache(a.Header) {
		f.c.access.heard.read(a.SentAt)
	}
	switch {
	case word == wire.Failure:
		f.unanswered(said)
	case word != wire.Value:
		f.settleRefusal(word)
		if f.gone {
			f.keepNegative(ctx, said, index)
		}
	case !f.keeps(): // that says nothing of the answer
	default:
		e, index := f.entry(ctx, index, said)
		if e == nil || e.Kind == Other {
			f.supersede()
		} else {
			f.id.Accept()
		}
		if e != nil {
			f.shareable = e.Kind != Other
			f.keep(e, index)
		}
	}
}

// keep stores an entry that a fill brought, and records what that verifies. An
// answer that came from something between us and the origin verifies nothing.
func (f *fill) keep(e *Entry, index Index) {
	c, w := f.c, f.want
	a, between := &f.answer, wire.FromCache(f.answer.Header)
	e.ReadAt = f.readAt // nobody writes it any more
	c.mu.Lock()
	defer c.mu.Unlock()
	nothing := e.Status == http.StatusNotFound
	if f.forget || nothing && c.findLocked(w.Key, w.ID) != nil { // one that is there was read later
		return
	}
	read := Revalidation{a.SentAt, f.epoch}
	if between {
		// It may have been given to another identity, and of what a request opted in
		// it is not known how much of its life is over.
		if _, held := c.access.confirmedAt(w.ID, e.Key.Capability()); !held || e.Kind == Other {
			return
		}
		read, index = Revalidation{}, Index{}
		if n, err := strconv.Atoi(a.Header.Get("Age")); err == nil && n > 0 {
			e.FetchedAt = e.FetchedAt.Add(-time.Duration(min(n, 1<<30)) * time.Second)
		}
	} else if !c.access.grant(w.ID, f.resets, e.Key.Capability(), a.SentAt, nothing) {
		return // the identity was forgotten meanwhile
	}
	f.stored = e.Key
	defer func() { a.Stored = c.store.slots[e.Key] != nil }()
	since := c.ledger.moment.stream.recent.of(e.Key, time.Time{})
	if w.After != nil && !w.After.Weak {
		since = a.SentAt.Add(-c.o.Lag) // the node that answered had the change: a stream verifies it from now on
	}
	old := c.store.slots[e.Key]
	if old != nil && (old.truth.read.At.After(a.SentAt) || between && !e.FetchedAt.After(c.ledger.judgeLocked(old, a.SentAt).True)) {
		return // verified later than this was sent, or than a cache in between got it
	}
	if old != nil && old.entry.Status == e.Status && SameAnswer(old.entry.Body, e.Body) {
		if !between {
			c.sameLocked(old, e, index, read, since)
			old.leases = f.leases
		}
		c.trimLocked(old) // there is one capability more
		return
	}
	c.insertLocked(&slot{entry: e, truth: record{read: read, since: since, asked: f.asked}, leases: f.leases}, index)
	if e.Kind == Metadata {
		c.pruneLocked(e)
	}
}

// sameLocked takes in that a read found what a slot holds.
func (c *Cache) sameLocked(old *slot, e *Entry, index Index, read Revalidation, since time.Time) {
	was := old.entry
	e.Key, e.Header, e.Body, e.length, e.sum, e.date[0] = was.Key, was.Header, was.Body, was.length, was.sum, unique.Make(e.date[0]).Value()
	e.ReadAt = c.laterRead(e.ReadAt, was.ReadAt)
	c.ledger.readLocked(&old.truth, index, read)
	if ends := e.Status == http.StatusOK && e.Kind != Other; ends && was.Expires.Before(e.Expires) && !was.Expires.IsZero() {
		e.Expires = was.Expires // a clock was set back since, or something rewrites Date
	}
	old.truth.since = since
	old.entry = e
}

// settleRefusal takes in an answer that is neither success nor failure. A 403
// ends the identity's capability, and so does a token in place of the secret: a control
// group or a limit on wrapping was added, so the identity may not just read it. A 404
// ends the entry. Others say nothing of either: a 400 while a mount is upgraded, a
// 412 of a node that lags, a redirect.
func (f *fill) settleRefusal(word wire.Word) {
	c, w := f.c, f.want
	if wire.FromCache(f.answer.Header) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(w.Key, w.ID)
	switch a := &f.answer; {
	case word == wire.Denied, word == wire.Wrapped:
		f.forbidLocked(s)
	case s != nil && s.truth.read.At.After(a.SentAt): // verified by what was sent later
	case word == wire.Absent:
		f.gone = true
		c.forgetFillsLocked(func(other *fill) bool {
			return other != f && other.key == f.key && !other.began.After(f.began)
		})
		if s != nil {
			f.asked = s.truth.asked
			c.removeLocked(s)
			c.counters.Invalidated++
		}
	case s != nil && c.o.Pessimistic:
		c.removeLocked(s)
	}
}

// forbidLocked takes in that the identity may not read it. Only a success of the same
// identity can tell that it is outdated: the entry may be verified by others all the
// while.
func (f *fill) forbidLocked(s *slot) {
	c, w := f.c, f.want
	needs := w.Key.Capability()
	if of, _ := c.access.confirmedAt(w.ID, needs); of.Read.After(f.answer.SentAt) {
		return
	}
	c.counters.Invalidated++

	// A read that was sent before this one must not bring back what it found.
	c.forgetFillsLocked(func(other *fill) bool {
		return other != f && other.id == f.id && other.key.Capability().plain() == needs.plain() && !other.began.After(f.began)
	})
	refused := wire.TokenRefused(f.answer.Status, f.answer.Body)
	if refused && !w.ID.own {
		c.access.drop(w.ID)
	} else {
		if lost := c.access.revoke(w.ID, needs); !refused { // else it was about this token alone
			f.lost = lost
		}
		if s != nil && s.entry.Kind == Preflight {
			c.access.revoke(w.ID, s.entry.Key.Capability())
		}
	}
	c.dropUnseenLocked()
}

// keepNegative keeps a 404 of KV for NegativeTTL. It says nothing of its mount,
// so that is asked for where it is not known; what was cached is gone by then.
func (f *fill) keepNegative(ctx context.Context, said wire.Answer, index Index) {
	c, w, a := f.c, f.want, &f.answer
	if c.o.NegativeTTL <= 0 || MatchPath(c.o.NoCache, w.Key.Path) || !askable(w.Key.Path) || said.Reason() != wire.Nothing {
		return
	}
	m, known := c.mounts.Knows(w.Key.Namespace, w.Key.Path)
	c.mu.Lock()
	ask := !known && !f.forget
	c.mu.Unlock()
	if ask {
		var elsewhere bool
		if m, known, elsewhere = f.mountOf(ctx); elsewhere {
			c.mounts.refuse(refusalOf(w.Key, w.ID), c.o.Now()) // not learned: reads of what is created there later go past the cache otherwise
		}
	}
	if !known || m.Version == 0 {
		return
	}
	s, _ := parseShape(said)
	e := newEntry(w.Key, a)
	switch e.Kind = kindOf(w.Key, m, true, s); e.Kind {
	case Other:
		e.Kind = Data
	case Listing:
		e.Key.Personal = w.ID.listsFor()
	}
	e.Expires = a.SentAt.Add(c.o.NegativeTTL)
	f.keep(e, index.Of(a.Header))
}

// pruneLocked drops versions older than a key's oldest_version.
func (c *Cache) pruneLocked(metadata *Entry) {
	s, ok := parseShape(wire.New(metadata.Status, nil, metadata.Body))
	if !ok || s.oldest < 2 {
		return
	}
	// Not NewWrite: whatever the secret is called, no mount changes by it.
	w := &Write{namespace: metadata.Key.Namespace, path: metadata.Key.Path, paths: targets(metadata.Key.Path)}
	c.affectedLocked(w, func(sl *slot) {
		if n := versionOf(sl.entry.Key.Query); n > 0 && n < s.oldest && sl.entry.Key.Namespace == w.namespace {
			c.removeLocked(sl)
			c.counters.Invalidated++
		}
	})
}

// require settles which state the read requires: what its identity requires now,
// after its login. Whoever joined it before required less.
func (f *fill) require(ctx context.Context) context.Context {
	c := f.c
	required := f.want.State
	if required == "" && f.want.After == nil { // which requires the state of the change
		required = c.o.Required(f.id)
	}
	c.mu.Lock()
	f.readAt = required
	c.mu.Unlock()
	return context.WithValue(ctx, requiredKey{}, required)
}

type requiredKey struct{}

// RequiredIn returns the state that a read of the cache's requires; ok is false
// for a request that is none. The state is what the entry is kept under, so
// just this one is to be required of the origin.
func RequiredIn(ctx context.Context) (required string, ok bool) {
	required, ok = ctx.Value(requiredKey{}).(string)
	return required, ok
}

// laterRead returns the state at which an answer was read that was the same in
// two reads.
func (c *Cache) laterRead(now, before string) string {
	if c.o.covers(now, before) || !c.o.covers(before, now) {
		return now
	}
	return before
}

// keeps reports whether anything is kept for whoever asks.
func (f *fill) keeps() bool {
	keep, _ := f.c.access.allows(f.id)
	return keep && f.c.o.Bytes > 0
}

// entry makes an entry of a 200 and says at which index it was read, or returns nil for
// what must not be kept.
func (f *fill) entry(ctx context.Context, index Index, said wire.Answer) (*Entry, Index) {
	c, w, a := f.c, f.want, &f.answer
	r := reading{key: w.Key, answer: a, said: said, index: index}
	if !r.parse() {
		return nil, Index{}
	}
	if !r.preflight {
		f.place(ctx, &r)
	}
	e := r.entry()
	if e == nil || MatchPath(c.o.NoCache, e.Key.Path) {
		return nil, Index{}
	}
	switch s := r.shape; e.Kind {
	case Preflight:
		if !wire.FromCache(a.Header) {
			f.learn(r.mount, strings.TrimPrefix(w.Key.Path, preflightPrefix))
		}
	case Listing:
		e.Key.Personal = w.ID.listsFor()
	case Other:
		if !w.OptIn || c.o.TTL <= 0 || s.LeaseID != "" && s.LeaseDuration <= 0 {
			return nil, Index{}
		}
		if s.LeaseID != "" {
			e.Expires, e.Leased = a.SentAt.Add(time.Duration(s.LeaseDuration)*time.Second), true
		}
		e.Key.Personal, r.index = w.ID.ID, Index{}
	}
	filtered := e.Kind == Listing && r.shape.MountType == ""
	if (filtered || e.Kind == Preflight) && !clock.Within(index.FirstSeen.Add(time.Second), a.SentAt, time.Duration(1<<62)) {
		// The mount table is cached after it is stored, and so are the policies by which
		// OpenBao leaves names out of lists: an index seen for less than a second proves
		// nothing of them.
		r.index = Index{}
	}
	return e, r.index
}
