package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/wire"
)

// passKey finds the call in the context of its outgoing request.
type passKey struct{}

// pass is what the outgoing side of a call needs.
type pass struct {
	*call
	ctx  context.Context // of the request as it came
	text []byte          // the request's body, if it is short
	body *patientBody    // nil without one

	mu    sync.Mutex   // guards the fields below
	write *cache.Write // nil for what changes nothing, and after its end
	sent  bool         // it may have been: a connection was there for it

	ticket *queue.Ticket
	cancel context.CancelCauseFunc // ends ctx
	lasts  *time.Timer             // until the answer lasts, whoever is slow; nil: none came
}

// through passes a request to the origin as it came and its answer back.
func (s *Server) through(c *call) {
	p := &pass{call: c}
	c.result = "bypass"
	switch c.r.Method {
	case http.MethodTrace, "TRACK", http.MethodConnect:
		// Vault knows none of them, but what stands before it may answer the first
		// two with the request as it came, the token that was added included (RFC
		// 9110 section 9.3.8).
		c.w.Header().Set("Allow", "GET, LIST, HEAD, POST, PUT, PATCH, DELETE")
		s.fail(c, http.StatusMethodNotAllowed, "the method "+c.r.Method+" is not passed on")
		return
	case http.MethodGet, http.MethodHead, http.MethodOptions, "LIST", "SCAN":
		s.counts.bypass.Add(1)
	default:
		s.counts.writes.Add(1)
		c.result = "write"
		p.write = cache.NewWrite(c.namespace, strings.TrimPrefix(c.r.URL.Path, "/v1/"))
		defer p.end(s, nil)
	}
	ctx := context.WithValue(c.r.Context(), passKey{}, p)
	ctx, p.ticket = queue.NewTicket(ctx, c.id.Share())
	ctx, p.cancel = context.WithCancelCause(ctx)
	defer p.cancel(nil)
	if !toWebsocket(c.r.Header) {
		var wait *poll.Wait
		ctx, wait = s.o.Waiting.Begin(ctx, Loggable(c.r.URL.Path), c.id.Own())
		defer wait.End()
	}
	p.ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { p.begin(s) }})
	r := c.r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		hold, err := p.receive(s, r)
		if err != nil {
			p.badBody(s, err)
			return
		}
		defer hold.Free()
	}
	defer func() {
		if p.lasts != nil {
			p.lasts.Stop()
		}
	}()
	s.pass.ServeHTTP(s.patiently(c.w, false), r)
}

func (s *Server) fail(c *call, status int, message string) {
	s.counts.failed.Add(1)
	c.result, c.status = "error", status
	fail(c.w, status, message)
}

// begin opens the brackets of a write, when there is a connection for it: what is
// cached is served while it waits for one, or for its own body.
func (p *pass) begin(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.write != nil && !p.sent {
		s.o.Cache.BeginWrite(p.write)
	}
	p.sent = true
}

// end ends the brackets of a write, once, and draws its consequences: of every one
// but those that certainly changed nothing, as it was never sent, or as the origin
// refused it. What came of any other nobody knows. said is the answer; nil: none.
func (p *pass) end(s *Server, said *http.Response) {
	p.mu.Lock()
	write, sent := p.write, p.sent
	p.write = nil
	p.mu.Unlock()
	if write == nil || !sent {
		return
	}
	inVain, sealed := false, false
	if said != nil && said.StatusCode >= 400 {
		a := wire.Peek(said, 64<<10)
		inVain = a.Status < 500 && a.Genuine(wire.Write)
		sealed = a.Reason() == wire.Sealed
	}
	s.o.Cache.EndWrite(write, inVain)
	if !inVain && !sealed {
		p.changed(s)
	}
}

func (s *Server) reverseProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			// In and Out have the same path, byte for byte; the origin's client
			// adds the address. Host must not name this proxy.
			out := p.Out
			out.URL.Scheme, out.URL.Host, out.Host = "", "", ""
			out.URL.RawQuery = p.In.URL.RawQuery // ReverseProxy drops what it cannot parse
			out.GetBody = p.In.GetBody
			// What a caller expects (100-continue), net/http gives it itself.
			for _, h := range [...]string{localTokenHeader, controlHeader, optionsHeader, requestIDHeader, "Expect"} {
				out.Header.Del(h)
			}
			if v := out.Header["User-Agent"]; v == nil {
				out.Header["User-Agent"] = []string{""} // none rather than Go's
			}
			if !toWebsocket(p.In.Header) {
				for _, h := range [...]string{"Connection", "Upgrade", "Http2-Settings"} {
					out.Header.Del(h)
				}
			}
			call := p.In.Context().Value(passKey{}).(*pass)
			if call.namespace != "" && call.namespace != trimNamespace(out.Header.Get(namespaceHeader)) { // else as it came
				out.Header.Set(namespaceHeader, call.namespace)
			}
			if call.id.Own() {
				out.Header.Del("Authorization") // ours is used
			}
		},
		Transport:      roundTripper{s},
		ModifyResponse: s.answered,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p := r.Context().Value(passKey{}).(*pass)
			p.end(s, nil)
			cause := context.Cause(r.Context())
			switch failure := p.body.failure(); {
			case queue.Limited(cause):
				s.error(p.call, cause)
			case failure != nil: // the origin's client says only that the request went wrong
				p.badBody(s, failure)
			case cause == nil || errors.Is(cause, context.DeadlineExceeded):
				s.error(p.call, err)
			default:
				s.left(p.call)
			}
		},
		ErrorLog:      log.New(io.Discard, "", 0), // may quote a client's garbage
		FlushInterval: -1,
	}
}

// roundTripper sends a passed request under its caller's identity. It leaves out
// ReverseProxy's trace, which would write each interim answer (1xx) to the client
// and then clear the answer's header, a Connection: close of ours included.
type roundTripper struct{ s *Server }

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	p := r.Context().Value(passKey{}).(*pass)
	return t.s.o.Sender.Send(r.WithContext(p.ctx), p.id, true)
}

// answered sees the origin's answer before the client does.
func (s *Server) answered(res *http.Response) error {
	p := res.Request.Context().Value(passKey{}).(*pass)
	p.status = res.StatusCode
	p.lasts = s.lasting(p.ticket.Lasts)
	p.end(s, res)
	res.Header["X-Cache"] = valueMiss
	res.Header["Cache-Status"] = statusBypass
	if s.o.StandbyReads {
		tellNode(res.Header)
	}
	if p.status < 300 && p.id.Own() {
		if err := hideOwnToken(res, p); err != nil {
			return err
		}
	}
	if p.status < 300 && p.knownOnly(s.o.Cache.Mounts()) {
		p.id.Accept()
	}
	return take(res)
}

// knownOnly reports whether the origin answers a request with success only where it
// knows the token.
func (p *pass) knownOnly(m *cache.Mounts) bool {
	path := apiPath(p.r)
	mount, known := m.Knows(p.namespace, path)
	return known && mount.Version > 0 || hasTail(path, "auth/token/lookup-self") || hasTail(path, "auth/token/renew-self")
}

// toWebsocket reports whether a request asks for a websocket, which Vault's
// events are. No other change of protocol is asked of the origin: HTTP/2, say,
// agreed to by anything on the way, would be a tunnel past the guard, the
// limits and the evictions of writes. An Upgrade may be ignored (RFC 9110
// section 7.8).
func toWebsocket(h http.Header) bool {
	v := h["Upgrade"]
	return len(v) == 1 && strings.EqualFold(strings.TrimSpace(v[0]), "websocket")
}

// apiPath is a request's path without /v1/ and outer slashes.
func apiPath(r *http.Request) string {
	return strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
}

// changed draws the consequences for capabilities of a write that may have
// succeeded.
func (p *pass) changed(s *Server) {
	c, path, access := p.call, apiPath(p.r), s.o.Cache.Access()
	switch {
	case strings.HasPrefix(path, "cubbyhole/"): // a secret of the token's own, whatever its name
	case hasTail(path, "auth/token/revoke-self"):
		access.Unsure(true) // its children
		if c.id.Token != "" {
			access.Forget(c.id.Token)
			return
		}
		access.EndOwn()
		if s.o.Revoked != nil {
			s.o.Revoked()
		}
	case strings.Contains("/"+path, "/auth/token/revoke"), strings.Contains("/"+path, "/sys/leases/revoke"), strings.Contains("/"+path, "/sys/revoke"):
		access.Forget(p.named())
		access.Unsure(false)        // it may be one of them, or a parent of theirs
		s.o.Cache.Own().EndLeases() // one of its leases
		access.Doubt()
	case hasTail(path, "auth/token/renew-self"):
		access.Renewed(c.id.Token) // the increment may have been a short one
	case strings.Contains("/"+path, "/auth/token/renew"):
		access.Renewed("")
	case strings.Contains("/"+path, "/sys/policy"), strings.Contains("/"+path, "/sys/policies"), strings.Contains("/"+path, "/identity/"),
		strings.Contains("/"+path, "/sys/auth"):
		access.Doubt()
	}
}

func hasTail(path, tail string) bool { return path == tail || strings.HasSuffix(path, "/"+tail) }
