package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Request makes a request of thaw's own to the origin. path is the API's, without
// /v1/ and perhaps with a query; namespace, token and body may be empty or nil. The
// body goes as JSON. Whoever sends it adds the address.
func Request(ctx context.Context, method, namespace, path, token string, body any) (*http.Request, error) {
	content := io.Reader(http.NoBody)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "/", content)
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(path, "?")
	req.URL = &url.URL{Path: "/v1/" + path, RawQuery: query}
	req.Header.Set("X-Vault-Request", "true")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if namespace = strings.Trim(namespace, "/"); namespace != "" {
		req.Header.Set("X-Vault-Namespace", namespace)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	return req, nil
}

// Again returns a copy of a request to send it once more. ok is false where its body
// cannot be had again.
func Again(req *http.Request) (again *http.Request, ok bool) {
	again = req.Clone(req.Context())
	if req.Body == nil || req.Body == http.NoBody {
		return again, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	again.Body = body
	return again, err == nil
}
