package standin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// clock is set by the tests.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// site is a cluster whose standby lags by a second.
func site(o ClusterOptions) (*Cluster, *clock) {
	clk := &clock{t: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	o.Origin, o.Standbys, o.Now = New(Options{Now: clk.now}), 1, clk.now
	o.Lag = func() time.Duration { return time.Second }
	return NewCluster(o), clk
}

// ask sends a request as root; headers come in pairs.
func ask(t *testing.T, n *Node, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://vault/v1/"+path, strings.NewReader(body))
	r.Header.Set("X-Vault-Token", "root")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	return w
}

func TestAStandbyAnswersFromWhatItHas(t *testing.T) {
	t.Parallel()
	c, clk := site(ClusterOptions{Forwarding: true})
	w := ask(t, c.Standby(0), "POST", "secret/data/a", `{"data":{"v":"1"}}`)
	index := w.Header().Get("X-Vault-Index")
	plain, err := base64.StdEncoding.DecodeString(index)
	if w.Code != 200 || err != nil || !strings.HasPrefix(string(plain), "v1:"+c.ID()+":1:1:") {
		t.Fatalf("%d %q", w.Code, plain)
	}
	other, _ := site(ClusterOptions{})
	foreign := other.stateOf(1)
	check := func(when string, n *Node, want map[string]int) {
		t.Helper()
		for headers, status := range want {
			var pairs []string
			for h := range strings.FieldsSeq(headers) {
				switch h {
				case "index":
					pairs = append(pairs, "X-Vault-Index", index)
				case "foreign":
					pairs = append(pairs, "X-Vault-Index", foreign)
				case "forged":
					pairs = append(pairs, "X-Vault-Index", base64.StdEncoding.EncodeToString([]byte("v1:"+c.ID()+":0:0:00")))
				case "future":
					pairs = append(pairs, "X-Vault-Index", c.stateOf(9))
				case "inconsistent":
					pairs = append(pairs, "X-Vault-Inconsistent", "forward-active-node")
				case "forward":
					pairs = append(pairs, "X-Vault-Forward", "active-node")
				case "elsewhere":
					pairs = append(pairs, "X-Vault-Forward", "elsewhere")
				}
			}
			if w := ask(t, n, "GET", "secret/data/a", "", pairs...); w.Code != status {
				t.Errorf("%s, %q: %d %s, want %d", when, headers, w.Code, w.Body, status)
			}
		}
	}
	check("before", c.Standby(0), map[string]int{
		"": 404, "index": 412, "index inconsistent": 200, "forward": 200, "elsewhere": 404, "elsewhere index inconsistent": 412, "foreign": 412, "forged": 412, "future": 412,
	})
	if w := ask(t, c.Standby(0), "LIST", "secret/metadata", ""); w.Code != 200 && w.Code != 404 {
		t.Error(w.Code)
	}
	if w := ask(t, c.Standby(0), "GET", "secret/data/a?version=1", ""); w.Code != 501 {
		t.Errorf("what it cannot know: %d", w.Code)
	}
	if w := ask(t, c.Standby(0), "POST", "secret/data/a", `{"data":{"v":"2"}}`, "X-Vault-Index", index); w.Code != 412 {
		t.Errorf("a write that requires what is not there: %d", w.Code)
	}
	check("at the active node", c.Active(), map[string]int{"": 200, "index": 200, "future": 412, "foreign": 412, "forward": 200})
	clk.add(time.Second)
	check("after", c.Standby(0), map[string]int{"": 200, "index": 200, "index inconsistent": 200, "future": 412})
}

func TestForwardingByHeaderIsOffByDefault(t *testing.T) {
	t.Parallel()
	c, _ := site(ClusterOptions{})
	for _, n := range []*Node{c.Active(), c.Standby(0)} {
		for header, text := range map[string]string{
			"X-Vault-Forward=active-node":              "forwarding via header X-Vault-Forward disabled in configuration",
			"X-Vault-Forward=x":                        "forwarding via header X-Vault-Forward disabled in configuration",
			"X-Vault-Inconsistent=forward-active-node": "forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration",
		} {
			name, value, _ := strings.Cut(header, "=")
			if w := ask(t, n, "GET", "secret/data/a", "", name, value); w.Code != 400 || w.Body.String() != fmt.Sprintf("{\"errors\":[%q]}\n", text) {
				t.Errorf("%s: %d %s", header, w.Code, w.Body)
			}
		}
	}
}

func TestATokenIsUnknownUntilItIsThere(t *testing.T) {
	t.Parallel()
	for signed, status := range map[bool]int{false: 403, true: 412} {
		c, clk := site(ClusterOptions{ServerSideConsistentTokens: signed})
		w := ask(t, c.Standby(0), "POST", "auth/token/create", `{"policies":["default"]}`)
		_, rest, _ := strings.Cut(w.Body.String(), `"client_token":"`)
		token, _, _ := strings.Cut(rest, `"`)
		look := func() int {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "http://vault/v1/auth/token/lookup-self", nil)
			r.Header.Set("X-Vault-Token", token)
			w := httptest.NewRecorder()
			c.Standby(0).ServeHTTP(w, r)
			return w.Code
		}
		if got := look(); got != status {
			t.Errorf("before: %d, want %d", got, status)
		}
		clk.add(time.Second)
		if got := look(); got != 200 {
			t.Errorf("after: %d", got)
		}
	}
}

func TestASecondaryLagsAsAWhole(t *testing.T) {
	t.Parallel()
	c, clk := site(ClusterOptions{})
	s := c.Secondary(ClusterOptions{Standbys: 1, Forwarding: true, Lag: func() time.Duration { return time.Second }}, func() time.Duration { return time.Second })
	index := ask(t, s.Standby(0), "POST", "secret/data/a", `{"data":{"v":"1"}}`).Header().Get("X-Vault-Index")
	if plain, err := base64.StdEncoding.DecodeString(index); err != nil || !strings.HasPrefix(string(plain), "v1:"+s.ID()+":1:1:") {
		t.Fatalf("%q", plain)
	}
	for step, want := range [][4]int{{412, 412, 404, 200}, {200, 412, 200, 200}, {200, 200, 200, 200}} {
		got := [4]int{
			ask(t, s.Active(), "GET", "secret/data/a", "", "X-Vault-Index", index).Code,
			ask(t, s.Standby(0), "GET", "secret/data/a", "", "X-Vault-Index", index).Code,
			// forwarded, and answered as the secondary's active node is
			ask(t, s.Standby(0), "GET", "secret/data/a", "", "X-Vault-Index", index, "X-Vault-Inconsistent", "forward-active-node").Code,
			ask(t, c.Active(), "GET", "secret/data/a", "").Code,
		}
		if got != want {
			t.Errorf("after %d s: %v, want %v", step, got, want)
		}
		clk.add(time.Second)
	}
}

func TestNodesSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	c, _ := site(ClusterOptions{})
	b, _ := site(ClusterOptions{OpenBao: true})
	for _, tt := range []struct {
		n     *Node
		query string
		code  int
		holds string
	}{
		{c.Active(), "", 200, `"enterprise":true`},
		{c.Standby(0), "", 473, `"performance_standby":true`},
		{c.Standby(0), "?perfstandbyok=true", 200, `"standby":true`},
		{c.Standby(0), "?standbyok=true", 473, `"standby":true`},
		{c.Standby(0), "?performancestandbycode=299", 299, `"standby":true`},
		{c.Standby(0), "?perfstandbyok=x", 400, `errors`},
		{b.Standby(0), "", 429, `"version":"2.5.5"`},
		{b.Active(), "", 200, `"version":"2.5.5"`},
	} {
		if w := ask(t, tt.n, "GET", "sys/health"+tt.query, ""); w.Code != tt.code || !strings.Contains(w.Body.String(), tt.holds) {
			t.Errorf("%s%s: %d %s", tt.n.name, tt.query, w.Code, w.Body)
		}
	}
	if w := ask(t, c.Standby(0), "GET", "sys/leader", ""); !strings.Contains(w.Body.String(), `"is_self":false`) || !strings.Contains(w.Body.String(), `"performance_standby":true`) {
		t.Error(w.Body)
	}
	if w := ask(t, b.Standby(0), "POST", "secret/data/a", `{"data":{}}`); w.Code != 200 || w.Header().Get("X-Vault-Index") != "" {
		t.Errorf("OpenBao: %d %v", w.Code, w.Header())
	}
}

func TestEventsGoToWhoMaySubscribe(t *testing.T) {
	t.Parallel()
	c, _ := site(ClusterOptions{})
	c.Serve()
	t.Cleanup(c.Close)
	dial := func(n *Node, token, path string) (*websocket.Conn, int) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, res, err := websocket.Dial(ctx, n.Addr()+"/v1/sys/events/subscribe/"+path, &websocket.DialOptions{
			HTTPHeader: http.Header{"X-Vault-Token": {token}},
			HTTPClient: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		})
		if err != nil && res == nil {
			t.Fatal(err)
		}
		return conn, res.StatusCode
	}
	for _, tt := range []struct {
		n           *Node
		token, path string
		status      int
	}{
		{c.Active(), "nobody", "kv*?json=true", 403},
		{c.Active(), "root", "kv*", 400},
		{c.Active(), "root", "?json=true", 400},
		{c.Standby(0), "root", "kv*?json=true", 307},
	} {
		if _, status := dial(tt.n, tt.token, tt.path); status != tt.status {
			t.Errorf("%s as %s at %s: %d, want %d", tt.path, tt.token, tt.n.name, status, tt.status)
		}
	}
	conn, status := dial(c.Active(), "root", "kv*?json=true&namespaces=*")
	if status != 101 {
		t.Fatal(status)
	}
	defer conn.CloseNow()
	for c.Subscribers() == 0 { // it is counted just after the handshake
		runtime.Gosched()
	}
	index := ask(t, c.Active(), "POST", "secret/data/a", `{"data":{"v":"1"}}`).Header().Get("X-Vault-Index")
	_, message, err := conn.Read(t.Context())
	if err != nil || !strings.Contains(string(message), `"event_type":"kv-v2/data-write"`) || !strings.Contains(string(message), index) {
		t.Errorf("%s, %v", message, err)
	}
}

// A node in another condition answers as Vault documents, and its cluster goes on.
func TestNodesThatDoNotServe(t *testing.T) {
	t.Parallel()
	c, _ := site(ClusterOptions{NodeIDs: true})
	openBao, _ := site(ClusterOptions{OpenBao: true})
	community, _ := site(ClusterOptions{Community: true})
	if w := ask(t, c.Active(), "POST", "secret/data/app", `{"data":{"k":1}}`); w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	for _, tt := range []struct {
		condition    Condition
		health, read int
		by           string
	}{
		{Serving, 473, http.StatusNotFound, "standby-0"}, // it lags
		{Forwarding, http.StatusTooManyRequests, http.StatusOK, "active"},
		{DRSecondary, 472, http.StatusBadRequest, "standby-0"},
		{Sealed, http.StatusServiceUnavailable, http.StatusServiceUnavailable, "standby-0"},
		{Uninitialized, http.StatusNotImplemented, http.StatusServiceUnavailable, "standby-0"},
	} {
		c.Standby(0).Be(tt.condition)
		if w := ask(t, c.Standby(0), "GET", "sys/health", ""); w.Code != tt.health {
			t.Errorf("condition %d: health is %d, want %d", tt.condition, w.Code, tt.health)
		}
		for kind, cluster := range map[string]*Cluster{`"enterprise":true`: c, `"version":"2.5.5"`: openBao, `"enterprise":false`: community} {
			cluster.Standby(0).Be(tt.condition)
			if w := ask(t, cluster.Standby(0), "GET", "sys/health", ""); !strings.Contains(w.Body.String(), kind) && tt.condition != Forwarding {
				t.Errorf("condition %d: its health does not tell the product by %s: %s", tt.condition, kind, w.Body)
			}
		}
		w := ask(t, c.Standby(0), "GET", "secret/data/app", "")
		if got := w.Result().Header.Get("X-Vault-Raft-Node-Id"); w.Code != tt.read || got != tt.by {
			t.Errorf("condition %d: %d by %s, want %d by %s", tt.condition, w.Code, got, tt.read, tt.by)
		}
	}
	server := httptest.NewServer(c.Standby(0))
	defer server.Close()
	c.Standby(0).Be(Unreachable)
	if res, err := http.Get(server.URL + "/v1/sys/health"); err == nil {
		res.Body.Close()
		t.Errorf("who is unreachable answers %d", res.StatusCode)
	}
}

func TestAnotherNodeLeads(t *testing.T) {
	t.Parallel()
	c, clk := site(ClusterOptions{OpenBao: true, NodeIDs: true})
	first, second := c.Active(), c.Standby(0)
	leader := func(n *Node) (self bool, since string) {
		var l struct {
			IsSelf     bool   `json:"is_self"`
			ActiveTime string `json:"active_time"`
		}
		if err := json.Unmarshal(ask(t, n, "GET", "sys/leader", "").Body.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		return l.IsSelf, l.ActiveTime
	}
	_, before := leader(first)
	clk.add(time.Second)
	ask(t, first, "POST", "secret/data/a", `{"data":{"v":"1"}}`)
	if w := ask(t, second, "GET", "secret/data/a", ""); w.Code != 404 {
		t.Errorf("the standby does not lag: %d", w.Code)
	}
	was := c.Index()
	c.Lead(second)
	if w := ask(t, second, "GET", "secret/data/a", ""); w.Code != 200 {
		t.Errorf("the new leader lacks what was written before it led: %d", w.Code)
	}
	if w := ask(t, first, "GET", "secret/data/a", ""); w.Code != 200 {
		t.Errorf("the old leader lost what it had: %d", w.Code)
	}
	if self, since := leader(second); !self || since == before {
		t.Errorf("the new leader says is_self %v, active_time %s as before: %v", self, since, since == before)
	}
	if self, _ := leader(first); self || c.Active() != second || c.Index() == was {
		t.Errorf("the old leader says is_self %v; a term began with an entry: %v", self, c.Index() > was)
	}
	w := ask(t, first, "POST", "secret/data/a", `{"data":{"v":"2"}}`)
	if got := w.Header().Get(nodeHeader); w.Code != 200 || got != second.Name() {
		t.Errorf("a write through the old leader: %d by %q", w.Code, got)
	}
	if w := ask(t, first, "GET", "secret/data/a", ""); !strings.Contains(w.Body.String(), `"v":"1"`) {
		t.Errorf("the old leader does not lag: %s", w.Body)
	}
	clk.add(2 * time.Second)
	if w := ask(t, first, "GET", "secret/data/a", ""); !strings.Contains(w.Body.String(), `"v":"2"`) {
		t.Errorf("the old leader does not catch up: %s", w.Body)
	}
}
