// Package attack attacks the real binary in front of a real Vault: whoever can
// reach its listener, its files, its process, or stands between it and Vault.
// Attacks that other tests make as part of their promise are not made again:
// the table in SECURITY.md names every one, here and there, and a test holds
// the table to the tests, one to one.
//
// One dev server is shared; a test has a mount, a token and a counting proxy of
// its own in front of it.
package attack

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// suite is what the tests share.
var suite = struct {
	binary string // thaw; set before the first test
	vault  *harness.SharedVault
}{vault: &harness.SharedVault{Start: harness.StartDev}}

// patience is how long a test waits for what must come, on a machine that may
// be busy with much else.
const patience = 60 * time.Second

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer suite.vault.Close()
	return harness.Main(m, build)
}

// build builds the binary under test into dir, which other users may read: one
// test runs it as such.
func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	suite.binary = filepath.Join(dir, "thaw")
	return harness.Build(context.Background(), suite.binary, "./extension")
}

// site is a Vault as one test sees it.
type site struct {
	*harness.Vault
	t     testing.TB
	count *harness.Counter // in front of it, this test's own
	kv    string           // a KV v2 mount of this test's own
	token string           // may do everything below it
}

func unique(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:10]) }

func newSite(t testing.TB) *site {
	t.Helper()
	return siteOn(t, suite.vault.Get(t))
}

// siteOn is newSite on another server.
func siteOn(t testing.TB, v *harness.Vault) *site {
	t.Helper()
	var err error
	o := &site{Vault: v, t: t, count: harness.Count(t, harness.CounterConfig{Origin: v.Addr()}), kv: unique("kv")}
	harness.Must(t, v.EnableKV(t.Context(), o.kv, 2))
	harness.Must(t, v.PutPolicy(t.Context(), o.kv, `path "`+o.kv+`/*" { capabilities = ["create","read","update","patch","delete","list"] }`))
	o.token, err = v.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{o.kv}, TTL: time.Hour})
	harness.Must(t, err)
	return o
}

// put writes a secret at Vault itself, with one field "v".
func (o *site) put(name, value string) {
	o.t.Helper()
	_, err := o.Put(o.t.Context(), o.kv, name, map[string]any{"v": value})
	harness.Must(o.t, err)
}

// data is the API path of a secret.
func (o *site) data(name string) string { return "/v1/" + o.kv + "/data/" + name }

// thaw is a running `thaw proxy`.
type thaw struct {
	t    testing.TB
	proc *harness.Process
	addr string
	pid  int
}

// start runs `thaw proxy` in front of o, under o's token, until the test ends.
func (o *site) start(vars ...string) *thaw {
	o.t.Helper()
	return launch(o.t, append([]string{"VLE_VAULT_ADDR=" + o.count.Addr(), "VAULT_TOKEN=" + o.token}, vars...)...)
}

// launch runs `thaw proxy` and returns when it serves.
func launch(t testing.TB, vars ...string) *thaw {
	t.Helper()
	said := &lines{}
	proc, err := harness.Start(harness.Command{
		Path: suite.binary, Args: []string{"proxy"}, Dir: t.TempDir(), Stdout: said, Stderr: said,
		Env: append([]string{"PATH=" + harness.FromEnv().Path, "HOME=" + t.TempDir(), "VAULT_LOG_LEVEL=DEBUG", "THAW_LISTEN=127.0.0.1:0", "THAW_RECHECK=10m"}, vars...),
	})
	harness.Must(t, err)
	p := &thaw{t: t, proc: proc, pid: proc.PID()}
	t.Cleanup(func() {
		proc.Kill()
		if t.Failed() {
			t.Logf("thaw's output:\n%s", proc.Tail(4000))
		}
	})
	harness.Eventually(t, patience, "thaw serves", func() bool {
		select {
		case <-proc.Done():
			t.Fatalf("thaw ended:\n%s", proc.Output())
		default:
		}
		p.addr = said.serving()
		return p.addr != ""
	})
	return p
}

// lines is what a process writes.
type lines struct{ harness.Transcript }

// serving is the address that the process said it serves on; empty before.
func (l *lines) serving() string {
	for line := range strings.Lines(l.String()) {
		var said struct{ Addresses []string }
		if strings.HasSuffix(line, "\n") && strings.Contains(line, `"msg":"serving"`) && json.Unmarshal([]byte(line), &said) == nil && len(said.Addresses) > 0 {
			return said.Addresses[0]
		}
	}
	return ""
}

// dial connects to the proxy.
func (p *thaw) dial() net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr)
	harness.Must(p.t, err)
	p.t.Cleanup(func() { c.Close() })
	harness.Must(p.t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// raw sends bytes and returns all that comes back until the proxy closes.
func (p *thaw) raw(request string) string {
	p.t.Helper()
	c := p.dial()
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		p.t.Fatalf("%.60q: %v", request, err)
	}
	got, _ := io.ReadAll(c) // a reset is an answer too
	return string(got)
}

// answer is a response, read whole.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request as it is to addr and reads one answer.
func ask(t testing.TB, addr, request string) answer {
	t.Helper()
	a, err := tryAsk(addr, request)
	if err != nil {
		t.Fatalf("%.80q: %v", request, err)
	}
	return a
}

func tryAsk(addr, request string) (answer, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return answer{}, err
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body)}, err
}

// get reads a path over a connection of its own. head is header lines.
func (p *thaw) get(path string, head ...string) answer {
	p.t.Helper()
	return ask(p.t, p.addr, request("GET", path, "", head...))
}

// request is a request's text that closes its connection.
func request(method, target, body string, head ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:8200\r\nConnection: close\r\n", method, target)
	for _, h := range head {
		b.WriteString(h + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

// value is the field "v" of a KV v2 secret; empty where there is none.
func (a answer) value() string {
	var out struct {
		Data struct {
			Data struct{ V string }
		}
	}
	if json.Unmarshal([]byte(a.body), &out) != nil {
		return ""
	}
	return out.Data.Data.V
}

// metric is one number of /proxy/v1/metrics.
func (p *thaw) metric(name string) float64 {
	p.t.Helper()
	for line := range strings.Lines(p.get("/proxy/v1/metrics").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var f float64
			_, err := fmt.Sscan(value, &f)
			harness.Must(p.t, err)
			return f
		}
	}
	p.t.Fatalf("no %s in the metrics", name)
	return 0
}
