package standin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

// community is a cluster of two, which are reached at http://first and http://second.
func community(o ClusterOptions) (c *Cluster, first, second *Node) {
	o.Community = true
	c, _ = site(o)
	first, second = c.Active(), c.Standby(0)
	first.At("http://first")
	second.At("http://second")
	return c, first, second
}

// Whatever keeps a standby from handing a request on, it redirects to the leader that
// it knows, and to itself while it is about to lead.
func TestWhereAStandbyRedirects(t *testing.T) {
	t.Parallel()
	const location = "/v1/secret/data/a"
	for name, tt := range map[string]struct {
		o      ClusterOptions
		change func(c *Cluster, first, second *Node)
		header string
		status int
		to     string
		writes int // that were done
	}{
		"handed on":              {status: 200, writes: 1},
		"told not to hand on":    {header: "X-Vault-No-Request-Forwarding", status: 307, to: "http://first"},
		"a websocket":            {header: "Upgrade", o: ClusterOptions{NoHandOver: true}, status: 307, to: "ws://first"},
		"not able to":            {o: ClusterOptions{NoHandOver: true}, status: 307, to: "http://first"},
		"the connection breaks":  {change: func(_ *Cluster, _, second *Node) { second.CutHandOver(true) }, status: 307, to: "http://first", writes: 1},
		"the leader is sealed":   {change: func(_ *Cluster, first, _ *Node) { first.Be(Sealed) }, status: 307, to: "http://first"},
		"the leader is dead":     {change: func(_ *Cluster, first, _ *Node) { first.Be(Unreachable) }, status: 307, to: "http://first"},
		"nobody leads":           {change: func(c *Cluster, _, _ *Node) { c.Lead(nil) }, status: 503},
		"it is about to lead":    {change: func(c *Cluster, _, second *Node) { c.Elect(second) }, status: 307, to: "http://second"},
		"the other is":           {change: func(c *Cluster, first, _ *Node) { c.Elect(first) }, status: 307, to: "http://first"},
		"it leads":               {change: func(c *Cluster, _, second *Node) { c.Lead(second) }, status: 200, writes: 1},
		"it leads after nobody":  {change: func(c *Cluster, _, second *Node) { c.Lead(nil); c.Lead(second) }, status: 200, writes: 1},
		"the same leads again":   {change: func(c *Cluster, first, _ *Node) { c.Lead(nil); c.Lead(first) }, status: 200, writes: 1},
		"it does not know so":    {change: func(c *Cluster, first, second *Node) { c.Lead(second); c.Lead(first); second.Be(Deposed) }, status: 500},
		"a standby of DR":        {change: func(_ *Cluster, _, second *Node) { second.Be(DRSecondary) }, status: 400},
		"a standby of no leader": {change: func(c *Cluster, _, second *Node) { c.Lead(nil); second.Be(Forwarding) }, status: 503},
	} {
		c, first, second := community(tt.o)
		if tt.change != nil {
			tt.change(c, first, second)
		}
		var headers []string
		if tt.header != "" {
			headers = []string{tt.header, "1"}
		}
		w := ask(t, second, "POST", "secret/data/a", `{"data":{"v":"1"}}`, headers...)
		to := strings.TrimSuffix(w.Header().Get("Location"), location)
		if w.Code != tt.status || to != tt.to {
			t.Errorf("%s: %d to %q, want %d to %q: %s", name, w.Code, to, tt.status, tt.to, w.Body)
		}
		second.CutHandOver(false)
		first.Be(Serving)
		second.Be(Serving)
		c.Lead(second)
		if w := ask(t, second, "GET", "secret/data/a", ""); (w.Code == 200) != (tt.writes == 1) {
			t.Errorf("%s: %d writes are wanted, and a read gives %d", name, tt.writes, w.Code)
		}
	}
}

// Two say that they lead: the one that was deposed since before the other.
func TestADeposedLeaderSaysThatItLeads(t *testing.T) {
	t.Parallel()
	c, first, second := community(ClusterOptions{})
	before := ask(t, first, "GET", "sys/leader", "").Body.String()
	c.Lead(second)
	if w := ask(t, first, "GET", "sys/health", ""); w.Code != 429 {
		t.Errorf("a leader that stepped down: %d", w.Code)
	}
	first.Be(Deposed)
	_, since, _ := strings.Cut(before, `"active_time":`)
	since, _, _ = strings.Cut(since, ",")
	w := ask(t, first, "GET", "sys/leader", "")
	if s := w.Body.String(); !strings.Contains(s, since) || !strings.Contains(s, `"is_self":true`) || !strings.Contains(s, `"leader_address":"http://first"`) {
		t.Errorf("before %s, now %s", before, s)
	}
	if w := ask(t, first, "GET", "sys/health", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"enterprise":false`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	first.Be(Serving)
	if w := ask(t, first, "GET", "sys/leader", ""); !strings.Contains(w.Body.String(), `"leader_address":"http://second"`) {
		t.Errorf("it has noticed: %s", w.Body)
	}
}

func TestASilentNodeAnswersWhenItsConditionChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, first, _ := community(ClusterOptions{})
		first.Be(Silent)
		answer := func(ctx context.Context) <-chan int {
			done := make(chan int, 1)
			go func() {
				w := httptest.NewRecorder()
				first.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://vault/v1/sys/health", nil))
				done <- w.Body.Len()
			}()
			return done
		}
		ctx, leave := context.WithCancel(t.Context())
		stays, leaves := answer(t.Context()), answer(ctx)
		synctest.Wait()
		if len(stays)+len(leaves) > 0 {
			t.Error("it answered")
		}
		leave()
		if n := <-leaves; n != 0 {
			t.Errorf("who left was answered with %d bytes", n)
		}
		first.Be(Sealed)
		if n := <-stays; n == 0 {
			t.Error("who stayed got no answer")
		}
	})
}
