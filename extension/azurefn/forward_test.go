package azurefn

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/azure/handler"
)

// serve is a Handler over a child that is a server of the test.
func serve(t *testing.T, child http.Handler, o Options) *httptest.Server {
	t.Helper()
	kid := httptest.NewServer(child)
	t.Cleanup(kid.Close)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Invoked == nil {
		o.Invoked = func(time.Time) {}
	}
	h := &Handler{o: o, base: t.Context(), forward: newForwarder(strings.TrimPrefix(kid.URL, "http://"), o.Log)}
	front := httptest.NewUnstartedServer(h)
	front.Config.DisableGeneralOptionsHandler = true
	front.Start()
	t.Cleanup(func() {
		front.Close()
		h.forward.close()
	})
	return front
}

// exchange sends raw text and returns the raw answer.
func exchange(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestRequestsArriveAsTheyCame(t *testing.T) {
	t.Parallel()
	var got atomic.Pointer[http.Request]
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r)
		w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
		w.WriteHeader(http.StatusTeapot)
	}), Options{})
	for _, c := range []struct{ line, head, wantURI string }{
		{"GET /api/x?a=1;b=%zz&&c", "", "/api/x?a=1;b=%zz&&c"},
		{"GET //double//slash/../up", "", "//double//slash/../up"},
		{"GET /a%2Fb%20c/%E2%82%AC?", "", "/a%2Fb%20c/%E2%82%AC?"},
		{"OPTIONS /api/x", "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-Host: app\r\n", "/api/x"},
		{"PROPFIND /dav", "X-Azure-Functions-InvocationId: 17\r\nX-Azure-Functions-HostVersion: 4.0\r\nCookie: a=b; c=d\r\nX-Multi: 1\r\nX-Multi: 2\r\n", "/dav"},
	} {
		answer := exchange(t, front.URL, c.line+" HTTP/1.1\r\nHost: app.azurewebsites.net\r\n"+c.head+"Connection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 418 ") || strings.Contains(answer, "Date:") || strings.Contains(answer, "Content-Type") {
			t.Errorf("%s: answer %q", c.line, answer)
		}
		r := got.Load()
		method, _, _ := strings.Cut(c.line, " ")
		if r.Method != method || r.RequestURI != c.wantURI || r.Host != "app.azurewebsites.net" {
			t.Errorf("%s: %s %s %s", c.line, r.Method, r.RequestURI, r.Host)
		}
		want := http.Header{}
		for line := range strings.Lines(c.head) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			want.Add(name, value)
		}
		if a, b := handler.Head("", "", "", r.Header), handler.Head("", "", "", want); a != b {
			t.Errorf("%s: headers %v, want %v", c.line, r.Header, want)
		}
		if _, ok := r.Header["User-Agent"]; ok {
			t.Errorf("%s: a User-Agent of ours", c.line)
		}
	}
}

func TestEveryInvocationIsToldBeforeItIsHandedOn(t *testing.T) {
	t.Parallel()
	var told, served atomic.Int32
	front := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if told.Load() != served.Add(1) {
			t.Error("the child was quicker")
		}
	}), Options{Invoked: func(time.Time) { told.Add(1) }})
	get := func(path, id string) int {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+path, nil)
		if id != "" {
			req.Header.Set(InvocationHeader, id)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	get("/", "")
	if told.Load() != 0 || served.Load() != 0 {
		t.Error("the host's look whether the handler lives is no invocation")
	}
	get("/", "1")
	get("/api/x", "")
	if told.Load() != 2 || served.Load() != 2 {
		t.Error(told.Load(), served.Load())
	}
}

func TestStreamsTrailersAndUpgradesPassThrough(t *testing.T) {
	t.Parallel()
	front := serve(t, handler.Handler(""), Options{})
	sent := handler.Body(1, 300_000)
	pr, pw := io.Pipe() // its length is not known
	go func() {
		_, _ = io.Copy(pw, bytes.NewReader(sent))
		pw.Close()
	}()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, front.URL+"/x?stream&seed=9&size=200000", pr)
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !bytes.Equal(body, handler.Body(9, 200_000)) || res.Trailer.Get("X-End") != handler.Digest(body) || res.Header.Get("X-Got-Body") != handler.Digest(sent) {
		t.Error(err, len(body), res.Trailer, res.Header)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(front.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Fatal(string(head), err)
	}
	_, _ = io.WriteString(conn, "\x81\x05hello")
	_ = conn.(*net.TCPConn).CloseWrite()
	rest, _ := io.ReadAll(conn)
	if !bytes.HasSuffix(rest, []byte("\r\n\r\n\x81\x05hello")) {
		t.Errorf("%q", rest)
	}
}

// TestAnAnswerMayBeginBeforeTheRequestEnds: the child answers a request line
// by line.
func TestAnAnswerMayBeginBeforeTheRequestEnds(t *testing.T) {
	t.Parallel()
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.EnableFullDuplex()
		buf := make([]byte, 10)
		for {
			n, err := io.ReadFull(r.Body, buf)
			_, _ = w.Write(bytes.ToUpper(buf[:n]))
			_ = c.Flush()
			if err != nil {
				return
			}
		}
	}), Options{})
	pr, pw := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, front.URL+"/duplex", pr)
	next := make(chan string)
	go func() {
		for part := range next {
			_, _ = io.WriteString(pw, part)
		}
		pw.Close()
	}()
	next <- "0123456789"
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 10)
	for _, part := range []string{"", "abcdefghij", "klmnopqrst"} {
		if part != "" {
			next <- part
		} else {
			part = "0123456789"
		}
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != strings.ToUpper(part) {
			t.Fatal(string(buf), err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Error(rest, err)
	}
}

func TestAChildThatDoesNotAnswerIsA502ThatSaysSo(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	front := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	res, err := http.Post(front.URL+"/fn", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body struct{ Errors []string }
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil || res.StatusCode != http.StatusBadGateway || !strings.HasPrefix(body.Errors[0], "thaw: the function's own handler did not answer") {
		t.Error(res.StatusCode, body, err)
	}
	if !strings.Contains(log.String(), "path=/fn") {
		t.Error(log.String())
	}
}

func TestFunctionsOfOurOwnAnswerInAnEnvelope(t *testing.T) {
	t.Parallel()
	var late bool
	o := Options{Functions: map[string]Function{"Warm": func(_ context.Context, pastDue bool) []string {
		late = pastDue
		return []string{`outcome=complete "quoted" <tag>`}
	}}}
	front := serve(t, http.NotFoundHandler(), o)
	post := func(path, id string) (int, reply) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+path, strings.NewReader(`{"Data":{"timer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":true}},"Metadata":{}}`))
		if id != "" {
			req.Header.Set(InvocationHeader, id)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var r reply
		_ = json.NewDecoder(res.Body).Decode(&r)
		return res.StatusCode, r
	}
	if status, r := post("/Warm", "1"); status != http.StatusOK || len(r.Logs) != 1 || r.Logs[0] != `outcome=complete "quoted" <tag>` || r.Outputs == nil || !late {
		t.Error(status, r, late)
	}
	for _, path := range []string{"/warm", "/api/Warm", "/Warm/", "/"} {
		if status, _ := post(path, "1"); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	if status, _ := post("/Warm", ""); status != http.StatusNotFound {
		t.Error("without an invocation id it is not the host's")
	}
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"Data":{"t":{"IsPastDue":true}}}`:                                      true,
		`{"Data":{"t":{"IsPastDue":false,"ScheduleStatus":{"Last":"garbage"}}}}`: false,
		`{"Data":{"t":"{\"IsPastDue\":true}"}}`:                                  true,
		`{"Data":{"t":"\"text\"","u":17,"v":null}}`:                              false,
		`{"Data":[]}`: false, ``: false, `null`: false,
	} {
		if got := parseEvent([]byte(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"Data":{"t":{"IsPastDue":true}},"Metadata":{}}`))
	f.Add([]byte(`{"Data":{"t":"{\"IsPastDue\":true}"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if parseEvent(text) && !bytes.Contains(bytes.ToLower(text), []byte("ue")) {
			t.Error("past due without a word of it")
		}
	})
}
