package vault

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// node is one server of the origin, as configured or as the leader of a
// configured one.
type node struct {
	scheme string // "http" or "https"
	host   string // host:port, lower case, the port always named; what is dialled and compared
	wire   string // the Host header
	base   string // base path, escaped, without a slash at its end
	socket string // path of a unix socket; host is then a name of no meaning outside this process
	server string // the name its certificate must have; empty: that of host
	named  bool   // host is a name, which may stand for several nodes
	learnt bool   // nobody configured it: the cluster named it as its leader
	seed   *node  // the configured address whose name stands for it; nil: it is one itself, or learnt
	noPort bool   // the address named no port: its name may have SRV records

	known *state // guarded by the roster's mu
}

// parseNode reads one address. It never repeats an address that may hold a
// password.
func parseNode(addr string, index int) (*node, error) {
	u, err := url.Parse(strings.TrimSpace(addr))
	if err != nil {
		// url.Error quotes the address.
		return nil, fmt.Errorf("address %d of Vault cannot be read as a URL: write it as https://host:8200", index+1)
	}
	bad := func(what string) (*node, error) {
		return nil, fmt.Errorf("address %d of Vault, %s://%s: %s", index+1, u.Scheme, u.Host, what)
	}
	switch {
	case u.User != nil:
		return bad("it holds a user name; remove it and the @")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return bad("it holds a query or a fragment; remove it")
	case u.Scheme == "unix":
		if !strings.HasPrefix(u.Path, "/") || u.Host != "" {
			return bad("write a unix socket as unix:///absolute/path")
		}
		// The number keeps several sockets apart in the transport's pool.
		name := "unix-" + strconv.Itoa(index)
		return &node{scheme: "http", host: name + ":80", wire: "localhost", socket: u.Path, known: new(state)}, nil
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("the scheme must be http, https or unix; write it as https://host:8200")
	case u.Opaque != "" || u.Hostname() == "":
		return bad("it names no host; write it as https://host:8200")
	}
	host, err := hostPort(u)
	if err != nil {
		return bad(err.Error())
	}
	_, err = netip.ParseAddr(u.Hostname())
	base := strings.TrimRight(u.EscapedPath(), "/")
	return &node{scheme: u.Scheme, host: host, wire: u.Host, base: base, named: err != nil, noPort: u.Port() == "", known: new(state)}, nil
}

// hostPort gives host:port in the one spelling used to compare addresses, and
// to dial: what was compared is what is reached.
func hostPort(u *url.URL) (string, error) {
	name := strings.ToLower(u.Hostname())
	text := name
	if addr, err := netip.ParseAddr(name); err == nil {
		text = addr.Zone() // in which ParseAddr takes anything
	} else if name == "" {
		return "", errors.New("the address names no host")
	}
	if strings.ContainsFunc(text, notInName) {
		return "", errors.New("the host is neither a name nor an IP address")
	}
	port := cmp.Or(u.Port(), "80")
	if u.Scheme == "https" {
		port = cmp.Or(u.Port(), "443")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("the port must be between 1 and 65535")
	}
	return net.JoinHostPort(name, port), nil
}

// notInName tells the characters that no host name has.
func notInName(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`[]:/\@?#%<>"'`, r)
}

// addr names the node in messages: no path, no user name.
func (n *node) addr() string {
	if n.socket != "" {
		return "unix://" + n.socket
	}
	return n.scheme + "://" + n.host
}

// is tells whether the node is reached at exactly this scheme, host and port.
func (n *node) is(scheme, host string) bool {
	return n.socket == "" && n.scheme == scheme && n.host == host
}

// url places a request's path and query on the node, with the caller's own
// escaping: "%2F" and "/" stay what they were.
func (n *node) url(from *url.URL) (*url.URL, error) {
	if !strings.HasPrefix(from.Path, "/") {
		return nil, errors.New("the request has no absolute path")
	}
	u := &url.URL{Scheme: n.scheme, Host: n.host, RawQuery: from.RawQuery, ForceQuery: from.ForceQuery}
	escaped := n.base + from.EscapedPath()
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, errors.New("the request's path is not escaped as a URL's is")
	}
	u.Path, u.RawPath = path, escaped
	return u, nil
}

// place returns a copy of req for the node, with the configured headers that
// req lacks. req itself is left as it is.
func (n *node) place(req *http.Request, headers http.Header) (*http.Request, error) {
	u, err := n.url(req.URL)
	if err != nil {
		return nil, err
	}
	out := req.WithContext(req.Context())
	out.URL, out.Host, out.RequestURI, out.Close = u, n.wire, "", false
	out.Header = make(http.Header, len(req.Header)+len(headers)+2)
	maps.Copy(out.Header, req.Header)
	for name, values := range headers {
		if _, set := out.Header[http.CanonicalHeaderKey(name)]; !set {
			out.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	if _, set := out.Header["User-Agent"]; !set {
		out.Header["User-Agent"] = []string{"thaw"}
	}
	if !readOnly(req) {
		// net/http takes a request with such a key for one that it may send again
		// by itself (Request.isReplayable). It looks for these spellings; to the
		// origin all are one.
		respell(out.Header, "Idempotency-Key", "idempotency-key")
		respell(out.Header, "X-Idempotency-Key", "x-idempotency-key")
	} else if _, set := out.Header["X-Idempotency-Key"]; !set {
		// net/http takes LIST and SCAN for methods that may not be repeated, and
		// would return an error when a kept connection turns out to be closed.
		// A key without a value tells it otherwise and is not sent
		// (net/http, type Transport).
		out.Header["X-Idempotency-Key"] = []string{}
	}
	return out, nil
}

// respell moves a header to another spelling of its name.
func respell(h http.Header, from, to string) {
	if v, set := h[from]; set {
		delete(h, from)
		h[to] = v
	}
}
