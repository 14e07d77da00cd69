package consistency

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// TestAQuestionIsNoWrite: what changes nothing requires nothing of what is cached, also
// where it is asked by POST. A confirmation of capabilities is one.
func TestAQuestionIsNoWrite(t *testing.T) {
	t.Parallel()
	for path, write := range map[string]bool{
		"sys/capabilities-self": false, "team/sys/capabilities-self": true, "sys/capabilities": false, "sys/capabilities-accessor": false,
		"auth/token/lookup": false, "auth/token/lookup-self": false, "auth/token/lookup-accessor": false, "sys/wrapping/lookup": false,
		"secret/data/lookup": true, "kv/capabilities-self": true, "auth/token/renew-self": true, "auth/approle/login": true, "sys/wrapping/unwrap": true,
		"auth/token/lookup/more": true, "secret/data/sys/capabilities-self": true,
	} {
		asked := 0
		k := New(Options{
			Wait: time.Second, AtLeast: func(ctx context.Context, _ uint64) context.Context { return ctx },
			Active: func(ctx context.Context) context.Context { return ctx }, Applied: func(context.Context) (uint64, error) { asked++; return 7, nil },
		})
		id := cache.NewOwn()
		res, err := k.Send(request(t, "POST", "/v1/"+path), id, func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"data":{}}`))}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := k.find(whoIs(id)).required != ""; got != write || (asked > 0) != write {
			t.Errorf("%s: required %v, asked for the index %d times; is a write: %v", path, got, asked, write)
		}
	}
}

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
