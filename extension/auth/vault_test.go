package auth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// vault is a strict stand-in for the part of Vault that logins use. It holds
// roles, secret ids and tokens, and refuses what Vault refuses in Vault's
// words (builtin/credential/aws/path_login.go, builtin/credential/approle,
// vault/token_store.go, vault/request_handling.go of 1.21).
type vault struct {
	*httptest.Server
	t   *testing.T
	now func() time.Time

	mu        sync.Mutex // guards the fields below
	namespace string
	entity    string
	policies  []string // token policies of logins
	identity  []string // identity policies of logins
	ttl       time.Duration
	maxTTL    time.Duration // of renewals, from the login; 0: none
	kind      string        // service or batch
	uses      int
	roleID    string
	secretID  string
	oneUse    bool // the secret id serves once
	jwt       string
	serverID  string
	sts       string // sts_endpoint of the aws mount
	bound     string // bound_iam_principal_arn
	tokens    map[string]*vaultToken
	logins    int
	renewals  int
	lookups   int
	down      int           // status of every answer while not 0
	echo      string        // login refusals quote this
	entered   chan struct{} // when set: one value per login that arrived
	gate      chan struct{} // when set: logins wait for a value
	drops     int           // so many logins lose their connection
	onRenew   func()        // when set: called while a renewal is under way
	onDown    func()        // when set: called for each request while down is
}

type vaultToken struct {
	made    time.Time
	expires time.Time // zero: never
	kind    string
	noSelf  bool // may not call the -self endpoints
	entity  string
}

func newVault(t *testing.T, now func() time.Time) *vault {
	v := &vault{t: t, now: now, policies: []string{"default", "app"}, entity: "e-1", ttl: time.Hour, kind: "service",
		roleID: "role-id-0123456789", secretID: "secret-id-0123456789", jwt: "header.payload.signature-of-the-jwt", tokens: map[string]*vaultToken{}}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

// Do makes vault an Origin.
func (v *vault) Do(req *http.Request) (*http.Response, error) {
	if req.URL.Host != "" || req.URL.Scheme != "" || !strings.HasPrefix(req.URL.Path, "/v1/") {
		return nil, fmt.Errorf("the request's URL %q should have a path only", req.URL)
	}
	base, err := url.Parse(v.URL)
	if err != nil {
		return nil, err
	}
	clone := req.Clone(req.Context())
	clone.URL.Scheme, clone.URL.Host = base.Scheme, base.Host
	return v.Client().Do(clone)
}

func (v *vault) change(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *vault) count(n *int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *n
}

// live reports whether a token works.
func (v *vault) live(token string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.findLocked(token) != nil
}

func (v *vault) findLocked(token string) *vaultToken {
	t := v.tokens[token]
	if t == nil || !t.expires.IsZero() && !v.now().Before(t.expires) {
		return nil
	}
	return t
}

// give makes a token that nobody logged in for.
func (v *vault) give(value string, ttl time.Duration, noSelf bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := &vaultToken{made: v.now(), kind: "service", noSelf: noSelf, entity: v.entity}
	if ttl > 0 {
		t.expires = v.now().Add(ttl)
	}
	v.tokens[value] = t
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Header.Get("X-Vault-Request") != "true" {
		v.t.Errorf("%s %s lacks X-Vault-Request", r.Method, r.URL.Path)
	}
	login := strings.HasPrefix(r.URL.Path, "/v1/auth/") && strings.HasSuffix(r.URL.Path, "/login")
	if login {
		v.mu.Lock()
		entered, gate := v.entered, v.gate
		v.logins++
		v.mu.Unlock()
		if entered != nil {
			entered <- struct{}{}
		}
		if gate != nil {
			select {
			case <-gate:
			case <-r.Context().Done():
				return
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if login && v.drops > 0 {
		v.drops--
		panic(http.ErrAbortHandler)
	}
	switch ns := r.Header.Get("X-Vault-Namespace"); {
	case v.down != 0:
		if v.onDown != nil {
			v.onDown()
		}
		refuse(w, v.down, "Vault is sealed")
	case ns != v.namespace:
		refuse(w, 404, "namespace not found")
	case login:
		v.login(w, r, body)
	case r.URL.Path == "/v1/auth/token/renew-self" && r.Method == http.MethodPost:
		v.renewals++
		if v.onRenew != nil {
			v.onRenew()
		}
		v.self(w, r, v.renew)
	case r.URL.Path == "/v1/auth/token/lookup-self" && r.Method == http.MethodGet:
		v.lookups++
		v.self(w, r, v.lookup)
	case r.URL.Path == "/v1/auth/token/revoke-self" && r.Method == http.MethodPost:
		v.self(w, r, func(w http.ResponseWriter, token string, t *vaultToken) {
			if t.kind == "batch" {
				refuse(w, 400, "batch tokens cannot be revoked")
				return
			}
			delete(v.tokens, token)
			w.WriteHeader(http.StatusNoContent)
		})
	default:
		refuse(w, 404, "no handler for route. route entry not found.")
	}
}

// self serves the -self endpoints to their token.
func (v *vault) self(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, string, *vaultToken)) {
	token := r.Header.Get("X-Vault-Token")
	t := v.findLocked(token)
	switch {
	case t == nil:
		refuse(w, 403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	case t.noSelf:
		refuse(w, 403, "1 error occurred:\n\t* permission denied\n\n")
	default:
		serve(w, token, t)
	}
}

func (v *vault) login(w http.ResponseWriter, r *http.Request, body []byte) {
	var in map[string]string
	if r.Method != http.MethodPost || json.Unmarshal(body, &in) != nil {
		refuse(w, 400, "failed to parse JSON input")
		return
	}
	if v.echo != "" {
		refuse(w, 400, v.echo+string(body))
		return
	}
	mount := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/auth/"), "/login")
	why := ""
	switch mount {
	case "approle":
		why = v.approle(in)
	case "jwt":
		if in["jwt"] != v.jwt {
			why = "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience"
		}
	case "aws":
		why = v.aws(in)
	default:
		refuse(w, 403, "permission denied") // what Vault says of a mount it doesn't have
		return
	}
	if why != "" {
		refuse(w, 400, why)
		return
	}
	prefix := map[string]string{"service": "hvs.", "batch": "hvb."}[v.kind]
	token := fmt.Sprintf("%sCAESI-token-number-%04d-of-the-stand-in", prefix, v.logins)
	t := &vaultToken{made: v.now(), kind: v.kind, entity: v.entity}
	if v.ttl > 0 {
		t.expires = v.now().Add(v.ttl)
	}
	v.tokens[token] = t
	v.answer(w, token, v.ttl)
}

func (v *vault) answer(w http.ResponseWriter, token string, ttl time.Duration) {
	reply(w, map[string]any{"request_id": "r", "auth": map[string]any{
		"client_token": token, "accessor": "a", "policies": append(append([]string{}, v.policies...), v.identity...),
		"token_policies": v.policies, "identity_policies": v.identity, "lease_duration": int(ttl / time.Second),
		"renewable": v.kind != "batch", "entity_id": v.entity, "token_type": v.kind, "num_uses": v.uses,
	}})
}

func (v *vault) renew(w http.ResponseWriter, token string, t *vaultToken) {
	if t.kind == "batch" {
		refuse(w, 400, "batch tokens cannot be renewed")
		return
	}
	ttl := v.ttl
	if v.maxTTL > 0 {
		ttl = min(ttl, t.made.Add(v.maxTTL).Sub(v.now()))
	}
	t.expires = v.now().Add(ttl)
	v.answer(w, token, ttl)
}

func (v *vault) lookup(w http.ResponseWriter, token string, t *vaultToken) {
	data := map[string]any{"id": token, "ttl": 0, "creation_ttl": 0, "renewable": false, "policies": v.policies,
		"identity_policies": v.identity, "entity_id": t.entity, "type": t.kind, "num_uses": v.uses}
	if !t.expires.IsZero() {
		data["ttl"] = int(t.expires.Sub(v.now()) / time.Second)
		data["creation_ttl"] = int(t.expires.Sub(t.made) / time.Second)
		data["renewable"] = true
	}
	reply(w, map[string]any{"request_id": "r", "data": data})
}

func (v *vault) approle(in map[string]string) string {
	if in["role_id"] != v.roleID {
		return "invalid role or secret ID"
	}
	if in["secret_id"] != v.secretID || v.secretID == "" {
		return "invalid role or secret ID"
	}
	if v.oneUse {
		v.secretID = ""
	}
	return ""
}

// aws does what Vault does with a signed request: it sends it to STS itself.
func (v *vault) aws(in map[string]string) string {
	decode := func(name string) string {
		b, err := base64.StdEncoding.DecodeString(in[name])
		if err != nil {
			v.t.Errorf("%s is not base64", name)
		}
		return string(b)
	}
	if in["iam_http_request_method"] != http.MethodPost {
		return "invalid iam_http_request_method"
	}
	signed, err := url.Parse(decode("iam_request_url"))
	if err != nil || signed.RawQuery != "" {
		return "error parsing iam_request_url"
	}
	var headers http.Header
	if err := json.Unmarshal([]byte(decode("iam_request_headers")), &headers); err != nil {
		return "missing iam_request_headers"
	}
	if v.serverID != "" {
		got := headers.Get(serverIDHeader)
		if got == "" {
			return fmt.Sprintf("error validating X-Vault-AWS-IAM-Server-ID header: missing header %q", serverIDHeader)
		}
		if got != v.serverID {
			return fmt.Sprintf("error validating X-Vault-AWS-IAM-Server-ID header: expected %q but got %q", v.serverID, got)
		}
		if !strings.Contains(headers.Get("Authorization"), "x-vault-aws-iam-server-id") {
			return "error validating X-Vault-AWS-IAM-Server-ID header: vault header wasn't signed"
		}
	}
	req, err := http.NewRequest(http.MethodPost, v.sts+"/"+signed.RequestURI(), strings.NewReader(decode("iam_request_body")))
	if err != nil {
		return "error making upstream request: " + err.Error()
	}
	req.Host = signed.Host
	for name, values := range headers {
		req.Header[name] = values
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "error making upstream request: error making request: " + err.Error()
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 {
		return fmt.Sprintf("error making upstream request: received error code %d from STS: %s", res.StatusCode, raw)
	}
	arn := element(string(raw), "Arn")
	if in["role"] != "app" {
		return "entry for role " + in["role"] + " not found"
	}
	if v.bound != "" && arn != v.bound {
		return fmt.Sprintf("IAM Principal %q does not belong to the role %q", arn, in["role"])
	}
	return ""
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

func refuse(w http.ResponseWriter, status int, texts ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(map[string]any{"errors": texts}); err != nil {
		panic(err)
	}
}
