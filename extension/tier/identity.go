package tier

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
)

// Identity is who logs in, in the shared tier: instances with equal names use each
// other's capabilities.
type Identity struct {
	Name string `json:"name"` // a hash of all that tells it from others
	Role string `json:"role"` // as Vault knows it, for who ends what it holds; empty: none
}

// identity is who cfg logs in as: the auth mount, the role and the principal there,
// since templated policies, groups and bound addresses differ by that. A principal
// that is not known without a login is taken to be the same within one function;
// without a function it shares capabilities with nobody.
func identity(cfg config.Config) Identity {
	a := cfg.Auth
	namespace := cmp.Or(a.Namespace, cfg.Namespace)
	sum := sha256.Sum256([]byte(strings.Join([]string{string(a.Method), namespace, a.Mount, a.Role, cmp.Or(principal(cfg), rand.Text())}, "\x00")))
	role := a.Role
	if a.Method == config.AuthAppRole {
		role = fileOr(a.RoleID, a.RoleIDFile)
	}
	return Identity{Name: hex.EncodeToString(sum[:]), Role: role}
}

// principal is whom the auth method will see, empty: not known.
func principal(cfg config.Config) string {
	a, host := cfg.Auth, cfg.Platform
	function := ""
	if host.FunctionName != "" {
		function = "function\x00" + host.Region + "\x00" + host.FunctionName
	}
	switch a.Method {
	case config.AuthAppRole:
		return fileOr(a.RoleID, a.RoleIDFile)
	case config.AuthToken:
		return string(a.Token)
	case config.AuthAWS:
		if a.AssumeRole == "" && host.AWS.SessionToken == "" && host.AWS.AccessKeyID != "" {
			return host.AWS.AccessKeyID // a user's, for long
		}
		return cmp.Or(a.AssumeRole, function)
	case config.AuthJWT:
		if a.JWTFile != "" {
			return subject(fileOr("", a.JWTFile))
		}
	case config.AuthAzure:
	default: // a file with a token: whose, it does not say
		return ""
	}
	return cmp.Or(a.AzureClientID, a.AzureResourceID, function)
}

// fileOr is a value, or what a file holds; empty: neither.
func fileOr(value, file string) string {
	if value != "" || file == "" {
		return value
	}
	value, _ = auth.ReadValue(file, "") // the login says what is wrong with it
	return value
}

// subject is the issuer and the subject of a JWT; empty: it has none.
func subject(jwt string) string {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var claims struct{ Iss, Sub string }
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Sub == "" {
		return ""
	}
	return claims.Iss + "\x00" + claims.Sub
}
