package proxy

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/poll"
)

// call is one request to /v1/ and what was made of it.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	started   time.Time
	namespace string
	id        *cache.Identity // under whose token it goes; one of nobody: without a token
	d         poll.Want       // what it asks for, where it is a read
	status    int
	result    string // for the log: hit, stale, miss, bypass, write, error, left
}

// serve answers one request to /v1/.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, special bool) {
	came := s.o.Now()
	s.waits.active.Add(1)
	defer s.waits.active.Add(-1)
	if s.o.Gate != nil {
		if err := s.o.Gate(r); err != nil {
			s.counts.failed.Add(1)
			fail(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	c := call{w: w, r: r, started: s.o.Now(), namespace: s.namespace(r.Header)}
	s.identify(&c)
	if v := r.Header[optionsHeader]; len(v) > 0 && strings.EqualFold(strings.TrimSpace(v[0]), "revoke") && c.id.Own() && s.o.Relogin != nil {
		ctx, wait := s.o.Waiting.Begin(r.Context(), Loggable(r.URL.Path), true)
		err := s.o.Relogin(ctx)
		wait.End()
		if err != nil {
			s.error(&c, err)
			return
		}
		c.started = s.o.Now() // what was verified is judged from here on
	}
	if !special && s.read(&c) {
		now := s.o.Now()
		s.waits.note(now.Sub(came), now, s.o.PollTimeout)
	} else {
		passed := c // what is passed on is moved to the heap, a hit is not
		s.through(&passed)
		c.status, c.result = passed.status, passed.result
	}
	if s.o.Access != nil || s.o.Log.Enabled(r.Context(), slog.LevelDebug) { // which SIGHUP may change
		s.note(r, &c)
	}
}

// identify says under whose token the request goes.
func (s *Server) identify(c *call) {
	given := callerToken(c.r.Header)
	own := s.o.HasToken && (s.o.OwnToken == config.OwnTokenForce || s.o.OwnToken == config.OwnTokenFill && given == "")
	switch {
	case own && (given != "" || !open(c.r.URL.Path)):
		c.id = s.o.Cache.Own()
	case own, given == "":
		c.id = &cache.Identity{}
	default:
		c.id = s.o.Cache.Access().Caller(given)
	}
}

// read answers a read that the cache may have a part in, and reports whether
// it did.
func (s *Server) read(c *call) bool {
	if c.id.ID == 0 || c.r.ContentLength != 0 {
		return false
	}
	req := cache.Classify(c.r.Method, c.r.URL, c.namespace)
	if !req.Cacheable || c.id.Own() && tellsOwnToken(req.Key.Path) {
		return false
	}
	c.d = parseDirectives(c.r.Header)
	optIn := s.o.CacheDefault == config.CacheAll || c.d.OptIn
	if s.o.CacheDefault == config.CacheNone && !c.d.OptIn || optIn && momentary(c.r.URL.Path) || !optIn && (!s.o.StaticCache || !req.KVShaped) {
		return false
	}
	if m, known := s.o.Cache.Mounts().Knows(req.Key.Namespace, req.Key.Path); known && m.Version == 0 && !optIn {
		return false
	}
	c.d.Key, c.d.ID, c.d.OptIn = req.Key, c.id, optIn
	if index := c.r.Header[indexHeader]; len(index) > 0 {
		if s.o.Requested == nil {
			return false
		}
		var ok bool
		if c.d.State, ok = s.o.Requested(index); !ok {
			return false
		}
	}
	s.answer(c, s.o.Reads.Ensure(c.r.Context(), c.d))
	return true
}

// answer answers a read by what came of it.
func (s *Server) answer(c *call, o poll.Outcome) {
	switch o.Result {
	case poll.Hit, poll.Stale:
		s.hit(c, &o)
	case poll.Miss:
		s.miss(c, &o)
	case poll.NotCached:
		c.w.Header()["Cache-Status"] = statusOnlyIfCached
		s.fail(c, http.StatusGatewayTimeout, "not cached, or not verified for this invocation, and the request says only-if-cached")
	case poll.Failed:
		s.error(c, o.Err)
	case poll.Left:
		s.left(c)
	}
}

// momentary reports whether an answer is about this moment and this request
// alone: the health of a node, which may depend on the query, or metrics, whose
// format depends on Accept. No opting in makes sense of keeping it.
func momentary(path string) bool { return path == "/v1/sys/metrics" || open(path) }
