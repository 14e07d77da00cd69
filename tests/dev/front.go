package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// requestID is the header by which a read names its invocation: the name under
// which the Runtime API gives it to the function
// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
const requestID = "Lambda-Runtime-Aws-Request-Id"

// front is what callers reach: it begins invocations, answers below /dev/, and
// hands all else to the real proxy.
type front struct {
	proxy   *httputil.ReverseProxy
	trouble *trouble
	invoke  func(at time.Time) // begins an invocation

	mu          sync.Mutex
	last        string // guarded by mu; the id of the running invocation
	invocations int    // guarded by mu
}

func newFront(proxy string, t *trouble, invoke func(time.Time)) *front {
	to := &url.URL{Scheme: "http", Host: proxy}
	return &front{trouble: t, invoke: invoke, proxy: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // the real proxy guards against foreign ones
			for name, v := range r.In.Header {
				if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" {
					r.Out.Header[name] = v
				}
			}
		},
		FlushInterval: -1,
	}}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/dev/") {
		f.control(w, r)
		return
	}
	if id := r.Header.Get(requestID); id != "" {
		f.begin(id)
	}
	f.proxy.ServeHTTP(w, r)
}

// begin begins an invocation unless id names the running one; an empty id is a
// new one.
func (f *front) begin(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id != "" && id == f.last {
		return
	}
	f.last = id
	f.invocations++
	f.invoke(time.Now())
}

// control answers POST /dev/invoke, /dev/down and /dev/up, and GET /dev/state.
func (f *front) control(w http.ResponseWriter, r *http.Request) {
	// A web page may send a POST to this machine, and may know no better than
	// its own name for it.
	if !loopback(r.Host) || r.Header.Get("Origin") != "" || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		http.Error(w, "thaw-dev: not from a web page or through a proxy", http.StatusForbidden)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /dev/invoke":
		f.begin("")
	case "POST /dev/down":
		f.trouble.setDown(true)
	case "POST /dev/up":
		f.trouble.setDown(false)
	case "GET /dev/state":
	default:
		http.Error(w, "thaw-dev knows POST /dev/invoke, /dev/down and /dev/up, and GET /dev/state", http.StatusNotFound)
		return
	}
	down, asked := f.trouble.state()
	f.mu.Lock()
	invocations := f.invocations
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"down": down, "vault_requests": asked, "invocations": invocations})
}

// loopback reports whether a Host header names this machine.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}
