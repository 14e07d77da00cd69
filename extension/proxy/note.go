package proxy

import (
	"log/slog"
	"net/http"
)

// note writes a request down: at DEBUG, and in the access log. Vault's audit
// log has the requests that reach Vault; hits don't, so this is where they can
// be seen. No value, token or header goes there.
func (s *Server) note(r *http.Request, c *call) {
	took, path := s.o.Now().Sub(c.started), Loggable(r.URL.Path)
	s.o.Log.LogAttrs(r.Context(), slog.LevelDebug, "request",
		slog.String("method", r.Method), slog.String("path", path), slog.String("result", c.result),
		slog.Int("status", c.status), slog.Duration("took", took))
	if s.o.Access == nil {
		return
	}
	token := "own"
	switch {
	case c.id.ID == 0:
		token = "none"
	case !c.id.Own():
		token = "caller"
	}
	s.o.Access.LogAttrs(r.Context(), slog.LevelInfo, "access",
		slog.String("method", r.Method), slog.String("namespace", c.namespace), slog.String("path", path), slog.String("token", token),
		slog.String("result", c.result), slog.Int("status", c.status), slog.Float64("seconds", took.Seconds()))
}
