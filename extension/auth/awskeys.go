package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
)

// earlyRefresh is how long before its end a set of keys is fetched anew; if
// that fails they serve until the end.
const earlyRefresh = 5 * time.Minute

// lasts reports whether there are keys, and they serve for longer than margin.
func lasts(k *sdk.Credentials, now time.Time, margin time.Duration) bool {
	return k != nil && (!k.CanExpire || clock.Until(k.Expires, now) > margin)
}

func secretsOf(k sdk.Credentials) []string { return []string{k.SecretAccessKey, k.SessionToken} }

// awsSource gets the keys that logins are signed with: from the environment,
// from the container credentials endpoint
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html),
// which SnapStart uses, or from either by AssumeRole. The SDK's config and sts
// packages do this, too, but every cold start would pay for their size.
type awsSource struct {
	o       Options
	signer  *v4.Signer
	assumes stsEndpoint // is asked for AssumeRole
	http    *http.Client
	asks    *url.URL                        // the credentials endpoint; nil: keys from the environment
	direct  *http.Client                    // asks it
	own     atomic.Pointer[sdk.Credentials] // from the environment, or of the credentials endpoint
	assumed atomic.Pointer[sdk.Credentials] // of AssumeRole
}

func newAWSSource(o Options) (s *awsSource, err error) {
	s = &awsSource{o: o, signer: v4.NewSigner(), http: HTTPClient(o.Config)}
	a := o.Platform.AWS
	switch {
	case a.AccessKeyID != "" && a.SecretAccessKey != "":
		s.own.Store(&sdk.Credentials{AccessKeyID: a.AccessKeyID, SecretAccessKey: string(a.SecretAccessKey), SessionToken: string(a.SessionToken)})
	case a.CredentialsURI != "":
		if s.asks, err = config.CredentialsURL(a.CredentialsURI); err != nil {
			return nil, err
		}
		if s.asks.Scheme == "http" { // it is near
			o.EnvProxy = nil
		}
		s.direct = HTTPClient(o.Config)
	default:
		return nil, errors.New("auth method aws needs AWS credentials: neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
	}
	if arn := o.Auth.AssumeRole; arn != "" {
		if !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":role/") {
			return nil, fmt.Errorf("VAULT_ASSUMED_ROLE_ARN %q is not a role's ARN", arn)
		}
		// The regional endpoint is nearer, and the one a VPC endpoint serves.
		regional := o
		regional.Platform.AWS.RegionalSTS = true
		if s.assumes, err = newSTSEndpoint(regional); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// keys returns the keys to sign a login with.
func (s *awsSource) keys(ctx context.Context) (sdk.Credentials, error) {
	if s.o.Auth.AssumeRole == "" {
		return s.cached(ctx, &s.own, s.fetch)
	}
	return s.cached(ctx, &s.assumed, s.assume)
}

// cached returns the keys kept in at, or gets new ones where they are about to
// expire. Logins come one at a time, so it needs no coalescing.
func (s *awsSource) cached(ctx context.Context, at *atomic.Pointer[sdk.Credentials], get func(context.Context) (sdk.Credentials, error)) (sdk.Credentials, error) {
	kept, now := at.Load(), s.o.Now()
	if lasts(kept, now, earlyRefresh) {
		return *kept, nil
	}
	k, err := get(ctx)
	if err != nil {
		if lasts(kept, now, 0) {
			s.o.Log.Warn("AWS credentials could not be refreshed; those at hand are used until they expire", "error", err)
			return *kept, nil
		}
		return sdk.Credentials{}, err
	}
	at.Store(&k)
	return k, nil
}

// fetch asks the credentials endpoint. Keys from the environment never end, so that it
// is not called where there is none.
func (s *awsSource) fetch(ctx context.Context) (k sdk.Credentials, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("get AWS credentials from the endpoint in AWS_CONTAINER_CREDENTIALS_FULL_URI: %w", err)
		}
	}()
	token := string(s.o.Platform.AWS.CredentialsAuth)
	if f := s.o.Platform.AWS.CredentialsFile; f != "" {
		raw, err := os.ReadFile(f)
		if err != nil {
			return k, fmt.Errorf("read the authorization token: %w", err)
		}
		token = strings.TrimSpace(string(raw))
	}
	if strings.ContainsAny(token, "\r\n\x00") {
		return k, errors.New("the authorization token has a line break")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.asks.String(), nil)
	if err != nil {
		return k, err
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	status, body, err := roundTrip(s.direct, req)
	if err != nil {
		return k, err
	}
	return parseKeys(status, body, token)
}

// parseKeys reads the answer of the credentials endpoint.
func parseKeys(status int, body []byte, token string) (sdk.Credentials, error) {
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
		return sdk.Credentials{}, fmt.Errorf("status %d: %s", status, redact(a.Code+" "+a.Message, token, a.SecretAccessKey, a.Token))
	}
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("the answer is not JSON: %w", plainJSON(err))
	}
	if !headerSafe(a.AccessKeyID) || !headerSafe(a.SecretAccessKey) || a.Token != "" && !headerSafe(a.Token) {
		return sdk.Credentials{}, errors.New("the answer has no usable credentials")
	}
	k := sdk.Credentials{AccessKeyID: a.AccessKeyID, SecretAccessKey: a.SecretAccessKey, SessionToken: a.Token}
	if a.Expiration != nil && !a.Expiration.IsZero() {
		k.CanExpire, k.Expires = true, *a.Expiration
	}
	return k, nil
}

// assume exchanges our own keys for those of the assumed role
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
func (s *awsSource) assume(ctx context.Context) (sdk.Credentials, error) {
	own, err := s.cached(ctx, &s.own, s.fetch)
	if err != nil {
		return sdk.Credentials{}, err
	}
	arn := s.o.Auth.AssumeRole
	form := url.Values{
		"Action": {"AssumeRole"}, "Version": {"2011-06-15"},
		"RoleArn": {arn}, "RoleSessionName": {"vault_auth"},
	}.Encode()
	req, err := s.signedForm(ctx, s.assumes, own, form, nil)
	if err != nil {
		return sdk.Credentials{}, err
	}
	status, body, err := roundTrip(s.http, req)
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("assume the role %s (VAULT_ASSUMED_ROLE_ARN): %w", arn, err)
	}
	k, err := parseAssumed(status, body, secretsOf(own)...)
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("assume the role %s (VAULT_ASSUMED_ROLE_ARN) at %s: %w", arn, s.assumes.url.Host, err)
	}
	return k, nil
}

// parseAssumed reads STS's XML. Its values are plain text without attributes
// or entities, so that no XML decoder needs to be linked.
func parseAssumed(status int, body []byte, secrets ...string) (sdk.Credentials, error) {
	text := string(body)
	if status != http.StatusOK {
		return sdk.Credentials{}, fmt.Errorf("status %d: %s", status, redact(element(text, "Code")+": "+element(text, "Message"), secrets...))
	}
	inner := element(text, "Credentials")
	expires, err := time.Parse(time.RFC3339, element(inner, "Expiration"))
	if err != nil {
		return sdk.Credentials{}, errors.New("the answer has no usable expiration")
	}
	k := sdk.Credentials{
		AccessKeyID: element(inner, "AccessKeyId"), SecretAccessKey: element(inner, "SecretAccessKey"), SessionToken: element(inner, "SessionToken"),
		CanExpire: !expires.IsZero(), Expires: expires,
	}
	for _, v := range []string{k.AccessKeyID, k.SecretAccessKey, k.SessionToken} {
		if !headerSafe(v) || strings.ContainsAny(v, "<>&") {
			return sdk.Credentials{}, errors.New("the answer has no usable credentials")
		}
	}
	return k, nil
}

// element returns what is between the first <name> and </name>.
func element(text, name string) string {
	_, rest, _ := strings.Cut(text, "<"+name+">")
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

// AWSCredentials returns what gets the process's own AWS credentials, as the
// aws login does: from the environment, or from the container credentials
// endpoint. The role that logins assume is none of it.
func AWSCredentials(cfg config.Config, log *slog.Logger) (func(context.Context) (sdk.Credentials, error), error) {
	if a := cfg.Platform.AWS; (a.AccessKeyID == "" || a.SecretAccessKey == "") && a.CredentialsURI == "" {
		return nil, errors.New("there are no AWS credentials: neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
	}
	cfg.Auth = config.Auth{}
	s, err := newAWSSource(Options{Config: cfg, Log: log}.withDefaults())
	if err != nil {
		return nil, err
	}
	return s.keys, nil
}
