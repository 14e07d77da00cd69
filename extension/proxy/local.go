package proxy

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
)

// local answers /proxy/v1/: Vault Proxy's cache-clear and metrics, and
// what `thaw status` shows.
func (s *Server) local(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/proxy/v1/")
	allow := map[string]string{"cache-clear": "POST, PUT", "metrics": "GET", "status": "GET"}[path]
	switch {
	case allow == "":
		fail(w, http.StatusNotFound, "below /proxy/v1/ there are cache-clear, metrics and status")
	case !slices.Contains(strings.Split(allow, ", "), r.Method):
		w.Header().Set("Allow", allow)
		fail(w, http.StatusMethodNotAllowed, "the method must be "+allow)
	case path == "cache-clear":
		s.cacheClear(w, r)
	case path == "metrics":
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.o.Metrics(w)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err := s.o.State(r.Context(), w); err != nil {
			s.o.Log.Debug("write the status", "error", err)
		}
	}
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
	switch needs := slices.Contains([]string{"request_path", "token", "token_accessor", "lease"}, body.Type); {
	case needs && body.Value == "":
		fail(w, http.StatusBadRequest, "type "+body.Type+" needs a value")
		return
	case !needs && body.Type != "all":
		fail(w, http.StatusBadRequest, "type is one of all, request_path, token, token_accessor, lease")
		return
	case body.Type == "request_path":
		path := strings.TrimPrefix(strings.TrimPrefix(body.Value, "/"), "v1/")
		s.o.Cache.Purge(s.within(cmp.Or(body.Namespace, r.Header.Get(namespaceHeader))), path)
	case body.Type == "token":
		s.o.Cache.Access().Forget(body.Value)
	default:
		// Accessors and leases are not kept: everything that could be meant goes.
		s.o.Cache.Clear()
	}
	w.WriteHeader(http.StatusOK)
}
