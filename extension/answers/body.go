package answers

import (
	"io"
	"net/http"
	"strings"

	"github.com/thaw-project/thaw/extension/wire"
)

// Answered implements vault.Observer.
func (a *Account) Answered(req *http.Request, res *http.Response) {
	if of, _ := asked(req); of != wire.Health {
		a.mu.Lock()
		a.counts.Codes[res.StatusCode]++
		a.mu.Unlock()
	}
	if req.Method == http.MethodHead || res.StatusCode >= 300 && res.StatusCode < 400 {
		return
	}
	x := &exchange{a: a, req: req, token: req.Header.Get("X-Vault-Token"), ReadCloser: res.Body}
	x.own = x.token != "" && x.token == a.o.Own()
	x.Status, x.Header = res.StatusCode, res.Header.Clone() // its reader may change it
	x.head = make([]byte, 0, min(max(res.ContentLength, 512), headKept))
	res.Body = x
}

// Read reads the body.
func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.ReadCloser.Read(p)
	room := headKept - len(x.head)
	x.head = append(x.head, p[:min(n, room)]...)
	x.more = x.more || n > room
	if err == io.EOF {
		x.end(!x.more)
	}
	return n, err
}

// Close closes the body.
func (x *exchange) Close() error {
	x.end(false)
	return x.ReadCloser.Close()
}

func (x *exchange) end(whole bool) {
	x.over.Do(func() {
		x.Answer = wire.Begin(&http.Response{StatusCode: x.Status, Header: x.Header}, x.head, whole)
		x.judge()
	})
}

// headKept is how much of an answer is judged, in bytes.
const headKept = 8 << 10

// asked says what a request asks for, as far as its path tells. raw says that an
// answer may have a shape of its own: some parts of Vault answer to protocols of
// others.
func asked(req *http.Request) (of wire.Endpoint, raw bool) {
	path := strings.Trim(strings.TrimPrefix(req.URL.Path, "/v1/"), "/")
	switch {
	case path == "sys/leader":
		return wire.Leader, false
	case path == "sys/health":
		return wire.Health, false
	case path == "sys/capabilities-self":
		return wire.Capabilities, false
	case path == "auth/token/lookup-self" && req.Method == http.MethodGet:
		return wire.Lookup, false
	case strings.HasPrefix(path, "auth/") && strings.Contains(path+"/", "/login/"):
		return wire.Login, false
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		return wire.Secret, false
	}
	first, _, _ := strings.Cut(path, "/")
	raw = first == "sys" || first == "identity" || strings.Contains(path+"/", "/acme/") || strings.Contains(path, ".well-known") ||
		strings.Contains(path, "/oidc/")
	return wire.Other, raw
}

// foreign reports whether the answer is not the origin's.
func (x *exchange) foreign() bool {
	of, raw := asked(x.req)
	switch {
	case strings.HasPrefix(x.Header.Get("Content-Type"), "text/html"):
		return true
	case raw, x.Status == http.StatusNoContent:
		return false
	case x.Part && len(x.Body) == 0: // nobody read it
		return x.Status >= 400 && !wire.JSON(x.Header)
	case x.Part && (of == wire.Lookup || of == wire.Login):
		return false // it may be cut off before it tells
	case of == wire.Other && x.Status < 400 && !wire.JSON(x.Header) && !kv(x.req):
		return false // a certificate, a key or a snapshot
	}
	return !x.Genuine(of)
}

// kv reports whether a request is by its path one for a secret of KV version 2.
func kv(req *http.Request) bool {
	_, rest, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v1/"), "/")
	return ok && (strings.HasPrefix(rest, "data/") || strings.HasPrefix(rest, "metadata/"))
}
