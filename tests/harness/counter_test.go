package harness

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI())
}

func countEcho(t *testing.T, tls bool) (*Counter, *http.Client) {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(origin.Close)
	c := Count(t, CounterConfig{Origin: origin.URL, TLS: tls})
	client := newClient()
	t.Cleanup(client.CloseIdleConnections)
	return c, client
}

func get(ctx context.Context, client *http.Client, addr, path string) (int, string, error) {
	r, err := Send(ctx, client, addr, Call{Method: http.MethodGet, Path: path})
	if err != nil {
		return 0, "", err
	}
	return r.Status, string(r.Body), nil
}

func TestCounterCountsAndLeavesRequestsAsTheyAre(t *testing.T) {
	t.Parallel()
	c, client := countEcho(t, false)
	for range 3 {
		if _, body, err := get(t.Context(), client, c.Addr(), "a%2Fb//c?x=1;y&z"); err != nil || body != "GET /v1/a%2Fb//c?x=1;y&z" {
			t.Fatalf("the origin saw %q, %v", body, err)
		}
	}
	if _, err := Send(t.Context(), client, c.Addr(), Call{Method: "LIST", Path: "l"}); err != nil {
		t.Fatal(err)
	}
	if c.Total() != 4 || c.Count("GET", "") != 3 || c.Count("", "/v1/a%2Fb*") != 3 || c.Count("LIST", "/v1/l") != 1 {
		t.Errorf("counts:\n%s", c)
	}
	rs := c.Requests()
	if rs[0].Query != "x=1;y&z" || rs[0].Status != 200 || rs[0].Remote != rs[1].Remote || rs[3].Seq != 3 {
		t.Errorf("timeline: %+v", rs)
	}
	c.Reset()
	if c.Total() != 0 {
		t.Error("counts after Reset")
	}
}

func TestCounterCutRefusesAndMendTakesTheSamePort(t *testing.T) {
	t.Parallel()
	c, client := countEcho(t, false)
	for range 3 {
		if _, _, err := get(t.Context(), client, c.Addr(), "x"); err != nil {
			t.Fatal(err)
		}
		c.Cut()
		_, _, first := get(t.Context(), client, c.Addr(), "x") // may meet the dead connection
		_, _, again := get(t.Context(), client, c.Addr(), "x")
		if first == nil || !errors.Is(again, syscall.ECONNREFUSED) {
			t.Fatalf("while cut: %v, then %v; want a refused connection", first, again)
		}
		if n := c.Connections(); n != 0 {
			t.Errorf("%d connections while cut", n)
		}
		if err := c.Mend(); err != nil {
			t.Fatal(err)
		}
	}
	if c.Total() != 3 {
		t.Errorf("counted %d, want 3", c.Total())
	}
}

func TestCounterCutEndsARequestInFlight(t *testing.T) {
	t.Parallel()
	c, client := countEcho(t, false)
	c.Stall()
	failed := make(chan error, 1)
	go func() { _, _, err := get(t.Context(), client, c.Addr(), "x"); failed <- err }()
	if err := poll(t.Context(), time.Millisecond, func() bool { return c.Total() == 1 }); err != nil {
		t.Fatal(err)
	}
	c.Cut()
	if err := <-failed; err == nil {
		t.Error("a request in flight survived the cut")
	}
}

func TestCounterStallAnswersNothingUntilMended(t *testing.T) {
	t.Parallel()
	c, client := countEcho(t, false)
	c.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := get(ctx, client, c.Addr(), "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while stalled: %v", err)
	}
	answered := make(chan error, 1)
	go func() { _, _, err := get(t.Context(), client, c.Addr(), "y"); answered <- err }()
	if err := poll(t.Context(), time.Millisecond, func() bool { return c.Total() == 2 }); err != nil {
		t.Fatal(err)
	}
	if err := c.Mend(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("after Mend: %v", err)
	}
}

func TestCounterInjectsAFewTimesForAPath(t *testing.T) {
	t.Parallel()
	c, client := countEcho(t, false)
	c.Inject(Fault{Path: "/v1/secret/*", Status: 503, Times: 2, Header: http.Header{"Retry-After": {"1"}}})
	var got []int
	for _, path := range []string{"secret/a", "kv/a", "secret/b", "secret/a"} {
		status, body, err := get(t.Context(), client, c.Addr(), path)
		if err != nil || status == 503 && !strings.Contains(body, `"errors"`) {
			t.Fatal(body, err)
		}
		got = append(got, status)
	}
	if want := [4]int{503, 200, 503, 200}; [4]int(got) != want {
		t.Errorf("statuses %v, want %v", got, want)
	}
}

func TestCounterDelays(t *testing.T) {
	t.Parallel()
	c, client := countEcho(t, false)
	c.Delay(30 * time.Millisecond)
	if _, _, err := get(t.Context(), client, c.Addr(), "x"); err != nil {
		t.Fatal(err)
	}
	took := func() bool { return c.Requests()[0].Took >= 30*time.Millisecond }
	if err := poll(t.Context(), time.Millisecond, took); err != nil {
		t.Errorf("answered after %v", c.Requests()[0].Took)
	}
}

func TestCounterSpeaksTLSWithACAOfItsOwn(t *testing.T) {
	t.Parallel()
	c, plain := countEcho(t, true)
	if _, _, err := get(t.Context(), plain, c.Addr(), "x"); err == nil {
		t.Error("a client that knows nothing of the CA was content")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.CA().Pool()}}}
	defer client.CloseIdleConnections()
	if _, _, err := get(t.Context(), client, c.Addr(), "x"); err != nil {
		t.Error(err)
	}
	c.Cut()
	if _, _, err := get(t.Context(), client, c.Addr(), "x"); err == nil {
		t.Error("answered while cut")
	}
}

func TestCounterDropsTheConnectionWhenTheOriginIsGone(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(echo))
	c := Count(t, CounterConfig{Origin: origin.URL})
	origin.Close()
	client := newClient()
	defer client.CloseIdleConnections()
	if status, _, err := get(t.Context(), client, c.Addr(), "x"); err == nil {
		t.Errorf("status %d from an origin that is gone", status)
	}
	other := httptest.NewServer(http.HandlerFunc(echo))
	defer other.Close()
	if err := c.SetOrigin(other.URL); err != nil {
		t.Fatal(err)
	}
	if _, _, err := get(t.Context(), client, c.Addr(), "x"); err != nil {
		t.Error(err)
	}
}
