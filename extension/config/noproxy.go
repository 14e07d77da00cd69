package config

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// envProxy is HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go's net/http reads them
// (https://pkg.go.dev/golang.org/x/net/http/httpproxy). It stands in for that
// package, whose tables for names beyond ASCII are a thirtieth of the binary;
// such names are compared here as they are written.
type envProxy struct {
	http, https *url.URL // nil: direct
	cgi         bool     // HTTP_PROXY may be a header of a request

	all  bool // NO_PROXY=*
	none []exception
}

// exception is an entry of NO_PROXY: a network, which an address is, too, or a name.
type exception struct {
	network netip.Prefix
	domain  string // with a dot in front: only what is below it
	port    string // empty: any
}

var errCGI = errors.New("HTTP_PROXY is not used where REQUEST_METHOD is set, since a request's header can set it there")

// choose implements ProxyFunc.
func (p *envProxy) choose(r *http.Request) (*url.URL, error) {
	proxy := map[string]*url.URL{"http": p.http, "https": p.https}[r.URL.Scheme]
	switch {
	case proxy == nil:
		return nil, nil
	case p.cgi && r.URL.Scheme == "http":
		return nil, errCGI
	case p.direct(r.URL.Hostname(), portOf(r.URL)):
		return nil, nil
	}
	return proxy, nil
}

// direct reports whether a host is reached without a proxy.
func (p *envProxy) direct(host, port string) bool {
	addr, _ := netip.ParseAddr(host)
	addr = addr.Unmap()
	if host == "localhost" || addr.IsLoopback() || p.all {
		return true
	}
	host = strings.ToLower(strings.TrimSpace(host))
	return slices.ContainsFunc(p.none, func(e exception) bool {
		named := e.domain != "" && !addr.IsValid() && (strings.HasSuffix(host, e.domain) && e.domain[0] == '.' || strings.HasSuffix("."+host, "."+e.domain))
		return (e.port == "" || e.port == port) && (named || e.network.Contains(addr.WithZone("")))
	})
}

// except reads NO_PROXY: entries with commas between, each an address, a
// network, or a domain with or without a dot or "*." in front, and a port
// behind all but a network. What cannot be read is passed over.
func (p *envProxy) except(list string) {
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if entry == "*" {
			p.all = true
			return
		}
		if e, ok := readException(entry); ok {
			p.none = append(p.none, e)
		}
	}
}

func readException(entry string) (exception, bool) {
	if network, err := netip.ParsePrefix(entry); err == nil {
		if a := network.Addr(); a.Is4In6() && network.Bits() >= 96 {
			network = netip.PrefixFrom(a.Unmap(), network.Bits()-96)
		}
		return exception{network: network.Masked()}, true
	}
	host, port, err := net.SplitHostPort(entry)
	if err != nil {
		host, port = entry, ""
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return exception{network: netip.PrefixFrom(addr, addr.BitLen()), port: port}, true
	}
	if strings.HasPrefix(host, "*.") {
		host = host[1:]
	}
	return exception{domain: host, port: port}, host != ""
}
