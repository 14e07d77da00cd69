package consistency

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestG1BeforeARealClusterBehindABalancer: three nodes of Vault, whose standbys
// forward what they cannot answer, behind balancers that know nothing of Vault. What
// was written before an invocation is what it reads, and a quiet invocation costs a read
// of each secret at most, and one question in twenty besides. With the active node's
// connection it costs one request.
func TestG1BeforeARealClusterBehindABalancer(t *testing.T) {
	t.Parallel()
	c := harness.Raft3(t, harness.ClusterConfig{VaultConfig: harness.VaultConfig{Patience: 5, Extra: "enable_response_header_raft_node_id = true"}})
	leader, err := c.Leader(t.Context())
	harness.Must(t, err)
	var others []string
	for _, v := range c.Nodes {
		if v != leader {
			others = append(others, v.Addr())
		}
	}
	all := append([]string{leader.Addr()}, others...)
	for _, b := range []struct {
		name string
		addr string
		one  bool
	}{
		{"each request to the next node", perRequest(t, all), false},
		{"connections kept to the active node", perConnection(t, all[:1]), true},
		{"connections kept to a standby", perConnection(t, others[:1]), false},
		{"each connection to the next node", perConnection(t, all), false},
	} {
		t.Run(b.name, func(t *testing.T) {
			counter := harness.Count(t, harness.CounterConfig{Origin: b.addr})
			x, stop := before(t, app.Hooks{Frozen: true}, "VAULT_ADDR="+counter.Addr(), "VAULT_TOKEN="+leader.RootToken(), "THAW_POLL_TIMEOUT=10s", "THAW_RECHECK=10m")
			defer stop()
			put := func(n, value int) {
				_, err := leader.Put(t.Context(), "secret", fmt.Sprintf("balanced/%d", n), map[string]any{"n": value})
				harness.Must(t, err)
			}
			read := func(n, want int) {
				t.Helper()
				if a, got := x.read(fmt.Sprintf("balanced/%d", n), ""); got != want {
					t.Fatalf("secret %d: %d, want %d; %d %v", n, got, want, a.status, a.header)
				}
			}
			const secrets = 10
			for n := range secrets {
				put(n, 0)
			}
			for i := 1; i <= 30; i++ {
				put(i%secrets, i)
				x.invoke()
				read(i%secrets, i)
			}
			invocations := func() int {
				start := counter.Total()
				for range 10 {
					x.invoke()
					for n := range secrets {
						read(n, 20+n+10*btoi(n == 0))
					}
				}
				return counter.Total() - start
			}
			n := invocations()
			for range 3 { // Vault writes something by itself now and then
				n = min(n, invocations())
			}
			reads := 10 * secrets
			if b.one && n != 10 || n > reads+reads/20+10 {
				t.Errorf("%d requests in 10 invocations with %d secrets", n, secrets)
			}
			t.Logf("%d requests in 10 invocations with %d secrets", n, secrets)
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// perRequest listens with a balancer that hands each request to the next node.
func perRequest(t *testing.T, addrs []string) string {
	var n atomic.Int64
	to := make([]*url.URL, len(addrs))
	for i, a := range addrs {
		u, err := url.Parse(a)
		harness.Must(t, err)
		to[i] = u
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	s := &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to[int(n.Add(1))%len(to)]) }}}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String()
}

// perConnection listens with a balancer that hands each connection to the next node.
func perConnection(t *testing.T, addrs []string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			u, _ := url.Parse(addrs[n%len(addrs)])
			out, err := net.Dial("tcp", u.Host)
			if err != nil {
				in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
					pair[1].Close()
				}()
			}
		}
	}()
	return "http://" + l.Addr().String()
}
