package doctor

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/files"
)

// maxAddresses bounds how many addresses of one name are looked at.
const maxAddresses = 8

// selfLoop looks for an address of the origin that leads back to thaw by way
// of its name. (One that does so by its spelling is an error of the
// configuration.)
func selfLoop(ctx context.Context, e *Exam) {
	for _, n := range e.nodes {
		if n.url.Scheme == "unix" || n.proxied() {
			continue
		}
		ips := []string{n.url.Hostname()}
		if net.ParseIP(ips[0]) == nil {
			ips, _ = e.o.Lookup(ctx, ips[0]) // what fails is dns's to report
		}
		for _, ip := range ips {
			for _, l := range e.Config.Listeners {
				if !n.failed && config.PointsAt("http://"+net.JoinHostPort(ip, port(n.url)), l, e.o.Own()...) {
					n.failed = true
					e.Tell(Fault(n.addr+" is "+ip+", where thaw itself listens ("+l.Address+")",
						"thaw would ask itself for every secret until its connections are used up", fixLoop))
				}
			}
		}
	}
}

const fixLoop = "put Vault's own address in VLE_VAULT_ADDR, or move the listener with THAW_LISTEN"

// port is an address's, as a number in text.
func port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme], "80")
}

// proxied reports whether an HTTP proxy is on the way.
func (n *node) proxied() bool { return n.to != n.url }

// way is where a connection to the node goes.
func (n *node) way() (network, to string) {
	if n.url.Scheme == "unix" {
		return "unix", n.url.Path
	}
	return "tcp", net.JoinHostPort(cmp.Or(n.ip, n.to.Hostname()), port(n.to))
}

// dns looks the names up. A name with several addresses becomes several nodes,
// since what stands behind them may differ.
func dns(ctx context.Context, e *Exam) {
	var found []*node
	for _, n := range e.nodes {
		found = append(found, e.resolve(ctx, n)...)
	}
	e.nodes = found
}

// resolve gives the nodes that one stands for.
func (e *Exam) resolve(ctx context.Context, n *node) []*node {
	host, via, named := n.to.Hostname(), "", "VAULT_ADDR"
	if n.proxied() {
		via, named = " (the HTTP proxy before "+n.addr+")", e.o.proxyOf(n)
	}
	if n.failed || n.url.Scheme == "unix" || net.ParseIP(host) != nil {
		return []*node{n}
	}
	if e.Config.SRVLookup && !n.proxied() && n.url.Port() == "" {
		if all := e.records(ctx, n); len(all) > 0 {
			return all
		}
	}
	ips, err := e.o.Lookup(ctx, host)
	if err != nil || len(ips) == 0 {
		n.failed = true
		e.Tell(Fault("the name "+host+via+" cannot be looked up: "+dnsError(err), nothingThere,
			"check the name in "+named+"; in a VPC: enableDnsSupport and enableDnsHostnames, a private hosted zone that is associated with it, and its DHCP options"))
		return []*node{n}
	}
	ips = ips[:min(len(ips), maxAddresses)]
	e.Tell(Fine(host + via + " is " + strings.Join(ips, ", ")))
	if n.proxied() || len(ips) == 1 {
		return []*node{n}
	}
	var all []*node
	for _, ip := range ips {
		one := *n
		one.ip = ip
		all = append(all, &one)
	}
	return all
}

// records makes nodes of a name's SRV records (VAULT_SRV_LOOKUP).
func (e *Exam) records(ctx context.Context, n *node) (all []*node) {
	_, found, err := e.o.LookupSRV(ctx, "http", "tcp", n.url.Hostname())
	if err != nil || len(found) == 0 {
		e.Tell(Advise("VAULT_SRV_LOOKUP is set, and "+n.url.Hostname()+" has no SRV record _http._tcp", "the name itself is used, at port "+port(n.url), "make the records, or name the port in VAULT_ADDR"))
		return nil
	}
	for _, r := range found[:min(len(found), maxAddresses)] {
		u := *n.url
		u.Host = net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
		all = append(all, &node{addr: u.String(), url: &u, to: &u})
		e.Tell(Fine(n.url.Hostname() + " has an SRV record: " + u.Host))
	}
	return all
}

const nothingThere = "nothing can be asked of Vault there"

// dnsError says why without repeating the name.
func dnsError(err error) string {
	var d *net.DNSError
	switch {
	case err == nil:
		return "it has no address"
	case errors.As(err, &d) && d.IsNotFound:
		return "there is no such host"
	case errors.As(err, &d) && d.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "the DNS server does not answer"
	}
	return "the DNS server cannot be asked, or refuses"
}

// tcp connects to every node.
func tcp(ctx context.Context, e *Exam) {
	dialer := &net.Dialer{Timeout: e.Config.ConnTimeout}
	for _, n := range e.nodes {
		if n.failed {
			continue
		}
		network, to := n.way()
		nc, err := dialer.DialContext(ctx, network, to)
		if n.err, n.failed = err, err != nil; err == nil {
			nc.Close()
			e.Tell(Fine(n.String() + " takes connections at " + to))
		}
	}
	for _, n := range e.nodes {
		beside := func(o *node) bool { return o.addr == n.addr && !o.failed }
		if n.err == nil || strings.Contains(n.ip, ":") && slices.ContainsFunc(e.nodes, beside) {
			continue // an IPv6 address beside an IPv4 one that works is the system's way out
		}
		network, to := n.way()
		what, fix := dialError(n.err, network)
		what = n.String() + ": " + what + " at " + to
		if n.proxied() {
			by := e.o.proxyOf(n)
			what = "the proxy of " + by + " on the way to " + what
			fix = "correct " + by + " or see why nothing serves there; NO_PROXY names what is reached without HTTPS_PROXY and HTTP_PROXY"
		}
		e.Tell(matters(reachable(e) != "", what, nothingThere,
			"the others have to do without it, and a connection that is tried there first costs up to THAW_CONNECT_TIMEOUT", fix))
	}
}

// proxyOf is the variable that names the HTTP proxy before a node.
func (o *Options) proxyOf(n *node) string {
	upper := strings.ToUpper(n.url.Scheme) + "_PROXY"
	for _, name := range []string{"VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY", strings.ToLower(upper)} {
		if o.set(name) {
			return name
		}
	}
	return upper
}

// dialError says what a failed connection means and what to do.
func dialError(err error, network string) (what, fix string) {
	var ne net.Error
	switch {
	case network == "unix":
		return "the socket cannot be connected to", "check the path in VAULT_ADDR, that Vault listens there, and the socket's permissions"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused: nothing listens", "check the port in VAULT_ADDR, that Vault runs, and its listener's address"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no route to it", "check the subnet's route table; a function in a VPC needs a NAT, a peering or a gateway to reach another network"
	case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "nothing answers in time", "check the security groups (the function's must allow the way out to Vault's port, Vault's the way in), the network ACLs, and the route or NAT"
	}
	return "it cannot be connected to", "check VAULT_ADDR, the route and the proxy settings"
}

// listen looks whether thaw's addresses are free, or its own already.
func listen(ctx context.Context, e *Exam) {
	for _, l := range e.Config.Listeners {
		if strings.HasSuffix(l.Address, ":0") {
			continue
		}
		switch err := bind(ctx, l); {
		case err == nil:
			e.Tell(Fine(l.Address + " is free for thaw to listen on"))
		case !errors.Is(err, syscall.EADDRINUSE):
			if !l.Optional {
				e.Tell(Fault("thaw cannot listen on "+l.Address+": "+err.Error(), e.startsNot("ListenFailed"),
					"set THAW_LISTEN to an address of this host, with a port that it may use, or to a path in a folder that is there and that thaw may write to"))
			}
		case isThaw(l):
			e.Tell(Fine("thaw listens on " + l.Address))
		default:
			e.Tell(Fault("another process listens on "+l.Address, e.startsNot("ListenFailed")+"; what is sent there, tokens too, reaches that process", "end it, or set THAW_LISTEN to a free address"))
		}
	}
}

// bind listens for a moment. A socket that nobody serves is what a process that is
// gone left, and thaw removes it.
func bind(ctx context.Context, l config.Listener) error {
	ln, err := new(net.ListenConfig).Listen(ctx, l.Network, l.Address)
	if err == nil {
		return ln.Close()
	}
	if l.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) {
		if left, e := os.Lstat(l.Address); e == nil && left.Mode().Type() != os.ModeSocket {
			return errors.New("there is a file that is no socket")
		}
		if nc, e := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, l.Network, l.Address); e == nil {
			return errors.Join(err, nc.Close())
		}
		return nil
	}
	if of, ok := errors.AsType[*net.OpError](err); ok {
		return of.Err // the address is known
	}
	return err
}

// isThaw asks whoever listens for what thaw refuses by itself, without Vault, which
// may hang. With TLS it is not asked: a certificate says nothing of that.
func isThaw(l config.Listener) bool {
	if l.CertFile != "" {
		return true
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, l.Network, l.Address)
	}}}
	_, body, err := read(client.Get("http://localhost/"))
	return err == nil && strings.Contains(string(body), `"thaw: `)
}

// secretFiles tries whether the files of file mode can be written. What it writes
// beside them is no secret, and is removed.
func secretFiles(_ context.Context, e *Exam) {
	for _, f := range e.Config.Files {
		if err := files.Try(f.File); err != nil {
			e.Tell(matters(!e.Config.FileOptional, "what "+f.Var+" names cannot be put into its file: "+err.Error(),
				"thaw does not start without it: Extension.SecretFileFailed", "thaw starts without it", fixFile))
			continue
		}
		e.Tell(Fine(f.File + " can be written"))
	}
}

const fixFile = "name a file in a folder that thaw may write to and that has room, such as one below /tmp, in VAULT_SECRET_FILE; or remove VAULT_SECRET_PATH and read by HTTP"
