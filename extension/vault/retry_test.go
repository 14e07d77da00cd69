package vault

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"", 0, false},
		{"0", 0, true},
		{"1", time.Second, true},
		{" 120 ", 2 * time.Minute, true},
		{"007", 7 * time.Second, true},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1s", 0, false},
		{"0x10", 0, false},
		{"9223372036", 9223372036 * time.Second, true},
		{"9223372037", math.MaxInt64, true},
		{"99999999999999999999999999", math.MaxInt64, true},
		{"99999999999999999999x", 0, false},
		{"Fri, 09 Jan 2026 12:00:30 GMT", 30 * time.Second, true},
		{"Friday, 09-Jan-26 12:00:30 GMT", 30 * time.Second, true},
		{"Fri Jan  9 12:00:30 2026", 30 * time.Second, true},
		{"Fri, 09 Jan 2026 11:00:00 GMT", 0, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64, true},
		{"soon", 0, false},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.value != "" {
			h.Set("Retry-After", tt.value)
		}
		if got, ok := RetryAfter(h, now); got != tt.want || ok != tt.ok {
			t.Errorf("RetryAfter(%q) = %v, %v, want %v, %v", tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "120", "Fri, 09 Jan 2026 12:00:30 GMT", "99999999999999999999", "-1", "Fri, 31 Dec 0000 23:59:59 GMT"} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := RetryAfter(http.Header{"Retry-After": {s}}, now)
		if d < 0 || !ok && d != 0 {
			t.Errorf("RetryAfter(%q) = %v, %v", s, d, ok)
		}
	})
}

// statuses answers with one status after the other, then with the last.
func statuses(header http.Header, list ...int) (http.Handler, *atomic.Int64) {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i := int(n.Add(1)) - 1
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(list[min(i, len(list)-1)])
		_, _ = io.WriteString(w, `{"errors":[]}`)
	}), &n
}

func TestWhichAnswersAreRetried(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, path, body string
		retries            int
		answers            []int
		want               int
		asked              int64
	}{
		{"GET", "/v1/x", "", 2, []int{500, 502, 200}, 200, 3},
		{"GET", "/v1/x", "", 2, []int{503, 504, 200}, 200, 3},
		{"LIST", "/v1/x", "", 2, []int{429, 200}, 200, 2},
		{"SCAN", "/v1/x", "", 2, []int{429, 200}, 200, 2},
		{"HEAD", "/v1/x", "", 2, []int{503, 200}, 200, 2},
		{"GET", "/v1/x", "", 2, []int{503}, 503, 3},
		{"GET", "/v1/x", "", 0, []int{503, 200}, 503, 1},
		{"GET", "/v1/x", "", 2, []int{501, 200}, 501, 1},
		{"GET", "/v1/x", "", 2, []int{412, 200}, 412, 1},
		{"GET", "/v1/x", "", 2, []int{403, 200}, 403, 1},
		{"GET", "/v1/x", "body", 2, []int{503, 200}, 503, 1},
		{"POST", "/v1/x", "", 2, []int{503, 200}, 503, 1},
		{"PUT", "/v1/x", "body", 2, []int{429, 200}, 429, 1},
		{"DELETE", "/v1/x", "", 2, []int{503, 200}, 503, 1},
		{"GET", "/v1/sys/health", "", 2, []int{429, 200}, 429, 1},
		{"HEAD", "/v1/sys/health/", "", 2, []int{503, 200}, 503, 1},
		{"GET", "/v1/sys/seal-status", "", 2, []int{503, 200}, 503, 1},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			t.Parallel()
			h, asked := statuses(nil, tt.answers...)
			p := &pauses{}
			c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, h)}, MaxRetries: tt.retries}, Sleep: p.sleep})
			status, _ := do(t, c.Do, request(t, tt.method, tt.path, tt.body))
			if status != tt.want || asked.Load() != tt.asked {
				t.Errorf("got %d after %d requests, want %d after %d", status, asked.Load(), tt.want, tt.asked)
			}
			if n := int64(len(p.list())); n != tt.asked-1 {
				t.Errorf("%d waits for %d requests", n, tt.asked)
			}
			if c.Requests() != uint64(tt.asked) {
				t.Errorf("%d requests counted, %d seen", c.Requests(), tt.asked)
			}
			if c.places.Free() != c.o.MaxInFlight {
				t.Error("a slot leaked")
			}
		})
	}
}

func TestDoOnceAsksOnce(t *testing.T) {
	t.Parallel()
	h, asked := statuses(nil, 503, 200)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, h)}, MaxRetries: 5}})
	if status, _ := do(t, c.DoOnce, request(t, "GET", "/v1/x", "")); status != 503 || asked.Load() != 1 {
		t.Errorf("got %d after %d requests", status, asked.Load())
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	t.Parallel()
	h, _ := statuses(nil, 503)
	p := &pauses{}
	c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, h)}, MaxRetries: 14}, Sleep: p.sleep})
	do(t, c.Do, request(t, "GET", "/v1/x", ""))
	for n, d := range p.list() {
		want := backoffMost
		if n < 5 {
			want = min(backoffFirst<<n, backoffMost)
		}
		if d < want*3/4 || d > want*5/4 {
			t.Errorf("wait %d is %v, want about %v", n, d, want)
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	cl := newClock()
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "0": backoffFirst,
		cl.Now().Add(20 * time.Second).Format(http.TimeFormat): 20 * time.Second,
	} {
		h, _ := statuses(http.Header{"Retry-After": {value}}, 429, 200)
		p := &pauses{}
		c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, h)}, MaxRetries: 1}, Sleep: p.sleep, Now: cl.Now})
		do(t, c.Do, request(t, "GET", "/v1/x", ""))
		if got := p.list(); len(got) != 1 || got[0] < want || got[0] > want+backoffFirst/4 {
			t.Errorf("Retry-After %q: waited %v", value, got)
		}
	}
}

func TestNeverWaitsPastTheDeadline(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		after    string
		deadline time.Duration // the caller's; 0: none
		client   time.Duration // ClientTimeout
		asked    int64
	}{
		"the caller's deadline is nearer":    {"10", 5 * time.Second, time.Minute, 1},
		"the client's timeout is nearer":     {"10", time.Minute, 5 * time.Second, 1},
		"there is time":                      {"3", 50 * time.Second, time.Minute, 2},
		"no deadline of the caller's":        {"3", 0, time.Minute, 2},
		"a wait for ever":                    {"99999999999999999999", 0, time.Minute, 1},
		"a wait of exactly what is left, no": {"60", 0, time.Minute, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, asked := statuses(http.Header{"Retry-After": {tt.after}}, 429, 200)
			c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, h)}, MaxRetries: 1, ClientTimeout: tt.client}, Sleep: (&pauses{}).sleep})
			req := request(t, "GET", "/v1/x", "")
			if tt.deadline > 0 {
				ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
				defer cancel()
				req = req.WithContext(ctx)
			}
			status, body := do(t, c.Do, req)
			if want := map[int64]int{1: 429, 2: 200}[tt.asked]; asked.Load() != tt.asked || status != want {
				t.Errorf("got %d after %d requests", status, asked.Load())
			}
			if body != `{"errors":[]}` {
				t.Errorf("body %q", body)
			}
		})
	}
}

func TestACallerWhoLeavesEndsTheWait(t *testing.T) {
	t.Parallel()
	h, asked := statuses(nil, 503)
	ctx, cancel := context.WithCancel(t.Context())
	c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, h)}, MaxRetries: 5}, Sleep: func(ctx context.Context, _ time.Duration) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	_, err := c.Do(request(t, "GET", "/v1/x", "").WithContext(ctx))
	wantKind(t, err, Canceled)
	if asked.Load() != 1 || c.places.Free() != c.o.MaxInFlight {
		t.Errorf("%d requests, %d places", asked.Load(), c.o.MaxInFlight-c.places.Free())
	}
}

func TestDialErrorsAreRetriedForEveryMethodWithTheBodyWhole(t *testing.T) {
	t.Parallel()
	addr := newNode(t).addr
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		fails := 2
		c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, MaxRetries: 2}, Sleep: (&pauses{}).sleep, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if fails--; fails >= 0 {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route to host")}
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}})
		body := "the whole body"
		if method == "GET" {
			body = ""
		}
		if status, got := do(t, c.Do, request(t, method, "/v1/x", body)); status != 200 || !strings.Contains(got, body) {
			t.Errorf("%s: got %d %s", method, status, got)
		}
		if c.Requests() != 1 {
			t.Errorf("%s: %d requests counted", method, c.Requests())
		}
	}
}

func TestBodyIsClosedOnceTheCallIsOver(t *testing.T) {
	t.Parallel()
	dead := newScript(t, reset)
	_ = dead.ln.Close()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{dead.url()}, MaxRetries: 1}, Sleep: (&pauses{}).sleep})
	body := &watched{Reader: strings.NewReader("x")}
	req := request(t, "POST", "/v1/x", "x")
	req.Body = body
	_, err := c.Do(req)
	wantKind(t, err, Refused)
	if n := body.closed.Load(); n != 1 {
		t.Errorf("closed %d times", n)
	}
}

type watched struct {
	io.Reader
	closed atomic.Int64
}

func (w *watched) Close() error { w.closed.Add(1); return nil }

func TestClientTimeoutCoversConnectingWaitingAndAsking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		c := n.client(t, Options{Config: config.Config{ClientTimeout: 10 * time.Second, MaxRetries: 3}})
		start := time.Now()
		_, err := c.Do(request(t, "GET", "/v1/x", ""))
		e := wantKind(t, err, Timeout)
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
		if !strings.Contains(e.Error(), "VAULT_CLIENT_TIMEOUT") || StatusFor(err) != 504 {
			t.Errorf("message: %v", e)
		}
	})
}
