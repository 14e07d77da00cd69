package attack

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// headers are request headers that change an answer somewhere: all of IANA's
// that a request may have (https://www.iana.org/assignments/http-fields), what
// frameworks and gateways take to override method, path or host, and Vault's
// own. Those that frame the message are left out: smuggling is another test.
func headers() []string {
	return []string{
		"A-IM", "Accept", "Accept-Charset", "Accept-Datetime", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Headers",
		"Access-Control-Request-Method", "Alt-Used", "Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Language",
		"Content-Location", "Content-Range", "Content-Type", "Cookie", "Date", "Depth", "Destination", "Digest", "DPoP", "Early-Data", "Expect",
		"Forwarded", "From", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive", "Max-Forwards",
		"Origin", "Overwrite", "Pragma", "Prefer", "Priority", "Proxy-Authorization", "Proxy-Connection", "Range", "Referer", "Sec-Fetch-Dest",
		"Sec-Fetch-Mode", "Sec-Fetch-Site", "TE", "Trailer", "Upgrade", "Upgrade-Insecure-Requests", "User-Agent", "Via", "Want-Digest",
		"X-Amzn-Trace-Id", "Traceparent", "X-Client-IP", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Proto",
		"X-Host", "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-Original-Host", "X-Original-URL", "X-Real-IP",
		"X-Requested-With", "X-Rewrite-URL", "X-Original-Method", "X-Cache", "X-Cache-Key", "Age", "Warning", "Vary",
		"X-Vault-AWS-IAM-Server-ID", "X-Vault-Forward", "X-Vault-Inconsistent", "X-Vault-Index", "X-Vault-MFA", "X-Vault-Namespace",
		"X-Vault-No-Request-Forwarding", "X-Vault-Policy-Override", "X-Vault-Request", "X-Vault-Token", "X-Vault-Wrap-Format", "X-Vault-Wrap-TTL",
		"X-Vault-Token-Options", "X-Vault-Cache-Control", "X-Vault-Something-New", "X_Vault_Token", "X_Vault_Namespace", "X-Thaw-Token",
	}
}

// values are what such headers could be misused with.
func values() []string {
	return []string{"poison", "60s", "true", "bytes=0-3", "list, no-cache", "PUT", "GET", "/v1/sys/health", "identity;q=0, gzip", "*", "1", "forward-active-node", "close, X-Vault-Token"}
}

// What one caller puts into a header reaches nobody else: after any request for
// a secret that was not cached, the next caller gets what Vault itself says.
func TestNoRequestHeaderPoisonsTheCache(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("clean", "right")
	vault := strings.TrimPrefix(o.Addr(), "http://")
	direct := ask(t, vault, request("GET", o.data("clean"), "", "X-Vault-Token: "+o.token))
	p := o.start("VAULT_DEFAULT_CACHE_ENABLED=true", "VAULT_DEFAULT_CACHE_TTL=10m")
	clear := request("POST", "/proxy/v1/cache-clear", `{"type":"all"}`)
	reached := 0
	for _, name := range headers() {
		for _, value := range values() {
			// The first caller's request, the worst it can send.
			ask(t, p.addr, clear)
			first := p.get(o.data("clean"), name+": "+value)
			if first.status == http.StatusOK {
				reached++
			}
			// The next one's, and once more when it is surely cached.
			for range 2 {
				next := p.get(o.data("clean"))
				if next.status != direct.status || next.value() != "right" {
					t.Errorf("after %s: %s: %d %s", name, value, next.status, next.body)
				}
				if odd := strange(next.header, direct.header); len(odd) > 0 {
					t.Errorf("after %s: %s: headers %v", name, value, odd)
				}
			}
		}
	}
	if reached < len(headers()) {
		t.Errorf("only %d requests with a strange header were answered: this test shows little", reached)
	}
}

// strange lists the headers of an answer through thaw that Vault's own answer
// does not have and thaw does not add.
func strange(got, want http.Header) []string {
	var odd []string
	for _, name := range slices.Sorted(maps.Keys(got)) {
		switch name {
		case "Age", "Cache-Status", "X-Cache", "Date", "Content-Length":
			continue
		}
		if !slices.Equal(got[name], want[name]) {
			odd = append(odd, name+": "+strings.Join(got[name], ", "))
		}
	}
	return odd
}

// A header cannot make a hit of what is cached for others, nor a write of a
// read.
func TestNoRequestHeaderOpensWhatIsCached(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("theirs", "their-value")
	p := o.start()
	if a := p.get(o.data("theirs")); a.value() != "their-value" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	const stranger = "X-Vault-Token: hvs.stranger"
	for _, name := range headers() {
		if name == "X-Vault-Token" {
			continue // a second one: see the next test
		}
		for _, value := range append(values(), o.data("theirs"), "Bearer "+o.token[:8]) {
			for _, path := range []string{o.data("theirs"), "/v1/" + o.kv + "/data/none"} {
				if a := p.get(path, stranger, name+": "+value); a.status == http.StatusOK || strings.Contains(a.body, "their-value") {
					t.Errorf("%s with %s: %s: %d %s", path, name, value, a.status, a.body)
				}
			}
		}
	}
	if a := ask(t, strings.TrimPrefix(o.Addr(), "http://"), request("GET", o.data("theirs"), "", "X-Vault-Token: "+o.token)); a.value() != "their-value" {
		t.Errorf("a read became something else: %d %s", a.status, a.body)
	}
}

// Two tokens in one request: thaw must go by the one that Vault goes by, or a
// hit would be decided for another caller than an answer of Vault's. (In one
// spelling thaw reads more than Vault: "bearer", whose case means nothing in
// RFC 9110 section 11.1. It is that token's own rights that count then.)
func TestTwoTokensInOneRequestAreReadAsVaultDoes(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("a", "right")
	p := o.start("THAW_AUTH_METHOD=none", "VAULT_TOKEN=")
	vault := strings.TrimPrefix(o.Addr(), "http://")
	mine := "X-Vault-Token: " + o.token
	if a := p.get(o.data("a"), mine); a.value() != "right" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, head := range [][]string{
		{mine, "X-Vault-Token: hvs.other"}, {"X-Vault-Token: hvs.other", mine}, {"X-Vault-Token:", mine}, {mine, "X-Vault-Token:"},
		{mine, "Authorization: Bearer hvs.other"}, {"X-Vault-Token: hvs.other", "Authorization: Bearer " + o.token}, {"Authorization: Bearer " + o.token},
		{"X-Vault-Token:", "Authorization: Bearer " + o.token}, {"Authorization: Bearer  " + o.token},
		{"Authorization: Basic eA==", "Authorization: Bearer " + o.token}, {"Authorization: Bearer hvs.other", "Authorization: Bearer " + o.token},
		{"X-Vault-Token: " + o.token + ", hvs.other"}, {"X-Vault-Token: \"" + o.token + "\""}, {"x-vault-token: " + o.token}, {"Authorization: " + o.token},
		{"Authorization: Bearer\t" + o.token}, {"Authorization: Bearer"}, {"X-Vault-Token: " + strings.ToUpper(o.token)},
	} {
		direct := ask(t, vault, request("GET", o.data("a"), "", head...))
		through := p.get(o.data("a"), head...)
		if through.status != direct.status || through.value() != direct.value() {
			t.Errorf("%q: Vault says %d, thaw %d", strings.ReplaceAll(strings.Join(head, " | "), o.token, "TOKEN"), direct.status, through.status)
		}
	}
}

// What Vault tells each caller about itself, its rights or what it may see, is
// told to nobody else, although every GET is cached.
func TestAnswersAboutACallerAreNotShared(t *testing.T) {
	t.Parallel()
	o := siteOn(t, harness.Dev(t)) // other tests mount and write on the shared one
	o.put("a", "right")
	less, err := o.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour})
	harness.Must(t, err)
	batch, err := o.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour, Batch: true})
	harness.Must(t, err)
	p := o.start("VAULT_DEFAULT_CACHE_ENABLED=true", "VAULT_DEFAULT_CACHE_TTL=10m")
	vault := strings.TrimPrefix(o.Addr(), "http://")
	tokens := []string{o.token, less, batch, o.RootToken(), "hvs.nobodys", ""}
	differ := 0
	for _, path := range []string{
		"/v1/sys/internal/ui/resultant-acl", "/v1/sys/internal/ui/mounts", "/v1/sys/internal/ui/mounts/" + o.kv + "/a", "/v1/sys/internal/ui/mounts/" + o.kv, "/v1/sys/mounts",
		"/v1/sys/policies/acl/" + o.kv, "/v1/auth/token/lookup-self", "/v1/cubbyhole/x", "/v1/identity/entity/id?list=true", "/v1/" + o.kv + "/metadata?list=true", "/v1/" + o.kv + "/config",
	} {
		var first string
		for i := range 3 * len(tokens) { // each of them, and again when everything is cached
			token := tokens[i%len(tokens)]
			asked := token
			if token == "" {
				asked = o.token // thaw's own
			}
			want := ask(t, vault, request("GET", path, "", "X-Vault-Token: "+asked))
			var head []string
			if token != "" {
				head = append(head, "X-Vault-Token: "+token)
			}
			got := p.get(path, head...)
			if token == "" && strings.HasSuffix(path, "lookup-self") {
				if strings.Contains(got.body, o.token) {
					t.Errorf("%s tells thaw's own token", path)
				}
				continue // shortened by thaw
			}
			if got.status != want.status || steady(got.body) != steady(want.body) {
				t.Errorf("%s as token %d: %d %s\nand Vault: %d %s", path, i%len(tokens), got.status, got.body, want.status, want.body)
			}
			if i == 0 {
				first = steady(want.body)
			} else if steady(want.body) != first {
				differ++
			}
		}
	}
	if differ < 50 {
		t.Errorf("Vault told callers apart only %d times: this test shows little", differ)
	}
}

// steady is a body without what changes from one second to the next, in one
// order: some of Vault's answers have another each time.
func steady(body string) string {
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return body
	}
	if m, ok := v.(map[string]any); ok {
		delete(m, "request_id")
		if data, ok := m["data"].(map[string]any); ok {
			delete(data, "ttl")
		}
	}
	text, _ := json.Marshal(v)
	return string(text)
}
