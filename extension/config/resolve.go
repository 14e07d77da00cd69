package config

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// resolveListeners decides which listeners count: the variable's, the file's,
// the default's.
func (l *loader) resolveListeners() {
	d := &l.d
	switch {
	case l.isSet("THAW_LISTEN"):
	case len(l.file.listeners) > 0:
		d.Listeners = l.file.listeners
	default:
		d.Listeners = append(d.Listeners, Listener{Network: "tcp", Address: "[::1]:8200", Optional: true})
	}
	if l.isSet("THAW_REQUIRE_REQUEST_HEADER") {
		for i := range d.Listeners {
			d.Listeners[i].RequireRequestHeader = d.RequireHeader
		}
	}
	if d.RunMode == RunFile || l.mute {
		d.Listeners = nil // nothing is served
	}
}

// resolveOrigin finds the address in use and checks only that: VAULT_ADDR beside
// VLE_VAULT_ADDR is the business of the function's own client.
func (l *loader) resolveOrigin() {
	d := &l.d
	d.ClientTimeout = cmp.Or(d.ClientTimeout, time.Minute) // vault/api takes 0 for "not set"
	at, value := l.file.at["vault.address"], l.file.address
	if name := l.firstSet("THAW_VAULT_ADDRS", "VLE_VAULT_ADDR", "VAULT_ADDR"); name != "" {
		at, value = place{Name: name}, l.env[name]
	}
	d.AddrsFrom = at.Name
	switch {
	case value == "":
		l.wrongIf(!l.file.broken && l.good("vault.address"), "VLE_VAULT_ADDR",
			"Vault's address is missing; set VLE_VAULT_ADDR, VAULT_ADDR or THAW_VAULT_ADDRS, or address in the file's vault block")
		return
	case l.bad[at.Name]:
		return
	}
	raw := []string{value}
	if at.Name == "THAW_VAULT_ADDRS" {
		raw = list(value)
	}
	schemes := map[string]bool{}
	d.Addrs = l.addresses(at, raw, schemes)
	const reads = "THAW_VAULT_READ_ADDRS"
	if l.isSet(reads) && l.good(reads) {
		d.ReadAddrs = l.addresses(place{Name: reads}, list(l.env[reads]), schemes)
		l.wrongIf(!d.StandbyReads && !d.ActiveOnly && l.good("THAW_READS"), reads, "addresses for reads are used under THAW_READS=standby; set that, or remove them")
	}
	l.check(at, "", errIf(schemes["http"] && schemes["https"],
		"mixes http and https addresses: a token sent to the one would be safe and to the other not; use https for all"))
	l.warnIf(d.ActiveOnly && d.StandbyReads, "THAW_DISABLE_PERFORMANCE_STANDBY sends reads to the active node: THAW_READS=standby has no effect")
	d.StandbyReads = d.StandbyReads && !d.ActiveOnly
}

// addresses reads addresses of Vault, and notes their schemes.
func (l *loader) addresses(at place, raw []string, schemes map[string]bool) (out []string) {
	for _, v := range raw {
		addr, stripped, err := parseOrigin(v)
		if err != nil {
			l.refuse(at, v, err.Error()+"; allowed: http(s)://host[:port][/base] or unix:///path")
			continue
		}
		l.warnIf(stripped, at.Name+" ends in /v1, which is part of every request and not of the address; leave it out, as thaw does")
		l.noLoop(at, v, addr, "put Vault's own address in VLE_VAULT_ADDR")
		if u, err := url.Parse(addr); err == nil {
			schemes[u.Scheme] = true
			l.warnIf(u.Scheme == "http" && !isLoopback(u.Hostname()), at.Name+" is plain http to "+u.Host+": tokens and secrets cross the network in clear; use https")
		}
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// noLoop refuses an address that is one of thaw's own listeners.
func (l *loader) noLoop(at place, shown, addr, fix string) {
	if i := slices.IndexFunc(l.d.Listeners, func(listener Listener) bool { return PointsAt(addr, listener) }); i >= 0 {
		l.refuse(at, shown, "points back at thaw's own listener "+l.d.Listeners[i].Address+"; "+fix+", or move the listener with THAW_LISTEN")
	}
}

// resolveProxy chooses between the proxy that is for Vault alone and the
// environment's. As in Go's net/http, lower-case names come first.
func (l *loader) resolveProxy() {
	pick := func(upper string) string { return cmp.Or(l.firstSet(strings.ToLower(upper)), upper) }
	parse := func(name string) *url.URL {
		v := l.value(name)
		if v == "" {
			return nil
		}
		u := parseProxyURL(v)
		bad := errIf(u == nil, "not the address of a proxy; allowed: http(s)://host:port, socks5://host:port or host:port")
		if l.check(place{Name: name}, "", bad) {
			l.noLoop(place{Name: name}, "", u.String(), "put a proxy's own address there, or remove it")
		}
		return u
	}
	p := &envProxy{cgi: l.isSet("REQUEST_METHOD"), http: parse(pick("HTTP_PROXY")), https: parse(pick("HTTPS_PROXY"))}
	if p.http != nil || p.https != nil {
		p.except(l.env[pick("NO_PROXY")])
		l.d.EnvProxy = p.choose
	}
	l.d.ProxyURL = l.d.EnvProxy
	if u := parse(l.firstSet("VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY")); u != nil {
		l.d.ProxyURL = http.ProxyURL(u)
	}
}

// parseProxyURL reads a proxy's address; nil: it isn't one. Credentials are
// allowed, so its value is never shown.
func parseProxyURL(v string) *url.URL {
	if !strings.Contains(v, "://") {
		v = "http://" + v
	}
	u, err := url.Parse(v)
	if err != nil {
		return nil
	}
	_, badPort := checkPort(u.Port())
	known := slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
	if !known || cmp.Or(checkLine(v), checkHost(u.Hostname()), badPort) != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil
	}
	return u
}
