package consistency

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

// script is an origin that gives one answer after the other, and remembers what
// the requests required.
type script struct {
	answers []string // "status state body"; the last again and again
	asked   []http.Header
	active  []bool
	bodies  []string
}

type activeKey struct{}

func (s *script) send(req *http.Request) (*http.Response, error) {
	line := s.answers[min(len(s.asked), len(s.answers)-1)]
	s.asked = append(s.asked, req.Header.Clone())
	s.active = append(s.active, req.Context().Value(activeKey{}) != nil)
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		s.bodies = append(s.bodies, string(body))
	}
	var status int
	status, rest, body := 0, "", ""
	if _, err := fmt.Sscan(line, &status, &rest); err != nil {
		return nil, err
	}
	_, body, _ = strings.Cut(line, rest+" ")
	h := http.Header{"Content-Type": {"application/json"}}
	if rest != "-" {
		h.Set("X-Vault-Index", rest)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
}

const lagging = `412 - {"errors":["required index state not present"]}`

// keep is a Keeper in a bubble, whose clock only waits move.
func keep(o Options) *Keeper {
	o.Headers, o.Wait = true, 2*time.Second
	o.Active = func(ctx context.Context) context.Context { return context.WithValue(ctx, activeKey{}, true) }
	return New(o)
}

func request(t *testing.T, method, path string, body ...string) *http.Request {
	t.Helper()
	var r io.Reader
	if len(body) > 0 {
		r = strings.NewReader(body[0])
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://vault"+path, r)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// as sends a request for a caller.
func as(t *testing.T, k *Keeper, s *script, token string, req *http.Request) *http.Response {
	t.Helper()
	c := cache.New(cache.Options{Bytes: 1 << 20})
	defer c.Close()
	res, err := k.Send(req, c.Access().Caller(token), s.send)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestStatesAreRequiredOfWhoSawThemOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentRetry})
		one := text("c", 1, 1)
		s := &script{answers: []string{"200 " + one + " {}", "200 - {}"}}
		as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "{}"))
		as(t, k, s, "b", request(t, "GET", "/v1/secret/data/x"))
		as(t, k, s, "a", request(t, "GET", "/v1/secret/data/x"))
		if s.asked[1].Get("X-Vault-Index") != "" || s.asked[2].Get("X-Vault-Index") != one {
			t.Errorf("required: %v", s.asked)
		}
	})
}

func TestRetryFallsToTheActiveNodeAfterTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentRetry})
		began := time.Now()
		s := &script{answers: []string{"200 " + text("c", 1, 1) + " {}", lagging}}
		as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "{}"))
		res := as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "body"))
		if took := time.Since(began); res.StatusCode != 412 || took > 2*time.Second || took < 1800*time.Millisecond {
			t.Errorf("%d after %v", res.StatusCode, took)
		}
		for i, active := range s.active {
			if active != (i == len(s.active)-1) {
				t.Errorf("attempt %d of %d: to the active node: %v", i, len(s.active), active)
			}
		}
		for _, b := range s.bodies[1:] {
			if b != "body" {
				t.Errorf("sent again with %q", b)
			}
		}
		if text, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(text), "required index state") {
			t.Errorf("the 412 that is returned holds %q, %v", text, err)
		}
	})
}

func TestAWaitEndsBeforeTheCallersTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentRetry})
		s := &script{answers: []string{"200 " + text("c", 1, 1) + " {}", lagging}}
		as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "{}"))
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		res := as(t, k, s, "a", request(t, "GET", "/v1/secret/data/x").WithContext(ctx))
		if res.StatusCode != 412 || len(s.asked) != 3 || !s.active[2] {
			t.Errorf("%d after %d requests", res.StatusCode, len(s.asked)-1)
		}
	})
}

func TestABodyThatCannotBeSentAgainIsNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentRetry})
		s := &script{answers: []string{"200 " + text("c", 1, 1) + " {}", lagging, "200 - {}"}}
		as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "{}"))
		req := request(t, "POST", "/v1/secret/data/x", "{}")
		req.GetBody = nil
		if res := as(t, k, s, "a", req); res.StatusCode != 412 || len(s.asked) != 2 {
			t.Errorf("%d after %d requests", res.StatusCode, len(s.asked)-1)
		}
	})
}

func TestForwardingThatIsRefusedIsDoneHere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentForward})
		s := &script{answers: []string{
			"200 " + text("c", 1, 1) + " {}",
			`400 - {"errors":["forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration"]}`,
			lagging, "200 - {}",
		}}
		as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "{}"))
		if res := as(t, k, s, "a", request(t, "GET", "/v1/secret/data/x")); res.StatusCode != 200 {
			t.Error(res.StatusCode)
		}
		if s.asked[1].Get("X-Vault-Inconsistent") != "forward-active-node" || s.asked[2].Get("X-Vault-Inconsistent") != "" || !s.active[3] {
			t.Errorf("%v %v", s.asked, s.active)
		}
		as(t, k, s, "a", request(t, "GET", "/v1/secret/data/x"))
		if s.asked[4].Get("X-Vault-Inconsistent") != "" {
			t.Error("it is asked to forward again")
		}
	})
}

func TestOwnHeadersPassAndAreNoState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentForward})
		s := &script{answers: []string{"200 " + text("c", 5, 5) + " {}", lagging}}
		as(t, k, s, "a", request(t, "POST", "/v1/secret/data/x", "{}"))
		for _, h := range []string{"X-Vault-Index", "X-Vault-Inconsistent", "X-Vault-Forward"} {
			req := request(t, "GET", "/v1/secret/data/x")
			req.Header.Set(h, "mine")
			n := len(s.asked)
			if res := as(t, k, s, "a", req); res.StatusCode != 412 || len(s.asked) != n+1 {
				t.Errorf("%s: %d after %d requests", h, res.StatusCode, len(s.asked)-n)
			}
			if got := s.asked[n]; got.Get(h) != "mine" || len(got) != 1 {
				t.Errorf("%s: sent %v", h, got)
			}
		}
	})
}

func TestATokenIssuedJustNowIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const unknown = `403 - {"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`
		for _, when := range []string{"fail", config.InconsistentRetry, config.InconsistentForward} {
			k := keep(Options{When: when})
			s := &script{answers: []string{
				"200 " + text("c", 1, 1) + ` {"auth":{"client_token":"new"}}`,
				unknown, unknown, "200 - {}",
			}}
			as(t, k, s, "", request(t, "POST", "/v1/auth/userpass/login/u", "{}"))
			res := as(t, k, s, "new", request(t, "GET", "/v1/secret/data/x"))
			if res.StatusCode != 200 {
				t.Errorf("%s: %d after %d requests", when, res.StatusCode, len(s.asked)-1)
			}
			if s.asked[1].Get("X-Vault-Index") == "" {
				t.Error("the state of the login is not required of its token")
			}
			// Much later it is a refusal.
			time.Sleep(time.Minute)
			s.answers, s.asked = []string{unknown}, nil
			if res := as(t, k, s, "new", request(t, "GET", "/v1/secret/data/x")); res.StatusCode != 403 || len(s.asked) != 1 {
				t.Errorf("%s, later: %d after %d requests", when, res.StatusCode, len(s.asked))
			}
		}
	})
}

func TestWhatIsRememberedIsBoundedAndNeverTooLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := keep(Options{When: config.InconsistentRetry})
		for i := range maxCallers + 10 {
			time.Sleep(time.Millisecond)
			k.update(holder(fmt.Sprint("token-", i)), func(r *record) { r.take([]string{text("c", i+1, i+1)}, time.Now(), time.Time{}) })
		}
		if len(k.records) > maxCallers {
			t.Errorf("%d callers are remembered", len(k.records))
		}
		if r := k.find(holder("token-0")); !Covers(r.required, text("c", 1, 1)) {
			t.Errorf("who was dropped requires %v", r)
		}
		time.Sleep(lifetime + time.Second)
		if r := k.find(holder("token-500")); r.required != "" {
			t.Error("a state is required for ever")
		}
	})
}
