package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// answer is what Vault answers to a login, a renewal and a look-up
// (https://developer.hashicorp.com/vault/api-docs/auth/token).
type answer struct {
	Auth *Lease `json:"auth"`
	Data *Lease `json:"data"` // of a look-up
}

// Lease is what they tell of a token, some by other names than others.
type Lease struct {
	ClientToken      string              `json:"client_token"`
	MFA              json.RawMessage     `json:"mfa_requirement"`
	TokenPolicies    []string            `json:"token_policies"`
	Policies         []string            `json:"policies"`
	IdentityPolicies []string            `json:"identity_policies"`
	External         map[string][]string `json:"external_namespace_policies"`
	EntityID         string              `json:"entity_id"`
	TokenType        string              `json:"token_type"` // service or batch
	Type             string              `json:"type"`
	Renewable        bool                `json:"renewable"`
	Orphan           bool                `json:"orphan"`
	NumUses          int64               `json:"num_uses"`
	LeaseDuration    int64               `json:"lease_duration"` // seconds; 0: no end
	TTL              int64               `json:"ttl"`            // seconds left; 0 with a creation_ttl of 0: no end
	CreationTTL      int64               `json:"creation_ttl"`   // seconds
}

// Left is how long the token lasts by a look-up; 0: it has no end. Vault rounds that down
// to whole seconds, so 0 of a token that was made with an end is the last second of it.
func (l Lease) Left() time.Duration {
	if l.TTL <= 0 && l.CreationTTL > 0 {
		return time.Nanosecond
	}
	return seconds(l.TTL)
}

// token is what is known of one that had life left when the request was sent, of a
// lease of ttl.
func (l Lease) token(value string, at time.Time, life, ttl time.Duration) *token {
	return &token{
		value: value, at: at, life: life, ttl: ttl, renewable: l.Renewable, batch: isBatch(value, cmp.Or(l.TokenType, l.Type)), known: true, uses: l.NumUses,
		identity: identityOf(l.EntityID, l.External, l.Policies, l.IdentityPolicies),
	}
}

// read reads an answer.
func read(body []byte) (a answer, err error) {
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("the answer is not Vault's JSON: %w", plainJSON(err))
	}
	return a, nil
}

// ErrForeign says that what answered is not the origin by its shape (package wire).
var ErrForeign = errors.New("is not Vault's")

// errGone says that the origin doesn't know the token any more.
var errGone = errors.New("the origin does not know the token any more")

// send makes one call and returns its answer. A nil body is a GET. An
// answer that is not the origin's by its shape is an error.
func (s *source) send(ctx context.Context, of wire.Endpoint, path, token string, body any) (a wire.Answer, err error) {
	verb := http.MethodGet
	if body != nil {
		verb = http.MethodPost
	}
	req, err := wire.Request(ctx, verb, s.ns, path, token, body)
	if err != nil {
		return a, err
	}
	res, err := s.o.Origin.Do(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxResponseBody+1))
	if err != nil {
		return a, fmt.Errorf("read the answer: %w", err)
	}
	if len(raw) > maxResponseBody {
		return a, fmt.Errorf("read the answer: it is larger than %d bytes", maxResponseBody)
	}
	came := wire.New(res.StatusCode, res.Header, raw)
	if (came.Status == http.StatusOK || final(came.Status)) && !came.Genuine(of) {
		// A gateway's answer says nothing of a token.
		return a, fmt.Errorf("read the answer: what came, status %d with %s, %w: check what stands before it", came.Status, came.Form(), ErrForeign)
	}
	return came, nil
}

// ask makes a call about a token, and returns what the origin knows of it now, by read;
// nil: its answer is final and another.
func (s *source) ask(ctx context.Context, of wire.Endpoint, path string, t *token, body any, read func(body []byte, at time.Time) (*token, error)) (*token, wire.Answer, error) {
	at := s.o.Now()
	a, err := s.send(ctx, of, path, t.value, body)
	var fresh *token
	switch {
	case err != nil:
	case a.Status == http.StatusOK:
		fresh, err = read(a.Body, at)
	case !final(a.Status):
		err = fmt.Errorf("%d: %s", a.Status, reason(a, t.value))
	}
	return fresh, a, err
}

// renew renews a token
// (https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self).
func (s *source) renew(ctx context.Context, t *token) (*token, error) {
	fresh, a, err := s.ask(ctx, wire.Login, "auth/token/renew-self", t, struct{}{}, fromAuth)
	switch {
	case err != nil:
		return nil, fmt.Errorf("renew the token: %w", err)
	case fresh == nil && a.Reason() == wire.AboutToken:
		return nil, errGone
	case fresh == nil:
		// It will not work next time either: log in when the time comes.
		s.o.Log.Warn("the token cannot be renewed, a login will replace it", "status", a.Status, "error", reason(a, t.value))
		fixed := *t
		fixed.renewable = false
		return &fixed, nil
	}
	fresh.value, fresh.login, fresh.batch = t.value, t.login, t.batch
	if rest, ok := t.rest(fresh.at); ok && fresh.life > 0 && fresh.life <= rest {
		// It reached its maximum TTL: more renewals bring nothing.
		fresh.renewable = false
	}
	return fresh, nil
}

// lookup asks what the origin knows of a token
// (https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self).
func (s *source) lookup(ctx context.Context, t *token) (*token, error) {
	fresh, a, err := s.ask(ctx, wire.Lookup, "auth/token/lookup-self", t, nil, func(body []byte, at time.Time) (*token, error) { return fromLookup(t.value, body, at) })
	switch {
	case err != nil:
		return nil, fmt.Errorf("look up the token: %w", err)
	case fresh == nil && a.Reason() == wire.AboutToken:
		s.o.Log.Warn("the origin refuses the token it was given as invalid: "+s.where(), "status", a.Status)
	case fresh == nil:
		s.o.Log.Info("the token may not look itself up, so it is taken to be unlimited", "status", a.Status)
	case fresh.uses > 0:
		s.o.Log.Warn("the token can be used only a few more times, then reads fail", "num_uses", fresh.uses)
	}
	if fresh == nil {
		fixed := *t
		fixed.known = true
		return &fixed, nil
	}
	return fresh, nil
}

// final reports whether a status is an answer that trying again won't change.
func final(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusPreconditionFailed && status != http.StatusRequestTimeout
}

// fromAuth reads the auth block of a login or a renewal whose request was sent
// at the given time.
func fromAuth(body []byte, at time.Time) (*token, error) {
	a, err := read(body)
	switch {
	case err != nil:
		return nil, err
	case a.Auth == nil:
		return nil, fmt.Errorf("the answer has no auth block: is the address a Vault or OpenBao server?")
	case a.Auth.ClientToken == "" && len(a.Auth.MFA) > 0 && string(a.Auth.MFA) != "null":
		return nil, fmt.Errorf("the login asks for MFA, which a function cannot give: exempt the mount or entity")
	case !headerSafe(a.Auth.ClientToken):
		return nil, fmt.Errorf("the answer has no usable client_token")
	}
	if a.Auth.TokenPolicies != nil {
		a.Auth.Policies = a.Auth.TokenPolicies
	}
	ttl := seconds(a.Auth.LeaseDuration)
	return a.Auth.token(a.Auth.ClientToken, at, ttl, ttl), nil
}

// fromLookup reads what lookup-self says of a token that was given.
func fromLookup(value string, body []byte, at time.Time) (*token, error) {
	a, err := read(body)
	if err == nil && a.Data == nil {
		err = errors.New("the answer has no data")
	}
	if err != nil {
		return nil, err
	}
	life := a.Data.Left()
	return a.Data.token(value, at, life, max(seconds(a.Data.CreationTTL), life)), nil
}

// revoke revokes a token, best effort.
func (s *source) revoke(ctx context.Context, t *token) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	a, err := s.send(ctx, wire.Write, "auth/token/revoke-self", t.value, struct{}{})
	switch {
	case err != nil:
		s.o.Log.Warn("the old token was not revoked, it lives until its TTL ends", "error", redact(err.Error(), t.value))
	case a.Status >= 300:
		s.o.Log.Warn("the old token was not revoked, it lives until its TTL ends", "status", a.Status, "error", reason(a, t.value))
	}
}
