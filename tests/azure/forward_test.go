package azure

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/tests/azure/handler"
	"github.com/thaw-project/thaw/tests/fakes/azurehost"
	"github.com/thaw-project/thaw/tests/harness"
)

// invocations of each kind, as the issue of the feature demands.
const invocations = 1000

// TestNoInvocationIsLostOrAltered sends every kind of invocation through the
// host, thaw-azure and a user's handler, one at a time and 32 at once, and
// compares what each side got with what the other sent, byte for byte.
func TestNoInvocationIsLostOrAltered(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		mode azurehost.Mode
		one  func(ctx context.Context, h *azurehost.Host, n int) error
	}{
		{"envelope", azurehost.Envelope, oneEnvelope},
		{"forwarded", azurehost.Forward, oneHTTP},
		{"proxied", azurehost.Proxy, oneHTTP},
		{"streamed", azurehost.Proxy, oneStream},
	} {
		for _, concurrency := range []int{1, 32} {
			t.Run(fmt.Sprintf("%s, %d at once", kind.name, concurrency), func(t *testing.T) {
				t.Parallel()
				h := start(t, &app{mode: kind.mode, env: nobody()})
				ready(t, h)
				n := invocations
				if testing.Short() {
					n = 100
				}
				work := make(chan int)
				var wg sync.WaitGroup
				for range concurrency {
					wg.Go(func() {
						for i := range work {
							if err := kind.one(t.Context(), h, i); err != nil {
								t.Errorf("invocation %d: %v", i, err)
							}
							if i%50 == 0 { // as the host does now and then
								if err := h.Ping(t.Context()); err != nil {
									t.Error(err)
								}
							}
						}
					})
				}
				for i := range n {
					work <- i
				}
				close(work)
				wg.Wait()
				if h.Starts() != 1 {
					t.Errorf("%d handlers were started", h.Starts())
				}
			})
		}
	}
}

// oneEnvelope invokes a function that is no HTTP trigger.
func oneEnvelope(ctx context.Context, h *azurehost.Host, n int) error {
	data := map[string]any{"item": map[string]any{"n": n, "text": "quotes \" and <tags> & äöü €", "blob": handler.Body(uint64(n), n%3000)}}
	r, err := h.Envelope(ctx, "QueueFunction", data)
	if err != nil {
		return err
	}
	sum := handler.Digest(r.Sent)
	var got struct {
		Sum, Invocation, Blob string
	}
	for name, to := range map[string]*string{"sum": &got.Sum, "invocation": &got.Invocation, "blob": &got.Blob} {
		if err := json.Unmarshal(r.Outputs[name], to); err != nil {
			return fmt.Errorf("output %s: %w", name, err)
		}
	}
	blob, err := azurehost.DecodeBody(got.Blob, "application/octet-stream")
	switch {
	case err != nil || !bytes.Equal(blob, handler.Body(7, 1000)):
		return fmt.Errorf("the binary output is another: %w", err)
	case got.Sum != sum:
		return fmt.Errorf("the handler got another envelope")
	case got.Invocation != r.Invocation:
		return fmt.Errorf("it got invocation %s and not %s", got.Invocation, r.Invocation)
	case len(r.Logs) != 2 || r.Logs[1] != "and another: äöü €":
		return fmt.Errorf("logs %q", r.Logs)
	case string(r.ReturnValue) != strconv.Quote("returned <&> "+sum) && string(r.ReturnValue) != `"returned \u003c\u0026\u003e `+sum+`"`:
		return fmt.Errorf("return value %s", r.ReturnValue)
	}
	return nil
}

// request is a client's request with everything that could get lost.
func request(n int, stream bool) (*http.Request, []byte) {
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE"}
	method := methods[n%len(methods)]
	q := url.Values{"seed": {strconv.Itoa(n)}, "size": {strconv.Itoa((n * 37) % 20000)}, "a": {"1", "2"}, "ö": {"ü &="}}
	if n%7 == 0 {
		q.Set("status", "418")
	}
	if stream {
		q.Set("stream", "")
		method = "POST"
	}
	var body []byte
	if method != "GET" && method != "DELETE" {
		body = handler.Body(uint64(n)+1e6, (n*53)%30000+1)
	}
	r := httptest.NewRequest(method, "https://app.azurewebsites.net/api/fn%20x/a%2Fb?"+q.Encode(), nil)
	r.RequestURI = ""
	r.Header = http.Header{
		"X-Custom": {"one", "two, three"}, "Cookie": {"a=b; c=\"d e\""}, "X-Forwarded-For": {"203.0.113.7, 10.0.0.1"}, "X-Forwarded-Proto": {"https"},
		"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "X-Ms-Client-Principal-Name": {"jörg"}, "Accept-Encoding": {"gzip, br"},
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/octet-stream")
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if stream {
			r.ContentLength = -1
		}
	} else {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	return r, body
}

func oneHTTP(ctx context.Context, h *azurehost.Host, n int) error { return exchange(ctx, h, n, false) }

func oneStream(ctx context.Context, h *azurehost.Host, n int) error { return exchange(ctx, h, n, true) }

// exchange sends one request with an HTTP trigger and compares.
func exchange(ctx context.Context, h *azurehost.Host, n int, stream bool) error {
	r, sent := request(n, stream)
	want := handler.Head(r.Method, r.URL.RequestURI(), r.Host, r.Header)
	res, err := h.HTTP(ctx, "fn", r)
	if err != nil {
		return err
	}
	got, err := all(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("size"))
	status := http.StatusOK
	if n%7 == 0 {
		status = http.StatusTeapot
	}
	switch {
	case res.StatusCode != status:
		return fmt.Errorf("status %d: %.200s", res.StatusCode, got)
	case !bytes.Equal(got, handler.Body(uint64(n), size)):
		return fmt.Errorf("the answer's body is another: %d bytes, want %d", len(got), size)
	case res.Header.Get("X-Got-Body") != handler.Digest(sent):
		return fmt.Errorf("the request's body arrived altered")
	case res.Header.Get("X-Got-Head") != want:
		return fmt.Errorf("the request's line or headers arrived altered")
	case fmt.Sprint(res.Header["X-Twice"]) != "[one, with a comma two]" || res.Header.Get("Content-Type") != "application/octet-stream" || res.Header.Get("Date") != "":
		return fmt.Errorf("the answer's headers are others: %v", res.Header)
	case res.Header.Get("X-Invocation") == "":
		return fmt.Errorf("the invocation id is missing")
	case stream && res.Trailer.Get("X-End") != handler.Digest(got):
		return fmt.Errorf("the trailer is missing: %v", res.Trailer)
	case !stream && res.ContentLength != int64(size):
		return fmt.Errorf("length %d, want %d", res.ContentLength, size)
	}
	return nil
}

// TestAnHTTPTriggerInAnEnvelopeIsAnswered: without forwarding the host puts the
// request into JSON and makes an answer of the output.
func TestAnHTTPTriggerInAnEnvelopeIsAnswered(t *testing.T) {
	t.Parallel()
	h := start(t, &app{mode: azurehost.Envelope, env: nobody()})
	ready(t, h)
	res, err := h.HTTP(t.Context(), "Hello", httptest.NewRequest(http.MethodPost, "https://app/api/Hello?a=b", strings.NewReader("äöü")))
	harness.Must(t, err)
	body, err := all(res.Body)
	if err != nil || res.StatusCode != http.StatusCreated || res.Header.Get("X-Function") != "Hello" || !bytes.HasPrefix(body, []byte("got ")) {
		t.Errorf("%d %v %q %v", res.StatusCode, res.Header, body, err)
	}
}

func TestAWebSocketUpgradePassesThrough(t *testing.T) {
	t.Parallel()
	h := start(t, &app{mode: azurehost.Proxy, env: nobody()})
	ready(t, h)
	front := httptest.NewServer(h.Front())
	defer front.Close()
	conn, err := net.Dial("tcp", strings.TrimPrefix(front.URL, "http://"))
	harness.Must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	harness.Must(t, err)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "websocket" {
		t.Fatal(res, err)
	}
	for _, frame := range []string{"\x81\x05hello", "\x82\x03\x00\x01\x02"} {
		_, err := io.WriteString(conn, frame)
		harness.Must(t, err)
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != frame {
			t.Errorf("%q %v", got, err)
		}
	}
}

func TestACrashedHandlerIsStartedAgainByTheHost(t *testing.T) {
	t.Parallel()
	h := start(t, &app{mode: azurehost.Proxy, env: nobody(), handler: []string{"spawn"}})
	ready(t, h)
	crash := func() {
		t.Helper()
		// A POST: a GET that finds its connection dead is sent again.
		r := httptest.NewRequest(http.MethodPost, "https://app/crash?status=9", strings.NewReader("x"))
		r.RequestURI = ""
		if res, err := h.HTTP(t.Context(), "fn", r); err == nil {
			res.Body.Close()
		}
	}
	for n := 2; n <= 3; n++ {
		crash()
		harness.Eventually(t, patience, "another handler", func() bool { return h.Starts() == n && h.State() == azurehost.Initialized })
		if err := oneHTTP(t.Context(), h, n); err != nil {
			t.Error(err)
		}
	}
	crash() // the third error
	harness.Eventually(t, patience, "the host stops", func() bool { return h.State() == azurehost.Stopped })
	if !strings.Contains(h.Output(), "fatal: out of luck") || !strings.Contains(h.Output(), "ended with status 9") {
		t.Error("the crash is not reported")
	}
	// No handler, and nothing that one started, is left.
	for line := range strings.Lines(h.Output()) {
		if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "spawned "); ok {
			harness.Eventually(t, patience, "process "+pid+" ends", func() bool { return exec.Command("kill", "-0", pid).Run() != nil })
		}
	}
}

func TestASlowHandlerIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := start(t, &app{mode: azurehost.Forward, env: nobody(), handler: []string{"slow=1500ms"}})
	ready(t, h)
	if err := oneHTTP(t.Context(), h, 1); err != nil {
		t.Error(err)
	}
	if h.Starts() != 1 {
		t.Error(h.Starts())
	}
}

func TestWrongSettingsAreReportedAndStopTheHost(t *testing.T) {
	t.Parallel()
	h := start(t, &app{mode: azurehost.Proxy, env: []string{"THAW_AZURE_RESORCE=x", "VAULT_AUTH_ROLE=r"}})
	harness.Eventually(t, patience, "the host stops", func() bool { return h.State() == azurehost.Stopped })
	for _, want := range []string{"THAW_AZURE_RESORCE", "did you mean THAW_AZURE_RESOURCE?", "VAULT_ADDR", "no managed identity"} {
		if !strings.Contains(h.Output(), want) {
			t.Errorf("no %q in:\n%s", want, h.Output())
		}
	}
}
