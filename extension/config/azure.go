package config

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Azure is what thaw-azure learned of its host
// (https://learn.microsoft.com/en-us/azure/app-service/reference-app-settings).
// Other programs know nothing of it.
type Azure struct {
	Program bool // this program is thaw-azure, see Source.Azure
	// Where the host calls the handler.
	Port int `functions:"FUNCTIONS_CUSTOMHANDLER_PORT port"` // or FUNCTIONS_HTTPWORKER_PORT; 0: not started by the host
	// The function app.
	AppRoot string `functions:"FUNCTIONS_APP_ROOT_PATH folder"` // folder of host.json; empty: unknown
	// Overrides host.json's functionTimeout.
	FunctionTimeout string `functions:"AzureFunctionsJobHost__functionTimeout time"` // empty: as host.json says
	// Gives tokens of the managed identity.
	IdentityEndpoint string `functions:"IDENTITY_ENDPOINT address"` // empty: the app has no managed identity
	// Goes with each request to it.
	IdentityHeader Secret `functions:"IDENTITY_HEADER text"`
	// The subscription, and more after a plus sign.
	Owner string `functions:"WEBSITE_OWNER_NAME text"`
	// The app's resource group.
	Group string `functions:"WEBSITE_RESOURCE_GROUP name"`
	// The app's name.
	Site string `functions:"WEBSITE_SITE_NAME name"`
	// The hosting plan's kind.
	SKU string `functions:"WEBSITE_SKU word"`
	// Hosting plan. Under consumption and flex the app may freeze or vanish between invocations. Default:
	// detected.
	Plan AzurePlan `azure:"THAW_AZURE_PLAN consumption, flex, premium, dedicated or container"` // or what the above say
}

// AzurePlan is a hosting plan of Azure Functions.
type AzurePlan string

// Hosting plans.
const (
	PlanConsumption AzurePlan = "consumption"
	PlanFlex        AzurePlan = "flex"
	PlanPremium     AzurePlan = "premium"
	PlanDedicated   AzurePlan = "dedicated"
	PlanContainer   AzurePlan = "container"
)

// Freezes reports whether an app of the plan may be frozen or gone between
// invocations.
func (p AzurePlan) Freezes() bool { return p == PlanConsumption || p == PlanFlex }

// WrappedKey is a data key that a key service wrapped.
type WrappedKey struct {
	Key     string // identifies the key that wrapped it
	Wrapped []byte
}

// AzureSupport is what thaw-azure reads besides. Other programs don't link what
// stands behind it: size is a feature of theirs.
type AzureSupport struct {
	parsers func(*draft) map[string]any // of its settings
	resolve func(*loader)
	login   func(loginResolver, place) // checks a login with the managed identity
	rules   func(*Auth) []rule
}

// ForAzure is for Source.Azure in thaw-azure.
func ForAzure() *AzureSupport {
	return &AzureSupport{azureParsers, (*loader).resolveAzure, (loginResolver).checkIdentity, azureRules}
}

// resolveAzure puts together what the app's own environment says.
func (l *loader) resolveAzure() {
	d := &l.d
	a := &d.Platform.Azure
	if strings.HasPrefix(d.Warm.Dump, "https://") && !l.check(place{Name: "THAW_DUMP"}, d.Warm.Dump, checkBlob(d.Warm.Dump)) {
		d.Warm.Dump = ""
	}
	a.Program = true
	a.Port = cmp.Or(a.Port, d.LegacyPort)
	d.Platform.FunctionName = cmp.Or(d.Platform.FunctionName, a.Site)
	a.Plan = cmp.Or(a.Plan, planOf(a.SKU, l.env["MANAGED_ENVIRONMENT"]))
	d.Auth.AzureResourceID = cmp.Or(d.Auth.AzureResourceID, appID(a))
	if d.Auth.AzureResourceID != "" && !l.bad["THAW_AZURE_RESOURCE_ID"] {
		var err error
		if d.Auth.AzureSubscription, d.Auth.AzureGroup, err = splitResourceID(d.Auth.AzureResourceID); err != nil {
			d.Auth.AzureResourceID = "" // made of what the platform says, and no id
		}
	}
	const identity = " needs the app's managed identity, and it has none: turn on its system-assigned identity, or assign one and name it in THAW_AZURE_CLIENT_ID"
	l.wrongIf(strings.HasPrefix(d.Warm.Dump, "https://") && a.IdentityEndpoint == "", "THAW_DUMP", "Blob storage"+identity)
	l.wrongIf(len(d.CacheKeyVault) > 0 && a.IdentityEndpoint == "", "THAW_CACHE_KEY_KEYVAULT", "Key Vault"+identity)
}

// planOf tells the plan by WEBSITE_SKU, as the host itself does, and by what
// only Container Apps have
// (https://github.com/Azure/azure-functions-host/blob/dev/src/WebJobs.Script/Environment/EnvironmentExtensions.cs).
// What cannot be told may freeze.
func planOf(sku, managedEnvironment string) AzurePlan {
	switch {
	case managedEnvironment != "":
		return PlanContainer
	case strings.EqualFold(sku, "FlexConsumption"):
		return PlanFlex
	case strings.EqualFold(sku, "ElasticPremium"):
		return PlanPremium
	case sku == "" || strings.EqualFold(sku, "Dynamic"):
		return PlanConsumption
	}
	return PlanDedicated
}

// appID is the app's own resource id. WEBSITE_OWNER_NAME is the subscription
// and, after a plus sign, the group of the plan and its region.
func appID(a *Azure) string {
	subscription, _, _ := strings.Cut(a.Owner, "+")
	if subscription == "" || a.Group == "" || a.Site == "" {
		return ""
	}
	return "/subscriptions/" + subscription + "/resourceGroups/" + a.Group + "/providers/Microsoft.Web/sites/" + a.Site
}

// checkIdentity reports what a login with the managed identity's token lacks.
func (l loginResolver) checkIdentity(why place) {
	a := &l.d.Auth
	if a.AzureResource == "" && l.good("THAW_AZURE_RESOURCE") && !l.file.badAuth {
		l.lacks(why, "the "+string(a.Method)+" login needs to know what the managed identity's token is for; set THAW_AZURE_RESOURCE to the mount's resource"+l.orInFile("resource"))
	}
	if p := &l.d.Platform.Azure; p.IdentityEndpoint == "" || p.IdentityHeader == "" {
		l.lacks(why, "this app has no managed identity (IDENTITY_ENDPOINT is not set): turn on its system-assigned identity, or assign one and name it in THAW_AZURE_CLIENT_ID")
	}
}

// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods/azure
func azureRules(a *Auth) []rule {
	return []rule{
		{"role", &a.Role},
		{"resource", &a.AzureResource},
		{"client_id", &a.AzureClientID},
		{"object_id", refused("thaw finds a user-assigned identity by its client id; set client_id instead")},
		{"scope authenticate_from_environment", useless("")},
	}
}

// azureParsers are those of thaw-azure's settings, see parsers.
func azureParsers(d *draft) map[string]any {
	return map[string]any{
		"THAW_AZURE_RESOURCE_ID":       checked(&d.Auth.AzureResourceID, checkResourceID),
		"THAW_CACHE_KEY_KEYVAULT":      hidden(into(&d.CacheKeyVault, parseKeyVault)),
		"THAW_WARM_FUNCTION":           checked(&d.Warm.Function, checkFunctionName),
		"FUNCTIONS_CUSTOMHANDLER_PORT": into(&d.Platform.Azure.Port, checkPort),
		"FUNCTIONS_HTTPWORKER_PORT":    into(&d.LegacyPort, checkPort),
	}
}

// checkFunctionName is the host's rule for names of functions
// (https://github.com/Azure/azure-functions-host/blob/dev/src/WebJobs.Script/Utility.cs, FunctionNameValidationRegex).
func checkFunctionName(v string) error {
	name := regexp.MustCompile(`^[A-Za-z][\w-]{0,126}$`)
	return errIf(!name.MatchString(v), "is not a function's name: a letter, then letters, digits, - and _")
}

// splitResourceID finds subscription and group in a resource id
// (https://learn.microsoft.com/en-us/rest/api/resources/resources/get-by-id).
func splitResourceID(v string) (subscription, group string, err error) {
	parts := regexp.MustCompile(`(?i)^/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/[^/]+/[^/]+/[^/]+`).FindStringSubmatch(v)
	if parts == nil || checkPath(v[1:]) != nil {
		return "", "", errors.New("is not a resource id")
	}
	return parts[1], parts[2], nil
}

func checkResourceID(v string) error {
	_, _, err := splitResourceID(v)
	return err
}

// maxWrappedRSA is what RSA of 4096 bits gives, in bytes.
const maxWrappedRSA = 512

// parseKeyVault reads a list of keys that Key Vault wrapped.
func parseKeyVault(v string) ([]WrappedKey, error) { return keyList(v, parseWrappedKey) }

func parseWrappedKey(v string) (WrappedKey, error) {
	id, text, ok := strings.Cut(v, "#")
	u, err := url.Parse(id)
	if !ok || err != nil || u.User != nil || u.RawQuery != "" || !IsKeyVault(u) {
		return WrappedKey{}, errors.New("holds something that is not https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64")
	}
	p := strings.Split(strings.Trim(u.Path, "/"), "/")
	wrapped, err := decodeBase64(text)
	return WrappedKey{Key: id, Wrapped: wrapped}, cmp.Or(
		errIf(len(p) != 3 || p[0] != "keys" || p[1] == "" || p[2] == "" || strings.Contains(u.Path, ".."),
			"names no key with its version: https://NAME.vault.azure.net/keys/KEY/VERSION"),
		errIf(err != nil || len(wrapped) == 0 || len(wrapped) > maxWrappedRSA, "holds something after # that is not a wrapped key in base64"))
}

// IsKeyVault and IsBlobStore report whether an address is https at one of Azure's hosts
// in any cloud: no token of the identity goes to another, whatever its challenge claims
// (https://learn.microsoft.com/en-us/azure/china/resources-developer-guide,
// https://learn.microsoft.com/en-us/azure/azure-government/compare-azure-government-global-azure).

// IsKeyVault is for Key Vault's.
func IsKeyVault(u *url.URL) bool {
	return azureHost(u, ".vault.azure.net", ".managedhsm.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net")
}

// IsBlobStore is for Blob storage's.
func IsBlobStore(u *url.URL) bool {
	return azureHost(u, ".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net")
}

func azureHost(u *url.URL, suffixes ...string) bool {
	return u.Scheme == "https" && slices.ContainsFunc(suffixes, func(s string) bool {
		name, ok := strings.CutSuffix(strings.ToLower(u.Host), s) // without a port
		return ok && name != "" && !strings.ContainsAny(name, "./")
	})
}

// checkBlob checks https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB.
func checkBlob(v string) error {
	u, err := url.Parse(v)
	if err == nil && u.User == nil && u.RawQuery == "" && u.Fragment == "" && checkLine(v) == nil && IsBlobStore(u) {
		container, blob, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		if container != "" && blob != "" && !strings.HasSuffix(blob, "/") && !strings.Contains("/"+u.Path+"/", "/../") {
			return nil
		}
	}
	return errors.New("is not https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
}
