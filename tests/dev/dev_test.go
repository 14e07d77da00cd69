package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is what the program printed.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// await waits until ok says yes.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// started runs the program and returns its address; it ends with the test.
func started(t *testing.T, args ...string) (addr string, out, errs *lines) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, errs = &lines{}, &lines{}
	done := make(chan int, 1)
	go func() { done <- run(ctx, append([]string{"-listen", "127.0.0.1:0"}, args...), nil, out, errs) }()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("exit status %d: %s", code, errs)
		}
	})
	address := regexp.MustCompile(`VAULT_ADDR=http://(\S+)`)
	await(t, "a greeting", func() bool { return address.MatchString(out.String()) || errs.String() != "" })
	m := address.FindStringSubmatch(out.String())
	if m == nil {
		t.Fatal(errs)
	}
	return m[1], out, errs
}

// ask sends a request with headers in pairs.
func ask(t *testing.T, method, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// written is a file with text.
func written(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	put(t, file, text)
	return file
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnEditIsARotationThatTheNextInvocationSees(t *testing.T) {
	t.Parallel()
	file := written(t, "secrets.json", `{"secret/data/app": {"password": "one"}, "kv/old": {"key": "v1"}}`)
	addr, out, errs := started(t, file)
	if _, body := ask(t, "GET", addr+"/v1/kv/old"); !strings.Contains(body, `"key":"v1"`) {
		t.Errorf("KV version 1: %s", body)
	}
	read := func(id string) string {
		_, body := ask(t, "GET", addr+"/v1/secret/data/app", requestID, id)
		var secret struct {
			Data struct{ Data struct{ Password string } }
		}
		if err := json.Unmarshal([]byte(body), &secret); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return secret.Data.Data.Password
	}
	if got := read("a"); got != "one" {
		t.Fatalf("the first is %q", got)
	}
	put(t, file, `{"secret/data/app": {"password": "two"}}`)
	await(t, "both changes", func() bool {
		return strings.Contains(out.String(), "rotated secret/data/app") && strings.Contains(out.String(), "deleted kv/old")
	})
	if got := read("b"); got != "two" {
		t.Errorf("after the edit an invocation reads %q", got)
	}
	if res, _ := ask(t, "GET", addr+"/v1/kv/old", requestID, "b"); res.StatusCode != http.StatusNotFound {
		t.Errorf("what was taken out: %s", res.Status)
	}
	put(t, file, `{"secret/data/app": {"password": "three"`)
	await(t, "a complaint", func() bool { return strings.Contains(errs.String(), "line 1 is no JSON") })
	if strings.Contains(errs.String(), "three") {
		t.Errorf("the complaint has the secret: %s", errs)
	}
	if got := read("c"); got != "two" {
		t.Errorf("a wrong file changed the secret to %q", got)
	}
}

func TestInvocationsAndOutagesAreBegunOnPurpose(t *testing.T) {
	t.Parallel()
	addr, _, _ := started(t, "-delay", "1ms", written(t, "s.yaml", "secret/data/app:\n  password: one\n"))
	state := func() (s struct {
		Down                        bool
		Invocations, Vault_requests int
	}) {
		_, body := ask(t, "GET", addr+"/dev/state")
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	get := func(headers ...string) string {
		res, _ := ask(t, "GET", addr+"/v1/secret/data/app", headers...)
		return res.Status + " " + res.Header.Get("Cache-Status")
	}
	for range 3 {
		get(requestID, "a")
	}
	get(requestID, "b")
	ask(t, "POST", addr+"/dev/invoke")
	if s := state(); s.Invocations != 3 || s.Vault_requests == 0 {
		t.Errorf("%+v, want 3 invocations", s)
	}
	ask(t, "POST", addr+"/dev/down")
	if got := get(requestID, "c"); !strings.Contains(got, "200 OK") || !strings.Contains(got, "detail=stale") {
		t.Errorf("in an outage: %s", got)
	}
	if res, _ := ask(t, "GET", addr+"/v1/secret/data/other", requestID, "c"); res.StatusCode != http.StatusBadGateway {
		t.Errorf("what was never read, in an outage: %s", res.Status)
	}
	ask(t, "POST", addr+"/dev/up")
	if got := get(requestID, "d"); !strings.Contains(got, "200 OK") || strings.Contains(got, "stale") {
		t.Errorf("after the outage: %s", got)
	}
}

func TestTheSameSeedFailsTheSameAnswers(t *testing.T) {
	t.Parallel()
	failures := func(seed uint64) string {
		tr := newTrouble(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}), settings{fail: 0.3, seed: seed}, "r")
		var all strings.Builder
		for range 200 {
			_, status := tr.decide()
			all.WriteByte("-01234"[status%500%5+min(status, 1)])
		}
		return all.String()
	}
	if first, again := failures(7), failures(7); first != again || first == failures(8) {
		t.Error("a seed does not fix the failures")
	}
	if n := 200 - strings.Count(failures(7), "-"); n < 30 || n > 90 {
		t.Errorf("%d of 200 fail at 30%%", n)
	}
}

func TestTheTokenIsAnyOrTheOneThatWasGiven(t *testing.T) {
	t.Parallel()
	file := written(t, "s.json", `{"secret/data/app": {"password": "one"}}`)
	for _, c := range []struct {
		args  []string
		token string
		want  int
	}{{nil, "", 200}, {nil, "whatever", 200}, {[]string{"-token", "mine"}, "", 200}, {[]string{"-token", "mine"}, "mine", 200}, {[]string{"-token", "mine"}, "whatever", 403}} {
		addr, _, _ := started(t, append(c.args, file)...)
		var headers []string
		if c.token != "" {
			headers = []string{"X-Vault-Token", c.token}
		}
		if res, body := ask(t, "GET", addr+"/v1/secret/data/app", headers...); res.StatusCode != c.want {
			t.Errorf("%v, token %q: %s %s", c.args, c.token, res.Status, body)
		}
	}
}

func TestWebPagesDoNotReachIt(t *testing.T) {
	t.Parallel()
	addr, _, _ := started(t, written(t, "s.json", `{"secret/data/app": {"password": "one"}}`))
	for _, h := range [][]string{{"Host", "evil.example"}, {"Origin", "http://evil.example"}, {"X-Forwarded-For", "192.0.2.1"}} {
		if res, _ := ask(t, "POST", addr+"/dev/down", h...); res.StatusCode != http.StatusForbidden {
			t.Errorf("/dev/down with %v: %s", h, res.Status)
		}
		if res, body := ask(t, "GET", addr+"/v1/secret/data/app", h...); res.StatusCode < 400 || strings.Contains(body, "one") {
			t.Errorf("a secret with %v: %s %s", h, res.Status, body)
		}
	}
	if _, body := ask(t, "GET", addr+"/dev/state"); !strings.Contains(body, `"down":false`) {
		t.Errorf("one of them got through: %s", body)
	}
}

func TestAFolderHasASecretInEachFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "secret", "data", "app.json"), `{"password": "one"}`)
	put(t, filepath.Join(dir, "kv", "team", "old.yml"), "key: two\nport: 5432\n")
	put(t, filepath.Join(dir, "README.md"), "not a secret")
	put(t, filepath.Join(dir, ".hidden.json"), "{")
	s, err := readSecrets(dir)
	if err != nil || len(s) != 2 || string(s["secret/data/app"]) != `{"password":"one"}` || string(s["kv/team/old"]) != `{"key":"two","port":5432}` {
		t.Errorf("%v %v", s, err)
	}
}

func TestEveryProblemIsNamedAndNoValue(t *testing.T) {
	t.Parallel()
	file := written(t, "s.json", `{"nomount": {"a": "planted"}, "kv/x": "planted", "kv2/data/a": {"a": 1}, "kv2/b": {"a": "planted"}, "kv/a?b": {}}`)
	var out, errs lines
	if code := run(t.Context(), []string{file}, nil, &out, &errs); code != 2 {
		t.Errorf("exit status %d", code)
	}
	for _, want := range []string{`"nomount"`, "kv/x is no object", "kv2 has paths with /data/", `"kv/a?b"`} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is not named in:\n%s", want, &errs)
		}
	}
	if strings.Contains(errs.String(), "planted") {
		t.Errorf("a value is named: %s", &errs)
	}
}

func TestAWrongSourceIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, text, want string }{
		{"s.json", "", "s.json is empty"},
		{"s.json", "{}", `has no secrets; write one such as {"secret/data/app": {"password": "one"}}`},
		{"s.json", "{\n\"secret/data/app\": {\"a\": \"planted\",}\n}", "line 2 is no JSON"},
		{"s.env", "PASSWORD=planted", "s.env: line 1 is no JSON; a file with YAML ends in .yaml or .yml"},
		{"s.json", `["planted"]`, `want an object such as {"secret/data/app": {"password": "one"}}`},
		{"s.json", `{"secret/data/app": {"a": 1}, "kv/b": {"a": 1}, "secret/data/app": {"a": "planted"}}`, "secret/data/app is there twice"},
		{"s.json", `{"/v1/secret/data/app": {"a": "planted"}}`, `"v1/secret/data/app": leave out v1/`},
		{"s.json", `{"secret/metadata/app": {"a": "planted"}}`, `"secret/metadata/app" is no path such as secret/data/app or kv/app`},
		{"s.json", `{"secret/data/": {"a": "planted"}}`, `"secret/data" is no path`},
		{"s.yaml", "", "s.yaml is empty"},
		{"s.yaml", "secret/data/app:\n  a: planted\n b: planted\n", "line 2 is no YAML"},
		{"s.yaml", "secret/data/app:\n\ta: planted\n", "line 2 is no YAML"},
		{"s.yaml", "secret/data/app:\n  a: 1\nsecret/data/app:\n  a: planted\n", "line 3 has a name that is there already"},
		{"s.yaml", "- planted\n", `want an object such as {"secret/data/app": {"password": "one"}}`},
		{"s.yaml", "planted\n", "want an object such as"},
		{"s.yaml", "secret/data/app: planted\n", "secret/data/app is no object"},
		{"d/app.json", `{"a": "planted"}`, `"app" is no path`},
		{"d/notes.txt", "planted", "has no secrets; write one, such as secret/data/app.json with"},
		{"d/secret/data/app.json", `{"a": "planted"`, "app.json: line 1 is no JSON"},
	} {
		source := written(t, c.file, c.text)
		if folder, _, ok := strings.Cut(c.file, "/"); ok {
			source = strings.TrimSuffix(source, c.file) + folder
		}
		var out, errs lines
		if code := run(t.Context(), []string{source}, nil, &out, &errs); code != 2 || !strings.Contains(errs.String(), c.want) || strings.Contains(errs.String(), "planted") {
			t.Errorf("%s %q: status %d, %swant %q", c.file, c.text, code, &errs, c.want)
		}
	}
}

func TestAPortInUseIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	addr, _, _ := started(t, written(t, "s.json", `{"secret/data/app": {"password": "one"}}`))
	var out, errs lines
	code := run(t.Context(), []string{"-listen", addr, written(t, "t.json", `{"secret/data/app": {"password": "one"}}`)}, nil, &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), addr) || !strings.Contains(errs.String(), "-listen 127.0.0.1:0 takes a free port") {
		t.Errorf("status %d: %s", code, &errs)
	}
}

func TestAFolderMayBeALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "real", "kv", "app.json"), `{"password": "one"}`)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "real"), link); err != nil {
		t.Skip("NOT TESTED: no symbolic links here:", err)
	}
	if s, err := readSecrets(link); err != nil || len(s) != 1 {
		t.Errorf("%v %v", s, err)
	}
}

func TestItStartsOnALaptopOnly(t *testing.T) {
	t.Parallel()
	file := written(t, "s.json", `{"secret/data/app": {"password": "one"}}`)
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{[]string{file}, []string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001"}, "AWS_LAMBDA_RUNTIME_API is set"},
		{[]string{file}, []string{"FUNCTIONS_CUSTOMHANDLER_PORT=7071"}, "FUNCTIONS_CUSTOMHANDLER_PORT is set"},
		{[]string{"-listen", "0.0.0.0:8200", file}, nil, "loopback"},
		{[]string{"-listen", ":8200", file}, nil, "loopback"},
		{[]string{"-listen", "192.0.2.1:8200", file}, nil, "loopback"},
		{[]string{"-listen", "example.com:8200", file}, nil, "loopback"},
		{[]string{"-fail", "130%", file}, nil, "0% to 100%"},
		{[]string{"-fail", "NaN", file}, nil, "0% to 100%"},
		{[]string{"-fail", "30", file}, nil, "such as 30%"},
		{[]string{"-delay", "2m", file}, nil, "-delay"},
		{[]string{"-delay", "20", file}, nil, "such as 20ms"},
		{[]string{"-delay", "-1s", file}, nil, "such as 20ms"},
		{nil, nil, "name one file or folder with secrets; thaw-dev -help lists the options"},
		{[]string{file, "-down"}, nil, "options stand before it"},
		{[]string{file, file}, nil, "name one file"},
		{[]string{file + "x"}, nil, "no such file"},
	} {
		var out, errs lines
		if code := run(t.Context(), c.args, c.env, &out, &errs); code != 2 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v %v: status %d, %s", c.args, c.env, code, &errs)
		}
	}
}
