package harness

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"
)

// ServeHTTP records, fails as told, and passes on.
func (c *Counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &Request{
		At: time.Now(), Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
		Header: r.Header.Clone(), Remote: r.RemoteAddr,
	}
	c.mu.Lock()
	rec.Seq = len(c.requests)
	c.requests = append(c.requests, rec)
	stalled, delay, fault := c.stalled, c.delay, c.faultLocked(rec)
	if c.stalledAt != "" && c.stalledAt != rec.Path {
		stalled = nil
	}
	c.mu.Unlock()

	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	if stalled != nil {
		select {
		case <-stalled:
		case <-r.Context().Done():
			return
		}
	}
	sw := &statusWriter{ResponseWriter: w}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		rec.Status, rec.Took = sw.status, time.Since(rec.At)
	}()
	if fault != nil {
		fault.write(sw)
		return
	}
	c.proxy.ServeHTTP(sw, r)
}

// rewrite points a request at the origin and leaves path and query as the
// client wrote them.
func (c *Counter) rewrite(pr *httputil.ProxyRequest) {
	c.mu.Lock()
	origin := c.origin
	c.mu.Unlock()
	pr.SetURL(origin)
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	for name, values := range pr.In.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" {
			pr.Out.Header[name] = values // ReverseProxy drops them; an origin reached directly sees them
		}
	}
}

// faultLocked picks the fault for a request, if any. c.mu is held.
func (c *Counter) faultLocked(r *Request) *Fault {
	for _, f := range c.faults {
		if f.Times > 0 && f.used >= f.Times || f.Method != "" && f.Method != r.Method || !pathMatches(f.Path, r.Path) {
			continue
		}
		f.used++
		return f
	}
	return nil
}

// pathMatches compares a path with a pattern: exact, or a prefix with "*" at
// the end; empty matches all.
func pathMatches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == "" || pattern == path
}

func (f *Fault) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(f.Status)
	body := f.Body
	if body == "" {
		body = fmt.Sprintf("{\"errors\":[\"injected status %d\"]}\n", f.Status)
	}
	_, _ = w.Write([]byte(body))
}

// Total is the number of requests since the last Reset.
func (c *Counter) Total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

// Count is the number of requests with this method (empty: any) and path
// (exact, or a prefix if it ends in "*").
func (c *Counter) Count(method, path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, r := range c.requests {
		if (method == "" || method == r.Method) && pathMatches(path, r.Path) {
			n++
		}
	}
	return n
}

// Counts is the number of requests for each "METHOD path".
func (c *Counter) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := map[string]int{}
	for _, r := range c.requests {
		counts[r.Method+" "+r.Path]++
	}
	return counts
}

// Requests is the timeline since the last Reset, in order of arrival.
func (c *Counter) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Request, len(c.requests))
	for i, r := range c.requests {
		out[i] = *r
	}
	return out
}

// Reset forgets the timeline.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = nil
}

// String is the counts as lines, for failure messages.
func (c *Counter) String() string {
	counts := c.Counts()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "%6d %s\n", counts[k], k)
	}
	return b.String()
}

// statusWriter remembers the status. Unwrap lets the proxy flush and hijack.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 { // 1xx come before the answer
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
