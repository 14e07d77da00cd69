package auth

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// vault is the stand-in with an AppRole, and with the methods jwt and aws, whose
// refusals have Vault's words (builtin/credential/aws/path_login.go of 1.21). Before
// it is what tests watch and disturb.
type vault struct {
	*httptest.Server
	*standin.Origin
	t *testing.T

	mu        sync.Mutex // guards the fields below
	namespace string     // the only one there is: the stand-in knows none
	entity    string
	policies  []string // token policies of logins
	identity  []string // identity policies of logins
	ttl       time.Duration
	maxTTL    time.Duration // of renewals, from the login; 0: none
	kind      string        // service or batch
	uses      int
	roleID    string
	secretID  string
	jwt       string
	serverID  string
	sts       string // sts_endpoint of the aws mount
	bound     string // bound_iam_principal_arn
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

// newVault serves a vault on loopback.
func newVault(t *testing.T, now func() time.Time) *vault {
	v := newVaultOf(t, now)
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func newVaultOf(t *testing.T, now func() time.Time) *vault {
	v := &vault{t: t, Origin: standin.New(standin.Options{Now: now}), policies: []string{"default", "app"}, entity: "e-1", ttl: time.Hour, kind: "service",
		roleID: "role-id-0123456789", secretID: "secret-id-0123456789", jwt: "header.payload.signature-of-the-jwt"}
	v.SetPolicy("app", map[string][]string{"auth/token/*": {"read", "update"}})
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
	return standin.Ask(v.Origin, "root", http.MethodPost, "auth/token/lookup", fmt.Sprintf(`{"token":%q}`, token)).Code == http.StatusOK
}

// give makes a token that nobody logged in for. noSelf: it may not call the -self
// endpoints.
func (v *vault) give(value string, ttl time.Duration, noSelf bool) {
	policy := map[bool]string{true: "none", false: "app"}[noSelf]
	body := fmt.Sprintf(`{"id":%q,"ttl":"%ds","policies":[%q],"no_default_policy":true}`, value, int(ttl.Seconds()), policy)
	v.Root(http.MethodPost, "auth/token/create", body)
}

// settleLocked has the stand-in do what the fields say.
func (v *vault) settleLocked() {
	r := standin.AppRole{Policies: v.policies, NoDefault: !slices.Contains(v.policies, "default"), TTL: v.ttl, MaxTTL: v.maxTTL, Uses: v.uses,
		Batch: v.kind == "batch", RoleID: v.roleID, SecretID: cmp.Or(v.secretID, "used up"), Entity: v.entity}
	v.AddAppRole("app", r)
	v.AddLogin("jwt", r, func(in map[string]any) string {
		if in["jwt"] != v.jwt {
			return "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience"
		}
		return ""
	})
	v.AddLogin("aws", r, v.aws)
	v.SetEntityPolicies(v.entity, v.identity...)
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Request") != "true" {
		v.t.Errorf("%s %s lacks X-Vault-Request", r.Method, r.URL.Path)
	}
	login := strings.HasPrefix(r.URL.Path, "/v1/auth/") && strings.HasSuffix(r.URL.Path, "/login")
	if login {
		body, _ := io.ReadAll(r.Body) // else a client that leaves goes unnoticed
		r.Body = io.NopCloser(strings.NewReader(string(body)))
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
		return
	case ns != v.namespace:
		refuse(w, 404, "namespace not found")
		return
	case login && v.echo != "":
		body, _ := io.ReadAll(r.Body)
		refuse(w, 400, v.echo+string(body))
		return
	case r.URL.Path == "/v1/auth/token/renew-self":
		if v.renewals++; v.onRenew != nil {
			v.onRenew()
		}
	case r.URL.Path == "/v1/auth/token/lookup-self":
		v.lookups++
	}
	v.settleLocked()
	v.Origin.ServeHTTP(w, r)
}

// aws does what Vault does with a signed request: it sends it to STS itself.
func (v *vault) aws(in map[string]any) string {
	decode := func(name string) string {
		text, _ := in[name].(string)
		b, err := base64.StdEncoding.DecodeString(text)
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
		return fmt.Sprintf("entry for role %s not found", in["role"])
	}
	if v.bound != "" && arn != v.bound {
		return fmt.Sprintf("IAM Principal %q does not belong to the role %q", arn, in["role"])
	}
	return ""
}

func refuse(w http.ResponseWriter, status int, texts ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(map[string]any{"errors": texts}); err != nil {
		panic(err)
	}
}
