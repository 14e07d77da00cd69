package harness

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// PutPolicy writes an ACL policy.
func (v *Vault) PutPolicy(ctx context.Context, name, hcl string) error {
	return v.rootDo(ctx, http.MethodPut, "sys/policies/acl/"+name, map[string]string{"policy": hcl})
}

// TokenSpec describes a token to create.
type TokenSpec struct {
	Policies  []string
	TTL       time.Duration // 0: Vault's default
	Batch     bool          // a batch token: not stored, not renewable, not revocable
	NoDefault bool          // without the default policy, so without capabilities-self
	NumUses   int           // 0: no limit; service tokens only
	MaxTTL    time.Duration // explicit_max_ttl; 0: none
}

// CreateToken creates an orphan token.
func (v *Vault) CreateToken(ctx context.Context, spec TokenSpec) (string, error) {
	body := map[string]any{"policies": spec.Policies, "no_default_policy": spec.NoDefault}
	if spec.TTL > 0 {
		body["ttl"] = seconds(spec.TTL)
	}
	if spec.MaxTTL > 0 {
		body["explicit_max_ttl"] = seconds(spec.MaxTTL)
	}
	if spec.NumUses > 0 {
		body["num_uses"] = spec.NumUses
	}
	if spec.Batch {
		body["type"] = "batch"
	}
	r, err := v.Root(ctx, http.MethodPost, "auth/token/create-orphan", body)
	if err != nil {
		return "", err
	}
	return r.token()
}

// token takes the client token out of the answer to a login or create.
func (r *Response) token() (string, error) {
	var out struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	if err := r.JSON(&out); err != nil {
		return "", err
	}
	if out.Auth.ClientToken == "" {
		return "", fmt.Errorf("no token in the answer: %s", r.Body)
	}
	return out.Auth.ClientToken, nil
}

// RevokeToken revokes a service token.
func (v *Vault) RevokeToken(ctx context.Context, token string) error {
	return v.rootDo(ctx, http.MethodPost, "auth/token/revoke", map[string]string{"token": token})
}

// EnableAuth mounts an auth method of the given type at auth/<mount>.
func (v *Vault) EnableAuth(ctx context.Context, mount, kind string) error {
	return v.rootDo(ctx, http.MethodPost, "sys/auth/"+strings.Trim(mount, "/"), map[string]string{"type": kind})
}

// RoleSpec is what the tokens of a login role are like.
type RoleSpec struct {
	Policies []string
	TTL      time.Duration // 0: Vault's default
	MaxTTL   time.Duration // 0: Vault's default
	Batch    bool          // batch tokens; else service tokens
}

func (s RoleSpec) body() map[string]any {
	body := map[string]any{"token_policies": s.Policies, "token_type": "service"}
	if s.Batch {
		body["token_type"] = "batch"
	}
	if s.TTL > 0 {
		body["token_ttl"] = seconds(s.TTL)
	}
	if s.MaxTTL > 0 {
		body["token_max_ttl"] = seconds(s.MaxTTL)
	}
	return body
}

// AppRole creates a role at an approle mount and returns its two identifiers.
func (v *Vault) AppRole(ctx context.Context, mount, role string, spec RoleSpec) (roleID, secretID string, err error) {
	base := "auth/" + mount + "/role/" + role
	if err := v.rootDo(ctx, http.MethodPost, base, spec.body()); err != nil {
		return "", "", err
	}
	roleID, err = v.field(ctx, http.MethodGet, base+"/role-id", "role_id")
	if err != nil {
		return "", "", err
	}
	secretID, err = v.field(ctx, http.MethodPost, base+"/secret-id", "secret_id")
	return roleID, secretID, err
}

func (v *Vault) field(ctx context.Context, method, path, name string) (string, error) {
	r, err := v.Root(ctx, method, path, nil)
	if err != nil {
		return "", err
	}
	data, err := r.Data()
	if err != nil {
		return "", err
	}
	s, ok := data[name].(string)
	if !ok {
		return "", fmt.Errorf("%s %s: no %s in the answer", method, path, name)
	}
	return s, nil
}

// JWTRole creates a role at a jwt mount for tokens that issuer signs with the
// given subject and audience.
func (v *Vault) JWTRole(ctx context.Context, mount, role, subject, audience string, issuer *Issuer, spec RoleSpec) error {
	if err := v.rootDo(ctx, http.MethodPost, "auth/"+mount+"/config", map[string]any{
		"jwt_validation_pubkeys": []string{issuer.PublicPEM()},
	}); err != nil {
		return err
	}
	body := spec.body()
	body["role_type"] = "jwt"
	body["user_claim"] = "sub"
	body["bound_subject"] = subject
	body["bound_audiences"] = []string{audience}
	return v.rootDo(ctx, http.MethodPost, "auth/"+mount+"/role/"+role, body)
}

// AWSConfig points an aws auth mount at an STS and IAM of ours. serverID is
// the value demanded in X-Vault-AWS-IAM-Server-ID; empty: none.
func (v *Vault) AWSConfig(ctx context.Context, mount string, moto *Moto, region, serverID string) error {
	return v.rootDo(ctx, http.MethodPost, "auth/"+mount+"/config/client", map[string]any{
		"access_key":                 moto.Admin.AccessKeyID,
		"secret_key":                 moto.Admin.SecretAccessKey,
		"sts_endpoint":               moto.Addr(),
		"iam_endpoint":               moto.Addr(),
		"sts_region":                 region,
		"iam_server_id_header_value": serverID,
	})
}

// AWSRole creates a role of type iam for the given principals. Their unique
// ids are not resolved, so the role needs no call to IAM.
func (v *Vault) AWSRole(ctx context.Context, mount, role string, principals []string, spec RoleSpec) error {
	body := spec.body()
	body["auth_type"] = "iam"
	body["bound_iam_principal_arn"] = principals
	body["resolve_aws_unique_ids"] = false
	return v.rootDo(ctx, http.MethodPost, "auth/"+mount+"/role/"+role, body)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int(d/time.Second)) }
