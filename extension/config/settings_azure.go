package config

import (
	"errors"
	"net/url"
	"strings"
)

// azureSettings is what thaw-azure reads besides, and what the platform of
// Azure Functions sets:
// https://learn.microsoft.com/en-us/azure/app-service/reference-app-settings
func azureSettings(rows []setting) []setting {
	first := len(rows)
	rows = append(rows,
		text(nameAzureResource, "URI or application id", func(d *draft) *string { return &d.Auth.AzureResource },
			"azure, and jwt without `THAW_JWT_FILE`: what the managed identity's token is for, as the mount's `resource` (azure) or the role's `bound_audiences` (jwt) says."),
		text(nameAzureClient, "client id", func(d *draft) *string { return &d.Auth.AzureClientID },
			"Client id of a user-assigned managed identity. Default: the system-assigned one."),
		parsed(nameAzureID, "", "/subscriptions/ID/resourceGroups/NAME/providers/TYPE/NAME", func(d *draft, v string) error {
			d.Auth.AzureResourceID = v
			_, _, err := splitResourceID(v)
			return err
		}, "azure: the app's resource id, which roles with `bound_subscription_ids` or `bound_resource_groups` ask for. Default: made of what the platform tells the app."),
		parsed(nameKeyVault, "", "https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64, comma-separated", func(d *draft, v string) (err error) {
			d.CacheKeyVault, err = parseKeyVault(v)
			return err
		}, "As `THAW_CACHE_KEY`, as data keys of 32 bytes that a key in Azure Key Vault wrapped with RSA-OAEP-256: the key's identifier with its version, `#`, and what wrapping gave."),
		choice("THAW_AZURE_PLAN", "", func(d *draft, v string) { d.Platform.Azure.Plan = AzurePlan(v) },
			"Hosting plan. Under consumption and flex the app may be frozen or gone between invocations; under the others it is not. Default: found out.",
			string(PlanConsumption), string(PlanFlex), string(PlanPremium), string(PlanDedicated), string(PlanContainer)),
		parsed(nameWarmFunction, "ThawWarmup", "function name", func(d *draft, v string) error {
			d.Warm.Function = v
			return checkFunctionName(v)
		}, "Name of the timer function that is the warm-up. The user's handler never sees its invocations."),
	)
	users := len(rows)
	rows = append(rows,
		portSetting("FUNCTIONS_CUSTOMHANDLER_PORT", func(d *draft) *int { return &d.Platform.Azure.Port }, "Where the host calls the handler."),
		portSetting("FUNCTIONS_HTTPWORKER_PORT", func(d *draft) *int { return &d.legacyPort }, "The same, of old."),
		text("FUNCTIONS_APP_ROOT_PATH", "folder", func(d *draft) *string { return &d.Platform.Azure.AppRoot }, "The function app."),
		text("AzureFunctionsJobHost__functionTimeout", "time", func(d *draft) *string { return &d.Platform.Azure.FunctionTimeout }, "Overrides host.json's functionTimeout."),
		text("IDENTITY_ENDPOINT", "address", func(d *draft) *string { return &d.Platform.Azure.IdentityEndpoint }, "Gives tokens of the managed identity."),
		hidden("IDENTITY_HEADER", "text", func(d *draft) *Secret { return &d.Platform.Azure.IdentityHeader }, "Goes with each request to it."),
		text("WEBSITE_OWNER_NAME", "text", func(d *draft) *string { return &d.Platform.Azure.Owner }, "The subscription, and more after a plus sign."),
		text("WEBSITE_RESOURCE_GROUP", "name", func(d *draft) *string { return &d.Platform.Azure.Group }, "The app's resource group."),
		text("WEBSITE_SITE_NAME", "name", func(d *draft) *string { return &d.Platform.Azure.Site }, "The app's name."),
		text("WEBSITE_SKU", "word", func(d *draft) *string { return &d.Platform.Azure.SKU }, "The hosting plan's kind."),
		text("MANAGED_ENVIRONMENT", "word", func(d *draft) *string { return &d.managedEnvironment }, "Set in Container Apps."),
	)
	for i := first; i < len(rows); i++ {
		rows[i].Azure = true
		rows[i].Platform = i >= users
	}
	return rows
}

// portSetting is a port that the platform sets.
func portSetting(name string, at func(*draft) *int, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Type: "port", Meaning: meaning},
		parse: func(d *draft, v string) error {
			n, err := checkPort(v)
			*at(d) = n
			return err
		},
	}
}

// checkFunctionName is the host's rule for names of functions
// (https://github.com/Azure/azure-functions-host/blob/dev/src/WebJobs.Script/Utility.cs, FunctionNameValidationRegex).
func checkFunctionName(v string) error {
	for i := range len(v) {
		c := v[i] | 0x20
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !('0' <= v[i] && v[i] <= '9' || v[i] == '_' || v[i] == '-')) || i > 126 {
			return errors.New("is not a function's name: a letter, then letters, digits, - and _")
		}
	}
	return nil
}

// splitResourceID finds subscription and group in a resource id
// (https://learn.microsoft.com/en-us/rest/api/resources/resources/get-by-id).
func splitResourceID(v string) (subscription, group string, err error) {
	p := strings.Split(v, "/")
	if len(p) < 9 || p[0] != "" || !strings.EqualFold(p[1], "subscriptions") || !strings.EqualFold(p[3], "resourceGroups") || !strings.EqualFold(p[5], "providers") || checkLine(v) != nil {
		return "", "", errors.New("is not a resource id")
	}
	for _, part := range p[1:] {
		if part == "" || part == "." || part == ".." {
			return "", "", errors.New("is not a resource id")
		}
	}
	return p[2], p[4], nil
}

// maxWrappedRSA is what RSA of 4096 bits gives, in bytes.
const maxWrappedRSA = 512

// parseKeyVault reads a list of keys that Key Vault wrapped.
func parseKeyVault(v string) ([]WrappedKey, error) {
	var keys []WrappedKey
	for part := range strings.SplitSeq(v, ",") {
		id, text, ok := strings.Cut(strings.TrimSpace(part), "#")
		u, err := url.Parse(id)
		if !ok || err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Port() != "" || !isKeyVault(u.Hostname()) {
			return nil, errors.New("holds something that is not https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64")
		}
		if p := strings.Split(strings.Trim(u.Path, "/"), "/"); len(p) != 3 || p[0] != "keys" || p[1] == "" || p[2] == "" || strings.Contains(u.Path, "..") {
			return nil, errors.New("names no key with its version: https://NAME.vault.azure.net/keys/KEY/VERSION")
		}
		wrapped, err := decodeBase64(text)
		if err != nil || len(wrapped) == 0 || len(wrapped) > maxWrappedRSA {
			return nil, errors.New("holds something after # that is not a wrapped key in base64")
		}
		for _, k := range keys {
			if k.Key == id && string(k.Wrapped) == string(wrapped) {
				return nil, errors.New("holds a key twice")
			}
		}
		keys = append(keys, WrappedKey{Key: id, Wrapped: wrapped})
	}
	if len(keys) > 8 {
		return nil, errors.New("holds more than 8 keys")
	}
	return keys, nil
}

// isKeyVault reports whether a host is one of Key Vault's in any cloud: the
// identity's token goes there.
func isKeyVault(host string) bool {
	return azureHost(host, ".vault.azure.net", ".managedhsm.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net")
}

func azureHost(host string, suffixes ...string) bool {
	for _, s := range suffixes {
		if name, ok := strings.CutSuffix(strings.ToLower(host), s); ok && name != "" && !strings.Contains(name, ".") {
			return true
		}
	}
	return false
}

// checkBlob checks https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB.
func checkBlob(v string) error {
	u, err := url.Parse(v)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Port() != "" || checkLine(v) != nil ||
		!azureHost(u.Hostname(), ".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net") {
		return errors.New("is not https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
	}
	container, blob, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if container == "" || blob == "" || strings.HasSuffix(blob, "/") || strings.Contains("/"+u.Path+"/", "/../") {
		return errors.New("is not https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
	}
	return nil
}
