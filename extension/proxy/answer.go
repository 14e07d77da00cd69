package proxy

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/queue"
)

// Ready-made header values: a hit allocates none. Cache-Status is RFC 9211.
var (
	valueHit           = []string{"HIT"}
	valueMiss          = []string{"MISS"}
	statusMiss         = []string{"thaw; fwd=miss"}
	statusMissStored   = []string{"thaw; fwd=miss; stored"}
	statusMissShared   = []string{"thaw; fwd=miss; collapsed"}
	statusRechecked    = []string{"thaw; fwd=stale; stored"}
	statusBypass       = []string{"thaw; fwd=bypass"}
	statusRequest      = []string{"thaw; fwd=request"}
	statusForced       = []string{"thaw; fwd=request; stored"}
	statusOnlyIfCached = []string{"thaw; fwd=miss; detail=only-if-cached"}
	warningStale       = []string{`110 - "Response is Stale"`}
)

// The values that end with seconds: Age, and Cache-Status of a hit. Two of its
// parameters are ours: verified says by what (the cursor, a read, or no event), and
// verified-age how many seconds ago the request was sent that did.
const (
	ageOf = iota
	cursorHit
	eventsHit
	sharedHit
	readHit
	staleHit
)

var beforeSeconds = [...]string{
	cursorHit: "thaw; hit; detail=memory; verified=cursor; verified-age=",
	eventsHit: "thaw; hit; detail=memory; verified=events; verified-age=",
	sharedHit: "thaw; hit; detail=shared; verified-age=",
	readHit:   "thaw; hit; detail=memory; verified=read; verified-age=",
	staleHit:  "thaw; hit; detail=stale; verified-age=",
}

// timed is a ready-made value that ends with seconds.
type timed struct {
	seconds int64
	value   []string
}

// times are such values of each kind.
type times [len(beforeSeconds)][64]atomic.Pointer[timed]

// since returns the value of a kind with whole seconds, made once for each number
// while numbers of the same remainder don't alternate.
func (s *times) since(kind int, from, now time.Time) []string {
	seconds := max(0, int64(clock.Elapsed(from, now)/time.Second))
	place := &s[kind][seconds%int64(len(s[kind]))]
	if t := place.Load(); t != nil && t.seconds == seconds {
		return t.value
	}
	t := &timed{seconds, []string{beforeSeconds[kind] + strconv.FormatInt(seconds, 10)}}
	place.Store(t)
	return t.value
}

// hit serves an entry; one that could not be verified says so.
func (s *Server) hit(c *call, o *poll.Outcome) {
	count, kind, h := &s.counts.hits, readHit, c.w.Header()
	c.result = "hit"
	switch {
	case o.Result == poll.Stale:
		count, kind, c.result = &s.counts.stale, staleHit, "stale"
		h["Warning"] = warningStale
	case o.Hit.Shared:
		s.counts.shared.Add(1)
		kind = sharedHit
	case o.Hit.ByEvents:
		kind = eventsHit
	case o.Hit.ByIndex:
		kind = cursorHit
	}
	count.Add(1)
	h["Cache-Status"] = s.times.since(kind, o.Hit.True, o.At)
	s.entry(c, o.Hit.Entry, o.At)
}

// countedBody is the length of bodies, in bytes, up to which net/http finds
// the Content-Length by itself, cheaper than from a header: it keeps 2048 back
// (bufferBeforeChunkingSize in net/http/server.go).
const countedBody = 2000

func (s *Server) entry(c *call, e *cache.Entry, now time.Time) {
	h := c.w.Header()
	maps.Copy(h, e.Header)
	h["X-Cache"] = valueHit
	h["Age"] = s.times.since(ageOf, e.FetchedAt, now)
	if len(e.Body) > countedBody {
		h["Content-Length"] = e.Length()
	}
	if date := e.Date(); date != nil {
		h["Date"] = date
	}
	if s.o.StandbyReads {
		tellNode(h)
	}
	c.status = e.Status
	c.w.WriteHeader(e.Status)
	c.w.Write(e.Body) // an error means that the client is gone
}

// miss passes the origin's answer on.
func (s *Server) miss(c *call, o *poll.Outcome) {
	a := o.Answer
	s.counts.misses.Add(1)
	c.result, c.status = "miss", a.Status
	s.extend(c)
	h := c.w.Header()
	copyHeader(h, a.Header)
	h["X-Cache"] = valueMiss
	switch {
	case o.Known && a.Stored && o.Asked:
		h["Cache-Status"] = statusForced
	case o.Known && a.Stored:
		h["Cache-Status"] = statusRechecked
	case a.Shared:
		h["Cache-Status"] = statusMissShared
	case a.Stored:
		h["Cache-Status"] = statusMissStored
	case o.Asked:
		h["Cache-Status"] = statusRequest
	default:
		h["Cache-Status"] = statusMiss
	}
	if s.o.StandbyReads {
		tellNode(h)
	}
	if a.Stream != nil {
		defer a.Stream.Close()
		if fill, ok := a.Stream.(interface{ Lasts() }); ok {
			defer s.lasting(fill.Lasts).Stop()
		}
		c.w.WriteHeader(a.Status)
		io.Copy(s.patiently(c.w, true), a.Stream)
		return
	}
	h["Content-Length"] = []string{strconv.Itoa(len(a.Body))}
	c.w.WriteHeader(a.Status)
	c.w.Write(a.Body)
}

// nodeHeader is the origin's client's: the answer is from a node that serves
// reads from a copy.
const nodeHeader = "X-Thaw-Node"

// tellNode says in Cache-Status where the answer is from.
func tellNode(h http.Header) {
	if node := h[nodeHeader]; len(node) == 1 && len(h["Cache-Status"]) == 1 {
		h["Cache-Status"] = []string{h["Cache-Status"][0] + "; node=" + node[0]}
		delete(h, nodeHeader)
	}
}

// copyHeader copies end-to-end headers.
func copyHeader(to, from http.Header) {
	maps.Copy(to, from)
	for _, line := range from["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			to.Del(strings.TrimSpace(name))
		}
	}
	for _, k := range [...]string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Cache-Status"} {
		delete(to, k)
	}
}

// error answers for an origin that could not be asked.
func (s *Server) error(c *call, err error) {
	s.counts.failed.Add(1)
	c.result = "error"
	c.status = s.o.Status(err)
	s.extend(c)
	if queue.Limited(err) {
		c.w.Header().Set("Retry-After", "1")
	}
	s.o.Log.Warn("request failed", "method", c.r.Method, "path", Loggable(c.r.URL.Path), "status", c.status, "error", err)
	fail(c.w, c.status, err.Error())
}

// Loggable is a path without tokens: old clients name them in paths
// (auth/token/lookup/<token>), and others are easily told: by their prefix, or before
// Vault 1.10 by a letter, a dot and at least 24 characters
// (https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes).
func Loggable(path string) string {
	if before, call, ok := strings.Cut(path, "/auth/token/"); ok {
		if name, rest, more := strings.Cut(call, "/"); more && rest != "" {
			return before + "/auth/token/" + name + "/..."
		}
	}
	at := 0
	for name := range strings.SplitSeq(path, "/") {
		kind, rest, dotted := strings.Cut(name, ".")
		short, prefixed := strings.CutPrefix(kind, "hv")
		if dotted && len(short) == 1 && strings.Contains("sbr", short) && (prefixed || len(rest) >= 24) {
			return path[:at] + "..."
		}
		at += len(name) + 1
	}
	return path
}

// left ends a request whose caller is gone. It answers nevertheless: a caller
// that closed its side for writing only is still there, and net/http would
// tell it 200, of a write too.
func (s *Server) left(c *call) {
	c.result, c.status = "left", http.StatusServiceUnavailable
	fail(c.w, c.status, "the connection was closed on the caller's side before the answer was here; what was asked may or may not have been done")
}

// extend gives the client BodyTimeout from now on: the origin took its time.
func (s *Server) extend(c *call) {
	http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(s.o.BodyTimeout))
}

// fail answers with an error of our own, in the shape of Vault's.
func fail(w http.ResponseWriter, status int, message string) {
	body, err := json.Marshal(map[string][]string{"errors": {"thaw: " + message}})
	if err != nil {
		body = []byte(`{"errors":["thaw: internal error"]}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
