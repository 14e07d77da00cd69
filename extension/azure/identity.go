package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/wait"
)

// Options configure a Credential.
type Options struct {
	Endpoint string           // IDENTITY_ENDPOINT
	Header   string           // IDENTITY_HEADER; a secret
	ClientID string           // of a user-assigned identity; empty: the system-assigned one
	Services *http.Client     // for Key Vault and Blob storage; required for those
	Now      func() time.Time // nil: time.Now
}

// apiVersion of the endpoint
// (https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference).
const apiVersion = "2019-08-01"

// Limits of asking for a token.
const (
	margin      = 5 * time.Minute // a token with less left is replaced
	askTimeout  = 10 * time.Second
	askTries    = 4
	firstPause  = 100 * time.Millisecond
	maxAnswer   = 1 << 20
	maxToken    = 64 << 10
	longestLife = 48 * time.Hour // what an endpoint may claim
)

// Credential gives tokens of the app's managed identity. It keeps each until
// five minutes before it expires, or half of a shorter life, on the wall clock.
// Callers who need the same token at once share one request. It is safe for
// concurrent use.
//
// It is not azidentity's: that drops a token five minutes before its end, so an
// endpoint that fails then leaves none, asks once for each caller who comes at the
// same time, and quotes the endpoint's answer in its errors.
type Credential struct {
	o    Options
	url  *url.URL
	http *http.Client // uses no proxy, since the header is for the endpoint alone

	asking *coalesce.Group[string, token] // by resource
	tokens sync.Map                       // the last token of each resource
}

type token struct {
	value string
	until time.Time // expires
	renew time.Time // is replaced from then on
}

var _ azcore.TokenCredential = (*Credential)(nil)

// NewCredential checks the options. It does no I/O.
func NewCredential(o Options) (*Credential, error) {
	if o.Endpoint == "" || o.Header == "" {
		return nil, errors.New("this app has no managed identity: IDENTITY_ENDPOINT and IDENTITY_HEADER are not set. Turn on its system-assigned identity, or assign one to it")
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("IDENTITY_ENDPOINT is not an http or https address")
	}
	client := direct(&http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, DisableKeepAlives: true,
	}})
	o.Now = clock.Of(o.Now)
	asking := coalesce.New[string](coalesce.Options[token]{Limit: askTimeout, Now: o.Now})
	return &Credential{o: o, url: u, http: client, asking: asking}, nil
}

// GetToken implements azcore.TokenCredential. A scope is a resource and
// "/.default".
func (c *Credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(o.Scopes) != 1 {
		return azcore.AccessToken{}, errors.New("a managed identity's token is for one scope")
	}
	t, err := c.token(ctx, strings.TrimSuffix(o.Scopes[0], "/.default"))
	return azcore.AccessToken{Token: t.value, ExpiresOn: t.until, RefreshOn: t.renew}, err
}

// Token returns a token for a resource, such as https://vault.azure.net or
// api://thaw.
func (c *Credential) Token(ctx context.Context, resource string) (string, error) {
	t, err := c.token(ctx, resource)
	return t.value, err
}

func (c *Credential) token(ctx context.Context, resource string) (token, error) {
	t, _, err := c.asking.Do(ctx, resource, func(ctx context.Context) (token, error) { return c.ask(ctx, resource) })
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("get a token of the managed identity: %w", err)
	}
	return t, err
}

// ask asks the endpoint, unless the last token is good for long. That one will do for a
// while where the endpoint gives none.
func (c *Credential) ask(ctx context.Context, resource string) (token, error) {
	kept, _ := c.tokens.Load(resource)
	last, _ := kept.(token)
	if clock.Until(last.renew, c.o.Now()) > 0 {
		return last, nil
	}
	pause := firstPause
	for try := 1; ; try++ {
		t, again, err := c.once(ctx, resource)
		switch {
		case err == nil:
			c.tokens.Store(resource, t)
			return t, nil
		case again && try < askTries:
			_ = wait.For(ctx, pause) // the next try says what became of ctx
			pause *= 2
		case clock.Until(last.until, c.o.Now()) > 0:
			return last, nil
		default:
			return token{}, err
		}
	}
}

// once is one request. again: another may have more luck.
func (c *Credential) once(ctx context.Context, resource string) (t token, again bool, err error) {
	u := *c.url
	q := u.Query()
	q.Set("api-version", apiVersion)
	q.Set("resource", resource)
	if c.o.ClientID != "" {
		q.Set("client_id", c.o.ClientID)
	}
	u.RawQuery = q.Encode()
	req := &http.Request{Method: http.MethodGet, URL: &u, Header: http.Header{"X-Identity-Header": {c.o.Header}}}
	res, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return token{}, true, fmt.Errorf("ask for a token of the managed identity: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return token{}, true, fmt.Errorf("read the managed identity's token: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		retry := res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusNotFound
		return token{}, retry, refusal(res.StatusCode, resource, c.o.ClientID)
	}
	t, err = parseToken(body, clock.Wall(c.o.Now()))
	return t, false, err
}

// refusal says what to check when the endpoint gives no token. Its own text is
// left out: it may quote what was sent.
func refusal(status int, resource, clientID string) error {
	who := "THAW_AZURE_RESOURCE (" + strconv.Quote(resource) + ") must be an application of the app's own tenant, by its URI or id"
	switch {
	case status >= 500 || status == http.StatusTooManyRequests:
		who = "it is not able to serve now"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		who = "it does not take the header of IDENTITY_HEADER"
	case clientID != "":
		who = "THAW_AZURE_CLIENT_ID (" + clientID + ") must be the client id of an identity that is assigned to this app, and " + who
	default:
		who = "the app needs a system-assigned identity, or THAW_AZURE_CLIENT_ID for one that is assigned to it, and " + who
	}
	return fmt.Errorf("the managed identity's endpoint gives no token: it answered %d; %s", status, who)
}

// parseToken reads the endpoint's answer. expires_on is in seconds since 1970,
// as a string or a number.
func parseToken(body []byte, now time.Time) (token, error) {
	var a struct {
		AccessToken string          `json:"access_token"`
		ExpiresOn   json.RawMessage `json:"expires_on"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return token{}, errors.New("the managed identity's endpoint answered something that is not JSON")
	}
	if a.AccessToken == "" || len(a.AccessToken) > maxToken || strings.ContainsFunc(a.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token{}, errors.New("the managed identity's endpoint answered without a token")
	}
	seconds, err := strconv.ParseInt(strings.Trim(string(a.ExpiresOn), `"`), 10, 64)
	life := min(time.Unix(seconds, 0).Sub(now), longestLife)
	if err != nil || life <= 0 {
		life = 0 // used once, and asked for again
	}
	return token{value: a.AccessToken, until: now.Add(life), renew: now.Add(life - min(margin, life/2))}, nil
}
