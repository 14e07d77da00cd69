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
		ClientToken      string              `json:"client_token"`
		TokenPolicies    []string            `json:"token_policies"`
		IdentityPolicies []string            `json:"identity_policies"`
		Policies         []string            `json:"policies"`
		External         map[string][]string `json:"external_namespace_policies"`
		LeaseDuration    int64               `json:"lease_duration"` // seconds; 0: no end
		Renewable        bool                `json:"renewable"`
		EntityID         string              `json:"entity_id"`
		TokenType        string              `json:"token_type"` // service or batch
		NumUses          int64               `json:"num_uses"`
		MFA              json.RawMessage     `json:"mfa_requirement"`
	} `json:"auth"`
	Data *struct {
		Policies         []string            `json:"policies"`
		IdentityPolicies []string            `json:"identity_policies"`
		External         map[string][]string `json:"external_namespace_policies"`
		TTL              int64               `json:"ttl"`          // seconds left; 0 with a creation_ttl of 0: no end
		CreationTTL      int64               `json:"creation_ttl"` // seconds
		Renewable        bool                `json:"renewable"`
		EntityID         string              `json:"entity_id"`
		Type             string              `json:"type"`
		NumUses          int64               `json:"num_uses"`
	} `json:"data"`
}

// ErrForeign says that what answered is not the origin by its shape (package wire).
var ErrForeign = errors.New("is not Vault's")

// send makes one call and returns its status and body. A nil body is a GET. An
// answer that is not the origin's by its shape is an error.
func (m *Manager) send(ctx context.Context, of wire.Endpoint, path, token string, body any) (int, []byte, error) {
	verb := http.MethodGet
	if body != nil {
		verb = http.MethodPost
	}
	req, err := wire.Request(ctx, verb, m.ns, path, token, body)
	if err != nil {
		return 0, nil, err
	}
	res, err := m.o.Origin.Do(req)
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

// logIn is the work of a login.
func (m *Manager) logIn(ctx context.Context) (*token, error) { return m.tryLogin(ctx, false) }

// tryLogin logs in, unless the origin refused the same credentials before;
// insist says that somebody asked for it all the same.
func (m *Manager) tryLogin(ctx context.Context, insist bool) (*token, error) {
	if m.given != nil {
		return m.take()
	}
	c, err := m.method.credentials(ctx)
	if err != nil {
		return nil, m.loginError(0, nil, err)
	}
	name := m.refusals.nameOf(c)
	before := m.refusals.before(ctx, name)
	if err := m.refusals.mayTry(before, insist); err != nil {
		return nil, err
	}
	t, err := m.present(ctx, c)
	return t, m.refusals.note(ctx, name, before, err)
}

// present logs in with credentials.
func (m *Manager) present(ctx context.Context, c credentials) (*token, error) {
	at := m.o.Now()
	status, body, err := m.send(ctx, wire.Login, "auth/"+m.mount+"/login", "", c.fields)
	if err != nil {
		return nil, m.loginError(0, nil, err, c.secrets...)
	}
	if status != http.StatusOK {
		return nil, m.loginError(status, body, nil, c.secrets...)
	}
	t, uses, err := fromAuth(body, at)
	if err != nil {
		return nil, m.loginError(status, nil, err, c.secrets...)
	}
	t.login = true
	if c.done != nil {
		c.done()
	}
	m.o.Log.Debug("logged in", "method", string(m.o.Method.Method), "mount", m.mount, "role", m.o.Method.Role,
		"ttl", t.ttl, "renewable", t.renewable, "batch", t.batch)
	if uses > 0 {
		m.o.Log.Warn("the token can be used only a few times, then reads fail until the next login: set token_num_uses=0 on the role",
			"role", m.o.Method.Role, "num_uses", uses)
	}
	return t, nil
}

// fromAuth reads the auth block of a login or a renewal whose request was sent
// at the given time.
func fromAuth(body []byte, at time.Time) (t *token, uses int64, err error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, 0, fmt.Errorf("the answer is not Vault's JSON: %w", plainJSON(err))
	}
	switch {
	case a.Auth == nil:
		return nil, 0, fmt.Errorf("the answer has no auth block: is the address a Vault or OpenBao server?")
	case a.Auth.ClientToken == "" && len(a.Auth.MFA) > 0 && string(a.Auth.MFA) != "null":
		return nil, 0, fmt.Errorf("the login asks for MFA, which a function cannot give: exempt the mount or entity")
	case !headerSafe(a.Auth.ClientToken):
		return nil, 0, fmt.Errorf("the answer has no usable client_token")
	}
	policies := a.Auth.TokenPolicies
	if policies == nil {
		policies = a.Auth.Policies
	}
	ttl := seconds(a.Auth.LeaseDuration)
	return &token{
		value:     a.Auth.ClientToken,
		at:        at,
		life:      ttl,
		ttl:       ttl,
		renewable: a.Auth.Renewable,
		batch:     isBatch(a.Auth.ClientToken, a.Auth.TokenType),
		known:     true,
		identity:  identityOf(a.Auth.EntityID, a.Auth.External, policies, a.Auth.IdentityPolicies),
	}, a.Auth.NumUses, nil
}

// fromLookup reads what lookup-self says of a token that was given.
func fromLookup(value string, body []byte, at time.Time) (t *token, uses int64, err error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, 0, fmt.Errorf("the answer is not Vault's JSON: %w", plainJSON(err))
	}
	if a.Data == nil {
		return nil, 0, fmt.Errorf("the answer has no data")
	}
	life := seconds(a.Data.TTL)
	if life == 0 && a.Data.CreationTTL > 0 {
		life = time.Nanosecond // the last second, which Vault rounds down; 0 would be for ever
	}
	return &token{
		value:     value,
		at:        at,
		life:      life,
		ttl:       max(seconds(a.Data.CreationTTL), life),
		renewable: a.Data.Renewable,
		batch:     isBatch(value, a.Data.Type),
		known:     true,
		identity:  identityOf(a.Data.EntityID, a.Data.External, a.Data.Policies, a.Data.IdentityPolicies),
	}, a.Data.NumUses, nil
}

// revoke revokes a token, best effort.
func (m *Manager) revoke(ctx context.Context, t *token) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	status, body, err := m.send(ctx, wire.Write, "auth/token/revoke-self", t.value, struct{}{})
	switch {
	case err != nil:
		m.o.Log.Warn("the old token was not revoked, it lives until its TTL ends", "error", redact(err.Error(), t.value))
	case status >= 300:
		m.o.Log.Warn("the old token was not revoked, it lives until its TTL ends", "status", status, "error", reason(body, t.value))
	}
}
