package azure

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/thaw-project/thaw/tests/fakes/azureidentity"
)

func cloud(t *testing.T) *azureidentity.Azure {
	t.Helper()
	a, err := azureidentity.New(azureidentity.Options{Tenant: "t", Resources: []string{"api://thaw"}, App: azureidentity.App{
		Subscription: "s", Group: "g", Name: "app", System: &azureidentity.Identity{ClientID: "c", PrincipalID: "p"},
		Users: []azureidentity.Identity{{ClientID: "u", PrincipalID: "pu"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// clock is a wall clock that a test sets.
type fakeClock struct{ ahead atomic.Int64 }

func (c *fakeClock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *fakeClock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func credential(t *testing.T, a *azureidentity.Azure, c *fakeClock, client string) *Credential {
	t.Helper()
	cred, err := NewCredential(Options{Endpoint: a.Endpoint(), Header: a.Header(), ClientID: client, Services: services(t, a), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// services is what reaches the cloud's services instead of Azure's.
func services(t *testing.T, a *azureidentity.Azure) *http.Client {
	t.Helper()
	proxy, err := url.Parse(a.Proxy())
	if err != nil {
		t.Fatal(err)
	}
	return (&http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: a.CA().Pool()}}})
}

func TestATokenIsKeptUntilShortlyBeforeItExpires(t *testing.T) {
	t.Parallel()
	a, c := cloud(t), &fakeClock{}
	cred := credential(t, a, c, "")
	get := func(want int) {
		t.Helper()
		if _, err := cred.Token(t.Context(), "api://thaw"); err != nil || a.Tokens() != want {
			t.Errorf("%d tokens were given, want %d: %v", a.Tokens(), want, err)
		}
	}
	get(1)
	get(1)
	c.forward(24*time.Hour - 6*time.Minute)
	get(1)
	c.forward(2 * time.Minute)
	get(2)
	// A short one is kept for half its life.
	c.forward(48 * time.Hour)
	a.SetLife(49*time.Hour, 0) // the fake's clock is the machine's: an hour is left of it
	get(3)
	c.forward(-72*time.Hour + 6*time.Minute) // back at the start; what is kept is far from its end
	get(3)
	if _, err := cred.Token(t.Context(), "https://vault.azure.net"); err != nil || a.Tokens() != 4 {
		t.Errorf("another resource has another token: %d %v", a.Tokens(), err)
	}
}

func TestCallersShareOneRequest(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	cred := credential(t, a, &fakeClock{}, "u")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"api://thaw/.default"}})
			if err != nil || got.Token == "" || time.Until(got.ExpiresOn) < 23*time.Hour {
				t.Error(got.ExpiresOn, err)
			}
		})
	}
	wg.Wait()
	if a.Tokens() != 1 {
		t.Errorf("%d tokens were given", a.Tokens())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cred.Token(ctx, "https://storage.azure.com"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if f := a.Faults(); len(f) > 0 {
		t.Error(f)
	}
}

func TestAnEndpointThatFailsIsAskedAgainAndTheOldTokenServes(t *testing.T) {
	t.Parallel()
	a, c := cloud(t), &fakeClock{}
	cred := credential(t, a, c, "")
	a.Fail(500, 429, 404)
	first, err := cred.Token(t.Context(), "api://thaw")
	if err != nil {
		t.Fatal(err)
	}
	c.forward(24*time.Hour - 2*time.Minute)
	a.Fail(500, 500, 500, 500)
	if again, err := cred.Token(t.Context(), "api://thaw"); err != nil || again != first {
		t.Error("the token is good for two more minutes", err)
	}
	c.forward(3 * time.Minute)
	a.Fail(500, 500, 500, 500)
	if _, err := cred.Token(t.Context(), "api://thaw"); err == nil || !strings.Contains(err.Error(), "answered 500; it is not able to serve now") {
		t.Error(err)
	}
}

func TestRefusalsNameTheSettingAndNoSecret(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	for _, c := range []struct {
		o        Options
		resource string
		want     string
	}{
		{Options{Endpoint: a.Endpoint(), Header: "PlantedHeader"}, "api://thaw", "IDENTITY_HEADER"},
		{Options{Endpoint: a.Endpoint(), Header: a.Header(), ClientID: "nobody"}, "api://thaw", "THAW_AZURE_CLIENT_ID (nobody)"},
		{Options{Endpoint: a.Endpoint(), Header: a.Header()}, "api://nobody", `THAW_AZURE_RESOURCE ("api://nobody")`},
		{Options{Endpoint: "http://127.0.0.1:1/x", Header: "PlantedHeader"}, "api://thaw", "connection refused"},
	} {
		cred, err := NewCredential(c.o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = cred.Token(t.Context(), c.resource)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Planted") || strings.Contains(err.Error(), a.Header()) {
			t.Errorf("no %q in %v", c.want, err)
		}
	}
	for _, o := range []Options{{}, {Endpoint: "x", Header: "h"}, {Endpoint: "http://u:p@h/", Header: "h"}, {Endpoint: "ftp://h/", Header: "h"}} {
		if _, err := NewCredential(o); err == nil || !strings.Contains(err.Error(), "IDENTITY_ENDPOINT") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestARedirectTakesTheHeaderNowhere: the endpoint's header is for it alone.
func TestARedirectTakesTheHeaderNowhere(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	cred, err := NewCredential(Options{Endpoint: s.URL, Header: "h"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cred.Token(t.Context(), "r"); err == nil {
		t.Error("no error")
	}
}

func TestParseToken(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for text, life := range map[string]time.Duration{
		`{"access_token":"a","expires_on":"1800003600"}`:          time.Hour,
		`{"access_token":"a","expires_on":1800003600}`:            time.Hour,
		`{"access_token":"a","expires_on":"99999999999999"}`:      longestLife,
		`{"access_token":"a","expires_on":"1700000000"}`:          0,
		`{"access_token":"a","expires_on":"09/14/2027 00:00:00"}`: 0,
		`{"access_token":"a"}`:                                    0,
	} {
		got, err := parseToken([]byte(text), now)
		if err != nil || got.until.Sub(now) != life || got.renew.After(got.until) {
			t.Errorf("%s: %v %v", text, got.until.Sub(now), err)
		}
	}
	for _, text := range []string{``, `[]`, `{"access_token":""}`, `{"access_token":"a b"}`, `{"access_token":"a\nb"}`, `{"access_token":"` + strings.Repeat("x", maxToken+1) + `"}`} {
		if _, err := parseToken([]byte(text), now); err == nil {
			t.Errorf("%.40s is taken", text)
		}
	}
}

func TestKeyVaultUnwraps(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := credential(t, a, &fakeClock{}, "")
	id, err := a.NewKey("k")
	if err != nil {
		t.Fatal(err)
	}
	want := [KeySize]byte([]byte("PlantedSecret-0123456789abcdefgh"))
	text, err := a.Wrap(id, want[:])
	if err != nil {
		t.Fatal(err)
	}
	wrapped := decode(t, text)
	if got, err := v.Unwrap(t.Context(), id, wrapped); err != nil || got != want {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key     string
		wrapped []byte
		want    string
	}{
		{id, wrapped[1:], "400 BadParameter"},
		{id + "0", wrapped, "404 KeyNotFound"},
		{"https://evil.example/keys/k/1", wrapped, "none of Azure's"},
		{"https://x.vault.azure.net.evil.example/keys/k/1", wrapped, "none of Azure's"},
		{strings.Replace(id, "https", "http", 1), wrapped, "none of Azure's"},
		{id + "/more", wrapped, "give https://NAME.vault.azure.net/keys/KEY/VERSION"},
		{"https://" + azureidentity.KeyVaultHost + "/keys/k", wrapped, "give https://NAME.vault.azure.net/keys/KEY/VERSION"},
	} {
		_, err := v.Unwrap(t.Context(), c.key, c.wrapped)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Planted") {
			t.Errorf("%s: no %q in %v", c.key, c.want, err)
		}
	}
	if f := a.Faults(); len(f) > 0 {
		t.Error(f)
	}
}

// TestAVaultIsGivenNoTokenForAnother: a challenge that names another resource
// than the vault's own gets none.
func TestAVaultIsGivenNoTokenForAnother(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	v := credential(t, a, &fakeClock{}, "")
	id, err := a.NewKey("k")
	if err != nil {
		t.Fatal(err)
	}
	a.Claim("https://management.azure.com")
	if _, err := v.Unwrap(t.Context(), id, make([]byte, 256)); err == nil || !strings.Contains(err.Error(), "management.azure.com") || a.Tokens() != 0 {
		t.Errorf("%d tokens, %v", a.Tokens(), err)
	}
}

func TestBlobsKeepBackups(t *testing.T) {
	t.Parallel()
	a := cloud(t)
	b := &Blobs{Container: "https://" + azureidentity.BlobHost + "/backups", Credential: credential(t, a, &fakeClock{}, "")}
	if _, err := b.Read(t.Context(), "x/y"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	text := []byte(strings.Repeat("backup ", 100_000))
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := b.Write(t.Context(), "x/y", f, int64(len(text)), sha256.Sum256(text)); err != nil {
		t.Fatal(err)
	}
	r, err := b.Read(t.Context(), "x/y")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if got.String() != string(text) {
		t.Errorf("%d bytes", got.Len())
	}
	other := *b
	other.Container = "https://" + azureidentity.BlobHost + "/nothing"
	if _, err := other.Read(t.Context(), "x"); err == nil || errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "the container does not exist") {
		t.Error("a missing container is no missing backup:", err)
	}
	other.Container = "https://evil.example/backups"
	if _, err := other.Read(t.Context(), "x"); !errors.Is(err, errForeign) {
		t.Error(err)
	}
	if f := a.Faults(); len(f) > 0 {
		t.Error(f)
	}
}

// TestWithoutAnIdentityABackupSaysSo: an app may log in without one.
func TestWithoutAnIdentityABackupSaysSo(t *testing.T) {
	t.Parallel()
	b := &Blobs{Container: "https://" + azureidentity.BlobHost + "/backups"}
	if _, err := b.Read(t.Context(), "x"); !errors.Is(err, ErrNoIdentity) {
		t.Error(err)
	}
}

func decode(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
