package answers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/answers"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/journal"
	"github.com/thaw-project/thaw/extension/proxy"
	"github.com/thaw-project/thaw/extension/vault"
)

// answer is what the other end gives.
type answer struct {
	status int
	kind   string // Content-Type
	body   string
	header http.Header
}

func vaults(status int, body string) answer {
	return answer{status: status, kind: "application/json", body: body}
}

// site is a client of an origin that answers as told, and what is kept of it.
type site struct {
	*answers.Account
	t      *testing.T
	client *vault.Client
	next   answer
	log    strings.Builder
	now    time.Time
	server *httptest.Server
}

const (
	own    = "own-planted-token"
	caller = "caller-planted-token"
)

func open(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, now: time.Unix(1_795_248_117, 0)}
	now := func() time.Time { return s.now }
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range s.next.header {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Type", s.next.kind)
		if s.next.kind == "" {
			w.Header()["Content-Type"] = nil
		}
		w.WriteHeader(s.next.status)
		_, _ = io.WriteString(w, s.next.body)
	}))
	t.Cleanup(s.server.Close)
	s.Account = answers.New(answers.Options{
		Log: journal.New(&s.log, false, slog.LevelInfo, now), Own: func() string { return own }, Role: "app", Login: true,
		Path: proxy.Loggable, Named: func(text string) string { return strings.ReplaceAll(text, "VAULT_ADDR", "VLE_VAULT_ADDR") }, Now: now,
	})
	var err error
	s.client, err = vault.New(vault.Options{Config: config.Config{Addrs: []string{s.server.URL}, ClientTimeout: time.Second}, Observer: s.Account, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

// ask sends a request, reads its answer and returns what was logged.
func (s *site) ask(a answer, method, path, token, body string) (logged string) {
	s.t.Helper()
	s.next = a
	s.log.Reset()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, "/v1/"+path, content)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := s.client.Do(req)
	if err == nil {
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if method != http.MethodHead && string(got) != a.body {
			s.t.Errorf("the reader got %q", got)
		}
	}
	for _, planted := range []string{own, caller, "planted-value"} {
		if strings.Contains(s.log.String(), planted) {
			s.t.Errorf("%s is in the log: %s", planted, s.log.String())
		}
	}
	return s.log.String()
}

// TestRefusalsAreToldWithWhoAndWhatToCheck: each kind of refusal, by whose token.
func TestRefusalsAreToldWithWhoAndWhatToCheck(t *testing.T) {
	t.Parallel()
	denied, invalid := vaults(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`), vaults(403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`)
	quota := vaults(429, `{"errors":["request path \"secret/data/x\": rate limit quota exceeded"]}`)
	quota.header = http.Header{"X-Ratelimit-Limit": {"5"}}
	for name, c := range map[string]struct {
		answer
		method, token, body string
		want                string // in the line; empty: none
		not                 string
		refused             uint64
	}{
		"policy, own":          {denied, "GET", own, "", "Vault refuses secret/data/x to role app: 403: check the role's policies", "", 1},
		"policy, a caller's":   {denied, "GET", caller, "", "to a caller's token: 403: check the token's policies", "", 1},
		"no token":             {denied, "GET", "", "", "to a request without a token: 403: callers must bring", "", 1},
		"token, own":           {invalid, "GET", own, "", "invalid, expired or revoked; thaw logs in again", "", 1},
		"token, a caller's":    {invalid, "GET", caller, "", "the token is invalid, expired or revoked", "logs in", 1},
		"bad request":          {vaults(400, `{"errors":["unsupported path"]}`), "GET", own, "", "400: check the request\",\"path\":\"secret/data/x\",\"status\":400,\"vault\":\"unsupported path", "", 1},
		"a write's words":      {vaults(400, `{"errors":["bad planted-value"]}`), "POST", own, `{"v":"planted-value"}`, "400: check the request", "bad", 1},
		"a token in the words": {vaults(400, `{"errors":["token `+caller+` is bad"]}`), "GET", caller, "", "400: check the request", "is bad", 1},
		"quota":                {quota, "GET", own, "", "429: a rate limit quota of Vault's is used up (5 requests)", "", 1},
		"quota's words":        {quota, "POST", own, `{}`, "rate limit quota exceeded", "", 1},
		"no data in the path":  {vaults(404, `{"request_id":"x","data":null,"warnings":["Invalid path for a versioned K/V secrets engine"]}`), "GET", own, "", "nothing at secret/data/x: 404: Invalid path for a versioned", "", 0},
		"nothing there":        {vaults(404, `{"errors":[]}`), "GET", own, "", "", "", 0},
		"a node that lags":     {vaults(412, `{"errors":["required index state not present"]}`), "GET", own, "", "", "", 0},
		"a secret":             {vaults(200, `{"request_id":"x","data":{"v":"planted-value"}}`), "GET", own, "", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			got := s.ask(c.answer, c.method, "secret/data/x", c.token, c.body)
			if c.want == "" && got != "" || !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("logged %s, want %q", got, c.want)
			}
			if n := s.Counts(); n.Refused != c.refused || n.Codes[c.status] == 0 || n.Foreign != 0 {
				t.Errorf("%+v", n)
			}
		})
	}
}

// TestForeignAnswersAreTold: whatever comes in the place of Vault's answer, and
// none of what Vault itself says.
func TestForeignAnswersAreTold(t *testing.T) {
	t.Parallel()
	page := func(status int) answer {
		return answer{status: status, kind: "text/html; charset=utf-8", body: "<html>sign in</html>"}
	}
	id := `{"request_id":"x","data":{}}`
	for name, c := range map[string]struct {
		answer
		method, path string
		foreign      bool
	}{
		"a page":                     {page(200), "GET", "secret/data/x", true},
		"a gateway's 403":            {vaults(403, `{"message":"Forbidden"}`), "GET", "secret/data/x", true},
		"a gateway's 403, a list":    {vaults(403, `{"message":"Forbidden"}`), "LIST", "secret/metadata/x", true},
		"a gateway's 403, version 1": {vaults(403, `{"message":"Forbidden"}`), "GET", "kv/x", true},
		"a page of 404":              {page(404), "GET", "kv/x", true},
		"a balancer's 503":           {page(503), "GET", "secret/data/x", true},
		"maintenance":                {vaults(200, `{"status":"maintenance"}`), "GET", "kv/x", true},
		"text":                       {answer{status: 200, kind: "text/plain", body: "OK"}, "GET", "secret/data/x", true},
		"a write":                    {page(200), "POST", "secret/data/x", true},
		"a login":                    {page(403), "POST", "auth/aws/login", true},
		"the index":                  {page(200), "GET", "sys/leader", true},
		"the index, JSON":            {vaults(200, `{"status":"ok"}`), "GET", "sys/leader", true},
		"health":                     {vaults(200, `{"status":"ok"}`), "GET", "sys/health", true},
		"the token":                  {vaults(200, `{"active":true}`), "GET", "auth/token/lookup-self", true},
		"capabilities":               {vaults(200, `{"ok":1}`), "POST", "sys/capabilities-self", true},
		"mounts":                     {page(200), "GET", "sys/internal/ui/mounts/secret/x", true},
		"nothing, and no type":       {answer{status: 403}, "GET", "secret/data/x", true},
		"an answer":                  {vaults(200, id), "GET", "secret/data/x", false},
		"a list":                     {vaults(200, id), "LIST", "secret/metadata/", false},
		"a write's":                  {answer{status: 204}, "POST", "secret/data/x", false},
		"a standby's health":         {vaults(429, `{"initialized":true,"sealed":false,"standby":true}`), "GET", "sys/health", false},
		"a certificate":              {answer{status: 200, kind: "application/pem-certificate-chain", body: "-----BEGIN"}, "GET", "pki/ca/pem", false},
		"a public key":               {answer{status: 200, kind: "text/plain", body: "ssh-rsa A"}, "GET", "ssh/public_key", false},
		"acme":                       {answer{status: 400, kind: "application/problem+json", body: `{"type":"x"}`}, "POST", "pki/acme/new-order", false},
		"keys":                       {vaults(200, `{"keys":[]}`), "GET", "identity/oidc/.well-known/keys", false},
		"seal status":                {vaults(200, `{"sealed":false}`), "GET", "sys/seal-status", false},
		"metrics":                    {answer{status: 200, kind: "text/plain", body: "x 1"}, "GET", "sys/metrics", false},
		"sealed":                     {vaults(503, `{"errors":["Vault is sealed"]}`), "GET", "secret/data/x", false},
		"a head":                     {page(200), "HEAD", "secret/data/x", false},
		"a long secret":              {vaults(200, `{"request_id":"x","data":{"v":"`+strings.Repeat("x", 1<<15)+`"}}`), "GET", "secret/data/x", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			got := s.ask(c.answer, c.method, c.path, own, "")
			if n := s.Counts(); (n.Foreign == 1) != c.foreign || strings.Contains(got, "in the place of Vault") != c.foreign {
				t.Errorf("%+v\n%s", n, got)
			}
			if c.foreign && (!strings.Contains(got, "VLE_VAULT_ADDR") || !strings.Contains(got, fmt.Sprintf(`"status":%d`, c.status)) || !strings.Contains(got, "content_type")) {
				t.Errorf("no remedy, status or content type: %s", got)
			}
		})
	}
}

// TestTheEndOfAnOutageIsTold, once, and by an answer of Vault's only.
func TestTheEndOfAnOutageIsTold(t *testing.T) {
	t.Parallel()
	good := vaults(200, `{"request_id":"x","data":{}}`)
	for name, down := range map[string]answer{
		"sealed":    vaults(503, `{"errors":["Vault is sealed"]}`),
		"no leader": vaults(500, `{"errors":["no active Vault instance found"]}`),
		"a page":    {status: 502, kind: "text/html", body: "<html>"},
	} {
		s := open(t)
		got := s.ask(down, "GET", "secret/data/x", own, "")
		if s.Silent().IsZero() || strings.Contains(got, "again") || !strings.Contains(got, "WARN") {
			t.Errorf("%s: silent since %v: %s", name, s.Silent(), got)
		}
		s.now = s.now.Add(90 * time.Second)
		if got := s.ask(answer{status: 200, kind: "text/html", body: "<html>"}, "GET", "secret/data/x", own, ""); strings.Contains(got, "again") || s.Silent().IsZero() {
			t.Errorf("%s: a page ends it: %s", name, got)
		}
		if got := s.ask(good, "GET", "secret/data/x", own, ""); !strings.Contains(got, `"msg":"Vault answers again","outage_seconds":90`) || !s.Silent().IsZero() {
			t.Errorf("%s: silent since %v: %s", name, s.Silent(), got)
		}
		if got := s.ask(good, "GET", "secret/data/x", own, ""); got != "" {
			t.Errorf("%s: once more: %s", name, got)
		}
	}
	s := open(t)
	s.server.Close()
	if got := s.ask(good, "GET", "secret/data/x", own, ""); !strings.Contains(got, "Vault cannot be asked") || s.Silent().IsZero() {
		t.Errorf("silent since %v: %s", s.Silent(), got)
	}
}

// TestACallerWhoLeftIsNoOutage.
func TestACallerWhoLeftIsNoOutage(t *testing.T) {
	t.Parallel()
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/v1/secret/data/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := s.client.Do(req); err == nil {
		res.Body.Close()
		t.Fatal("it was answered")
	}
	if !s.Silent().IsZero() || s.log.String() != "" {
		t.Errorf("silent since %v: %s", s.Silent(), s.log.String())
	}
}

// TestARefusedTokenIsKnownUntilItIsAccepted: ours, and by its own answers.
func TestARefusedTokenIsKnownUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	s := open(t)
	invalid := vaults(403, `{"errors":["permission denied"]}`)
	s.ask(invalid, "GET", "secret/data/x", caller, "")
	if !s.TokenRefused().IsZero() {
		t.Error("a caller's counts as ours")
	}
	s.ask(invalid, "GET", "secret/data/x", own, "")
	s.ask(vaults(200, `{"ha_enabled":false}`), "GET", "sys/leader", "", "")
	s.ask(vaults(403, `{"message":"no"}`), "GET", "secret/data/x", own, "")
	if s.TokenRefused() != s.now {
		t.Errorf("refused at %v", s.TokenRefused())
	}
	s.ask(vaults(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`), "GET", "secret/data/x", own, "")
	if !s.TokenRefused().IsZero() {
		t.Errorf("refused at %v, although a policy was asked since", s.TokenRefused())
	}
}

// TestTokensInPathsAreNotLogged.
func TestTokensInPathsAreNotLogged(t *testing.T) {
	t.Parallel()
	s := open(t)
	got := s.ask(vaults(403, `{"errors":["bad token"]}`), "GET", "auth/token/lookup/"+caller, own, "")
	var line struct{ Path string }
	if err := json.Unmarshal([]byte(got), &line); err != nil || line.Path != "auth/token/lookup/..." {
		t.Errorf("%v: %s", err, got)
	}
}
