package config

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// parseOrigin reads an address of Vault and gives it in one spelling, without a
// slash at the end. stripped says that a "/v1" at its end was dropped: Vault's
// clients add that themselves.
func parseOrigin(v string) (addr string, stripped bool, err error) {
	if file, ok := cutUnix(v); ok {
		file, err = socketPath(file)
		return "unix://" + file, false, cmp.Or(checkLine(v), err)
	}
	u, err := parseURL(v)
	if err = cmp.Or(checkLine(v), err); err != nil {
		return "", false, err
	}
	base, stripped := strings.CutSuffix("/"+strings.Trim(u.Path, "/"), "/v1")
	base = strings.Trim(base, "/")
	switch bad := checkPath(base); {
	case base == "":
	case u.RawPath != "":
		err = errors.New("its path must not be percent-encoded")
	case bad != nil:
		err = errors.New("its path " + bad.Error())
	default:
		base = "/" + base
	}
	return (&url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: base}).String(), stripped, err
}

// parseURL reads an http or https address without credentials and query.
func parseURL(v string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(strings.ToLower(v), "://")
	u, err := url.Parse(v)
	err = cmp.Or(
		errIf(!ok, "has no scheme; write https:// in front"),
		errIf(scheme != "http" && scheme != "https", "its scheme must be http, https or unix"),
		errIf(strings.Contains(rest, "@"), "must not hold credentials; use VAULT_TOKEN or a login"),
		errIf(strings.ContainsAny(rest, "?#"), "must not have a query or a fragment"),
		errIf(err != nil, "not an address"))
	if err != nil {
		return nil, err
	}
	_, badPort := checkPort(u.Port())
	return u, cmp.Or(checkHost(strings.ToLower(u.Hostname())), errIf(strings.HasSuffix(u.Host, ":"), "has a colon but no port"), badPort)
}

// cutUnix gives the path of a unix:// address.
func cutUnix(v string) (string, bool) {
	if len(v) >= 7 && strings.EqualFold(v[:7], "unix://") {
		return v[7:], true
	}
	return "", false
}

// socketPath checks the path of a unix socket. Linux takes 107 bytes (unix(7)).
func socketPath(v string) (string, error) {
	return path.Clean(v), cmp.Or(
		errIf(!path.IsAbs(v), "a unix socket needs an absolute path: unix:///path"),
		errIf(strings.HasSuffix(v, "/"), "a unix socket is not a directory"),
		errIf(len(v) > 107, "the path of a unix socket has at most 107 bytes"))
}

func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	return cmp.Or(
		errIf(host == "", "has no host"),
		errIf(strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }), "write the host in ASCII (punycode)"),
		errIf(!isHostName(strings.TrimSuffix(host, ".")), "its host is not a host name"))
}

// checkPort reads a port; "" is none, 0.
func checkPort(port string) (int, error) {
	n, err := strconv.Atoi(cmp.Or(port, "0"))
	return n, errIf(err != nil || n < 0 || n > 65535, "its port must be from 0 to 65535")
}

func parseListen(v string) ([]Listener, error) {
	var listeners []Listener
	for _, part := range list(v) {
		l, err := parseListener(part)
		if err = cmp.Or(wrapValue(part, err), errIf(taken(listeners, l), "names an address twice")); err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, errIf(len(listeners) == 0, "names no address")
}

// taken reports whether a listener has l's address. Port 0 is a new one each time.
func taken(listeners []Listener, l Listener) bool {
	return slices.ContainsFunc(listeners, func(o Listener) bool { return o.Address == l.Address && !strings.HasSuffix(l.Address, ":0") })
}

// parseListener reads one address to listen on. Names other than localhost are
// refused: to look them up would need the network before anything runs.
func parseListener(v string) (Listener, error) {
	if file, ok := cutUnix(v); ok {
		file, err := socketPath(file)
		return Listener{Network: "unix", Address: file}, cmp.Or(checkLine(v), err)
	}
	host, port, err := net.SplitHostPort(v)
	n, badPort := checkPort(port)
	host = strings.ToLower(host)
	addr, notIP := netip.ParseAddr(host)
	if notIP == nil {
		host = addr.Unmap().String()
	}
	return Listener{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(n))}, cmp.Or(
		checkLine(v),
		errIf(strings.Contains(v, "://"), "must not have a scheme other than unix://; TLS is set in the file's listener block"),
		errIf(err != nil, "not ip:port"),
		errIf(port == "", "has no port"),
		badPort,
		errIf(notIP != nil && host != "" && host != "localhost", "must be an IP address or localhost, with a port"))
}

// onLoopback reports whether only this host can reach the listener.
func onLoopback(l Listener) bool {
	host, _, _ := net.SplitHostPort(l.Address)
	return l.Network == "unix" || isLoopback(host)
}

// isLoopback reports whether a host is this one by its spelling alone.
func isLoopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	addr, _ := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || addr.Unmap().IsLoopback() // RFC 6761, section 6.3
}

// oneSpelling gives a host as all that mean the same are spelt: "" for "every address of
// this host", which is loopback when dialled; "localhost" for 127.0.0.1, ::1 and its
// names, but not for others of 127.0.0.0/8, which those never mean; else the address.
func oneSpelling(host string) string {
	addr, err := netip.ParseAddr(host)
	addr = addr.Unmap()
	switch {
	case host == "" || addr.IsUnspecified():
		return ""
	case isLoopback(host) && (!addr.Is4() || addr == netip.AddrFrom4([4]byte{127, 0, 0, 1})):
		return "localhost"
	case err == nil:
		return addr.String()
	}
	return host
}

// portOf is the port of an address, or its scheme's.
func portOf(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// PointsAt reports whether a request to origin would arrive at listener l of this host,
// which has the addresses own besides loopback's. 127.0.0.1, ::1 and localhost count as
// one: which of them a name or a client takes is not ours to know.
func PointsAt(origin string, l Listener, own ...netip.Addr) bool {
	if file, ok := cutUnix(origin); ok {
		return l.Network == "unix" && l.Address == file
	}
	u, err := url.Parse(origin)
	host, lport, noPort := net.SplitHostPort(l.Address)
	if err != nil || noPort != nil || l.Network != "tcp" {
		return false
	}
	port := strings.TrimLeft(portOf(u), "0")
	if port == "" || port != strings.TrimLeft(lport, "0") {
		return false
	}
	target, at := oneSpelling(u.Hostname()), oneSpelling(host)
	ours := isLoopback(target) || slices.ContainsFunc(own, func(a netip.Addr) bool { return a.String() == target })
	return target == at || target == "" && isLoopback(at) || at == "" && ours
}
