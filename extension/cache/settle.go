package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// settleFailure records that the origin failed the verification of an entry.
func (c *Cache) settleFailure(f *flight, sentAt time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(f.key, f.id)
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

func statusError(status int, key Key) error {
	return fmt.Errorf("the origin answered %d for %s", status, key.Path)
}

// settle takes an answer in: what it says about entries and grants, and
// whether waiters may share it. An answer that came from something between us
// and the origin (RFC 9111: it carries Age) verifies nothing.
func (c *Cache) settle(ctx context.Context, f *flight, w Want, anchor Anchor) {
	a := &f.answer
	between := a.Header.Get("Age") != "" || a.Header.Get("X-Cache") == "HIT"
	f.shareable = a.Status != http.StatusOK
	if OriginFailure(a.Status) {
		c.settleFailure(f, a.SentAt, statusError(a.Status, w.Key))
		return
	}
	if a.Status != http.StatusOK {
		c.settleRefusal(f, w, between)
		if f.refused && a.Status == http.StatusNotFound {
			c.keepGone(ctx, f, w)
		}
		return
	}
	e := c.entry(ctx, w, a, anchor)
	if e == nil {
		return
	}
	e.ReadAt = f.readAt // nobody writes it any more
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
	c.grantToLocked(w.ID, e.Key, a.SentAt)
	if _, ok := w.ID.grants[e.Key.right()]; !ok {
		return // the identity was forgotten meanwhile
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
			same.ReadAt = c.laterRead(e.ReadAt, same.ReadAt)
			old.proof = c.proofLocked(old) // the anchor changes
			old.mark, old.certain = mark, w.After != nil && !w.After.Weak
			if c.o.TTL > 0 {
				e.ReadAt = same.ReadAt
				same = *e
			}
			old.entry = &same
			return
		}
	}
	c.insertLocked(&slot{entry: e, mark: mark, changed: c.changedLocked(e.Key), certain: w.After != nil && !w.After.Weak})
	if e.Kind == Metadata {
		c.pruneLocked(e)
	}
}

// settleRefusal takes in an answer that is neither success nor failure. A 403
// ends the identity's grant, a 404 the entry. Others say nothing of either: a
// 400 while a mount is upgraded, a 412 of a node that lags, a redirect.
func (c *Cache) settleRefusal(f *flight, w Want, between bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if between {
		return
	}
	s := c.findLocked(w.Key, w.ID)
	switch a := &f.answer; {
	case a.Status == http.StatusForbidden:
		c.forbidLocked(f, w, s)
	case s != nil && s.mark.At.After(a.SentAt): // verified by what was sent later
	case a.Status == http.StatusNotFound:
		c.goneLocked(f, s)
	case s != nil && c.o.Pessimistic:
		c.removeLocked(s)
	}
}

// forbidLocked takes in a 403. Only a success of the same identity can tell that
// it is outdated: the entry may be verified by others all the while.
func (c *Cache) forbidLocked(f *flight, w Want, s *slot) {
	if w.ID.grants[w.Key.right()].After(f.answer.SentAt) {
		return
	}
	f.refused = true
	c.counters.Invalidated++
	// A read that was sent before this one must not bring back what it found.
	c.spoilWhereLocked(func(other *flight) bool {
		return other != f && other.id == f.id && other.key.right().like(f.key.right()) && !other.began.After(f.began)
	})
	if !w.ID.own && tokenRefused(f.answer.Body) {
		c.forgetLocked(w.ID)
		return
	}
	c.revokeLocked(w.ID, w.Key.right())
	if s != nil && s.entry.Kind == Preflight {
		c.revokeLocked(w.ID, s.entry.Key.right())
	}
}

// tokenRefused reports whether a 403 is about the token itself: it is unknown,
// revoked or expired. Vault says "invalid token" or "bad token" then, older
// ones and OpenBao a bare "permission denied"; a lack of rights reads
// "1 error occurred: * permission denied" (CheckToken in
// vault/request_handling.go of both).
func tokenRefused(body []byte) bool {
	var answer struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return false
	}
	for _, e := range answer.Errors {
		if e == "permission denied" || strings.Contains(e, "* invalid token") || strings.Contains(e, "bad token") {
			return true
		}
	}
	return false
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
	e := &Entry{
		Key: key, Status: a.Status, Header: endToEnd(a.Header), Body: a.Body, FetchedAt: a.SentAt,
		LengthValue: []string{strconv.Itoa(len(a.Body))},
	}
	if date := a.Header["Date"]; len(date) > 0 {
		e.DateValue = []string{strings.Clone(date[0])} // the answer's own would hold on to its other headers
		e.Date = e.DateValue[0]
	}
	return e
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
	case Listing:
		e.Key.Personal = w.ID.listsFor()
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
// mount_type (OpenBao, Vault before 1.16). What an answer says counts for all
// and for good. A refusal is about who asked (a token good for one use was used
// up by the read itself), and keeps only that identity from asking for a while.
func (c *Cache) ask(ctx context.Context, w Want) (Mount, bool) {
	m, known, elsewhere := c.mountOf(ctx, w)
	if elsewhere {
		c.Learn(Mount{Namespace: w.Key.Namespace, Path: w.Key.Path})
	}
	return m, known
}

// mountOf asks the origin which mount a path is on and remembers it. elsewhere:
// it named one that the path is not on.
func (c *Cache) mountOf(ctx context.Context, w Want) (m Mount, known, elsewhere bool) {
	if c.wasRefused(w) {
		return Mount{}, false, false
	}
	key := Key{Namespace: w.Key.Namespace, Path: preflightPrefix + w.Key.Path}
	res, err := c.o.Origin.Read(ctx, key, w.ID, false)
	if err != nil {
		return Mount{}, false, false
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || OriginFailure(res.StatusCode) || res.StatusCode == http.StatusPreconditionFailed {
		return Mount{}, false, false // a 412 is a node's that lags: it says nothing of the mount
	}
	m, ok := ParseMount(w.Key.Namespace, body)
	switch {
	case res.StatusCode != http.StatusOK || !ok:
		c.noteRefusal(w)
		return Mount{}, false, false
	case !hasPathPrefix(w.Key.Path, m.Path) && w.Key.Path != m.Path:
		return Mount{}, false, true
	}
	c.Learn(m)
	return m, true, false
}
