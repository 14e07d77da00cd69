package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Call is one request to Vault's API.
type Call struct {
	Method string
	Path   string // below /v1/, with the query if there is one
	Token  string // X-Vault-Token; empty: none
	Body   any    // sent as JSON; nil: no body; []byte: as it is
	Header http.Header
}

// Response is an answer, read whole.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends one request to Vault itself. The error is about the connection; a
// status of any kind is an answer.
func (v *Vault) Do(ctx context.Context, c Call) (*Response, error) {
	return Send(ctx, v.client, v.Addr(), c)
}

// Send sends one request to a server that speaks Vault's API, such as the
// proxy under test.
func Send(ctx context.Context, client *http.Client, addr string, c Call) (*Response, error) {
	var body io.Reader
	switch b := c.Body.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", c.Method, c.Path, err)
		}
		body = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, addr+"/v1/"+strings.TrimPrefix(c.Path, "/"), body)
	if err != nil {
		return nil, err
	}
	for name, values := range c.Header {
		req.Header[name] = values
	}
	if c.Token != "" {
		req.Header.Set("X-Vault-Token", c.Token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", c.Method, c.Path, err)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: b}, nil
}

// Err is nil for a status below 400; else it has the status and the body.
func (r *Response) Err() error {
	if r.Status < 400 {
		return nil
	}
	return fmt.Errorf("status %d: %s", r.Status, bytes.TrimSpace(r.Body))
}

// JSON decodes the body.
func (r *Response) JSON(into any) error {
	if err := json.Unmarshal(r.Body, into); err != nil {
		return fmt.Errorf("decode %.200q: %w", r.Body, err)
	}
	return nil
}

// Data decodes the answer's "data".
func (r *Response) Data() (map[string]any, error) {
	var out struct {
		Data map[string]any `json:"data"`
	}
	err := r.JSON(&out)
	return out.Data, err
}

// Root sends a request with the root token. A status of 400 or more is an
// error that has the request and Vault's answer.
func (v *Vault) Root(ctx context.Context, method, path string, body any) (*Response, error) {
	r, err := v.Do(ctx, Call{Method: method, Path: path, Token: v.rootToken, Body: body})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return r, nil
}

// rootDo is Root without the answer.
func (v *Vault) rootDo(ctx context.Context, method, path string, body any) error {
	_, err := v.Root(ctx, method, path, body)
	return err
}

// randomName is a name nobody else has.
func randomName() string { return strings.ToLower(rand.Text()[:12]) }
