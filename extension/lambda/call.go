package lambda

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/thaw-project/thaw/extension/wait"
)

// Headers of the Extensions API.
const (
	headerName  = "Lambda-Extension-Name"
	headerID    = "Lambda-Extension-Identifier"
	headerError = "Lambda-Extension-Function-Error-Type"
)

// typeUnknownFailure is for InitError and ExitError where the caller has no
// type. Lambda takes any string and recommends <category>.<reason>.
const typeUnknownFailure = "Extension.UnknownFailure"

// ErrNotRegistered is returned by calls that need a registration first.
var ErrNotRegistered = errors.New("the extension is not registered")

// APIError is an answer of the Extensions API that refuses a call.
type APIError struct {
	Call    string // the path under /2020-01-01/extension/
	Status  int    // HTTP status
	Type    string // errorType of the body, as "Extension.InvalidExtensionState"; may be empty
	Message string // errorMessage of the body; may be empty
}

// Error quotes what the API sent, so that it cannot forge log lines.
func (e *APIError) Error() string {
	s := fmt.Sprintf("extensions API: %s: status %d", e.Call, e.Status)
	if e.Type != "" {
		s += fmt.Sprintf(", %q", e.Type)
	}
	if e.Message != "" {
		s += fmt.Sprintf(": %q", e.Message)
	}
	return s
}

// Register tells Lambda that the extension is there and which events it wants.
// The runtime starts only after every extension has registered. Under Managed
// Instances only Shutdown is offered: with Invoke the error is an *APIError of the type
// Extension.InvalidEventType, and the registration is still open. Register tries again
// for a second where nothing listens yet. It does so for no other error: a second
// registration after a lost answer would be refused.
func (c *Client) Register(ctx context.Context, events ...EventType) error {
	if c.o.Name == "" {
		return errors.New("extensions API: register: the extension's file name is unknown")
	}
	body, _ := json.Marshal(map[string][]EventType{"events": events}) // strings always can be
	var head http.Header
	var answer []byte
	var err error
	for tries := 1; ; tries++ {
		// On the connection that Next will use: another costs a tenth of the start.
		head, answer, err = c.call(ctx, c.next, http.MethodPost, "register", bytes.NewReader(body), http.Header{
			headerName:     {c.o.Name},
			"Content-Type": {"application/json"},
		})
		// AWS's emulator may start an extension before it listens. A connection that was refused carried nothing.
		if !errors.Is(err, syscall.ECONNREFUSED) || tries == maxRefused || wait.For(ctx, refusedPause) != nil {
			break
		}
	}
	c.settle() // what arrived was no event
	if err != nil {
		return err
	}
	if _, err := object(answer); err != nil {
		return fmt.Errorf("extensions API: register: read answer: %w", err)
	}
	id := head.Get(headerID)
	if id == "" || len(id) > 256 {
		return fmt.Errorf("extensions API: register: the answer has no usable %s header (%d bytes)", headerID, len(id))
	}
	c.id.Store(id)
	c.invokes.Store(slices.Contains(events, Invoke))
	return nil
}

// InitError reports that the extension cannot start; Lambda fails the init and
// shows typ and err's text. It needs a registration and is refused after the
// first Next. The process should exit soon after. err must hold no secret.
func (c *Client) InitError(ctx context.Context, typ string, err error) error {
	return c.report(ctx, "init/error", typ, err)
}

// ExitError reports why the extension is about to exit; see InitError.
func (c *Client) ExitError(ctx context.Context, typ string, err error) error {
	return c.report(ctx, "exit/error", typ, err)
}

func (c *Client) report(ctx context.Context, call, typ string, cause error) error {
	id := c.identifier()
	if id == "" {
		return fmt.Errorf("extensions API: %s: %w", call, ErrNotRegistered)
	}
	if typ == "" {
		typ = typeUnknownFailure // the header must not be empty: 403 Extension.MissingHeader
	}
	message := ""
	if cause != nil {
		message = short(cause.Error(), 8<<10) // what counts stands at its beginning
	}
	body, _ := json.Marshal(struct {
		Message string   `json:"errorMessage"`
		Type    string   `json:"errorType"`
		Stack   []string `json:"stackTrace"`
	}{message, typ, []string{}})
	_, _, err := c.call(ctx, c.calls, http.MethodPost, call, bytes.NewReader(body), http.Header{
		headerID:       {id},
		headerError:    {typ},
		"Content-Type": {"application/vnd.aws.lambda.error+json"},
	})
	return err
}

// call sends one call and returns the head and body of a 2xx answer, of 200 alone where
// an event is asked for.
func (c *Client) call(ctx context.Context, by *http.Transport, method, call string, body io.Reader, head http.Header) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.o.API+"/2020-01-01/extension/"+call, body)
	if err != nil {
		return nil, nil, fmt.Errorf("extensions API: %s: %w", call, err)
	}
	req.Header = head
	// The transport, not http.Client: no redirect may carry the identifier away.
	resp, err := by.RoundTrip(req)
	if err != nil {
		return nil, nil, fmt.Errorf("extensions API: %s: %w", call, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(answer) > maxBody {
		err = fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 || method == http.MethodGet && resp.StatusCode != http.StatusOK {
		return nil, nil, refusal(call, resp.StatusCode, answer)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("extensions API: %s: read answer: %w", call, err)
	}
	return resp.Header, answer, nil
}

// object reads a JSON object. Decoding into a map costs a fraction of what the
// first decoding into a struct does, and each document is met once.
func object(b []byte) (map[string]any, error) {
	var v any
	var unusual *json.UnmarshalTypeError // a number out of range, say: it is left out
	if err := json.Unmarshal(b, &v); err != nil && !errors.As(err, &unusual) {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the answer is no JSON object")
	}
	return m, nil
}

// text is v where it is a string, or empty.
func text(v any) string {
	s, _ := v.(string)
	return s
}

// refusal reads the API's error document; any other text leaves it empty.
func refusal(call string, status int, body []byte) *APIError {
	doc, _ := object(body)
	return &APIError{Call: call, Status: status, Type: short(text(doc["errorType"]), 512), Message: short(text(doc["errorMessage"]), 512)}
}

// short cuts s to limit bytes, at a whole rune.
func short(s string, limit int) string {
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
