package azurefn

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
)

// reuse is how long a connection to the child may have been idle and still be
// used again. Servers close idle ones by timers (Node after 5s), and a request
// that meets such a close would be lost. The wall clock counts, since after a
// freeze all timers fire at once.
const reuse = 500 * time.Millisecond

// forwarder hands requests on to the child.
type forwarder struct {
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	last      atomic.Pointer[time.Time] // when a request came last; nil: none did
}

func newForwarder(addr string, log *slog.Logger) *forwarder {
	f := new(forwarder)
	f.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: reuse, DisableCompression: true,
		WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10, MaxResponseHeaderBytes: 1 << 20,
	}
	buffers := sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
	f.proxy = &httputil.ReverseProxy{
		Transport: f.transport, FlushInterval: -1, BufferPool: pool{&buffers},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", addr, p.In.Host
			p.Out.URL.RawQuery = p.In.URL.RawQuery // ReverseProxy drops what it cannot parse
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := p.In.Header[name]; ok {
					p.Out.Header[name] = v // and these
				}
			}
			if _, ok := p.In.Header["User-Agent"]; !ok {
				p.Out.Header["User-Agent"] = nil // none, and not Go's
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
				panic(http.ErrAbortHandler) // the host gave up: there is nobody to answer
			}
			log.Warn("the handler did not answer an invocation", "path", r.URL.Path, "invocation", r.Header.Get(InvocationHeader), "error", err)
			refuse(w, http.StatusBadGateway, "the function's own handler did not answer: "+err.Error())
		},
	}
	return f
}

// ServeHTTP hands one request on.
func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if last := f.last.Swap(&now); last != nil && !clock.Within(*last, now, reuse) {
		f.transport.CloseIdleConnections()
	}
	if r.ContentLength != 0 {
		// An answer may begin before the request's body has ended.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	// What the child leaves out stays out.
	w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
	f.proxy.ServeHTTP(w, r)
}

func (f *forwarder) close() { f.transport.CloseIdleConnections() }

// pool lends buffers to copy bodies with.
type pool struct{ *sync.Pool }

// Get implements httputil.BufferPool.
func (p pool) Get() []byte { return *p.Pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (p pool) Put(b []byte) { p.Pool.Put(&b) }

// refuse answers with an error of thaw's own.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header()["Content-Type"] = []string{"application/json"}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {"thaw: " + message}})
}
