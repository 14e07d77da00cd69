package compat

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/thaw-project/thaw/tests/harness"
)

// holder stands between thaw and Vault and can hold an answer back on its way,
// so that something happens after Vault gave it and before thaw has it.
type holder struct {
	addr string

	mu   sync.Mutex
	held map[string]*held // guarded by mu; by "METHOD path"
}

type held struct {
	arrived chan struct{} // closed when Vault has answered
	release chan struct{} // closed by the test
}

func holderOn(o *origin) *holder {
	o.t.Helper()
	backend, err := url.Parse(o.count.Addr())
	harness.Must(o.t, err)
	h := &holder{held: map[string]*held{}}
	proxy := httputil.NewSingleHostReverseProxy(backend)
	proxy.ModifyResponse = func(res *http.Response) error {
		key := res.Request.Method + " " + res.Request.URL.Path
		h.mu.Lock()
		w := h.held[key]
		delete(h.held, key)
		h.mu.Unlock()
		if w != nil {
			close(w.arrived)
			select {
			case <-w.release:
			case <-res.Request.Context().Done():
			}
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	o.t.Cleanup(server.Close)
	h.addr = server.URL
	return h
}

// hold holds back the next answer to a request.
func (h *holder) hold(method, path string) *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &held{arrived: make(chan struct{}), release: make(chan struct{})}
	h.held[method+" /v1/"+path] = w
	return w
}
