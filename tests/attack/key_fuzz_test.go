package attack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/tests/harness"
)

// line is a kept connection on which requests are sent as they are, and made
// again when the server closed it.
type line struct {
	addr string
	conn net.Conn
	r    *bufio.Reader
}

// ask sends a request without a body and reads its answer.
func (l *line) ask(method, request string) (answer, error) {
	for try := 0; ; try++ {
		kept := l.conn != nil
		if !kept {
			conn, err := net.Dial("tcp", l.addr)
			if err != nil {
				return answer{}, err
			}
			l.conn, l.r = conn, bufio.NewReader(conn)
		}
		a, closes, err := l.exchange(method, request)
		if err != nil || closes {
			l.conn.Close()
			l.conn = nil
		}
		if err == nil || !kept || try > 0 {
			return a, err
		}
	}
}

func (l *line) exchange(method, request string) (a answer, closes bool, err error) {
	if err := l.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, true, err
	}
	if _, err := io.WriteString(l.conn, request); err != nil {
		return a, true, err
	}
	res, err := http.ReadResponse(l.r, &http.Request{Method: method})
	if err != nil {
		return a, true, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body)}, res.Close || l.r.Buffered() > 0, err
}

// requestID is what differs between two answers to the same question.
var requestID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`"request_id":"[^"]*"`) })

// same is an answer as it is compared.
func (a answer) same() string {
	return fmt.Sprint(a.status, " ", requestID().ReplaceAllString(a.body, ""))
}

// stable tells the paths whose answer is the same a moment later.
func stable(path string) bool {
	for _, prefix := range []string{"secret/", "kv/", "sys/internal/ui/mounts/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// framing are the headers that decide where a request ends, or hold up an
// answer. The tests of smuggling are about them.
func framing(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "expect", "host", "connection", "upgrade", "trailer", "te":
		return true
	}
	return false
}

// changes tells methods that may change what later answers say.
func changes(method string) bool {
	switch strings.ToUpper(method) {
	case "GET", "LIST", "HEAD", "OPTIONS", "SCAN":
		return false
	}
	return true
}

// FuzzRequestsThatShareAKey asks two things of a real Vault. A request that the
// cache files under a key must be answered as the key's own request is: else
// two requests that share it could be answered differently. And whatever is
// asked of thaw with everything cached, a hit must say what Vault says.
func FuzzRequestsThatShareAKey(f *testing.F) {
	o := newSite(f)
	ctx := f.Context()
	harness.Must(f, o.PutPolicy(ctx, "fuzz", `
path "secret/*" { capabilities = ["read", "list"] }
path "kv/*" { capabilities = ["read", "list"] }`))
	root := o.RootToken()
	warm := []string{
		"GET kv/app", "GET kv/app/db", "LIST kv", "LIST kv/app", "GET kv/a b", "GET kv/ünï", "GET secret/data/app", "GET secret/data/app/db", "GET secret/data/App/DB",
		"GET secret/metadata/app/db", "LIST secret/metadata/app", "LIST secret/metadata", "GET secret/subkeys/app/db", "GET sys/internal/ui/mounts/secret/app",
	}
	_ = o.EnableKV(ctx, "kv", 1) // may be there
	for _, path := range []string{"app", "app/db", "a b", "ünï"} {
		harness.Must(f, o.PutKV1(ctx, "kv", path, map[string]any{"v": "one " + path}))
	}
	for _, path := range []string{"app", "app/db", "app/db", "App/DB"} {
		_, err := o.Put(ctx, "secret", path, map[string]any{"v": "two " + path})
		harness.Must(f, err)
	}
	p := launch(f, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+root, "VAULT_DEFAULT_CACHE_ENABLED=true", "VAULT_DEFAULT_CACHE_TTL=10m", "VAULT_LOG_LEVEL=INFO", "THAW_RECHECK=10m", "VAULT_MAX_RETRIES=0")
	vault, through := &line{addr: strings.TrimPrefix(o.Addr(), "http://")}, &line{addr: p.addr}
	text := func(method, target, more string) string {
		return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: " + root + "\r\n" + more + "\r\n"
	}
	// What each warm path is, for ever: nobody writes.
	known := make([]string, len(warm))
	direct := func(i int) (string, string) {
		method, path, _ := strings.Cut(warm[i], " ")
		return method, text(method, (&url.URL{Path: "/v1/" + path}).EscapedPath(), "")
	}
	for i := range warm {
		method, req := direct(i)
		for _, l := range []*line{vault, through} {
			a, err := l.ask(method, req)
			harness.Must(f, err)
			if a.status != http.StatusOK {
				f.Fatalf("%s: %d %s", warm[i], a.status, a.body)
			}
			if known[i] == "" {
				known[i] = a.same()
			} else if a.same() != known[i] {
				f.Fatalf("%s: %s, not %s", warm[i], a.same(), known[i])
			}
		}
	}
	for _, s := range spellings() {
		f.Add("GET", s, "X-A", "b")
		f.Add("LIST", s, "X-Vault-Namespace", "ns/")
	}
	for _, h := range headers() {
		f.Add("GET", "kv/app", h, "1")
	}
	n := 0
	f.Fuzz(func(t *testing.T, method, target, name, value string) {
		if changes(method) || framing(name) || len(target)+len(value) > 4000 {
			return
		}
		raw := text(method, "/v1/"+target, name+": "+value+"\r\n")
		if strings.Count(raw, "\n") != 5 || strings.ContainsAny(target+name, " \r\n") {
			return // more than one header: framing, too
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return // net/http refuses it before anything of ours sees it
		}
		namespace := strings.Trim(strings.TrimSpace(r.Header.Get("X-Vault-Namespace")), "/")
		k := cache.Classify(r.Method, r.URL, namespace)
		if k.Cacheable && stable(k.Key.Path+"/") && len(r.Header["X-Vault-Wrap-Ttl"]) == 0 {
			own := (&url.URL{Path: "/v1/" + k.Key.Path, RawQuery: k.Key.Query}).RequestURI()
			more := ""
			if k.Key.Namespace != "" {
				more = "X-Vault-Namespace: " + k.Key.Namespace + "\r\n"
			}
			// No header has a part in the key: those that shape an answer keep a
			// request away from the cache, which thaw itself must show below.
			asked, err := vault.ask(r.Method, text(r.Method, "/v1/"+target, more))
			harness.Must(t, err)
			want, err := vault.ask(k.Key.Method(), text(k.Key.Method(), own, more))
			harness.Must(t, err)
			if asked.same() != want.same() {
				t.Errorf("%s /v1/%s shares a key with %s %s, but Vault says\n%s\nand\n%s", method, target, k.Key.Method(), own, asked.same(), want.same())
			}
		}
		got, err := through.ask(r.Method, raw)
		harness.Must(t, err)
		if got.header.Get("X-Cache") == "HIT" {
			want, err := vault.ask(r.Method, raw)
			harness.Must(t, err)
			if got.same() != want.same() && want.status != http.StatusServiceUnavailable {
				t.Errorf("a hit for %q says\n%s\nand Vault\n%s", raw, got.same(), want.same())
			}
		}
		// And nobody else is served what this request brought.
		n++
		other, req := direct(n % len(warm))
		clean, err := through.ask(other, req)
		harness.Must(t, err)
		if clean.same() != known[n%len(warm)] {
			t.Errorf("after %q, %s says\n%s\nand not\n%s", raw, warm[n%len(warm)], clean.same(), known[n%len(warm)])
		}
	})
}

// spellings are targets below /v1/ that could be mistaken for one another.
func spellings() []string {
	return []string{
		"kv/app", "kv/app/", "kv/app/db", "kv/app%2fdb", "kv/app%2Fdb", "kv//app/db", "kv/app//db", "/kv/app", "kv/APP", "KV/app", "kv/%61pp", "kv/app%00", "kv/app%20",
		"kv/app%3Flist=true", "kv/app%23", "kv/app;x=y", "kv/a%20b", "kv/a+b", "kv/a%2Bb", "kv/%C3%BCn%C3%AF", "kv/%c3%bcn%c3%af", "kv/u%CC%88ni%CC%88", "kv/app\\db", "kv/app%5cdb", "kv/app%25",
		"kv/app%252fdb", "kv?list=true", "kv/?list=true", "kv/app?list=true", "kv/app/?list=true", "kv/app?list=false", "kv/app?list=1", "kv/app?list=TRUE", "kv/app?list=true&list=false",
		"kv/app?LIST=true", "kv/app?list", "kv/app?x=y", "kv/app?", "kv/app?list=%74rue", "kv/app?l%69st=true", "kv/app?list=true;", "kv/app?list=true&after=a&limit=1", "kv/../kv/app", "kv/./app",
		"kv/%2e%2e/kv/app", "kv/..%2fapp", "kv/app/..;/app", "secret/data/app/db", "secret/data/app/db?version=1", "secret/data/app/db?version=2", "secret/data/app/db?version=0",
		"secret/data/app/db?version=-1", "secret/data/app/db?version=01", "secret/data/app/db?version=+1", "secret/data/app/db?version=1.0", "secret/data/app/db?version=1&version=2",
		"secret/data/app/db?version=", "secret/data/app/db?version=x", "secret/data/app/db?Version=1", "secret/data/app/db?version=%31", "secret/data/app/db?version=99999999999999999999",
		"secret/data/App/DB", "secret/data//app/db", "secret/data%2fapp/db", "secret/data/app/db/", "secret/data", "secret/metadata/app", "secret/metadata/app/", "secret/metadata/app?list=true",
		"secret/metadata/app/?list=true", "secret/metadata?list=true", "secret/subkeys/app/db?depth=1", "secret/subkeys/app/db?depth=0", "secret/config", "sys/internal/ui/mounts/secret/app",
		"sys/internal/ui/mounts/secret", "sys/internal/ui/mounts/secret/", "sys/internal/ui/mounts/kv/app?x=y", "secret/data/app/db?help=1", "kv/app?help=1", "secret/data/app/db?version=1&depth=2",
		"secret/metadata/app?list=true&after=db", "secret/data/app/db?version=007", "secret/data/app/db?version=1_0", "secret/data/app/db?version=0x1",
	}
}
