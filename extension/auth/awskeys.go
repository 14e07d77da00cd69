package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
)

// awsKeys are AWS credentials.
type awsKeys struct {
	id, secret, token string
	expires           time.Time // zero: never
}

// earlyRefresh is how long before its end a set of keys is fetched anew; if
// that fails they serve until the end.
const earlyRefresh = 5 * time.Minute

// fresh reports whether the keys need not be fetched anew at now; good whether
// they still work.
func (k awsKeys) fresh(now time.Time) bool { return k.lasts(now, earlyRefresh) }
func (k awsKeys) good(now time.Time) bool  { return k.lasts(now, 0) }

func (k awsKeys) lasts(now time.Time, margin time.Duration) bool {
	return k.id != "" && (k.expires.IsZero() || clock.Until(k.expires, now) > margin)
}

func (k awsKeys) secrets() []string { return []string{k.secret, k.token} }

// awsSource gets the keys that logins are signed with: from the environment,
// from the container credentials endpoint
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html),
// which SnapStart uses, or from either by AssumeRole. The SDK's config and sts
// packages do this, too, but every cold start would pay for their size.
type awsSource struct {
	o       Options
	signer  *v4.Signer
	sts     stsEndpoint // for AssumeRole
	http    *http.Client
	asks    *url.URL // the credentials endpoint; nil: keys from the environment
	direct  func() *http.Client
	mu      sync.Mutex // guards the fields below
	own     awsKeys    // of the credentials endpoint
	assumed awsKeys    // of AssumeRole
}

func newAWSSource(o Options, signer *v4.Signer) (*awsSource, error) {
	s := &awsSource{o: o, signer: signer, http: noRedirects(o.HTTP)}
	a := o.AWS
	switch {
	case a.AccessKeyID != "" && a.SecretAccessKey != "":
		s.own = awsKeys{id: a.AccessKeyID, secret: string(a.SecretAccessKey), token: string(a.SessionToken)}
	case a.CredentialsURI != "":
		u, err := config.CredentialsURL(a.CredentialsURI)
		if err != nil {
			return nil, err
		}
		s.asks = u
		s.direct = sync.OnceValue(func() *http.Client { return withoutProxy(s.http) })
	default:
		return nil, errors.New("auth method aws needs AWS credentials: neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
	}
	if arn := o.Method.AssumeRole; arn != "" {
		if !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":role/") {
			return nil, fmt.Errorf("VAULT_ASSUMED_ROLE_ARN %q is not a role's ARN", arn)
		}
		// The regional endpoint is nearer, and the one a VPC endpoint serves.
		regional := o
		regional.AWS.RegionalSTS = true
		var err error
		if s.sts, err = newSTSEndpoint(regional); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// keys returns the keys to sign a login with.
func (s *awsSource) keys(ctx context.Context) (awsKeys, error) {
	if s.o.Method.AssumeRole == "" {
		return s.cached(ctx, &s.own, s.fetch)
	}
	return s.cached(ctx, &s.assumed, s.assume)
}

// cached returns the keys kept in at, or gets new ones where they are about to
// expire. Logins come one at a time, so it needs no coalescing.
func (s *awsSource) cached(ctx context.Context, at *awsKeys, get func(context.Context) (awsKeys, error)) (awsKeys, error) {
	s.mu.Lock()
	kept := *at
	s.mu.Unlock()
	now := s.o.Now()
	if kept.fresh(now) {
		return kept, nil
	}
	k, err := get(ctx)
	if err != nil {
		if kept.good(now) {
			s.o.Log.Warn("AWS credentials could not be refreshed; those at hand are used until they expire", "error", err)
			return kept, nil
		}
		return awsKeys{}, err
	}
	s.mu.Lock()
	*at = k
	s.mu.Unlock()
	return k, nil
}

// fetch asks the credentials endpoint.
func (s *awsSource) fetch(ctx context.Context) (awsKeys, error) {
	if s.asks == nil {
		return awsKeys{}, errors.New("no AWS credentials")
	}
	k, err := s.ask(ctx)
	if err != nil {
		return awsKeys{}, fmt.Errorf("get AWS credentials from the endpoint in AWS_CONTAINER_CREDENTIALS_FULL_URI: %w", err)
	}
	return k, nil
}

func (s *awsSource) ask(ctx context.Context) (awsKeys, error) {
	token := string(s.o.AWS.CredentialsAuth)
	if f := s.o.AWS.CredentialsFile; f != "" {
		raw, err := s.o.ReadFile(f)
		if err != nil {
			return awsKeys{}, fmt.Errorf("read the authorization token: %w", err)
		}
		token = strings.TrimSpace(string(raw))
	}
	if strings.ContainsAny(token, "\r\n\x00") {
		return awsKeys{}, errors.New("the authorization token has a line break")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.asks.String(), nil)
	if err != nil {
		return awsKeys{}, err
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	client := s.http
	if s.asks.Scheme == "http" {
		client = s.direct()
	}
	status, body, err := roundTrip(client, req)
	if err != nil {
		return awsKeys{}, err
	}
	return parseKeys(status, body, token)
}

// parseKeys reads the answer of the credentials endpoint.
func parseKeys(status int, body []byte, token string) (awsKeys, error) {
	var a struct {
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		Token           string
		Expiration      *time.Time
		Code            string `json:"code"`
		Message         string `json:"message"`
	}
	err := json.Unmarshal(body, &a)
	if status != http.StatusOK {
		return awsKeys{}, fmt.Errorf("status %d: %s", status, redact(a.Code+" "+a.Message, token, a.SecretAccessKey, a.Token))
	}
	if err != nil {
		return awsKeys{}, fmt.Errorf("the answer is not JSON: %w", plainJSON(err))
	}
	if !headerSafe(a.AccessKeyID) || !headerSafe(a.SecretAccessKey) || a.Token != "" && !headerSafe(a.Token) {
		return awsKeys{}, errors.New("the answer has no usable credentials")
	}
	k := awsKeys{id: a.AccessKeyID, secret: a.SecretAccessKey, token: a.Token}
	if a.Expiration != nil {
		k.expires = *a.Expiration
	}
	return k, nil
}

// assume exchanges our own keys for those of the assumed role
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
func (s *awsSource) assume(ctx context.Context) (awsKeys, error) {
	own, err := s.cached(ctx, &s.own, s.fetch)
	if err != nil {
		return awsKeys{}, err
	}
	arn := s.o.Method.AssumeRole
	form := url.Values{
		"Action": {"AssumeRole"}, "Version": {"2011-06-15"},
		"RoleArn": {arn}, "RoleSessionName": {"vault_auth"},
	}.Encode()
	req, err := signedForm(ctx, s.signer, s.sts, own, form, nil, s.o.Now)
	if err != nil {
		return awsKeys{}, err
	}
	status, body, err := roundTrip(s.http, req)
	if err != nil {
		return awsKeys{}, fmt.Errorf("assume the role %s (VAULT_ASSUMED_ROLE_ARN): %w", arn, err)
	}
	k, err := parseAssumed(status, body, own.secrets()...)
	if err != nil {
		return awsKeys{}, fmt.Errorf("assume the role %s (VAULT_ASSUMED_ROLE_ARN) at %s: %w", arn, s.sts.url.Host, err)
	}
	return k, nil
}

// parseAssumed reads STS's XML. Its values are plain text without attributes
// or entities, so that no XML decoder needs to be linked.
func parseAssumed(status int, body []byte, secrets ...string) (awsKeys, error) {
	text := string(body)
	if status != http.StatusOK {
		return awsKeys{}, fmt.Errorf("status %d: %s", status, redact(element(text, "Code")+": "+element(text, "Message"), secrets...))
	}
	inner := element(text, "Credentials")
	k := awsKeys{id: element(inner, "AccessKeyId"), secret: element(inner, "SecretAccessKey"), token: element(inner, "SessionToken")}
	expires, err := time.Parse(time.RFC3339, element(inner, "Expiration"))
	if err != nil {
		return awsKeys{}, errors.New("the answer has no usable expiration")
	}
	k.expires = expires
	for _, v := range []string{k.id, k.secret, k.token} {
		if !headerSafe(v) || strings.ContainsAny(v, "<>&") {
			return awsKeys{}, errors.New("the answer has no usable credentials")
		}
	}
	return k, nil
}

// element returns what is between the first <name> and </name>.
func element(text, name string) string {
	_, rest, ok := strings.Cut(text, "<"+name+">")
	if !ok {
		return ""
	}
	inner, _, ok := strings.Cut(rest, "</"+name+">")
	if !ok {
		return ""
	}
	return strings.TrimSpace(inner)
}

// roundTrip sends a request and reads its bounded answer.
func roundTrip(c *http.Client, req *http.Request) (int, []byte, error) {
	res, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxResponseBody))
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer: %w", err)
	}
	return res.StatusCode, body, nil
}

// noRedirects is c, except that it takes a redirect as the answer: signed
// requests and tokens go to no other host.
func noRedirects(c *http.Client) *http.Client {
	copied := *c
	copied.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &copied
}

// withoutProxy is c, except that it connects directly.
func withoutProxy(c *http.Client) *http.Client {
	copied, t := *c, new(http.Transport)
	if own, ok := c.Transport.(*http.Transport); ok {
		t = own.Clone()
	}
	t.Proxy, t.DisableKeepAlives = nil, true
	copied.Transport = t
	return &copied
}

// AWSCredentials returns what gets the process's own AWS credentials, as the
// aws login does: from the environment, or from the container credentials
// endpoint. Of o it uses AWS, HTTP, Log, Now and ReadFile. The role that logins
// assume is none of it.
func AWSCredentials(o Options) (func(context.Context) (sdk.Credentials, error), error) {
	if a := o.AWS; (a.AccessKeyID == "" || a.SecretAccessKey == "") && a.CredentialsURI == "" {
		return nil, errors.New("there are no AWS credentials: neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
	}
	o.Method = config.Auth{}
	s, err := newAWSSource(o.withDefaults(), v4.NewSigner())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (sdk.Credentials, error) {
		k, err := s.keys(ctx)
		return sdk.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret, SessionToken: k.token}, err
	}, nil
}
