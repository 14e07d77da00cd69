package consistency

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWhatAWriteMayHaveChanged is the table: only a refusal of Vault's own is
// certain to have changed nothing.
func TestWhatAWriteMayHaveChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		status int
		kind   string
		body   string
		index  bool // the state of the storage is required from then on
	}{
		"done":                   {"PUT", 200, "application/json", `{"request_id":"r","data":null}`, true},
		"done, nothing to say":   {"PUT", 204, "", "", true},
		"refused":                {"PUT", 400, "application/json", `{"errors":["x"]}`, false},
		"denied":                 {"PUT", 403, "application/json", `{"errors":["permission denied"]}`, false},
		"not there":              {"PUT", 404, "application/json", `{"errors":[]}`, false},
		"a gateway's refusal":    {"PUT", 403, "application/json", `{"message":"Forbidden"}`, true},
		"a page":                 {"PUT", 400, "text/html", `<html></html>`, true},
		"a balancer's time-out":  {"PUT", 408, "text/html", ``, true},
		"an unknown outcome":     {"PUT", 500, "application/json", `{"errors":["audit"]}`, true},
		"a read":                 {"GET", 200, "application/json", `{"request_id":"r","data":{}}`, false},
		"a read that is refused": {"GET", 403, "text/html", `<html></html>`, false},
	} {
		k := New(Options{
			Wait: time.Second, AtLeast: func(ctx context.Context, _ uint64) context.Context { return ctx },
			Active: func(ctx context.Context) context.Context { return ctx }, Applied: func(context.Context) (uint64, error) { return 7, nil },
		})
		res := &http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {c.kind}}, Body: io.NopCloser(strings.NewReader(c.body)), ContentLength: int64(len(c.body))}
		states, _ := k.written(request(t, c.method, "secret/data/app"), res)
		if got := strings.Join(states, ","); (got == "raft:7") != c.index || got != "" && !c.index {
			t.Errorf("%s: %q is required", name, got)
		}
		if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != c.body {
			t.Errorf("%s: %q is left, %v", name, rest, err)
		}
	}
}
