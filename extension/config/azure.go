package config

import (
	"cmp"
	"strings"
)

// Azure is what thaw-azure learned of its host. Other programs know nothing
// of it.
type Azure struct {
	Program          bool      // this program is thaw-azure, see Source.Azure
	Port             int       // FUNCTIONS_CUSTOMHANDLER_PORT, or FUNCTIONS_HTTPWORKER_PORT; 0: not started by the host
	AppRoot          string    // FUNCTIONS_APP_ROOT_PATH: folder of host.json; empty: unknown
	FunctionTimeout  string    // AzureFunctionsJobHost__functionTimeout; empty: as host.json says
	IdentityEndpoint string    // IDENTITY_ENDPOINT; empty: the app has no managed identity
	IdentityHeader   Secret    // IDENTITY_HEADER
	Owner            string    // WEBSITE_OWNER_NAME
	Group            string    // WEBSITE_RESOURCE_GROUP
	Site             string    // WEBSITE_SITE_NAME
	SKU              string    // WEBSITE_SKU
	Plan             AzurePlan // THAW_AZURE_PLAN, or what the above say
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
	settings func(rows []setting) []setting
	resolve  func(*loader)
	login    func(*loader, place) // checks a login with the managed identity
	rules    func(*fileMethod) []rule
}

// ForAzure is for Source.Azure in thaw-azure.
func ForAzure() *AzureSupport {
	return &AzureSupport{settings: azureSettings, resolve: (*loader).resolveAzure, login: (*loader).checkIdentity, rules: azureRules}
}

// resolveAzure puts together what the app's own environment says.
func (l *loader) resolveAzure() {
	d := &l.d
	a := &d.Platform.Azure
	if strings.HasPrefix(d.Warm.Dump, "https://") && !l.bad[nameDump] {
		if err := checkBlob(d.Warm.Dump); err != nil {
			l.refuse(place{name: nameDump}, d.Warm.Dump, err.Error())
			d.Warm.Dump = ""
		}
	}
	a.Program = true
	a.Port = cmp.Or(a.Port, d.legacyPort)
	d.Platform.FunctionName = cmp.Or(d.Platform.FunctionName, a.Site)
	if a.Plan == "" {
		a.Plan = planOf(a.SKU, d.managedEnvironment)
	}
	if d.Auth.AzureResourceID == "" {
		d.Auth.AzureResourceID = appID(a)
	}
	if d.Auth.AzureResourceID != "" && !l.bad[nameAzureID] {
		var err error
		if d.Auth.AzureSubscription, d.Auth.AzureGroup, err = splitResourceID(d.Auth.AzureResourceID); err != nil {
			d.Auth.AzureResourceID = "" // made of what the platform says, and no id
		}
	}
	if strings.HasPrefix(d.Warm.Dump, "https://") && a.IdentityEndpoint == "" {
		l.problem(&Problem{Name: nameDump, Message: "Blob storage needs the app's managed identity, and it has none: turn on its system-assigned identity, or assign one and name it in THAW_AZURE_CLIENT_ID"})
	}
	if len(d.CacheKeyVault) > 0 && a.IdentityEndpoint == "" {
		l.problem(&Problem{Name: nameKeyVault, Message: "Key Vault needs the app's managed identity, and it has none: turn on its system-assigned identity, or assign one and name it in THAW_AZURE_CLIENT_ID"})
	}
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
func (l *loader) checkIdentity(why place) {
	a := &l.d.Auth
	if a.AzureResource == "" && !l.bad[nameAzureResource] && !l.file.badAuth {
		l.problem(&Problem{Name: why.name, File: why.file, Line: why.line, Value: string(a.Method),
			Message: "the " + string(a.Method) + " login needs to know what the managed identity's token is for; set " + nameAzureResource + " to the mount's resource" + l.orInFile("resource")})
	}
	if l.d.Platform.Azure.IdentityEndpoint == "" || l.d.Platform.Azure.IdentityHeader == "" {
		l.problem(&Problem{Name: why.name, File: why.file, Line: why.line, Value: string(a.Method),
			Message: "this app has no managed identity (IDENTITY_ENDPOINT is not set): turn on its system-assigned identity, or assign one and name it in " + nameAzureClient})
	}
}

// https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/methods/azure
func azureRules(m *fileMethod) []rule {
	rules := []rule{
		into("role", &m.auth.Role),
		into("resource", &m.auth.AzureResource),
		into("client_id", &m.auth.AzureClientID),
		line("object_id", func(l *loader, at place, _ string) {
			l.refuse(at, "", "thaw finds a user-assigned identity by its client id; set client_id instead")
		}),
	}
	return append(rules, ignored("", "scope", "authenticate_from_environment")...)
}
