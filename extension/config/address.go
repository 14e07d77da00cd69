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
	if err := checkLine(v); err != nil {
		return "", false, err
	}
	if file, ok := cutUnix(v); ok {
		file, err = socketPath(file)
		return "unix://" + file, false, err
	}
	u, err := parseURL(v)
	if err != nil {
		return "", false, err
	}
	base := strings.Trim(u.Path, "/")
	if base == "v1" || strings.HasSuffix(base, "/v1") {
		base, stripped = strings.Trim(strings.TrimSuffix(base, "v1"), "/"), true
	}
	if base != "" {
		if u.RawPath != "" {
			return "", false, errors.New("its path must not be percent-encoded")
		}
		if err := checkPath(base); err != nil {
			return "", false, errors.New("its path " + err.Error())
		}
		base = "/" + base
	}
	return (&url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: base}).String(), stripped, nil
}

// parseURL reads an http or https address without credentials and query.
func parseURL(v string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(v, "://")
	switch scheme = strings.ToLower(scheme); {
	case !ok:
		return nil, errors.New("has no scheme; write https:// in front")
	case scheme != "http" && scheme != "https":
		return nil, errors.New("its scheme must be http, https or unix")
	case strings.Contains(rest, "@"):
		return nil, errors.New("must not hold credentials; use VAULT_TOKEN or a login")
	case strings.ContainsAny(rest, "?#"):
		return nil, errors.New("must not have a query or a fragment")
	}
	u, err := url.Parse(v)
	if err != nil {
		return nil, errors.New("not an address")
	}
	if err := checkHost(strings.ToLower(u.Hostname())); err != nil {
		return nil, err
	}
	if strings.HasSuffix(u.Host, ":") {
		return nil, errors.New("has a colon but no port")
	}
	_, err = checkPort(u.Port())
	return u, err
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
	switch {
	case !path.IsAbs(v):
		return "", errors.New("a unix socket needs an absolute path: unix:///path")
	case strings.HasSuffix(v, "/"):
		return "", errors.New("a unix socket is not a directory")
	case len(v) > 107:
		return "", errors.New("the path of a unix socket has at most 107 bytes")
	}
	return path.Clean(v), nil
}

func checkHost(host string) error {
	if host == "" {
		return errors.New("has no host")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		return errors.New("write the host in ASCII (punycode)")
	}
	if !isHostName(strings.TrimSuffix(host, ".")) {
		return errors.New("its host is not a host name")
	}
	return nil
}

// checkPort reads a port; "" is none, 0.
func checkPort(port string) (int, error) {
	if port == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 {
		return 0, errors.New("its port must be from 0 to 65535")
	}
	return n, nil
}

func parseListen(v string) ([]Listener, error) {
	var listeners []Listener
	for _, part := range list(v) {
		l, err := parseListener(part)
		if err != nil {
			return nil, wrapValue(part, err)
		}
		if taken(listeners, l) {
			return nil, errors.New("names an address twice")
		}
		listeners = append(listeners, l)
	}
	if len(listeners) == 0 {
		return nil, errors.New("names no address")
	}
	return listeners, nil
}

// taken reports whether a listener has l's address. Port 0 is a new one each time.
func taken(listeners []Listener, l Listener) bool {
	return slices.ContainsFunc(listeners, func(o Listener) bool { return o.Address == l.Address && !strings.HasSuffix(l.Address, ":0") })
}

// parseListener reads one address to listen on. Names other than localhost are
// refused: to look them up would need the network before anything runs.
func parseListener(v string) (Listener, error) {
	if err := checkLine(v); err != nil {
		return Listener{}, err
	}
	if file, ok := cutUnix(v); ok {
		file, err := socketPath(file)
		return Listener{Network: "unix", Address: file}, err
	}
	if strings.Contains(v, "://") {
		return Listener{}, errors.New("must not have a scheme other than unix://; TLS is set in the file's listener block")
	}
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		return Listener{}, errors.New("not ip:port")
	}
	if port == "" {
		return Listener{}, errors.New("has no port")
	}
	n, err := checkPort(port)
	if err != nil {
		return Listener{}, err
	}
	host = strings.ToLower(host)
	if host != "" && host != "localhost" {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return Listener{}, errors.New("must be an IP address or localhost, with a port")
		}
		host = addr.Unmap().String()
	}
	return Listener{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(n))}, nil
}

// onLoopback reports whether only this host can reach the listener.
func onLoopback(l Listener) bool {
	if l.Network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(l.Address)
	return isLoopback(host)
}

// isLoopback reports whether a host is this one by its spelling alone.
func isLoopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true // RFC 6761, section 6.3
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
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

// PointsAt reports whether a request to origin would arrive at listener l of this host,
// which has the addresses own besides loopback's. 127.0.0.1, ::1 and localhost count as
// one: which of them a name or a client takes is not ours to know.
func PointsAt(origin string, l Listener, own ...netip.Addr) bool {
	if file, ok := cutUnix(origin); ok {
		return l.Network == "unix" && l.Address == file
	}
	u, err := url.Parse(origin)
	if err != nil || l.Network != "tcp" {
		return false
	}
	port := strings.TrimLeft(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), "0")
	host, lport, err := net.SplitHostPort(l.Address)
	if err != nil || port == "" || port != strings.TrimLeft(lport, "0") {
		return false
	}
	target, at := oneSpelling(u.Hostname()), oneSpelling(host)
	switch {
	case target == at:
		return true
	case target == "":
		return isLoopback(at)
	case at == "":
		return isLoopback(target) || slices.ContainsFunc(own, func(a netip.Addr) bool { return a.String() == target })
	}
	return false
}
