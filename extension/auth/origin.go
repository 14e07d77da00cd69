package auth

import (
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
	Auth *struct {
		facts
		ClientToken   string          `json:"client_token"`
		TokenPolicies []string        `json:"token_policies"`
		LeaseDuration int64           `json:"lease_duration"` // seconds; 0: no end
		TokenType     string          `json:"token_type"`     // service or batch
		MFA           json.RawMessage `json:"mfa_requirement"`
	} `json:"auth"`
	Data *struct {
		facts
		TTL         int64  `json:"ttl"`          // seconds left; 0 with a creation_ttl of 0: no end
		CreationTTL int64  `json:"creation_ttl"` // seconds
		Type        string `json:"type"`
	} `json:"data"`
}

// facts are told of a token under the same names by all of them.
type facts struct {
	Policies         []string            `json:"policies"`
	IdentityPolicies []string            `json:"identity_policies"`
	External         map[string][]string `json:"external_namespace_policies"`
	Renewable        bool                `json:"renewable"`
	EntityID         string              `json:"entity_id"`
	NumUses          int64               `json:"num_uses"`
}

// token is what is known of one that had life left when the request was sent, of a
// lease of ttl.
func (f facts) token(value, kind string, at time.Time, life, ttl time.Duration) *token {
	return &token{
		value: value, at: at, life: life, ttl: ttl, renewable: f.Renewable, batch: isBatch(value, kind), known: true,
		identity: identityOf(f.EntityID, f.External, f.Policies, f.IdentityPolicies),
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

// send makes one call and returns its status and body. A nil body is a GET. An
// answer that is not the origin's by its shape is an error.
func (s *source) send(ctx context.Context, of wire.Endpoint, path, token string, body any) (int, []byte, error) {
	verb := http.MethodGet
	if body != nil {
		verb = http.MethodPost
	}
	req, err := wire.Request(ctx, verb, s.ns, path, token, body)
	if err != nil {
		return 0, nil, err
	}
	res, err := s.o.Origin.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxResponseBody+1))
	if err != nil {
		return res.StatusCode, nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(raw) > maxResponseBody {
		return res.StatusCode, nil, fmt.Errorf("read the answer: it is larger than %d bytes", maxResponseBody)
	}
	if a := wire.New(res.StatusCode, res.Header, raw); (a.Status == http.StatusOK || final(a.Status)) && !a.Genuine(of) {
		// A gateway's answer says nothing of a token.
		return a.Status, nil, fmt.Errorf("read the answer: what came, status %d with %s, %w: check what stands before it", a.Status, a.Form(), ErrForeign)
	}
	return res.StatusCode, raw, nil
}

// renew renews a token
// (https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self).
func (s *source) renew(ctx context.Context, t *token) (*token, error) {
	at := s.o.Now()
	status, body, err := s.send(ctx, wire.Login, "auth/token/renew-self", t.value, struct{}{})
	if err != nil {
		return nil, fmt.Errorf("renew the token: %w", err)
	}
	switch {
	case status == http.StatusOK:
	case wire.TokenRefused(status, body):
		return nil, errGone
	case final(status):
		// It will not work next time either: log in when the time comes.
		s.o.Log.Warn("the token cannot be renewed, a login will replace it", "status", status, "error", reason(body, t.value))
		fixed := *t
		fixed.renewable = false
		return &fixed, nil
	default:
		return nil, fmt.Errorf("renew the token: %d: %s", status, reason(body, t.value))
	}
	fresh, _, err := fromAuth(body, at)
	if err != nil {
		return nil, fmt.Errorf("renew the token: %w", err)
	}
	fresh.value, fresh.login, fresh.batch = t.value, t.login, t.batch
	if rest, ok := t.rest(at); ok && fresh.life > 0 && fresh.life <= rest {
		// It reached its maximum TTL: more renewals bring nothing.
		fresh.renewable = false
	}
	return fresh, nil
}

// lookup asks what the origin knows of a token
// (https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self).
func (s *source) lookup(ctx context.Context, t *token) (*token, error) {
	at := s.o.Now()
	status, body, err := s.send(ctx, wire.Lookup, "auth/token/lookup-self", t.value, nil)
	if err != nil {
		return nil, fmt.Errorf("look up the token: %w", err)
	}
	switch {
	case status == http.StatusOK:
	case final(status):
		fixed := *t
		fixed.known = true
		if wire.TokenRefused(status, body) {
			s.o.Log.Warn("the origin refuses the token it was given as invalid: "+s.where(), "status", status)
		} else {
			s.o.Log.Info("the token may not look itself up, so it is taken to be unlimited", "status", status)
		}
		return &fixed, nil
	default:
		return nil, fmt.Errorf("look up the token: %d: %s", status, reason(body, t.value))
	}
	fresh, uses, err := fromLookup(t.value, body, at)
	if err != nil {
		return nil, fmt.Errorf("look up the token: %w", err)
	}
	if uses > 0 {
		s.o.Log.Warn("the token can be used only a few more times, then reads fail", "num_uses", uses)
	}
	return fresh, nil
}

// final reports whether a status is an answer that trying again won't change.
func final(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusPreconditionFailed && status != http.StatusRequestTimeout
}

// fromAuth reads the auth block of a login or a renewal whose request was sent
// at the given time.
func fromAuth(body []byte, at time.Time) (t *token, uses int64, err error) {
	a, err := read(body)
	switch {
	case err != nil:
		return nil, 0, err
	case a.Auth == nil:
		return nil, 0, fmt.Errorf("the answer has no auth block: is the address a Vault or OpenBao server?")
	case a.Auth.ClientToken == "" && len(a.Auth.MFA) > 0 && string(a.Auth.MFA) != "null":
		return nil, 0, fmt.Errorf("the login asks for MFA, which a function cannot give: exempt the mount or entity")
	case !headerSafe(a.Auth.ClientToken):
		return nil, 0, fmt.Errorf("the answer has no usable client_token")
	}
	if a.Auth.TokenPolicies != nil {
		a.Auth.Policies = a.Auth.TokenPolicies
	}
	ttl := seconds(a.Auth.LeaseDuration)
	return a.Auth.token(a.Auth.ClientToken, a.Auth.TokenType, at, ttl, ttl), a.Auth.NumUses, nil
}

// fromLookup reads what lookup-self says of a token that was given.
func fromLookup(value string, body []byte, at time.Time) (t *token, uses int64, err error) {
	a, err := read(body)
	if err == nil && a.Data == nil {
		err = errors.New("the answer has no data")
	}
	if err != nil {
		return nil, 0, err
	}
	life := seconds(a.Data.TTL)
	if life == 0 && a.Data.CreationTTL > 0 {
		life = time.Nanosecond // the last second, which Vault rounds down; 0 would be for ever
	}
	return a.Data.token(value, a.Data.Type, at, life, max(seconds(a.Data.CreationTTL), life)), a.Data.NumUses, nil
}

// revoke revokes a token, best effort.
func (s *source) revoke(ctx context.Context, t *token) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	status, body, err := s.send(ctx, wire.Write, "auth/token/revoke-self", t.value, struct{}{})
	switch {
	case err != nil:
		s.o.Log.Warn("the old token was not revoked, it lives until its TTL ends", "error", redact(err.Error(), t.value))
	case status >= 300:
		s.o.Log.Warn("the old token was not revoked, it lives until its TTL ends", "status", status, "error", reason(body, t.value))
	}
}
