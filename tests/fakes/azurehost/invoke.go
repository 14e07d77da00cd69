package azurehost

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// Result is what the host takes from an envelope's answer
// (HttpScriptInvocationResult.cs).
type Result struct {
	Outputs     map[string]json.RawMessage
	Logs        []string
	ReturnValue json.RawMessage

	Sent       []byte `json:"-"` // the envelope
	Invocation string `json:"-"` // its id
}

// Timer fires a timer trigger: an envelope with the schedule's status, which is
// null on the first time.
func (h *Host) Timer(ctx context.Context, function, binding string, pastDue bool) (Result, error) {
	var status any
	if pastDue {
		at := time.Now().UTC().Format("2006-01-02T15:04:05.0000000+00:00")
		status = map[string]string{"Last": at, "Next": at, "LastUpdated": at}
	}
	return h.Envelope(ctx, function, map[string]any{
		binding: map[string]any{"Schedule": map[string]bool{"AdjustForDST": true}, "ScheduleStatus": status, "IsPastDue": pastDue},
	})
}

// Envelope invokes a function of any trigger (ProcessDefaultInvocationRequest).
func (h *Host) Envelope(ctx context.Context, function string, data map[string]any) (Result, error) {
	text, err := json.Marshal(map[string]any{
		"Data": data, "Metadata": map[string]any{"sys": map[string]string{"MethodName": function, "UtcNow": time.Now().UTC().Format(time.RFC3339Nano)}},
	})
	if err != nil {
		return Result{}, err
	}
	res, id, err := h.post(ctx, function, text)
	if err != nil {
		return Result{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return Result{}, fmt.Errorf("read the answer: %w", err)
	}
	// EnsureSuccessStatusCode: the body, and Logs with it, is lost.
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return Result{}, fmt.Errorf("the answer's status does not indicate success: %d", res.StatusCode)
	}
	var out Result
	if err := json.Unmarshal(body, &out); err != nil {
		return Result{}, fmt.Errorf("the answer is none: %w", err)
	}
	out.Sent, out.Invocation = text, id
	return out, nil
}

// post sends an envelope. Its length is not told: JsonMediaTypeFormatter
// writes to the connection.
func (h *Host) post(ctx context.Context, function string, text []byte) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url("/"+url.PathEscape(function)), io.MultiReader(bytes.NewReader(text)))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	id := h.addHeaders(req)
	res, err := h.send(req)
	return res, id, err
}

// addHeaders is AddHeaders of DefaultHttpWorkerService.cs.
func (h *Host) addHeaders(req *http.Request) string {
	id := invocationID()
	req.Header.Set("X-Azure-Functions-HostVersion", Version)
	req.Header.Set("X-Azure-Functions-InvocationId", id)
	if ua := req.Header.Get("User-Agent"); ua != "" {
		req.Header.Set("User-Agent", ua+" Azure-Functions-Host/"+Version)
	} else {
		req.Header.Set("User-Agent", "Azure-Functions-Host/"+Version)
	}
	return id
}

// ErrNotReady says that the host has no handler to invoke.
var ErrNotReady = errors.New("the host has no handler that is initialized")

func (h *Host) send(req *http.Request) (*http.Response, error) {
	if s := h.State(); s != Initialized {
		return nil, fmt.Errorf("%w: it is %s", ErrNotReady, s)
	}
	return h.client.Do(req)
}

// HTTP invokes a function with an HTTP trigger and an HTTP output named res.
// r is the client's request to the host: its URL has path and query, its Host
// the app's name. The caller closes the answer's body.
func (h *Host) HTTP(ctx context.Context, function string, r *http.Request) (*http.Response, error) {
	switch h.cfg.Mode {
	case Forward:
		return h.forward(ctx, r)
	case Proxy:
		return h.proxy(ctx, r)
	}
	return h.httpEnvelope(ctx, function, r)
}

// forward builds the request again: headers as they came, the body only with a
// length (HttpRequestExtensions.ToHttpRequestMessage).
func (h *Host) forward(ctx context.Context, r *http.Request) (*http.Response, error) {
	var body io.Reader
	if r.ContentLength > 0 {
		body = r.Body
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, h.url(""), body)
	if err != nil {
		return nil, err
	}
	req.URL.Path, req.URL.RawPath, req.URL.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	req.Header, req.Host = r.Header.Clone(), r.Host
	req.ContentLength = max(r.ContentLength, 0)
	h.addHeaders(req)
	return h.send(req)
}

// proxy passes the request through, streams and upgrades too, and repeats it
// while the handler cannot be connected to (DefaultHttpProxyService.cs, RetryProxyHandler.cs).
func (h *Host) proxy(ctx context.Context, r *http.Request) (*http.Response, error) {
	req := r.Clone(ctx)
	req.RequestURI = ""
	req.URL.Scheme, req.URL.Host = "http", h.address()
	req.Header.Set("X-Azure-Functions-HostVersion", Version)
	id := invocationID()
	req.Header.Set("X-Azure-Functions-InvocationId", id)
	req.Header.Set("x-ms-invocation-id", id)
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil
	}
	delay := proxyFirstDelay
	for try := 1; ; try++ {
		res, err := h.send(req)
		var op *net.OpError
		if err == nil || try == proxyTries || !errors.As(err, &op) || op.Op != "dial" {
			return res, err
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		delay = min(2*delay, proxyLongestWait)
	}
}

func (h *Host) address() string { u, _ := url.Parse(h.url("")); return u.Host }

// httpEnvelope puts the request into JSON (GetRequestAsJObject) and builds the
// answer from the output named res (GetHttpOutputBindingResponse).
func (h *Host) httpEnvelope(ctx context.Context, function string, r *http.Request) (*http.Response, error) {
	in := map[string]any{
		"Url": "https://" + r.Host + r.URL.RequestURI(), "Method": r.Method, "Headers": r.Header, "Params": map[string]string{}, "Identities": []any{},
	}
	query := map[string]string{}
	for name, values := range r.URL.Query() {
		query[name] = values[len(values)-1]
	}
	in["Query"] = query
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if binaryType(r.Header.Get("Content-Type")) {
			in["Body"] = body // base64
		} else if len(body) > 0 {
			in["Body"] = string(body)
		}
	}
	result, err := h.Envelope(ctx, function, map[string]any{"req": in})
	if err != nil {
		return nil, err
	}
	var out struct {
		StatusCode any
		Status     any
		Body       any
		Headers    map[string]any
	}
	if raw, ok := result.Outputs["res"]; ok {
		if err := json.Unmarshal(raw, &out); err != nil {
			return nil, fmt.Errorf("Output body should have 'StatusCode', 'Status', 'Body', and 'Headers': %w", err)
		}
	}
	res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1}
	for _, s := range []any{out.Status, out.StatusCode} {
		var n int
		if _, err := fmt.Sscan(fmt.Sprint(s), &n); err == nil && n > 0 {
			res.StatusCode = n
		}
	}
	for name, v := range out.Headers {
		res.Header.Set(name, fmt.Sprint(v))
	}
	body, ok := out.Body.(string)
	if !ok && out.Body != nil {
		text, err := json.Marshal(out.Body)
		if err != nil {
			return nil, err
		}
		body = string(text)
	}
	res.Body = io.NopCloser(bytes.NewReader([]byte(body)))
	return res, nil
}

func binaryType(t string) bool { return t == "application/octet-stream" }

// DecodeBody gives the bytes of a body in an envelope.
func DecodeBody(v string, contentType string) ([]byte, error) {
	if binaryType(contentType) {
		return base64.StdEncoding.DecodeString(v)
	}
	return []byte(v), nil
}

// Front serves clients as the host does, for what HTTP cannot show: real
// connections, streams and upgrades. Proxy mode only.
func (h *Host) Front() http.Handler {
	return &httputil.ReverseProxy{
		Transport: h.client.Transport, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", h.address(), p.In.Host
			p.Out.Header.Set("X-Azure-Functions-HostVersion", Version)
			p.Out.Header.Set("X-Azure-Functions-InvocationId", invocationID())
		},
	}
}

// invocationID is a UUID in .NET's way of writing them.
func invocationID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
