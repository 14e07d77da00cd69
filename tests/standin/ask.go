package standin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
)

// Ask has the stand-in, one of its nodes, or what stands before them, answer one
// request without a network. The path is what follows "/v1/", and may have a query.
func Ask(h http.Handler, token, method, path, body string) *httptest.ResponseRecorder {
	path, query, _ := strings.Cut(path, "?")
	u := url.URL{Scheme: "http", Host: "vault", Path: "/v1/" + path, RawQuery: query}
	r := httptest.NewRequest(method, u.String(), strings.NewReader(body))
	r.Header.Set("X-Vault-Token", token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Root makes a request with the root token for what a test's world is made of. It
// panics if that is refused.
func (s *Origin) Root(method, path, body string) {
	if w := Ask(s, s.root, method, path, body); w.Code >= 300 {
		panic(fmt.Sprint(method, " ", path, ": ", w.Code, " ", w.Body))
	}
}
