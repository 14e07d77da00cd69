package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

// net maps addresses that nobody has to real listeners.
type fakeNet map[string]string

func (f fakeNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	to, ok := f[addr]
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route")}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to)
}

func hostOf(t *testing.T, addr string) string {
	t.Helper()
	u, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func TestEveryAddressOfANameIsANodeUnderTheNamesCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newCluster(t, RoleStandby, RoleActive)
	f := fakeNet{}
	for i, m := range c.nodes {
		f[[]string{"10.0.0.1:8200", "10.0.0.2:8200"}[i]] = hostOf(t, ca.serveTLS("vault.test", time.Now().Add(time.Hour), m, nil))
	}
	looked := 0
	o := quick([]string{"https://vault.test:8200"})
	o.ActiveOnly, o.Dial, o.TLS = true, f.dial, config.TLS{CACertPEM: ca.pem}
	o.LookupIP = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if looked++; host != "vault.test" {
			t.Errorf("looked %s up", host)
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("10.0.0.1")}, nil
	}
	client := newClient(t, o)
	for range 3 {
		if got := answeredBy(t, client.Do, again(t, "PUT", "a")); got != c.nodes[1].addr {
			t.Errorf("answered by %s", got)
		}
	}
	if s := client.Status(t.Context()); looked != 1 || len(s.Nodes) != 2 || s.Leader != "https://10.0.0.2:8200" {
		t.Errorf("looked up %d times; %+v", looked, s)
	}
}

func TestANodeWithAnotherNamesCertificateSeesNothing(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newCluster(t, RoleActive)
	o := quick([]string{"https://vault.test:8200"})
	o.Dial = fakeNet{"10.0.0.1:8200": hostOf(t, ca.serveTLS("evil.test", time.Now().Add(time.Hour), c.nodes[0], nil))}.dial
	o.ActiveOnly, o.TLS = true, config.TLS{CACertPEM: ca.pem}
	o.LookupIP = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9")}, nil
	}
	client := newClient(t, o)
	_, err := client.Do(request(t, "GET", "/v1/x", ""))
	wantKind(t, err, TLS)
	if c.polls != 0 || c.nodes[0].tokens() != 0 {
		t.Errorf("%d questions, %d tokens", c.polls, c.nodes[0].tokens())
	}
}

func TestANameIsLookedUpWhenItsNodeFailsAsANodeDoes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleSealed, RoleActive)
	o := quick([]string{"http://vault.test:8200"})
	f := fakeNet{"10.0.0.1:8200": hostOf(t, c.nodes[0].addr), "10.0.0.2:8200": hostOf(t, c.nodes[1].addr)}
	f["vault.test:8200"] = f["10.0.0.1:8200"]
	o.Dial = f.dial
	o.LookupIP = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, nil
	}
	client := newClient(t, o)
	if got := answeredBy(t, client.Do, again(t, "PUT", "a")); got != c.nodes[1].addr {
		t.Errorf("answered by %s", got)
	}
	if got := strings.Join(c.writes(), " "); got != "a" {
		t.Errorf("applied: %s", got)
	}
}

func TestSRVRecordsAreNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleStandby, RoleActive)
	f := fakeNet{"a.vault.test:8300": hostOf(t, c.nodes[0].addr), "b.vault.test:8400": hostOf(t, c.nodes[1].addr)}
	o := quick([]string{"http://vault.test"})
	o.Dial, o.SRVLookup = f.dial, true
	o.LookupIP = func(context.Context, string, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	o.LookupSRV = func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if service != "http" || proto != "tcp" || name != "vault.test" {
			t.Errorf("asked for _%s._%s.%s", service, proto, name)
		}
		return "", []*net.SRV{{Target: "a.vault.test.", Port: 8300}, {Target: "b.vault.test.", Port: 8400}}, nil
	}
	client := newClient(t, o)
	if got := answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")); got != c.nodes[1].addr {
		t.Errorf("answered by %s", got)
	}
}

func TestSRVTargetsOfAnotherDomainNeedTheNamesCertificate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		target, name string
		want         bool
	}{
		{"vault.test", "vault.test", true},
		{"a.vault.example.com", "vault.example.com", true},
		{"node1.example.com", "vault.example.com", true},
		{"node1.evil.com", "vault.example.com", false},
		{"evilexample.com", "vault.example.com", false},
		{"node.test", "vault.test", false}, // .test alone is no domain of theirs
	} {
		if got := within(tt.target, tt.name); got != tt.want {
			t.Errorf("within(%s, %s) = %v", tt.target, tt.name, got)
		}
	}
}

func TestANameBehindAnHTTPProxyStaysOneNode(t *testing.T) {
	t.Parallel()
	o := quick([]string{"http://vault.test:8200", "http://vault2.test:8200"})
	o.ProxyURL = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "proxy.test:3128"}, nil }
	o.LookupIP = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		t.Errorf("looked %s up", host)
		return nil, nil
	}
	client := newClient(t, o)
	client.look(t.Context())
	nodes := client.roster.nodes
	if len(nodes) != 2 || !slices.Contains(nodes, client.seeds[0]) {
		t.Errorf("%d nodes", len(nodes))
	}
}

func TestTheBreakerOpensForLongerAndCloses(t *testing.T) {
	t.Parallel()
	now := newClock()
	var s state
	for range breakAfter - 1 {
		s.failed(now.Now(), time.Now())
	}
	for range 5 {
		s.failed(now.Now(), time.Now().Add(-time.Minute)) // under way together with those before
	}
	if s.rests(now.Now()) {
		t.Error("it rests too soon")
	}
	s.failed(now.Now(), time.Now())
	for _, d := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if !s.rests(now.Now()) {
			t.Fatalf("before %ds: it does not rest", d)
		}
		now.advance(d*time.Second - time.Millisecond)
		if !s.rests(now.Now()) {
			t.Errorf("it rests for less than %ds", d)
		}
		now.advance(time.Millisecond)
		if s.rests(now.Now()) {
			t.Errorf("it rests for more than %ds", d)
		}
		s.failed(now.Now(), time.Now())
	}
	now.advance(-time.Hour)
	if s.rests(now.Now()) {
		t.Error("a clock that went back keeps it at rest")
	}
	s.answered(now.Now(), time.Millisecond, true)
	if s.rests(now.Now()) || s.failures != 0 {
		t.Error("an answer does not close it")
	}
}

func TestAnAnswerIsLateWhenNineteenInTwentyWereQuicker(t *testing.T) {
	t.Parallel()
	var s state
	now := newClock().Now()
	for i := range 40 {
		if _, ok := s.usual(); ok != (i >= hedgeSamples) {
			t.Fatalf("after %d: %v", i, ok)
		}
		s.answered(now, time.Duration(100+i)*time.Millisecond, true)
	}
	if d, _ := s.usual(); d != 138*time.Millisecond { // of 108 to 139, at place 30
		t.Errorf("late after %v", d)
	}
}

func TestALeaderThatRestsIsAskedWhereNobodyElseCanAnswer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, RoleActive, RoleStandby)
	client := newClient(t, quick(c.addrs()))
	answeredBy(t, client.Do, request(t, "GET", "/v1/x", ""))
	client.Status(t.Context())
	c.nodes[1].Be(standin.Sealed)
	client.Status(t.Context())
	nodes := client.roster.nodes
	for range breakAfter {
		client.note(nodes[0], func(s *state) { s.failed(client.o.Now(), time.Now()) })
	}
	client.note(nodes[0], func(s *state) { s.learned = client.o.Now() }) // and nobody has asked it since
	if got := answeredBy(t, client.Do, request(t, "GET", "/v1/x", "")); got != c.nodes[0].addr {
		t.Errorf("answered by %s", got)
	}
}
