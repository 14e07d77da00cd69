package proxy

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/rescue"
)

// Headers of our own.
const (
	localTokenHeader = "X-Thaw-Token"
	requestHeader    = "X-Vault-Request"
	tokenHeader      = "X-Vault-Token"
	indexHeader      = "X-Vault-Index" // the state that the answer must have seen
	namespaceHeader  = "X-Vault-Namespace"
	optionsHeader    = "X-Vault-Token-Options"
	controlHeader    = "X-Vault-Cache-Control"
	requestIDHeader  = "Lambda-Runtime-Aws-Request-Id" // names the invocation that a request belongs to, see Options.Gate
)

// handler guards and routes one listener's requests.
func (s *Server) handler(l *config.Listener) http.Handler {
	internal := func(w http.ResponseWriter) {
		fail(w, http.StatusInternalServerError, "an internal error; the log has it")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rescue.Handler(s.o.Log, w, internal, func(w http.ResponseWriter) { s.handle(w, r, l) })
	})
}

// handle guards and routes one request.
func (s *Server) handle(w http.ResponseWriter, r *http.Request, l *config.Listener) {
	if r.ContentLength != 0 {
		// A body may never come, whoever reads it: net/http does, too, before
		// it sends an answer that didn't wait for it.
		control, now := http.NewResponseController(w), time.Now()
		control.SetReadDeadline(now.Add(s.o.BodyTimeout))
		control.SetWriteDeadline(now.Add(2 * s.o.BodyTimeout))
	}
	if len(r.TransferEncoding) > 0 {
		// net/http forgets a Content-Length beside it. A server between us and
		// the client may have gone by that one, so what follows on this
		// connection is nobody's request (RFC 9112 section 6.1).
		w.Header().Set("Connection", "close")
	}
	forwarded, special := look(r.Header)
	if status, why := s.guard(r, forwarded, l); why != "" {
		s.counts.refused.Add(1)
		fail(w, status, why)
		return
	}
	switch {
	case dotSegments(r.URL.Path):
		fail(w, http.StatusBadRequest, "the path has a . or .. segment")
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		s.counts.requests.Add(1)
		s.serve(w, r, special)
	case strings.HasPrefix(r.URL.Path, "/proxy/v1/"):
		s.local(w, r)
	default:
		fail(w, http.StatusNotFound, "only paths below /v1/ and /proxy/v1/ are served here")
	}
}

// guard refuses what no client of a local proxy sends: a page in a browser
// that rebinds its name to 127.0.0.1 has a foreign Host, a server that was
// tricked into calling us forwards its headers. No page reaches a unix socket, whose
// callers name any host, or none. forwarded names a header of a forwarded request.
func (s *Server) guard(r *http.Request, forwarded string, l *config.Listener) (status int, why string) {
	h := r.Header
	if l.Network != "unix" && !s.hostAllowed(r.Host) {
		return http.StatusForbidden, "the Host header names no loopback address; call this proxy by 127.0.0.1 or localhost, or name the host in THAW_ALLOWED_HOSTS"
	}
	site, origin := h["Sec-Fetch-Site"], strings.Join(h["Origin"], ",")
	if len(site) > 1 || len(site) == 1 && site[0] == "cross-site" || origin != "" && !s.ownPage(origin) {
		return http.StatusForbidden, "requests of web pages are refused: a page could use the token of whoever runs this proxy"
	}
	if forwarded != "" {
		return http.StatusForbidden, "forwarded requests (" + forwarded + ") are refused: this proxy is for local callers only"
	}
	if s.o.LocalToken != "" {
		if local := h[localTokenHeader]; len(local) != 1 || subtle.ConstantTimeCompare([]byte(local[0]), []byte(s.o.LocalToken)) != 1 {
			return http.StatusForbidden, "the header X-Thaw-Token must hold the value of THAW_LOCAL_TOKEN"
		}
	}
	if l.RequireRequestHeader {
		if said := h[requestHeader]; len(said) != 1 || said[0] != "true" {
			return http.StatusPreconditionFailed, "the header X-Vault-Request: true is required, exactly once"
		}
	}
	return 0, ""
}

// look looks at the names of a request's headers: for one that only forwarded requests
// have, and for whether any may change what the origin answers, so that the cache has no
// part in it.
func look(h http.Header) (forwarded string, special bool) {
	for name := range h {
		switch name {
		case tokenHeader, namespaceHeader, requestHeader, optionsHeader, controlHeader, indexHeader: // they are taken in
		case "Upgrade": // any other is ignored, such as the h2c that Java's client offers
			special = special || toWebsocket(h)
		case "Forwarded":
			forwarded = name
		default:
			if strings.HasPrefix(name, "X-Vault-") {
				special = true
			} else if strings.HasPrefix(name, "X-Forwarded-") {
				forwarded = name
			}
		}
	}
	return forwarded, special
}

func (s *Server) hostAllowed(host string) bool {
	if known := s.host.Load(); known != nil && *known == host {
		return true
	}
	if !s.mayServe(host) {
		return false
	}
	allowed := host // so that only a host that is new is moved to the heap
	s.host.Store(&allowed)
	return true
}

// ownPage reports whether an Origin (RFC 6454 section 7) is a page of a host
// that may be called here. Some clients of websockets send one, too.
func (s *Server) ownPage(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && s.mayServe(u.Host)
}

func (s *Server) mayServe(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback() {
		return true
	}
	for _, a := range s.o.AllowedHosts {
		if strings.EqualFold(a, name) || strings.EqualFold(a, host) {
			return true
		}
	}
	return false
}

// callerToken returns the token a caller brings: X-Vault-Token, else
// Authorization: Bearer, as Vault reads them.
func callerToken(h http.Header) string {
	if v := h[tokenHeader]; len(v) > 0 && v[0] != "" {
		return v[0]
	}
	for _, v := range h["Authorization"] {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	return ""
}

// namespace returns the namespace a request is about: the caller's, or the
// configured one where there is none; with PrependNamespace the configured
// one goes before it.
func (s *Server) namespace(h http.Header) string {
	if v := h[namespaceHeader]; len(v) > 0 {
		return s.within(v[0])
	}
	return s.o.Namespace
}

// within returns the namespace that a caller means by the one it gives.
func (s *Server) within(given string) string {
	own := s.o.Namespace
	switch given = trimNamespace(given); {
	case given == "":
		return own
	case s.o.PrependNamespace && own != "":
		return own + "/" + given
	}
	return given
}

func trimNamespace(v string) string { return strings.Trim(strings.TrimSpace(v), "/") }

// open lists the paths that Vault answers without a token
// (https://developer.hashicorp.com/vault/api-docs/system): for them no login
// is made.
func open(path string) bool {
	path = strings.TrimPrefix(path, "/v1/")
	switch path {
	case "sys/health", "sys/leader", "sys/seal-status", "sys/init", "sys/unseal", "sys/ha-status-unauthenticated":
		return true
	}
	if rest, ok := strings.CutPrefix(path, "auth/"); ok {
		i := strings.Index(rest, "/login")
		return i > 0 && (len(rest) == i+len("/login") || rest[i+len("/login")] == '/')
	}
	return false
}

// dotSegments reports whether a path climbs: below a base path that would
// leave it, and Vault has no use for it.
func dotSegments(path string) bool {
	if !strings.Contains(path, "/.") {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
