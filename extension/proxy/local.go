package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// local answers /proxy/v1/: Vault Proxy's cache-clear and metrics, and
// what `thaw status` shows.
func (s *Server) local(w http.ResponseWriter, r *http.Request) {
	switch path := strings.TrimPrefix(r.URL.Path, "/proxy/v1/"); path {
	case "cache-clear":
		if r.Method != http.MethodPost && r.Method != http.MethodPut {
			methodNotAllowed(w, "POST, PUT")
			return
		}
		s.cacheClear(w, r)
	case "metrics":
		if r.Method != http.MethodGet {
			methodNotAllowed(w, "GET")
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.o.Metrics(w)
	case "status":
		if r.Method != http.MethodGet {
			methodNotAllowed(w, "GET")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err := s.o.State(r.Context(), w); err != nil {
			s.o.Log.Debug("write the status", "error", err)
		}
	default:
		fail(w, http.StatusNotFound, "below /proxy/v1/ there are cache-clear, metrics and status")
	}
}

func methodNotAllowed(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	fail(w, http.StatusMethodNotAllowed, "the method must be "+allow)
}

// cacheClear is Vault Proxy's POST /proxy/v1/cache-clear
// (https://developer.hashicorp.com/vault/docs/agent-and-proxy/proxy/caching#cache-clear).
func (s *Server) cacheClear(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Type      string `json:"type"`
		Value     string `json:"value"`
		Namespace string `json:"namespace"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, `the body must be JSON such as {"type":"all"} or {"type":"request_path","value":"/v1/secret/data/app"}`)
		return
	}
	switch body.Type {
	case "all":
	case "request_path", "token", "token_accessor", "lease":
		if body.Value == "" {
			fail(w, http.StatusBadRequest, "type "+body.Type+" needs a value")
			return
		}
	default:
		fail(w, http.StatusBadRequest, "type is one of all, request_path, token, token_accessor, lease")
		return
	}
	switch body.Type {
	case "request_path":
		path := strings.TrimPrefix(strings.TrimPrefix(body.Value, "/"), "v1/")
		if body.Namespace == "" {
			body.Namespace = r.Header.Get(namespaceHeader)
		}
		s.o.Cache.Purge(s.within(body.Namespace), path)
	case "token":
		s.o.Cache.Access().Forget(body.Value)
	default:
		// Accessors and leases are not kept: everything that could be meant goes.
		s.o.Cache.Clear()
	}
	w.WriteHeader(http.StatusOK)
}
