package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/wire"
)

// call is one request to /v1/ and what was made of it.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	started   time.Time
	namespace string
	token     string          // the caller's, where it counts; empty: the extension's own, or none
	anonymous bool            // goes without a token
	id        *cache.Identity // set before anything is sent
	d         directives
	status    int
	result    string // for the log: hit, stale, miss, bypass, write, error, left
}

// serve answers one request to /v1/.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, said *said) {
	if s.o.Gate != nil {
		if err := s.o.Gate(r); err != nil {
			s.counts.failed.Add(1)
			fail(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	c := call{w: w, r: r, started: s.o.Now(), namespace: s.namespace(said)}
	s.identify(&c, said)
	if v := said.options; len(v) > 0 && strings.EqualFold(strings.TrimSpace(v[0]), "revoke") && c.token == "" && !c.anonymous && s.o.Relogin != nil {
		if err := s.o.Relogin(r.Context()); err != nil {
			s.error(&c, err)
			return
		}
		c.started = s.o.Now() // what was verified is judged from here on
	}
	if !s.read(&c, said) {
		passed := c // what is passed on is moved to the heap, a hit is not
		s.through(&passed)
		c.status, c.result = passed.status, passed.result
	}
	if s.noted {
		s.note(r, &c)
	}
}

// identify says under whose token the request goes.
func (s *Server) identify(c *call, said *said) {
	given := said.callerToken()
	switch {
	case s.o.HasToken && (s.o.OwnToken == Force || s.o.OwnToken == Fill && given == ""):
		c.anonymous = open(c.r.URL.Path) && given == ""
	case given == "":
		c.anonymous = true
	default:
		c.token = given
	}
}

// identity returns the identity that c goes under.
func (s *Server) identity(c *call) *cache.Identity {
	switch {
	case c.id != nil:
	case c.anonymous:
		c.id = &cache.Identity{}
	case c.token == "":
		c.id = s.o.Cache.Own()
	default:
		c.id = s.o.Cache.Access().Caller(c.token)
	}
	return c.id
}

// read answers a read that the cache may have a part in, and reports whether
// it did.
func (s *Server) read(c *call, said *said) bool {
	if said.special || c.anonymous || c.r.ContentLength != 0 {
		return false
	}
	req := cache.Classify(c.r.Method, c.r.URL, c.namespace)
	if !req.Cacheable || c.token == "" && tellsOwnToken(req.Key.Path) {
		return false
	}
	if len(said.control) > 0 || len(said.vaultControl) > 0 {
		c.d = parseDirectives(said)
	} else {
		c.d = directives{maxAge: -1, staleFor: -1}
	}
	optIn := s.o.CacheAll || c.d.optIn
	if s.o.CacheNone && !c.d.optIn || !s.o.CacheKV && !optIn {
		return false
	}
	if !cacheablePath(req.Key.Path) && !optIn || !req.KVShaped && !optIn || optIn && momentary(c.r.URL.Path) {
		return false
	}
	if m, known := s.o.Cache.Mounts().Knows(req.Key.Namespace, req.Key.Path); known && m.Version == 0 && !optIn {
		return false
	}
	if s.o.Require != nil {
		s.o.Require(c.r.Context(), s.identity(c))
	}
	s.lookup(c, cache.Want{Key: req.Key, OptIn: optIn, Alone: c.d.again, Skip: c.d.noStore})
	return true
}

// momentary reports whether an answer is about this moment and this request
// alone: the health of a node, which may depend on the query, or metrics, whose
// format depends on Accept. No opting in makes sense of keeping it.
func momentary(path string) bool { return path == "/v1/sys/metrics" || open(path) }

// cacheablePath reports whether an answer for path could be KV or the mounts
// preflight; the rest of sys/, auth/ and the like is streamed.
func cacheablePath(path string) bool {
	first, rest, _ := strings.Cut(path, "/")
	switch first {
	case "sys":
		return strings.HasPrefix(rest, "internal/ui/mounts/")
	case "auth", "identity", "cubbyhole":
		return false
	}
	return true
}

// lookup serves from the cache what was verified for this invocation, makes
// sure of the rest, and falls back to what is cached while the origin fails.
func (s *Server) lookup(c *call, w cache.Want) {
	ctx := c.r.Context()
	var waited, confirmed, joined, adopted bool
	w.ID = s.identity(c)
	for now := c.started; ; now = s.o.Now() {
		hit := s.find(c, w, now)
		state := hit.State
		if c.d.again && state != cache.Absent {
			s.load(c, w, hit)
			return
		}
		if state == cache.Fresh && c.d.maxAge >= 0 && !clock.Within(hit.Entry.FetchedAt, now, c.d.maxAge) {
			state = cache.Aged
		}
		switch {
		case state == cache.Fresh:
			s.hit(c, hit, now)
			return
		case state == cache.Absent && c.token == "" && !adopted && !c.d.again:
			adopted = true
			if s.o.Cache.FillShared(ctx, w.Key) == cache.NoCapability && s.o.Acquire != nil {
				s.o.Acquire(ctx, w.Key.Capability())
				s.o.Cache.FillShared(ctx, w.Key)
			}
		case state == cache.Absent:
			s.load(c, w, cache.Hit{})
			return
		case state == cache.Unconfirmed && !confirmed:
			confirmed = true
			waitCtx, cancel := context.WithTimeout(ctx, s.o.StaleWait)
			s.o.Permissions.Confirm(waitCtx, w.ID, hit.Entry.Key.Capability())
			cancel()
		case state == cache.Failing && s.mayBeStale(c, hit, now):
			s.stale(c, hit, now)
			return
		case state == cache.Unverified && !waited:
			waited = true
			s.o.Verifier.Wait(ctx)
		case state == cache.Unverified && !joined && !c.d.onlyCached:
			// The poll may be reading just this entry.
			joined = true
			waitCtx, cancel := context.WithTimeout(ctx, s.o.StaleWait)
			running := s.o.Cache.Await(waitCtx, w.Key)
			cancel()
			if !running {
				if !c.d.again && c.d.maxAge < 0 {
					w.Unless = s.o.Now()
				}
				s.load(c, w, hit)
				return
			}
		default:
			s.load(c, w, hit)
			return
		}
		if ctx.Err() != nil {
			s.left(c)
			return
		}
	}
}

// find looks up what c may be served: what others opted in to is not for a
// request that did not.
func (s *Server) find(c *call, w cache.Want, now time.Time) cache.Hit {
	return s.o.Cache.Lookup(w.Key, w.ID, w.OptIn, now)
}

// takes reports whether a verified entry is what the request asks for: not
// where it says to ask the origin, nor beyond its max-age.
func (c *call) takes(hit cache.Hit, now time.Time) bool {
	return hit.State == cache.Fresh && !c.d.again && (c.d.maxAge < 0 || clock.Within(hit.Entry.FetchedAt, now, c.d.maxAge))
}

// mayBeStale reports whether hit may be served although it is not verified.
func (s *Server) mayBeStale(c *call, hit cache.Hit, now time.Time) bool {
	if !hit.Stale || hit.Entry == nil {
		return false
	}
	return c.d.staleFor < 0 || clock.Within(hit.True, now, c.d.staleFor)
}

// load asks the origin. known is what is cached, to fall back to; its Entry is
// nil where there is nothing.
func (s *Server) load(c *call, w cache.Want, known cache.Hit) {
	ctx := c.r.Context()
	if c.d.onlyCached {
		s.counts.failed.Add(1)
		c.result = "error"
		c.status = http.StatusGatewayTimeout
		c.w.Header()["Cache-Status"] = statusOnlyIfCached
		fail(c.w, c.status, "not cached, or not verified for this invocation, and the request says only-if-cached")
		return
	}
	now := s.o.Now()
	ctx, done := s.bounded(ctx, now)
	defer done()
	fallBack := s.mayBeStale(c, known, now)
	a, err := s.fetch(ctx, w, fallBack)
	if errors.Is(err, cache.ErrVerified) { // the poll was quicker
		now = s.o.Now()
		if again := s.find(c, w, now); c.takes(again, now) {
			s.hit(c, again, now)
			return
		}
		w.Unless = time.Time{}
		a, err = s.fetch(ctx, w, fallBack)
	}
	if errors.Is(err, context.DeadlineExceeded) && fallBack && clock.Elapsed(now, s.o.Now()) > s.o.StaleWait+late {
		a, err = s.fetch(ctx, w, fallBack) // a freeze took the time that the origin had
	}
	if c.r.Context().Err() != nil {
		if a.Stream != nil {
			a.Stream.Close()
		}
		s.left(c)
		return
	}
	if fallBack && (err != nil || wire.Failed(a.Status)) {
		if a.Stream != nil {
			a.Stream.Close()
		}
		// The entry may have gone meanwhile: another read was refused.
		now = s.o.Now()
		if again := s.find(c, w, now); c.takes(again, now) {
			s.hit(c, again, now)
			return
		} else if again.Entry != nil && s.mayBeStale(c, again, now) {
			s.stale(c, again, now)
			return
		}
		if err == nil {
			s.error(c, errors.New("the origin fails, and the cached answer is no more"))
			return
		}
	}
	if err != nil {
		s.error(c, err)
		return
	}
	s.miss(c, a, known)
}

// late is how much later than it should a wait ends in a process that was
// frozen and not only busy.
const late = time.Second / 4

// fetch asks the origin. One that says nothing must not hold up what is cached.
func (s *Server) fetch(ctx context.Context, w cache.Want, fallBack bool) (cache.Answer, error) {
	if fallBack {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.StaleWait)
		defer cancel()
	}
	return s.o.Cache.Load(ctx, w)
}

// errDeadline is why a request ends shortly before its invocation does.
var errDeadline = fmt.Errorf("the origin did not answer before the invocation's deadline: %w", context.DeadlineExceeded)

// spare is what is left of the invocation for the function to react in.
const spare = 500 * time.Millisecond

// bounded ends ctx shortly before the invocation's deadline, so that the
// function gets an error to act on and not its own timeout.
func (s *Server) bounded(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	if s.o.Deadline != nil {
		if end := s.o.Deadline(); end.After(now) {
			return context.WithTimeoutCause(ctx, max(end.Sub(now)-spare, end.Sub(now)/2), errDeadline)
		}
	}
	return ctx, func() {}
}
