package auth

import (
	"context"
	"errors"
	"strconv"

	"github.com/thaw-project/thaw/extension/config"
)

// Identity gives tokens of the platform's own identity.
type Identity interface {
	// Token returns a JWT for a resource (an audience).
	Token(ctx context.Context, resource string) (string, error)
}

// Platform is a login by what only the platform has. A program that links no
// such login has none.
type Platform func(Options) (method, error)

// ManagedIdentity is the login by an app's managed identity on Azure: methods
// azure, and jwt without a file.
func ManagedIdentity(id Identity) Platform {
	return func(o Options) (method, error) {
		var err error
		if o.Auth.AzureResource == "" {
			err = errors.New("auth method " + string(o.Auth.Method) + " needs to know what the managed identity's token is for: set THAW_AZURE_RESOURCE")
		}
		m := managed{o.Auth, id}
		return method{credentials: m.credentials, advice: m.advice}, err
	}
}

// managed logs in with a token of the app's managed identity, to an azure mount
// (https://developer.hashicorp.com/vault/api-docs/auth/azure#login) or to a jwt
// one, which is the way for OpenBao.
type managed struct {
	config.Auth
	id Identity
}

func (m managed) credentials(ctx context.Context) (credentials, error) {
	token, err := m.id.Token(ctx, m.AzureResource)
	if err != nil {
		return credentials{}, err
	}
	fields := map[string]string{"jwt": token}
	if m.Method == config.AuthAzure && m.AzureResourceID != "" {
		// vm_name and vmss_name stay away: with them the resource id is ignored.
		fields["subscription_id"] = m.AzureSubscription
		fields["resource_group_name"] = m.AzureGroup
		fields["resource_id"] = m.AzureResourceID
	}
	return credentials{fields: fields, secrets: []string{token}}, nil
}

// advice says what to check for the refusals of Vault's azure and jwt methods;
// the texts are those of vault-plugin-auth-azure's path_login.go, go-oidc's
// verify.go and vault-plugin-auth-jwt's claims.go.
func (m managed) advice(has func(...string) bool) string {
	where := "the mount's resource"
	if m.Method == config.AuthJWT {
		where = "among the role's bound_audiences"
	}
	switch {
	case has("unable to get the provider", "unable to retrieve", "AuthorizationFailed"):
		return "Vault itself may not look at the app: give its own identity the right Microsoft.Web/sites/read (Reader) on the resource group, and check THAW_AZURE_RESOURCE_ID (" + m.AzureResourceID + ")"
	case has("expected audience", "audience claim", "aud claim", "invalid audience", "(aud)"):
		return "THAW_AZURE_RESOURCE (" + m.AzureResource + ") must be " + where + ", as the token has it in aud"
	case has("token is expired", "oidc: token is expired", "expired"):
		return "the managed identity's token has expired: the clock of Vault or of this host is wrong, or its endpoint (IDENTITY_ENDPOINT) gives old tokens"
	case has("issued by a different provider", "issuer"):
		return "the token is of another tenant than the mount's tenant_id (azure) or bound_issuer (jwt): v1 tokens are issued by https://sts.windows.net/TENANT/"
	case has("invalid role name", "role \""):
		return "check VAULT_AUTH_ROLE: the mount has no role " + strconv.Quote(m.Role)
	case has("location is empty", "location not authorized"):
		return "the role has bound_locations, which no function app can ever meet: Azure tells Vault no location for one. Remove bound_locations from the role"
	case has("subscription_id and resource_group_name are required", "must be provided", "does not match resource_group_name"):
		return "the role has bound_subscription_ids or bound_resource_groups, so the login must say which app this is: set THAW_AZURE_RESOURCE_ID to the app's resource id"
	case has("subscription not authorized"):
		return "the role's bound_subscription_ids must have " + m.AzureSubscription + ", or THAW_AZURE_RESOURCE_ID is wrong"
	case has("resource group not authorized"):
		return "the role's bound_resource_groups must have " + m.AzureGroup + ", or THAW_AZURE_RESOURCE_ID is wrong"
	case has("scale set requires", "scale set"):
		return "the role has bound_scale_sets, which is for virtual machines: remove it"
	case has("service principal not authorized"):
		return "the role's bound_service_principal_ids must have the object id (principal id) of this app's managed identity; THAW_AZURE_CLIENT_ID chooses the identity"
	case has("do not match expected identities", "neither token object id", "token object id does not match"):
		return "the identity is not one of the app's in THAW_AZURE_RESOURCE_ID (" + m.AzureResourceID + "): check both, and THAW_AZURE_CLIENT_ID"
	case has("groups not authorized"):
		return "the role's bound_group_ids must have a group of this app's managed identity"
	}
	return ""
}
