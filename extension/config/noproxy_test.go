package config

import (
	"net"
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/net/http/httpproxy"
)

// agree compares envProxy with the package it stands in for.
func agree(t *testing.T, noProxy, scheme, host string, cgi bool) {
	t.Helper()
	const proxy = "http://proxy.example:3128"
	u := &url.URL{Scheme: scheme, Host: host}
	want, wantErr := (&httpproxy.Config{HTTPProxy: proxy, HTTPSProxy: proxy, NoProxy: noProxy, CGI: cgi}).ProxyFunc()(u)
	p := &envProxy{http: parseProxyURL(proxy), https: parseProxyURL(proxy), cgi: cgi}
	p.except(noProxy)
	got, err := p.choose(&http.Request{URL: u})
	if (got == nil) != (want == nil) || got != nil && got.String() != want.String() || (err == nil) != (wantErr == nil) {
		t.Errorf("NO_PROXY=%q %s://%q: %v, %v; net/http: %v, %v", noProxy, scheme, host, got, err, want, wantErr)
	}
}

func noProxies() []string {
	return []string{
		"", "*", " * ", "a,*", ",,", ":80", "*foo", "*.", ".", "..",
		"example.com", ".example.com", "*.example.com", "EXAMPLE.com:8200", ".example.com:8200", "*.example.com:443", "ample.com", "vault.example.com , other",
		"10.0.0.0/8", "10.1.2.3", "10.1.2.3:8200", "10.1.2.3/33", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "::/0", "0.0.0.0/0", "::ffff:0:0/90",
		"2001:db8::/32", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:8200", "fe80::1%eth0", "localhost", "127.0.0.1", "10.1", "http://example.com", "[", "]:80", "[]:80",
	}
}

func hosts() []string {
	return []string{
		"example.com", "vault.example.com", "Vault.EXAMPLE.com:8200", "badexample.com", "example.com.", "example.com:443", "localhost", "LOCALHOST", "localhost:8200", "localhost.",
		"10.1.2.3", "10.1.2.3:8200", "11.0.0.1", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8200", "[::ffff:127.0.0.1]:1", "[::ffff:10.1.2.3]:8200",
		"[2001:db8::1]", "[2001:db8::1]:8200", "[2001:db9::1]", "[fe80::1%25eth0]", "foo", "barfoo", "",
	}
}

func TestNoProxyIsReadAsNetHTTPReadsIt(t *testing.T) {
	t.Parallel()
	for _, list := range noProxies() {
		for _, host := range hosts() {
			for _, scheme := range []string{"http", "https", "unix"} {
				agree(t, list, scheme, host, false)
			}
		}
	}
	agree(t, "", "http", "example.com", true)
	agree(t, "", "https", "example.com", true)
}

func FuzzNoProxy(f *testing.F) {
	for i, list := range noProxies() {
		f.Add(list, hosts()[i%len(hosts())])
	}
	f.Fuzz(func(t *testing.T, list, host string) {
		for _, r := range list + host {
			if r < ' ' || r > '~' {
				t.Skip("names beyond ASCII are compared as written")
			}
		}
		u, err := url.Parse("http://" + host)
		if err != nil || u.Host == "" {
			t.Skip("no host of a URL")
		}
		if _, _, err := net.SplitHostPort(net.JoinHostPort(u.Hostname(), "80")); err != nil {
			t.Skip("no host at all: nothing can be dialled")
		}
		agree(t, list, "http", u.Host, false)
	})
}
