package backoff

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitsThatTheOriginAsksForAreUnderstood(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := func(pairs ...string) http.Header {
		out := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			out.Set(pairs[i], pairs[i+1])
		}
		return out
	}
	for name, c := range map[string]struct {
		header http.Header
		body   string
		want   time.Duration
		ok     bool
	}{
		"nothing":               {header: h()},
		"seconds":               {header: h("Retry-After", "7"), want: 7 * time.Second, ok: true},
		"a date":                {header: h("Retry-After", "Fri, 02 Jan 2026 03:05:05 GMT"), want: time.Minute, ok: true},
		"a date that passed":    {header: h("Retry-After", "Fri, 02 Jan 2026 03:00:00 GMT"), ok: true},
		"garbage":               {header: h("Retry-After", "soon")},
		"reset in seconds":      {header: h("X-Ratelimit-Reset", "3"), want: 3 * time.Second, ok: true},
		"reset at a moment":     {header: h("X-Ratelimit-Reset", "1767323065"), want: 20 * time.Second, ok: true},
		"the longest counts":    {header: h("Retry-After", "2", "X-Ratelimit-Reset", "5"), body: "it will be released in 4s", want: 5 * time.Second, ok: true},
		"text in a header":      {header: h("X-Message", "Quota will be released in 1m30s."), want: 90 * time.Second, ok: true},
		"text in the body":      {header: h(), body: `{"errors":["rate limit; will be released in 1.5s"]}`, want: 1500 * time.Millisecond, ok: true},
		"in words":              {header: h(), body: "WILL BE RELEASED IN 30 seconds", want: 30 * time.Second, ok: true},
		"in minutes":            {header: h(), body: "will be released in 2 minutes", want: 2 * time.Minute, ok: true},
		"in milliseconds":       {header: h(), body: "will be released in 250 milliseconds", want: 250 * time.Millisecond, ok: true},
		"a bare number":         {header: h(), body: "will be released in 12", want: 12 * time.Second, ok: true},
		"no duration":           {header: h(), body: "will be released in a while"},
		"for ever":              {header: h("Retry-After", "99999999999999999999"), want: longest, ok: true},
		"for ever, in the text": {header: h(), body: "will be released in 99999999h", want: longest, ok: true},
	} {
		if got, ok := askedWait(c.header, []byte(c.body), now); got != c.want || ok != c.ok {
			t.Errorf("%s: %s %t, want %s %t", name, got, ok, c.want, c.ok)
		}
	}
}

func FuzzAskedWait(f *testing.F) {
	for _, s := range []string{"will be released in 1m", "will be released in 5 min", "will be released in µ", "3", "-1", "1e9", "WILL BE RELEASED IN 1.5.5s"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, header, body string) {
		now := time.Unix(1767323045, 0)
		h := http.Header{"Retry-After": {header}, "X-Ratelimit-Limit": {header}, "X-Ratelimit-Remaining": {body}, "X-Ratelimit-Reset": {body}, "X-Text": {header}}
		if d, ok := askedWait(h, []byte(body), now); d < 0 || d > longest || !ok && d != 0 {
			t.Errorf("%q %q: %s", header, body, d)
		}
		if l := readLimit(h, now); l.known && (l.most <= 0 || l.remaining < 0 || l.reset <= 0 || l.reset > longest) {
			t.Errorf("%q %q: %+v", header, body, l)
		}
	})
}

func enter(t *testing.T, g *Backoff) Ticket {
	t.Helper()
	k, err := g.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRefusalsOfOneMomentAreOneAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Attempts: 2})
		a, b, c := enter(t, g), enter(t, g), enter(t, g)
		for _, k := range []Ticket{a, b, c} {
			g.Leave(k, http.StatusTooManyRequests, nil, nil)
		}
		if s := g.Stats(); s.Attempts != 1 || s.Refused != 3 {
			t.Errorf("%+v", s)
		}
		g.Leave(enter(t, g), http.StatusTooManyRequests, nil, nil)
		if _, err := g.Enter(t.Context()); !errors.Is(err, ErrGivenUp) {
			t.Errorf("after as many attempts as allowed: %v", err)
		}
		g.Cycle()
		g.Leave(enter(t, g), http.StatusOK, nil, nil)
	})
}

func TestOneRequestGoesFirstAfterAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		g.Leave(enter(t, g), http.StatusTooManyRequests, http.Header{"Retry-After": {"2"}}, nil)
		began := time.Now()
		entered := make(chan Ticket, 3)
		for range 3 {
			go func() {
				k, err := g.Enter(t.Context())
				if err == nil {
					entered <- k
				}
			}()
		}
		first := <-entered
		if d := time.Since(began); d < 2*time.Second || d > 2*time.Second+late {
			t.Errorf("waited %s, want 2s", d)
		}
		synctest.Wait()
		if len(entered) != 0 {
			t.Error("others went before the first was answered")
		}
		g.Leave(first, http.StatusOK, nil, nil)
		g.Leave(<-entered, http.StatusOK, nil, nil)
		g.Leave(<-entered, http.StatusOK, nil, nil)
	})
}

func TestAWaiterLeavesWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		k := enter(t, g)
		g.Leave(k, http.StatusTooManyRequests, http.Header{"Retry-After": {"3600"}}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// TestAWaiterLearnsThatTheCycleIsGivenUp before a wait of minutes is over.
func TestAWaiterLearnsThatTheCycleIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Attempts: 1})
		one, two := enter(t, g), enter(t, g)
		g.Leave(one, http.StatusOK, http.Header{"X-Ratelimit-Limit": {"100"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"600"}}, nil)
		began, over := time.Now(), make(chan error)
		go func() {
			_, err := g.Enter(t.Context())
			over <- err
		}()
		synctest.Wait()
		g.Leave(two, http.StatusTooManyRequests, nil, nil)
		if err := <-over; !errors.Is(err, ErrGivenUp) || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestARequestWithoutAnAnswerDoesNotBlockTheGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		g.Leave(enter(t, g), http.StatusTooManyRequests, nil, nil)
		g.Leave(enter(t, g), 0, nil, nil) // the first to try again broke
		g.Leave(enter(t, g), http.StatusOK, nil, nil)
		g.Leave(enter(t, g), http.StatusOK, nil, nil)
	})
}

func TestBackoffDoublesUntilARequestPasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Rand: func(n int64) int64 { return n - 1 }})
		for i, want := range []time.Duration{backoffFirst, 2 * backoffFirst, 4 * backoffFirst} {
			g.Leave(enter(t, g), http.StatusTooManyRequests, nil, nil)
			began := time.Now()
			k := enter(t, g)
			if d := time.Since(began); d != want {
				t.Errorf("wait %d: %s, want %s", i, d, want)
			}
			g.Leave(k, 0, nil, nil)
		}
		g.Leave(enter(t, g), http.StatusOK, nil, nil)
		g.Leave(enter(t, g), http.StatusTooManyRequests, nil, nil)
		began := time.Now()
		g.Leave(enter(t, g), http.StatusOK, nil, nil)
		if d := time.Since(began); d > backoffFirst {
			t.Errorf("after a success the wait is %s", d)
		}
	})
}

type plain struct{ *http.Client }

func (p plain) DoOnce(req *http.Request) (*http.Response, error) { return p.Do(req) }

func TestTheClientSendsWhatWasRefusedAgain(t *testing.T) {
	t.Parallel()
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if bodies = append(bodies, string(b)); len(bodies) < 3 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, "done")
	}))
	defer server.Close()
	c := NewClient(plain{server.Client()}, New(Options{Attempts: 5, Rand: func(int64) int64 { return 0 }}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("login"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "done" || strings.Join(bodies, ",") != "login,login,login" {
		t.Errorf("%q after %q", b, bodies)
	}
}

func TestTheClientGivesUpWithTheGate(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	defer server.Close()
	g := New(Options{Attempts: 3, Rand: func(int64) int64 { return 0 }})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(plain{server.Client()}, g).DoOnce(req); !errors.Is(err, ErrGivenUp) || g.Stats().Refused != 3 || g.Stats().GivenUp != 1 {
		t.Errorf("%v, %+v", err, g.Stats())
	}
}
