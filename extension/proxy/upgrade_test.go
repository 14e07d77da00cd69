package proxy

import "testing"

// TestWhoOffersAnotherProtocolHasTheCache: Java's client offers HTTP/2 with each
// request over plain HTTP (RFC 9113 appendix A), and others may offer what they
// like. A server may ignore it (RFC 9110 section 7.8). A websocket alone is
// for the origin.
func TestWhoOffersAnotherProtocolHasTheCache(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		offer  []string
		cached bool
	}{
		{[]string{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"}, true},
		{[]string{"Connection", "Upgrade", "Upgrade", "TLS/1.0"}, true},
		{[]string{"Upgrade", "h2c"}, true},
		{[]string{"Connection", "Upgrade", "Upgrade", "h2c, websocket"}, true},
		{[]string{"Connection", "Upgrade", "Upgrade", "websocket"}, false},
	} {
		w := newWorld(t)
		w.put("app", "1")
		w.get("/v1/secret/data/app", c.offer...)
		second := w.get("/v1/secret/data/app", c.offer...)
		if hit := second.Header.Get("X-Cache") == "HIT"; second.StatusCode != 200 || hit != c.cached {
			t.Errorf("%v: %d %s, want a hit: %v", c.offer, second.StatusCode, second.Header.Get("Cache-Status"), c.cached)
		}
	}
}
