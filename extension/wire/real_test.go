package wire

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

var update = flag.Bool("update", false, "write testdata/vault.json, what a real Vault answers")

// recorded is an answer of a real Vault, with what it is.
type recorded struct {
	Name   string
	Of     Endpoint
	Want   Word
	Reason Reason
	Status int
	Header http.Header // Content-Type alone
	Body   string
}

func (r recorded) check(t *testing.T) {
	t.Helper()
	a := New(r.Status, r.Header, []byte(r.Body))
	if w := a.Word(r.Of); w != r.Want {
		t.Errorf("%s: %d %s: word %d, want %d", r.Name, r.Status, r.Body, w, r.Want)
	}
	if got := a.Reason(); got != r.Reason {
		t.Errorf("%s: %d %s: reason %d, want %d", r.Name, r.Status, r.Body, got, r.Reason)
	}
}

// secrets of a Vault that is gone; still, they look like secrets.
var secrets = regexp.MustCompile(`hv[sbr]\.[\w-]+`)

// question is a request to a real Vault, and what its answer is.
type question struct {
	name   string
	call   harness.Call
	of     Endpoint
	want   Word
	reason Reason
}

func questions(root, limited string) []question {
	get, post, put, list := http.MethodGet, http.MethodPost, http.MethodPut, "LIST"
	ask := func(method, path string) harness.Call { return harness.Call{Method: method, Path: path, Token: root} }
	as := func(token, method, path string) harness.Call {
		return harness.Call{Method: method, Path: path, Token: token}
	}
	with := func(c harness.Call, body any) harness.Call { c.Body = body; return c }
	wrap := ask(get, "secret/data/app")
	wrap.Header = http.Header{"X-Vault-Wrap-Ttl": {"60s"}}
	return []question{
		{"a write", with(ask(post, "secret/data/app"), map[string]any{"data": map[string]any{"v": "x"}}), Write, Value, Unexplained},
		{"another", with(ask(post, "secret/data/app"), map[string]any{"data": map[string]any{"v": "y"}}), Write, Value, Unexplained},
		{"data", ask(get, "secret/data/app"), Secret, Value, Unexplained},
		{"a version", ask(get, "secret/data/app?version=1"), Secret, Value, Unexplained},
		{"metadata", ask(get, "secret/metadata/app"), Secret, Value, Unexplained},
		{"subkeys", ask(get, "secret/subkeys/app"), Secret, Value, Unexplained},
		{"a list", ask(list, "secret/metadata/"), List, Value, Unexplained},
		{"a list of no known kind", ask(list, "secret/detailed-metadata/"), List, Absent, Nothing},
		{"an empty list", ask(list, "secret/metadata/none/"), List, Absent, Nothing},
		{"an unknown secret", ask(get, "secret/data/none"), Secret, Absent, Nothing},
		{"an unknown version", ask(get, "secret/data/app?version=9"), Secret, Absent, Nothing},
		{"no data in the path", ask(get, "secret/app"), Secret, Absent, Nothing},
		{"wrapped", wrap, Secret, Wrapped, Unexplained},
		{"a CAS that is missed", with(ask(post, "secret/data/app"), map[string]any{"options": map[string]any{"cas": 9}, "data": map[string]any{}}), Write, Refused, Unexplained},
		{"a delete", with(ask(post, "secret/delete/app"), map[string]any{"versions": []int{1}}), Write, Value, Unexplained},
		{"a deleted version", ask(get, "secret/data/app?version=1"), Secret, Absent, Nothing},
		{"a mount", ask(get, "sys/internal/ui/mounts/secret/app"), Secret, Value, Unexplained},
		{"no mount", ask(get, "nothing/here"), Secret, Absent, Unexplained},
		{"a mount", with(ask(post, "sys/mounts/more"), map[string]any{"type": "kv"}), Write, Value, Unexplained},
		{"a mount that is there", with(ask(post, "sys/mounts/kv"), map[string]any{"type": "kv"}), Write, Refused, Unexplained},
		{"a write of KV 1", with(ask(put, "kv/app"), map[string]any{"v": "x"}), Write, Value, Unexplained},
		{"a secret of KV 1", ask(get, "kv/app"), Secret, Value, Unexplained},
		{"an unknown one", ask(get, "kv/none"), Secret, Absent, Nothing},
		{"a list of KV 1", ask(list, "kv/"), List, Value, Unexplained},
		{"a list of nothing", ask(list, "kv/none/"), List, Absent, Nothing},
		{"capabilities", with(ask(post, "sys/capabilities-self"), map[string]any{"paths": []string{"secret/data/app", "x"}}), Capabilities, Value, Unexplained},
		{"no paths", with(ask(post, "sys/capabilities-self"), map[string]any{}), Capabilities, Refused, Unexplained},
		{"a look-up", ask(get, "auth/token/lookup-self"), Lookup, Value, Unexplained},
		{"a look-up of another", with(ask(post, "auth/token/lookup"), map[string]any{"token": "garbage"}), Lookup, Denied, AboutToken},
		{"a look-up, limited", as(limited, get, "auth/token/lookup-self"), Lookup, Value, Unexplained},
		{"a renewal", as(limited, post, "auth/token/renew-self"), Login, Value, Unexplained},
		{"a token", with(ask(post, "auth/token/create"), map[string]any{"policies": []string{"default"}}), Login, Value, Unexplained},
		{"an auth method", with(ask(post, "sys/auth/approle"), map[string]any{"type": "approle"}), Write, Value, Unexplained},
		{"a login that fails", with(as("", post, "auth/approle/login"), map[string]any{"role_id": "x", "secret_id": "y"}), Login, Refused, Unexplained},
		{"a login nowhere", with(as("", post, "auth/none/login"), map[string]any{}), Login, Denied, AboutToken},
		{"denied by policy", as(limited, get, "secret/data/app"), Secret, Denied, AboutPath},
		{"a list denied", as(limited, list, "secret/metadata/"), List, Denied, AboutPath},
		{"an unknown token", as("hvs.unknown", get, "secret/data/app"), Secret, Denied, AboutToken},
		{"capabilities of an unknown one", with(as("hvs.unknown", post, "sys/capabilities-self"), map[string]any{"paths": []string{"x"}}), Capabilities, Denied, AboutToken},
		{"no token", as("", get, "secret/data/app"), Secret, Denied, AboutToken},
		{"not supported", ask(post, "sys/internal/ui/mounts/secret"), Write, Refused, Unexplained},
		{"policies", ask(list, "sys/policies/acl"), List, Value, Unexplained},
		{"forwarding", harness.Call{Method: get, Path: "secret/data/app", Token: root, Header: http.Header{"X-Vault-Forward": {"active-node"}}}, Secret, Refused, NoForwarding},
		{"health", as("", get, "sys/health"), Health, Value, Unexplained},
		{"leader", as("", get, "sys/leader"), Leader, Value, Unexplained},
		{"no JSON", harness.Call{Method: post, Path: "secret/data/app", Token: root, Body: []byte("{")}, Write, Failure, Unexplained},
	}
}

func sealed() []question {
	return []question{
		{"health, sealed", harness.Call{Method: http.MethodGet, Path: "sys/health"}, Health, Value, Unexplained},
		{"leader, sealed", harness.Call{Method: http.MethodGet, Path: "sys/leader"}, Leader, Failure, Sealed},
		{"data, sealed", harness.Call{Method: http.MethodGet, Path: "secret/data/app", Token: "hvs.x"}, Secret, Failure, Sealed},
	}
}

// TestRealVaultIsUnderstood asks a real Vault, and holds what is read of its
// answers. With -update it records them, as seeds of the fuzz target.
func TestRealVaultIsUnderstood(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Vault")
	}
	v := harness.Raft(t)
	limited, err := v.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour})
	harness.Must(t, err)
	var all []recorded
	put := func(q question) {
		res, err := v.Do(t.Context(), q.call)
		harness.Must(t, err)
		r := recorded{
			Name: q.name, Of: q.of, Want: q.want, Reason: q.reason, Status: res.Status,
			Header: http.Header{"Content-Type": res.Header.Values("Content-Type")}, Body: secrets.ReplaceAllString(string(res.Body), "token"),
		}
		r.check(t)
		all = append(all, r)
	}
	harness.Eventually(t, 10*time.Second, "a mount that is ready", func() bool {
		res, err := v.Do(t.Context(), harness.Call{Method: "LIST", Path: "secret/metadata/", Token: v.RootToken()})
		return err == nil && res.Status == http.StatusNotFound
	})
	for _, q := range questions(v.RootToken(), limited) {
		put(q)
	}
	harness.Must(t, v.Seal(t.Context()))
	for _, q := range sealed() {
		put(q)
	}
	if *update {
		text, err := json.MarshalIndent(all, "", " ")
		harness.Must(t, err, os.WriteFile("testdata/vault.json", append(text, '\n'), 0o644))
	}
}

func corpus(t testing.TB) []recorded {
	t.Helper()
	text, err := os.ReadFile("testdata/vault.json")
	harness.Must(t, err)
	var all []recorded
	harness.Must(t, json.Unmarshal(text, &all))
	return all
}

// TestRecordedAnswersAreUnderstood holds what is read of a real Vault's answers,
// whole and peeked into.
func TestRecordedAnswersAreUnderstood(t *testing.T) {
	t.Parallel()
	for _, r := range corpus(t) {
		r.check(t)
		for _, most := range []int{1, 64, 16 << 10} {
			checkPeek(t, r.Status, r.Header, r.Body, most, r.Of)
		}
	}
}

// FuzzWord: no answer of a real Vault is refused, and none without its shape
// is kept, whatever it begins like.
func FuzzWord(f *testing.F) {
	for _, r := range corpus(f) {
		f.Add(uint16(r.Status), r.Header.Get("Content-Type"), r.Body, uint8(r.Of), uint16(64))
	}
	for _, body := range []string{`{"status":"maintenance"}`, `{}`, `null`, `{"errors":["x"]}`, `<html>`, ``, `{"message":"Forbidden"}`, `{"request_id":"1","data":{}`} {
		for _, status := range []uint16{200, 403, 404, 503} {
			f.Add(status, "application/json", body, uint8(Secret), uint16(8))
		}
	}
	f.Fuzz(func(t *testing.T, status uint16, content, body string, of uint8, most uint16) {
		header := http.Header{"Content-Type": {content}}
		a := New(int(status), header, []byte(body))
		w := a.Word(Endpoint(of))
		if TokenRefused(int(status), []byte(body)) && (status != 403 || a.Errors() == nil) {
			t.Fatalf("%d %s refuses the token", status, body)
		}
		var members map[string]any
		object := json.Unmarshal([]byte(body), &members) == nil && members != nil
		if w != Failure && status != http.StatusNoContent && (!object || !strings.Contains(strings.ToLower(content), "json")) {
			t.Fatalf("%d %s %q is the origin's", status, content, body)
		}
		if w == Value && Endpoint(of) == Secret {
			id, _ := members["request_id"].(string)
			if _, data := members["data"].(map[string]any); status != 200 || id == "" || !data {
				t.Fatalf("%d %s is kept", status, body)
			}
		}
		if w == Absent || w == Denied {
			_, errors := members["errors"].([]any)
			if _, id := members["request_id"].(string); !errors && !id {
				t.Fatalf("%d %s takes something away", status, body)
			}
		}
		checkPeek(t, int(status), header, body, int(most), Endpoint(of))
	})
}

// checkPeek holds that peeking changes no body, and finds nothing that the whole
// does not have.
func checkPeek(t *testing.T, status int, header http.Header, body string, most int, of Endpoint) {
	t.Helper()
	res := response(status, header, body)
	a := Peek(res, most)
	if got := readAll(t, res); got != body {
		t.Fatalf("%q is left of %q", got, body)
	}
	if whole := New(status, header, []byte(body)); !a.Part && fmt.Sprint(a.Word(of), a.Reason()) != fmt.Sprint(whole.Word(of), whole.Reason()) {
		t.Fatalf("%d %s: peeked %d %d, whole %d %d", status, body, a.Word(of), a.Reason(), whole.Word(of), whole.Reason())
	}
}
