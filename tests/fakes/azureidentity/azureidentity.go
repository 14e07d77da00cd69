// Package azureidentity stands in for what Azure gives a function app and Vault
// to know it by: the managed identity's endpoint, Entra's keys, and the parts
// of Azure's own APIs that Vault's azure method, thaw's Key Vault client and its
// backups ask.
//
// The endpoint is plain HTTP, as the platform's is. Everything else is at its
// real names, behind a proxy that answers CONNECT for them with certificates of
// a CA of its own: a process with HTTPS_PROXY=Proxy() and SSL_CERT_FILE=the CA
// meets Azure here, a real Vault too.
//
// Sources: the endpoint,
// https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference;
// access tokens, https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference;
// discovery, https://login.microsoftonline.com/common/.well-known/openid-configuration;
// what Vault asks, https://github.com/hashicorp/vault-plugin-auth-azure (azure.go, path_login.go).
package azureidentity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// Identity is a managed identity.
type Identity struct {
	ClientID    string
	PrincipalID string // the object id in tokens: oid and sub
}

// App is a function app.
type App struct {
	Subscription, Group, Name string
	System                    *Identity  // the system-assigned identity; nil: none
	Users                     []Identity // user-assigned ones
}

// ResourceID is the app's.
func (a App) ResourceID() string {
	return "/subscriptions/" + a.Subscription + "/resourceGroups/" + a.Group + "/providers/Microsoft.Web/sites/" + a.Name
}

// Options configure Azure.
type Options struct {
	Tenant    string   // its id
	App       App      // the one app
	Resources []string // applications of the tenant that tokens may be for
}

// Azure is one tenant with one app.
type Azure struct {
	o        Options
	key      *rsa.PrivateKey
	header   string
	endpoint *httptest.Server
	proxy    *httptest.Server
	ca       *harness.CA
	names    map[string]http.Handler // by host

	mu      sync.Mutex
	life    time.Duration              // guarded by mu; of tokens
	shift   time.Duration              // guarded by mu; tokens are that old when given
	tokens  int                        // guarded by mu; tokens given
	fail    []int                      // guarded by mu; statuses of the next answers of the endpoint
	faults  []string                   // guarded by mu; requests that Azure would not take
	claimed string                     // guarded by mu; the resource of Key Vault's challenges
	keys    map[string]*rsa.PrivateKey // guarded by mu; Key Vault's, by path
	blobs   map[string][]byte          // guarded by mu; by path
}

// keyID of the signing key, and the SHA-1 of its certificate: 20 bytes.
const keyID = "dGhhdy10ZXN0LXNpZ25pbmcta3k"

// New starts it. Close ends it.
func New(o Options) (*Azure, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	ca, err := harness.NewCA()
	if err != nil {
		return nil, err
	}
	a := &Azure{o: o, key: key, header: rand.Text(), ca: ca, life: 24 * time.Hour, claimed: "https://vault.azure.net", keys: map[string]*rsa.PrivateKey{}, blobs: map[string][]byte{}}
	a.endpoint = httptest.NewServer(http.HandlerFunc(a.token))
	a.names = map[string]http.Handler{
		"login.microsoftonline.com": http.HandlerFunc(a.entra),
		"management.azure.com":      http.HandlerFunc(a.manage),
		KeyVaultHost:                http.HandlerFunc(a.unwrap),
		BlobHost:                    http.HandlerFunc(a.blob),
	}
	a.proxy = httptest.NewServer(http.HandlerFunc(a.connect))
	return a, nil
}

// Close ends it.
func (a *Azure) Close() {
	a.endpoint.Close()
	a.proxy.CloseClientConnections()
	a.proxy.Close()
}

// Environ is what the platform puts into the app's environment.
func (a *Azure) Environ() []string {
	return []string{
		"IDENTITY_ENDPOINT=" + a.Endpoint(), "IDENTITY_HEADER=" + a.header,
		"WEBSITE_OWNER_NAME=" + a.o.App.Subscription + "+" + a.o.App.Group + "-WestEuropewebspace-Linux",
		"WEBSITE_RESOURCE_GROUP=" + a.o.App.Group, "WEBSITE_SITE_NAME=" + a.o.App.Name,
	}
}

// Endpoint is IDENTITY_ENDPOINT.
func (a *Azure) Endpoint() string { return a.endpoint.URL + "/msi/token" }

// Header is IDENTITY_HEADER.
func (a *Azure) Header() string { return a.header }

// Proxy is the address for HTTPS_PROXY.
func (a *Azure) Proxy() string { return a.proxy.URL }

// CA is the authority behind the names that the proxy serves.
func (a *Azure) CA() *harness.CA { return a.ca }

// Issuer is in iss of the tokens: those for resources are of version 1.
func (a *Azure) Issuer() string { return "https://sts.windows.net/" + a.o.Tenant + "/" }

// SetLife sets how long tokens live, and how old they are when they are given.
func (a *Azure) SetLife(life, age time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life, a.shift = life, age
}

// Fail makes the endpoint's next answers these statuses.
func (a *Azure) Fail(statuses ...int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = append(a.fail, statuses...)
}

// Tokens counts the tokens that the endpoint gave.
func (a *Azure) Tokens() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tokens
}

// Faults are requests that Azure would not take.
func (a *Azure) Faults() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.faults...)
}

func (a *Azure) fault(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, fmt.Sprintf(format, args...))
}

// token is the managed identity's endpoint.
func (a *Azure) token(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	status := 0
	if len(a.fail) > 0 {
		status, a.fail = a.fail[0], a.fail[1:]
	}
	a.mu.Unlock()
	if status != 0 {
		answer(w, status, map[string]any{"statusCode": status, "message": "An error has occurred."})
		return
	}
	q := r.URL.Query()
	switch {
	case r.Method != http.MethodGet || r.URL.Path != "/msi/token":
		a.fault("%s %s at the identity's endpoint", r.Method, r.URL.Path)
		answer(w, http.StatusNotFound, nil)
		return
	case r.Header.Get("X-Identity-Header") != a.header:
		a.fault("X-IDENTITY-HEADER is missing or wrong")
		answer(w, http.StatusUnauthorized, map[string]any{"statusCode": 401, "message": "Unauthorized"})
		return
	case q.Get("api-version") != "2019-08-01" || q.Get("resource") == "":
		a.fault("api-version %q, resource %q", q.Get("api-version"), q.Get("resource"))
		answer(w, http.StatusBadRequest, map[string]any{"statusCode": 400, "message": "Required parameter missing"})
		return
	}
	who := a.o.App.System
	if id := q.Get("client_id"); id != "" {
		who = nil
		for i := range a.o.App.Users {
			if a.o.App.Users[i].ClientID == id {
				who = &a.o.App.Users[i]
			}
		}
	}
	resource := q.Get("resource")
	if who == nil {
		answer(w, http.StatusBadRequest, map[string]any{"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."})
		return
	}
	if !a.known(resource) {
		answer(w, http.StatusBadRequest, map[string]any{"statusCode": 400, "message": "AADSTS500011: The resource principal named " + resource + " was not found in the tenant."})
		return
	}
	a.mu.Lock()
	a.tokens++
	at, life := time.Now().Add(-a.shift), a.life
	a.mu.Unlock()
	text, err := a.Sign(a.Claims(*who, resource, at, life))
	if err != nil {
		answer(w, http.StatusInternalServerError, nil)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": text, "expires_on": strconv.FormatInt(at.Add(life).Unix(), 10),
		"resource": resource, "token_type": "Bearer", "client_id": who.ClientID,
	})
}

func (a *Azure) known(resource string) bool {
	for _, r := range append([]string{"https://vault.azure.net", "https://storage.azure.com"}, a.o.Resources...) {
		if r == resource {
			return true
		}
	}
	return false
}

// Claims are those of a managed identity's token.
func (a *Azure) Claims(who Identity, resource string, at time.Time, life time.Duration) map[string]any {
	return map[string]any{
		"aud": resource, "iss": a.Issuer(), "iat": at.Unix(), "nbf": at.Unix(), "exp": at.Add(life).Unix(),
		"appid": who.ClientID, "appidacr": "2", "idp": a.Issuer(), "idtyp": "app", "oid": who.PrincipalID, "sub": who.PrincipalID,
		"tid": a.o.Tenant, "ver": "1.0", "xms_az_rid": a.o.App.ResourceID(), "xms_mirid": a.o.App.ResourceID(),
	}
}

// Sign signs claims with RS256 (RFC 7518, section 3.3).
func (a *Azure) Sign(claims map[string]any) (string, error) {
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"typ":"JWT","alg":"RS256","x5t":"`+keyID+`","kid":"`+keyID+`"}`)) + "." + enc.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + enc.EncodeToString(sig), nil
}

// entra is login.microsoftonline.com: discovery, keys, and tokens for Vault's
// own application.
func (a *Azure) entra(w http.ResponseWriter, r *http.Request) {
	base := "https://login.microsoftonline.com/" + a.o.Tenant
	switch r.URL.Path {
	case "/" + a.o.Tenant + "/.well-known/openid-configuration", "/" + a.o.Tenant + "/v2.0/.well-known/openid-configuration":
		issuer := a.Issuer()
		if strings.Contains(r.URL.Path, "/v2.0/") {
			issuer = base + "/v2.0"
		}
		answer(w, http.StatusOK, map[string]any{
			"issuer": issuer, "jwks_uri": "https://login.microsoftonline.com/common/discovery/keys",
			"authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"pairwise"},
		})
	case "/common/discovery/keys":
		answer(w, http.StatusOK, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID, "x5t": keyID,
			"n": base64.RawURLEncoding.EncodeToString(a.key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(a.key.E)).Bytes()),
		}}})
	case "/common/discovery/instance":
		answer(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration",
			"metadata":                  []any{map[string]any{"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net", "aliases": []string{"login.microsoftonline.com"}}},
		})
	case "/" + a.o.Tenant + "/oauth2/v2.0/token":
		if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") != "client_credentials" || r.PostForm.Get("client_secret") == "" {
			a.fault("a token request of Vault's: %v", r.PostForm)
			answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
			return
		}
		text, err := a.Sign(a.Claims(Identity{ClientID: r.PostForm.Get("client_id"), PrincipalID: "vault"}, "https://management.azure.com", time.Now(), time.Hour))
		if err != nil {
			answer(w, http.StatusInternalServerError, nil)
			return
		}
		answer(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": text})
	default:
		a.fault("%s https://login.microsoftonline.com%s", r.Method, r.URL.Path)
		answer(w, http.StatusNotFound, nil)
	}
}

// manage is management.azure.com: the provider's API versions, and the app with
// its identities, by which Vault checks the login's resource_id.
func (a *Azure) manage(w http.ResponseWriter, r *http.Request) {
	app := a.o.App
	path, _ := url.PathUnescape(r.URL.EscapedPath())
	switch path {
	case "/subscriptions/" + app.Subscription + "/providers/Microsoft.Web":
		answer(w, http.StatusOK, map[string]any{"namespace": "Microsoft.Web", "resourceTypes": []any{
			map[string]any{"resourceType": "sites", "apiVersions": []string{"2024-11-01-preview", "2024-04-01", "2023-12-01"}},
		}})
	case app.ResourceID():
		identity := map[string]any{"type": "SystemAssigned, UserAssigned", "tenantId": a.o.Tenant}
		if app.System != nil {
			identity["principalId"] = app.System.PrincipalID
		}
		users := map[string]any{}
		for _, u := range app.Users {
			users["/subscriptions/"+app.Subscription+"/resourceGroups/"+app.Group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"+u.ClientID] = map[string]string{"clientId": u.ClientID, "principalId": u.PrincipalID}
		}
		identity["userAssignedIdentities"] = users
		answer(w, http.StatusOK, map[string]any{"id": app.ResourceID(), "name": app.Name, "type": "Microsoft.Web/sites", "kind": "functionapp,linux", "location": "West Europe", "identity": identity})
	default:
		answer(w, http.StatusNotFound, map[string]any{"error": map[string]string{"code": "ResourceNotFound", "message": "The Resource was not found."}})
	}
}

// answer writes JSON.
func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body)
	}
}
