package compat

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// rawAnswer sends a request line as it is, which no client library would, and
// reads one answer.
func rawAnswer(t testing.TB, addr, method, target, token string) *harness.Response {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	harness.Must(t, err)
	defer c.Close()
	harness.Must(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:8200\r\nX-Vault-Token: %s\r\nConnection: close\r\n\r\n", method, target, token)
	harness.Must(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	harness.Must(t, err)
	return &harness.Response{Status: res.StatusCode, Header: res.Header, Body: body}
}

// TestG3EverySpellingIsAnsweredAsVaultDoes asks thaw and Vault the same, with
// everything cached that could be mistaken for it: same status and body, but
// for the request_id. Dot segments are refused by thaw itself: no answer of
// Vault's has a use for them, and below a base path they would leave it.
func TestG3EverySpellingIsAnsweredAsVaultDoes(t *testing.T) {
	t.Parallel()
	o := shared(t)
	ctx := t.Context()
	harness.Must(t, o.PutKV1(ctx, o.kv1, "app", map[string]any{"v": "leaf"}))
	harness.Must(t, o.PutKV1(ctx, o.kv1, "app/db", map[string]any{"v": "below"}))
	harness.Must(t, o.PutKV1(ctx, o.kv1, "a b", map[string]any{"v": "a blank"}))
	harness.Must(t, o.PutKV1(ctx, o.kv1, "a+b", map[string]any{"v": "a plus"}))
	harness.Must(t, o.PutKV1(ctx, o.kv1, "ünï", map[string]any{"v": "letters"}))
	o.put("app/db", "v2 below")
	o.put("app/db", "v2 below, second")
	o.put("App/DB", "another case")
	o.put("app", "v2 leaf")
	p := o.start()
	warm := func() {
		for _, path := range []string{o.kv1 + "/app", o.kv1 + "/app/db", o.kv1 + "/app?list=true", o.kv1 + "?list=true", o.data("app"), o.data("app/db"),
			o.data("app/db") + "?version=1", o.data("App/DB"), o.kv + "/metadata/app", o.kv + "/metadata/app?list=true", o.kv + "/subkeys/app/db"} {
			p.as(o.token, path).ok()
		}
	}
	one, two := "/v1/"+o.kv1, "/v1/"+o.kv
	cases := []struct{ method, target string }{}
	for _, target := range []string{
		one + "/app", one + "/app/", one + "/app/db", one + "/app%2fdb", one + "/app%2Fdb", one + "//app/db", one + "/app//db", one + "/app/db//",
		one + "/APP", one + "/App/Db", "/v1/" + strings.ToUpper(o.kv1) + "/app", "/v1//" + o.kv1 + "/app", "//v1/" + o.kv1 + "/app",
		one + "/%61pp", one + "/app%00", one + "/app%20", one + "/app%09", one + "/app%3flist=true", one + "/app%3Flist=true", one + "/app%23", one + "/app;x=y",
		one + "/a%20b", one + "/a+b", one + "/a%2Bb", one + "/%C3%BCn%C3%AF", one + "/app\\db", one + "/app%5cdb", one + "/app%25", one + "/app%252fdb",
		one + "?list=true", one + "/?list=true", one + "/app?list=true", one + "/app/?list=true", one + "/app?list=false", one + "/app?list=1", one + "/app?list=TRUE",
		one + "/app?list=true&list=false", one + "/app?list=false&list=true", one + "/app?LIST=true", one + "/app?list", one + "/app?list=", one + "/app?x=y", one + "/app?",
		one + "/app?list=%74rue", one + "/app?l%69st=true", one + "/app?list=true;", one + "/app?list=true%26x=y",
		two + "/data/app/db", two + "/data/app/db?version=1", two + "/data/app/db?version=2", two + "/data/app/db?version=0", two + "/data/app/db?version=3", two + "/data/app/db?version=-1",
		two + "/data/app/db?version=01", two + "/data/app/db?version=+1", two + "/data/app/db?version=1.0", two + "/data/app/db?version=1&version=2", two + "/data/app/db?version=2&version=1",
		two + "/data/app/db?version=", two + "/data/app/db?version=x", two + "/data/app/db?Version=1", two + "/data/app/db?version=%31", two + "/data/app/db?version=1%00", two + "/data/app/db?version=99999999999999999999",
		two + "/data/App/DB", two + "/data/app/DB", two + "/DATA/app/db", two + "/data//app/db", two + "/data/app%2fdb", two + "/data%2fapp/db", two + "/data/app/db/", two + "/data", two + "/data/", two + "/app/db",
		two + "/metadata/app", two + "/metadata/app/", two + "/metadata/app?list=true", two + "/metadata/app/?list=true", two + "/metadata", two + "/metadata/", two + "/metadata/?list=true",
		two + "/subkeys/app/db", two + "/subkeys/app/db?depth=1", two + "/subkeys/app/db?depth=0", two + "/subkeys/app/db?version=1", two + "/config",
		"/v1/sys/internal/ui/mounts/" + o.kv + "/app", "/v1/sys/internal/ui/mounts/" + o.kv, "/v1/sys/internal/ui/mounts/" + o.kv + "/", "/v1/sys/internal/ui/mounts/" + o.kv + "x/app",
		"/v1/nowhere/app", "/v1/", "/v1/" + o.kv1, one + "/", one + "/app#x", one + "/app/db/deeper", one + "/app/..;/app", one + "/..%5capp",
	} {
		cases = append(cases, struct{ method, target string }{"GET", target}, struct{ method, target string }{"LIST", target})
	}
	for _, method := range []string{"HEAD", "get", "Get", "OPTIONS", "SCAN", "FOO"} {
		cases = append(cases, struct{ method, target string }{method, one + "/app"}, struct{ method, target string }{method, two + "/data/app/db"})
	}
	vault := strings.TrimPrefix(o.Addr(), "http://")
	warm()
	for _, c := range cases {
		got := rawAnswer(t, p.addrs[0], c.method, c.target, o.token)
		want := rawAnswer(t, vault, c.method, c.target, o.token)
		if strings.HasPrefix(c.target, "//v1/") { // not below /v1/: not served
			if got.Status != http.StatusNotFound {
				t.Errorf("%s %s: %d", c.method, c.target, got.Status)
			}
			continue
		}
		sameAnswer(t, c.method+" "+c.target, got, want)
		if got.Header.Get("X-Cache") == "HIT" && want.Status == http.StatusTemporaryRedirect {
			t.Errorf("%s %s: a hit where Vault redirects", c.method, c.target)
		}
		if a, b := got.Header.Get("Location"), want.Header.Get("Location"); a != b {
			t.Errorf("%s %s: Location %q, not %q", c.method, c.target, a, b)
		}
		if a, b := got.Header.Get("Content-Type"), want.Header.Get("Content-Type"); a != b {
			t.Errorf("%s %s: Content-Type %q, not %q", c.method, c.target, a, b)
		}
	}
	for _, target := range []string{"/../app", "/app/../app", "/./app", "/app/.", "/app/..", "/%2e%2e/app", "/app/%2E%2e/app", "/.%2e/app", "/app/..%2fapp", "/%2e/app"} {
		before := o.count.Total()
		got := rawAnswer(t, p.addrs[0], "GET", one+target, o.token)
		if got.Status != http.StatusBadRequest || o.count.Total() != before {
			t.Errorf("%s: %d, %d requests to Vault: %s", target, got.Status, o.count.Total()-before, got.Body)
		}
	}
}

// The same with identity: what one token may see is not another's in any
// spelling.
func TestG3NoSpellingGivesAnotherTokensEntry(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("app/db", "theirs")
	p := o.start()
	p.cached(o.data("app/db"))
	stranger := o.newToken("default")
	for _, target := range []string{"/app/db", "/app%2fdb", "//app/db", "/app//db", "/app/db?version=1", "/app/db?version=0", "/app/db?", "/App/../app/db"} {
		got := rawAnswer(t, p.addrs[0], "GET", "/v1/"+o.kv+"/data"+target, stranger)
		if got.Status == http.StatusOK || strings.Contains(string(got.Body), "theirs") {
			t.Errorf("%s: %d %s", target, got.Status, got.Body)
		}
	}
	for _, head := range [][]string{
		{"X-Vault-Token", ""}, {"X-Vault-Token", " "}, {"X-Vault-Token", stranger, "X-Vault-Token", o.token},
		{"Authorization", "Bearer " + stranger}, {"Authorization", "bearer\t" + stranger}, {"X-Vault-Namespace", "x"}, {"Authorization", "Basic " + stranger},
	} {
		direct, err := harness.Send(context.WithoutCancel(t.Context()), p.client, o.Addr(), call(o.data("app/db"), head))
		harness.Must(t, err)
		through, err := harness.Send(t.Context(), p.client, p.base, call(o.data("app/db"), head))
		harness.Must(t, err)
		ours := len(head) == 2 && (head[0] == "X-Vault-Token" || head[0] == "X-Vault-Namespace" || !strings.HasPrefix(head[1], "Bearer ")) // no token: thaw's own
		if direct.Status != http.StatusOK && through.Status == http.StatusOK && !ours {
			t.Errorf("%q: %d directly, %d through thaw", head, direct.Status, through.Status)
		}
	}
}

func call(path string, head []string) harness.Call {
	h := http.Header{}
	for i := 0; i < len(head); i += 2 {
		h[head[i]] = append(h[head[i]], head[i+1])
	}
	return harness.Call{Method: http.MethodGet, Path: path, Header: h}
}
