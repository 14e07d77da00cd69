package wire

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

var (
	asJSON = http.Header{"Content-Type": {"application/json"}}
	asHTML = http.Header{"Content-Type": {"text/html"}}
)

// id begins an envelope.
const id = `{"request_id":"2d9e0cf5-4d43-9a54-1b3c-6b6a2f4f8e77",`

func errorsOf(texts string) string { return `{"errors":[` + texts + "]}\n" }

// TestOnlyVaultsWordCounts is the table of shapes: what each answer is for each
// endpoint. What is not listed for an endpoint is a Failure there.
func TestOnlyVaultsWordCounts(t *testing.T) {
	t.Parallel()
	all := []Endpoint{Other, Secret, List, Write, Leader, Health, Capabilities, Lookup, Login}
	same := func(w Word, of ...Endpoint) map[Endpoint]Word {
		out := map[Endpoint]Word{}
		for _, e := range of {
			out[e] = w
		}
		return out
	}
	and := func(tables ...map[Endpoint]Word) map[Endpoint]Word {
		out := map[Endpoint]Word{}
		for _, t := range tables {
			for e, w := range t {
				out[e] = w
			}
		}
		return out
	}
	refusal := []Endpoint{Other, Secret, List, Write, Leader, Capabilities, Lookup, Login}
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
		want   map[Endpoint]Word
	}{
		"a secret":             {200, asJSON, id + `"data":{"v":"x"}}`, same(Value, Other, Secret, List, Write, Capabilities)},
		"a secret, charset":    {200, http.Header{"Content-Type": {"application/json; charset=utf-8"}}, id + `"data":{}}`, same(Value, Other, Secret, List, Write, Capabilities)},
		"a list with warnings": {200, asJSON, id + `"data":null,"warnings":["x"]}`, same(Value, Other, List, Write)},
		"a token looked up":    {200, asJSON, id + `"data":{"ttl":3600,"id":"x"}}`, same(Value, Other, Secret, List, Write, Capabilities, Lookup)},
		"a login":              {200, asJSON, id + `"data":null,"auth":{"client_token":"x"}}`, and(same(Value, Other, Write, Login), same(Wrapped, Secret, List, Capabilities, Lookup))},
		"a login, second step": {200, asJSON, id + `"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"x"}}}`, and(same(Value, Other, Write, Login), same(Wrapped, Secret, List, Capabilities, Lookup))},
		"a wrapping":           {200, asJSON, id + `"data":null,"wrap_info":{"token":"x"}}`, and(same(Value, Other, Write), same(Wrapped, Secret, List, Capabilities, Lookup, Login))},
		"a wrapping, real":     {200, asJSON, `{"request_id":"","data":null,"wrap_info":{"token":"x"}}`, and(same(Value, Other, Write), same(Wrapped, Secret, List, Capabilities, Lookup, Login))},
		"a leader":             {200, asJSON, `{"ha_enabled":true,"is_self":true}`, same(Value, Leader)},
		"a health":             {200, asJSON, `{"initialized":true,"sealed":false}`, same(Value, Health)},
		"a standby's health":   {429, asJSON, `{"initialized":true,"sealed":false}`, same(Value, Health)},
		"a sealed health":      {503, asJSON, `{"initialized":true,"sealed":true}`, same(Value, Health)},
		"a removed health":     {530, asJSON, `{"initialized":true}`, same(Value, Health)},
		"health, wrong status": {502, asJSON, `{"initialized":true}`, nil},
		"nothing to say":       {204, nil, ``, same(Value, Other, Write)},
		"a 204 with a body":    {204, nil, `x`, nil},

		"nothing there":       {404, asJSON, errorsOf(``), same(Absent, refusal...)},
		"no route":            {404, asJSON, errorsOf(`"no handler for route \"x\""`), same(Absent, refusal...)},
		"a deleted version":   {404, asJSON, id + `"data":{"data":null}}`, same(Absent, refusal...)},
		"a path without data": {404, asJSON, id + `"data":null,"warnings":["x"]}`, same(Absent, refusal...)},
		"no capability":       {403, asJSON, errorsOf(`"1 error occurred:\n\t* permission denied\n\n"`), same(Denied, refusal...)},
		"bad request":         {400, asJSON, errorsOf(`"x"`), same(Refused, refusal...)},
		"unsupported":         {405, asJSON, errorsOf(`"x"`), same(Refused, refusal...)},
		"lags":                {412, asJSON, errorsOf(`"x"`), same(Refused, refusal...)},
		"over a quota":        {429, asJSON, errorsOf(`"x"`), nil},
		"sealed":              {503, asJSON, errorsOf(`"Vault is sealed"`), nil},
		"internal":            {500, asJSON, errorsOf(`"x"`), nil},

		"maintenance":             {200, asJSON, `{"status":"maintenance"}`, nil},
		"an empty object":         {200, asJSON, `{}`, nil},
		"null":                    {200, asJSON, `null`, nil},
		"errors in a 200":         {200, asJSON, errorsOf(`"x"`), nil},
		"a wrapping of nothing":   {200, asJSON, `{"request_id":"","wrap_info":{}}`, nil},
		"a request id alone":      {200, asJSON, id + `"status":"ok"}`, same(Value, Other, Write)},
		"an id that is no text":   {200, asJSON, `{"request_id":7,"data":{}}`, nil},
		"data that is no object":  {200, asJSON, id + `"data":[]}`, same(Value, Other, Write)},
		"names in capitals":       {200, asJSON, `{"REQUEST_ID":"x","Data":{}}`, nil},
		"an array":                {200, asJSON, `[{"request_id":"x","data":{}}]`, nil},
		"a page":                  {200, asHTML, `<html></html>`, nil},
		"JSON that says text":     {200, http.Header{"Content-Type": {"text/plain"}}, id + `"data":{}}`, nil},
		"empty":                   {200, asJSON, ``, nil},
		"cut off":                 {200, asJSON, id + `"data":{"v":"x"`, nil},
		"two answers":             {200, asJSON, id + `"data":{}}` + id + `"data":{}}`, nil},
		"garbage behind it":       {200, asJSON, id + `"data":{}} trailing`, nil},
		"a byte order mark":       {200, asJSON, "\ufeff" + id + `"data":{}}`, nil},
		"compressed":              {200, asJSON, "\x1f\x8b\x08\x00\x00", nil},
		"an id twice":             {200, asJSON, id + `"request_id":7,"data":{}}`, nil},
		"data twice":              {200, asJSON, id + `"data":{},"data":[]}`, same(Value, Other, Write)},
		"nested without end":      {200, asJSON, id + `"data":` + strings.Repeat(`{"a":`, 20000) + `1` + strings.Repeat(`}`, 20001), nil},
		"partial content":         {206, asJSON, id + `"data":{}}`, nil},
		"a redirect":              {302, asJSON, id + `"data":{}}`, nil},
		"a gateway's 403":         {403, asJSON, `{"message":"Forbidden"}`, nil},
		"a page of 403":           {403, asHTML, `<html></html>`, nil},
		"an empty 404":            {404, nil, ``, nil},
		"an empty 403":            {403, asJSON, ``, nil},
		"errors that are no list": {404, asJSON, `{"errors":"not found"}`, nil},
		"errors of another kind":  {404, asJSON, `{"errors":[{"code":404}]}`, nil},
		"an unknown status":       {999, asJSON, errorsOf(`"x"`), nil},
		"a leader of text":        {200, asJSON, `{"ha_enabled":"yes"}`, nil},
		"a health of text":        {200, asJSON, `{"initialized":"yes"}`, nil},
	} {
		a := New(c.status, c.header, []byte(c.body))
		for _, of := range all {
			if got := a.Word(of); got != c.want[of] {
				t.Errorf("%s: endpoint %d: word %d, want %d", name, of, got, c.want[of])
			}
		}
	}
}

// TestReasons holds what errors mean.
func TestReasons(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		texts  string
		want   Reason
	}{
		{403, `"2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"`, AboutToken},
		{403, `"permission denied"`, AboutToken},
		{403, `"bad token"`, AboutToken},
		{403, `"1 error occurred:\n\t* permission denied\n\n"`, AboutPath},
		{403, `"1 error occurred:\n\t* permission denied\n\n","permission denied"`, AboutToken},
		{403, `"API access to this namespace has been locked by an administrator"`, AboutRequest},
		{403, `"the word invalid token inside"`, AboutRequest},
		{403, `"preflight capability check returned 403, please ensure client's policies grant access to path \"secret/\""`, AboutPath},
		{403, ``, Unexplained},
		{400, `"invalid token"`, Unexplained},
		{404, ``, Nothing},
		{404, `"no handler for route"`, Unexplained},
		{503, `"Vault is sealed"`, Sealed},
		{500, `"Vault is sealed"`, Unexplained},
		{500, `"node is not active"`, NoLeader},
		{503, `"no active Vault instance found"`, NoLeader},
		{500, `"active cluster node not found"`, NotForwarded},
		{472, `"node is not active"`, NoLeader},
		{400, `"node is not active"`, Unexplained},
		{412, `"required index state not present"`, Lags},
		{400, `"forwarding via header X-Vault-Forward is disabled in configuration"`, NoForwarding},
	} {
		if got := New(c.status, nil, []byte(errorsOf(c.texts))).Reason(); got != c.want {
			t.Errorf("%d %s: reason %d, want %d", c.status, c.texts, got, c.want)
		}
	}
	for _, body := range []string{``, `<html>invalid token</html>`, `{"error":"invalid token"}`, `{"errors":"bad token"}`, `{"message":"permission denied"}`} {
		if TokenRefused(403, []byte(body)) {
			t.Errorf("%s is about the token", body)
		}
	}
}

func TestInvalidTokensAreToldFromMissingRights(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		errors []string
		want   bool
	}{
		{"Vault since 1.17", 403, []string{"2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"}, true},
		{"lookup of an unknown token", 403, []string{"bad token"}, true},
		{"OpenBao, and Vault before 1.17", 403, []string{"permission denied"}, true},
		{"a policy", 403, []string{"1 error occurred:\n\t* permission denied\n\n"}, false},
		{"the preflight", 403, []string{"preflight capability check returned 403, please ensure client's policies grant access to path \"secret/\""}, false},
		{"another status", 400, []string{"invalid token"}, false},
		{"words inside a sentence", 403, []string{"error validating token: invalid token signature"}, false},
		{"no errors", 403, nil, false},
	} {
		body, err := json.Marshal(map[string]any{"errors": c.errors})
		if err != nil {
			t.Fatal(err)
		}
		if got := TokenRefused(c.status, body); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if TokenRefused(403, []byte("<html>invalid token")) || TokenRefused(403, nil) {
		t.Error("something else than Vault's JSON counts")
	}
}

// TestPeekLeavesTheBody: whatever was peeked at, its reader gets all of it; and
// an answer of which the beginning is known is told by that.
func TestPeekLeavesTheBody(t *testing.T) {
	t.Parallel()
	secret := id + `"lease_id":"","data":{"v":"` + strings.Repeat("x", 500) + `"}}`
	for _, c := range []struct {
		status int
		body   string
		most   int
		of     Endpoint
		want   Word
		part   bool
	}{
		{200, secret, 1 << 10, Secret, Value, false},
		{200, secret, len(secret), Secret, Value, false},
		{200, secret, 200, Secret, Value, true},
		{200, secret, 20, Secret, Failure, true},
		{200, id + `"x":1,` + secret[1:], 60, Other, Value, true},
		{404, errorsOf(`"` + strings.Repeat("x", 500) + `"`), 100, Secret, Absent, true},
		{200, `<html>` + strings.Repeat("x", 500), 100, Secret, Failure, true},
		{200, ``, 100, Secret, Failure, false},
	} {
		res := response(c.status, asJSON, c.body)
		a := Peek(res, c.most)
		if got := a.Word(c.of); got != c.want || a.Part != c.part {
			t.Errorf("%.40s, peeked %d: word %d, part %t", c.body, c.most, got, a.Part)
		}
		if rest := readAll(t, res); rest != c.body {
			t.Errorf("%.40s, peeked %d: %q is left", c.body, c.most, rest)
		}
	}
}

func response(status int, header http.Header, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: header, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPeekHandsOnWhatFails: an answer that ends too early does so for its reader.
func TestPeekHandsOnWhatFails(t *testing.T) {
	t.Parallel()
	broken := io.NopCloser(io.MultiReader(strings.NewReader(errorsOf(`"x"`)), failing{}))
	res := &http.Response{StatusCode: 404, Header: asJSON, ContentLength: -1, Body: broken}
	if a := Peek(res, 100); !a.Part {
		t.Error("an answer that broke off counts as whole")
	}
	if b, err := io.ReadAll(res.Body); err != io.ErrUnexpectedEOF || string(b) != errorsOf(`"x"`) {
		t.Errorf("%q, %v", b, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestForm(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"": "an empty body", " \n": "an empty body", "<!doctype html>": "an HTML page", `{"a":1}`: "JSON of another shape", `{"a":`: "JSON that ends too early", "busy": "no JSON object",
	} {
		if got := New(200, asJSON, []byte(body)).Form(); got != want {
			t.Errorf("%q is %s", body, got)
		}
	}
}

func TestFromCache(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, value string
		want        bool
	}{
		{"Age", "0", true}, {"X-Cache", "HIT", true}, {"X-Cache", "miss, hit", true}, {"X-Cache", "MISS", false},
		{"Cache-Status", "thaw; hit; detail=memory", true}, {"Cache-Status", "cdn;hit", true}, {"Cache-Status", `a; fwd=miss, b; hit`, true},
		{"Cache-Status", "thaw; fwd=miss", false}, {"Cache-Status", "hit-cache; fwd=miss", false}, {"Date", "x", false}, {"X-Cache", "Hit from cloudfront", true}, {"X-Cache", "Miss from cloudfront", false},
	}
	for _, tt := range tests {
		if got := FromCache(http.Header{tt.name: {tt.value}}); got != tt.want {
			t.Errorf("%s: %s = %v", tt.name, tt.value, got)
		}
	}
}
