package proxy

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Headers of our own.
const (
	localTokenHeader = "X-Thaw-Token"
	requestHeader    = "X-Vault-Request"
	tokenHeader      = "X-Vault-Token"
	namespaceHeader  = "X-Vault-Namespace"
)

// handler guards and routes one listener's requests.
func (s *Server) handler(requireRequestHeader bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		special, status, why := s.guard(r, requireRequestHeader)
		if why != "" {
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
	})
}

// guard refuses what no client of a local proxy sends: a page in a browser
// that rebinds its name to 127.0.0.1 has a foreign Host, a server that was
// tricked into calling us forwards its headers. special says that a header may
// change what the origin answers, so that the cache has no part in it.
func (s *Server) guard(r *http.Request, requireRequestHeader bool) (special bool, status int, why string) {
	if !s.hostAllowed(r.Host) {
		return false, http.StatusForbidden, "the Host header names no loopback address; call this proxy by 127.0.0.1 or localhost, or name the host in THAW_ALLOWED_HOSTS"
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Vault-") {
			switch name {
			case tokenHeader, namespaceHeader, requestHeader, "X-Vault-Cache-Control", "X-Vault-Token-Options":
			default:
				special = true
			}
		} else if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" {
			return false, http.StatusForbidden, "forwarded requests (" + name + ") are refused: this proxy is for local callers only"
		}
	}
	if s.o.LocalToken != "" {
		given := r.Header[localTokenHeader]
		if len(given) != 1 || subtle.ConstantTimeCompare([]byte(given[0]), []byte(s.o.LocalToken)) != 1 {
			return false, http.StatusForbidden, "the header X-Thaw-Token must hold the value of THAW_LOCAL_TOKEN"
		}
	}
	if requireRequestHeader {
		if given := r.Header[requestHeader]; len(given) != 1 || given[0] != "true" {
			return false, http.StatusPreconditionFailed, "the header X-Vault-Request: true is required, exactly once"
		}
	}
	return special, 0, ""
}

func (s *Server) hostAllowed(host string) bool {
	if host == "127.0.0.1:8200" || host == "localhost:8200" {
		return true
	}
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
	if v := h["Authorization"]; len(v) > 0 {
		if scheme, token, ok := strings.Cut(v[0], " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	return ""
}

// namespace returns the namespace a request is about: the caller's, or the
// configured one where there is none; with PrependNamespace the configured
// one goes before it.
func (s *Server) namespace(h http.Header) string {
	own := s.o.Namespace
	given := trimNamespace(h.Get(namespaceHeader))
	switch {
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
