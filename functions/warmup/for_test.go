package warmup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
)

// slowAsker answers the first few questions for the cursor, fails the next, and
// leaves all others open until their context ends, as behind a full queue.
type slowAsker struct {
	Asker
	left  atomic.Int64  // answers it still gives
	stuck chan struct{} // closed at the first question that is left open
}

func slow(o *Options, answers int64) *slowAsker {
	a := &slowAsker{Asker: o.Asker, stuck: make(chan struct{})}
	a.left.Store(answers)
	o.Asker = a
	return a
}

func (a *slowAsker) Leader(ctx context.Context) (vault.Leader, error) {
	switch n := a.left.Add(-1); {
	case n >= 0:
		return a.Asker.Leader(ctx)
	case n == -1:
		return vault.Leader{}, errors.New("cut off")
	case n == -2:
		close(a.stuck)
	}
	<-ctx.Done()
	return vault.Leader{}, context.Cause(ctx)
}

// TestARunThatEndsDuringACheckIsComplete: what it was to do is done, and its
// last check was a second ago.
func TestARunThatEndsDuringACheckIsComplete(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("a", "x")
	s.run(s.warmer(nil, "secret/"), Order{})
	s.origin.ResetCounts()
	var asker *slowAsker
	sum := s.run(s.warmer(func(o *Options) { asker = slow(o, 1) }, "secret/"), Order{For: 3 * time.Second})
	<-asker.stuck
	expect(t, sum, "modified", 0, 0, 1, 0)
	if !sum.Complete || sum.Resume != nil {
		t.Errorf("summary %+v", sum)
	}
	// A run that never knew has something left to do.
	sum = s.run(s.warmer(func(o *Options) { slow(o, -1) }, "secret/"), Order{For: 200 * time.Millisecond})
	if sum.Complete || sum.Resume == nil {
		t.Errorf("summary %+v", sum)
	}
	if n := s.origin.Counts()["GET /v1/secret/data/a"]; n > 0 {
		t.Errorf("%d reads for a question without an answer", n)
	}
}

// TestAQuestionForTheCursorThatFailedIsAskedAgain: reading every secret costs
// more.
func TestAQuestionForTheCursorThatFailedIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway} {
		s := newScene(t)
		s.put("a", "x")
		s.run(s.warmer(nil, "secret/"), Order{})
		s.origin.ResetCounts()
		var refused atomic.Int64
		s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/sys/leader" || refused.Add(1) > 1 {
				return false
			}
			w.WriteHeader(status)
			return true
		})
		expect(t, s.run(s.warmer(nil, "secret/"), Order{}), "modified", 0, 0, 1, 0)
		if n := s.origin.Counts()["GET /v1/secret/data/a"]; n > 0 || refused.Load() != 2 {
			t.Errorf("status %d: %d reads, %d questions", status, n, refused.Load())
		}
	}
}

// TestAListThatFailedForNowLeavesThePassIncomplete: what is below it was not
// even seen, and a standing cursor must not hide it from the next pass.
func TestAListThatFailedForNowLeavesThePassIncomplete(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("app/a", "x")
	s.put("other/b", "x")
	s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/secret/metadata/app" {
			return false
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	sum := s.run(s.legacy("secret/"), Order{})
	if sum.Complete || sum.Failed["secret/app/"] == "" || sum.Fetched != 1 {
		t.Errorf("summary %+v", sum)
	}
	s.origin.SetFault(nil)
	sum = s.run(s.legacy("secret/"), Order{})
	if !sum.Complete || !s.tier.has("secret/data/app/a", "x") {
		t.Errorf("summary %+v", sum)
	}
}

// TestAForeignAnswerIsAnAbsentOrigin: whatever answers in the origin's place, nothing
// is taken from the shared cache by it, and the next pass does what is left.
func TestAForeignAnswerIsAnAbsentOrigin(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"/v1/secret/data/app/a", "/v1/secret/metadata/app", "/v1/sys/internal/ui/mounts"} {
		for _, c := range []struct {
			status     int
			kind, body string
		}{
			{200, "text/html", "<html>"}, {200, "application/json", `{"status":"maintenance"}`}, {204, "", ""},
			{403, "application/json", `{"message":"Forbidden"}`}, {403, "text/html", "<html>"},
			{404, "", ""}, {404, "application/json", `{"message":"not found"}`}, {404, "text/html", `{"errors":[]}`},
		} {
			t.Run(fmt.Sprintf("%s, %d %q", prefix, c.status, c.body), func(t *testing.T) {
				t.Parallel() // each waits for its origin
				s := newScene(t)
				s.put("app/a", "x")
				s.run(s.warmer(nil, "secret/"), Order{})
				s.put("app/a", "y")
				s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, prefix) {
						return false
					}
					w.Header().Set("Content-Type", c.kind)
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
					return true
				})
				if sum := s.run(s.warmer(nil, "secret/"), Order{}); sum.Complete || sum.Removed > 0 || !s.tier.has("secret/data/app/a", "x") {
					t.Errorf("%+v", sum)
				}
				s.origin.SetFault(nil)
				if sum := s.run(s.warmer(nil, "secret/"), Order{}); !sum.Complete || !s.tier.has("secret/data/app/a", "y") {
					t.Errorf("afterwards: %+v", sum)
				}
			})
		}
	}
}

// TestACacheInBetweenTellsTheWarmUpNothing: what it gives may be of before, so it takes
// nothing from the shared cache, and the next pass does what is left.
func TestACacheInBetweenTellsTheWarmUpNothing(t *testing.T) {
	t.Parallel()
	const nothing, list = `{"errors":[]}`, `{"request_id":"r","lease_id":"","data":{"keys":["b"]},"wrap_info":null,"auth":null}`
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"/v1/secret/data/app/a", 404, nothing}, {"/v1/secret/data/app/a", 403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`},
		{"/v1/secret/metadata/app", 404, nothing}, {"/v1/secret/metadata/app", 200, list},
	} {
		for name, value := range map[string]string{"Age": "7", "X-Cache": "HIT"} {
			s := newScene(t)
			s.put("app/a", "x")
			s.put("app/b", "x")
			s.run(s.warmer(nil, "secret/"), Order{})
			s.put("app/a", "y")
			s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != c.path {
					return false
				}
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set(name, value)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			})
			if sum := s.run(s.warmer(nil, "secret/"), Order{}); sum.Removed > 0 || !s.tier.has("secret/data/app/a", "x") {
				t.Errorf("%s, %d with %s: %+v", c.path, c.status, name, sum)
			}
			s.origin.SetFault(nil)
			if sum := s.run(s.warmer(nil, "secret/"), Order{}); !sum.Complete || !s.tier.has("secret/data/app/a", "y") {
				t.Errorf("%s, %d with %s, afterwards: %+v", c.path, c.status, name, sum)
			}
		}
	}
}

// TestALoginThatSomethingElseAnswersIsAnAbsentOrigin: its refusal ends no run.
func TestALoginThatSomethingElseAnswersIsAnAbsentOrigin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status     int
		kind, body string
		away       bool
	}{
		{200, "text/html", "<html>", true}, {403, "text/html", "<html>", true}, {403, "application/json", `{"message":"Forbidden"}`, true}, {404, "", "", true},
		{400, "application/json", `{"errors":["invalid role or secret ID"]}`, false}, {403, "application/json", `{"errors":["permission denied"]}`, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		client, err := vault.New(vault.Options{Config: config.Config{Addrs: []string{server.URL}, ClientTimeout: 5 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := auth.New(auth.Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAppRole, RoleID: "r", SecretID: "s"}}, Origin: client})
		if err != nil {
			t.Fatal(err)
		}
		if err := NewOrigin(client, tokens).Ready(t.Context()); err == nil || isAway(err) != c.away {
			t.Errorf("%d %q: away %v, want %v: %v", c.status, c.body, isAway(err), c.away, err)
		}
		tokens.Shutdown(t.Context())
		client.Close()
		server.Close()
	}
}
