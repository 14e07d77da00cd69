package standin

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
)

// Ask answers one request without a network. The path is what follows "/v1/", and
// may have a query; an empty body is none.
func (s *Origin) Ask(token, method, path, body string) *http.Response {
	path, query, _ := strings.Cut(path, "?")
	r := &http.Request{
		Method: method, URL: &url.URL{Path: "/v1/" + path, RawQuery: query}, Header: http.Header{"X-Vault-Token": {token}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// Write is Ask for what a test's world is made of: the root token named token
// writes body at path. It panics if that is refused.
func (s *Origin) Write(token, path, body string) {
	if res := s.Ask(token, http.MethodPost, path, body); res.StatusCode >= 300 {
		panic(fmt.Sprint("write ", path, ": ", res.Status))
	}
}
